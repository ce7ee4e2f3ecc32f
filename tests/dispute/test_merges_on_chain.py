"""Games about merges by the deployed game and referee: positions by the rules, verdicts, evidence about every state.

In the ledger's place stands one that says what it is told (contracts/mocks/ToldLedger.sol), so that nobody has to play
a round of many slots first.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
from chain_games import LEASE, Accounts, ChainWorld, Played
from dispute_programs import base_state, dataset
from liars import plants
from merge_programs import SLOTS, merged_task, random_merge, slot_state
from plain_truth import PlainSegment
from referee_world import Referee, small_data
from referee_world import World as RefereeWorld
from spoilt_moves import spoilt
from test_merge_games import OtherInputs
from test_on_chain import heavy, said_by_contract, said_by_rules
from test_referee_elements import assert_elements, assert_states
from test_referee_judge import assert_truth_is_judged_alike, of_contract, of_judge, truth_of
from web3 import Web3
from worlds import LONG, SHORT, World, merge_world, random_merge_world

from ledger.anvil import LocalChain
from ledger.compile import Artifact
from ledger.deploy import Deployment
from ledger.disputes.moves import Opening
from ledger.disputes.positions import Outcome
from ledger.keys import Wallet
from ledger.rpc import rpc
from trainer.dispute.evidence import element_evidence, scene_of
from trainer.dispute.solver import next_move, opening_points
from trainer.dispute.truth import SegmentTruth
from trainer.dispute.values import Concede, Truth
from trainer.program.exact.operations import Load

pytestmark = pytest.mark.chain
MERGE, EVALUATION = 0, 1


class ToldWorld(ChainWorld):
    """A merge on a chain whose ledger says what it is told."""

    def submit(self, submitted: Truth, *, worker: str = "worker") -> None:  # type: ignore[override]  # there is no task
        """The worker's result of the merge stands, whoever would have to believe it."""
        client, plain = self.accounts(worker), self.at.plain
        told = client.web3.eth.contract(client._ledger.address, abi=self.accounts.artifacts["ToldLedger"].abi)
        roots = (plain.state_root(0), plain.task_program, plain.dataset)
        client._write(told.functions.tell((client.address, 1, LEASE, *roots, True)))
        self.submitted = submitted.state_root(2)

    def open(self, challenger: Truth, *, doubter: str = "doubter") -> int:
        client = self.accounts(doubter)
        points = opening_points(challenger, steps=1, submitted=self.submitted)
        assert not isinstance(points, Concede), points.reason
        return client.open(Opening(client.address, self.task, 0, SLOTS, 0, self.submitted), points)


@pytest.fixture(scope="module")
def accounts(
    chain: LocalChain, deployment: Deployment, deployer: Wallet, artifacts: dict[str, Artifact]
) -> Iterator[Accounts]:
    with Accounts.opened(chain, deployment, deployer, artifacts) as opened:
        rpc(opened.web3, "anvil_setCode", deployment.ledger, "0x" + artifacts["ToldLedger"].runtime_bytecode.hex())
        yield opened


@pytest.fixture(autouse=True)
def _taken_back(accounts: Accounts) -> Iterator[None]:
    with accounts.undone():
        yield


@pytest.fixture(scope="module")
def referee(web3: Web3, artifacts: dict[str, Artifact]) -> Referee:
    return Referee(web3, artifacts["StepReferee"])


def both_ways(on: ToldWorld, liar: Truth) -> list[Played]:
    """The lie as a submission, and as a challenge of the true one; the honest side has to win."""
    games = []
    for honest in ("challenger", "defender"):
        with on.accounts.undone():
            truths = (liar, on.at.party) if honest == "challenger" else (on.at.party, liar)
            on.submit(truths[0])
            played = on.play_out(on.open(truths[1]), *truths, honest=honest)
            assert played.outcome is (Outcome.CHALLENGER_WON if honest == "challenger" else Outcome.DEFENDER_WON)
            games.append(played)
    return games


def lie(at: World, name: str, run: int) -> PlainSegment:
    return at.liar(run, next(one for one in plants(at.plain.run(run), random.Random(8)) if one.name == name))


def load_of(at: World, index: int) -> int:
    """The operation that loads a tensor of the states side by side."""
    operations = at.plain.run(MERGE).program.operations
    return next(number for number, one in enumerate(operations) if one.attributes == Load(index))


def test_game_about_a_merge_honest_side_wins_and_positions_are_the_rules(accounts: Accounts) -> None:
    on = ToldWorld(merge_world(LONG), accounts, 1)
    tensors = on.at.plain.run(MERGE).states
    for state in range(SLOTS + 1):
        number = load_of(on.at, state * tensors + 2)
        for played in both_ways(on, lie(on.at, f"load {number} element 0 alone", MERGE)):
            assert (played.late, played.names[-1]) == (False, "proveElement")
    for name, run, last in (
        ("state moment.unused element 0", MERGE, "proveStateLeaf"),
        ("state counter.step element 0", MERGE, "proveElement"),
        ("state moment.unused root", EVALUATION, "proveStateLeaf"),
    ):
        for played in both_ways(on, lie(on.at, name, run)):
            assert (played.late, played.names[-1]) == (False, last)


def test_game_about_a_merge_of_other_states_is_lost(accounts: Accounts) -> None:
    on = ToldWorld(merge_world(SHORT), accounts, 1)
    inputs = [slot_state(SHORT, 0), slot_state(SHORT, 1), slot_state(SHORT, 2)]  # the second one is missing
    wrong = SegmentTruth(merged_task(SHORT), dataset(), base_state(SHORT), steps=1, inputs=inputs)
    for played in both_ways(on, OtherInputs(wrong, on.at.party.state_root(0))):
        assert played.late or played.names[-1] == "proveElement"


def test_moves_about_merges_with_one_thing_changed_are_refused_alike(accounts: Accounts) -> None:
    on = ToldWorld(merge_world(SHORT), accounts, 1)
    number = load_of(on.at, 2 * on.at.plain.run(MERGE).states + 2)
    for name in (f"load {number} element 0 alone", "state moment.unused element 0"):
        assert compare_spoilt(on, lie(on.at, name, MERGE), random.Random(1), each=3) > 6


def compare_spoilt(on: ToldWorld, liar: PlainSegment, rng: random.Random, *, each: int) -> int:
    """Plays a game, and in each position moves that are spoilt. Returns how many were refused."""
    refused = 0
    with on.accounts.undone():
        on.submit(liar)
        game = on.open(on.at.party)
        while (view := on.accounts("worker").view(game)).running:
            account, truth = ("worker", liar) if view.position.defender_to_move else ("doubter", on.at.party)
            move = next_move(view, truth)
            assert not isinstance(move, Concede)
            for _ in range(each):
                other = spoilt(move, rng)
                expected = said_by_rules(on, view, other)
                with on.accounts.undone():
                    assert said_by_contract(on, account, view, other) == expected, other
                refused += isinstance(expected, str)
            on.accounts(account).play(view, move)
    return refused


def referee_world(seed: int) -> RefereeWorld:
    one, _ = random_merge(seed)
    return RefereeWorld(one.program, one.state, one.constants, small_data(), seed=seed)


def test_referee_equals_the_interpreter_in_random_merges(referee: Referee) -> None:
    compared = 0
    for seed in range(8):
        at = referee_world(seed)
        compared += sum(assert_elements(referee, at, 2).values()) + assert_states(referee, at)
    assert compared > 150


def test_referee_and_judge_agree_on_changed_evidence_about_merges(referee: Referee) -> None:
    rng = random.Random(1)
    compared = sum(assert_truth_is_judged_alike(referee, truth_of(referee_world(seed)), rng, 0.05) for seed in range(8))
    assert compared > 150


def test_referee_and_judge_refuse_every_other_state_of_a_merge(referee: Referee) -> None:
    """Numbers and paths of the same tensor of all other states, singly and together."""
    refused, truth = Counter[str](), truth_of(referee_world(3))
    for number, one in enumerate(truth.program.operations):
        if not isinstance(one.attributes, Load):
            continue
        scene, evidence = scene_of(truth, number), element_evidence(truth, number, 0)
        state, tensor = divmod(one.attributes.index, truth.states)
        for other in set(range(truth.inputs + 1)) - {state}:
            place = other * truth.states + tensor
            path = tuple(truth.state_before_path(place))
            for changes in ({"number": place}, {"path": path}, {"number": place, "path": path}):
                shown = replace(evidence, sources=(replace(evidence.sources[0], **changes),))
                if shown == evidence:
                    continue  # a missing slot beside the base: each is the other's sibling
                answer = of_judge("element", scene, (0,), shown)
                assert answer == of_contract(referee, "element", scene, (0,), shown)
                assert not isinstance(answer, int)
                refused[answer[0]] += 1
    assert refused.keys() == {"WrongSource", "WrongProof"}
    assert refused.total() > 10


def test_referee_and_judge_refuse_a_state_behind_the_last(referee: Referee) -> None:
    """A record may say anything here: who asks has proved it."""
    truth = truth_of(referee_world(3))
    taken = truth.states * (truth.inputs + 1)
    number = next(at for at, one in enumerate(truth.program.operations) if isinstance(one.attributes, Load))
    evidence = element_evidence(truth, number, 0)
    for behind in (taken, taken + 1, 2**32 - 1):
        source = replace(evidence.sources[0], number=behind)
        shown = replace(evidence, record=evidence.record[:-4] + behind.to_bytes(4, "big"), sources=(source,))
        answer = of_judge("element", scene_of(truth, number), (0,), shown)
        assert answer == of_contract(referee, "element", scene_of(truth, number), (0,), shown)
        assert answer == ("WrongSource", {"given": behind, "needed": taken})


@heavy
@pytest.mark.parametrize("run", [MERGE, EVALUATION])
@pytest.mark.parametrize("length", [SHORT, LONG])
def test_every_lie_about_a_merge_on_chain_honest_side_wins(accounts: Accounts, length: int, run: int) -> None:
    on = ToldWorld(merge_world(length), accounts, 1)
    for plant in plants(on.at.plain.run(run), random.Random(length)):
        both_ways(on, on.at.liar(run, plant))


@heavy
@pytest.mark.parametrize("seed", range(4))
def test_lies_about_random_merges_on_chain_honest_side_wins(accounts: Accounts, seed: int) -> None:
    on, rng = ToldWorld(random_merge_world(seed), accounts, 1), random.Random(seed)
    for plant in rng.sample(list(plants(on.at.plain.run(MERGE), rng)), 20):
        both_ways(on, on.at.liar(MERGE, plant))


@heavy
@pytest.mark.parametrize("first", range(100, 200, 25))
def test_referee_and_judge_agree_on_much_changed_evidence_about_merges(referee: Referee, first: int) -> None:
    rng = random.Random(first)
    for seed in range(first, first + 25):
        assert_elements(referee, referee_world(seed), 4)
        assert assert_truth_is_judged_alike(referee, truth_of(referee_world(seed)), rng, 0.3) > 50
