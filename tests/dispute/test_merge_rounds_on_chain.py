"""A round of three slots on a real chain, one of which is missing, and disputes about its merge."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from chain_games import TOKEN, Accounts, ChainWorld, loss_siblings, parameters_of
from dispute_programs import base_state
from liars import plants
from merge_programs import SLOTS, slot_state
from plain_truth import PlainRun, PlainSegment, plain_state_root
from test_on_chain import heavy
from worlds import SHORT, World, merge_world

from ledger.anvil import LocalChain
from ledger.compile import Artifact
from ledger.deploy import Deployment
from ledger.disputes.moves import Opening
from ledger.disputes.positions import Outcome
from ledger.keys import Wallet
from ledger.types import SlotStatus, Task
from trainer.commit.states import loss_proof
from trainer.dispute.solver import opening_points
from trainer.dispute.values import Concede, Truth
from trainer.engine.state import State, heldout_loss_bits

pytestmark = pytest.mark.chain
MERGE, EVALUATION = 0, 1
STEPS, ROUND_SECONDS = 5, 60


@dataclass
class RoundWorld(ChainWorld):
    """Round 0 of a task whose slots 0 and 2 are submitted and collected: what is left is its merge."""

    def submit(self, submitted: PlainSegment, *, worker: str = "worker") -> Task:
        """The worker claims the merge slot and submits the segment's result."""
        client, last = self.accounts(worker), submitted.run(EVALUATION)
        slot, base = client.slot(self.task, 0, SLOTS), client.round(self.task, 0).inputs_root
        assert base == self.at.plain.state_root(0)
        client.claim(client.task(self.task), 0, base_root=base, attempt=slot.attempt, worker=client.address, slot=SLOTS)
        client.submit(
            self.task,
            0,
            attempt=slot.attempt,
            base_root=base,
            state_root=last.state_root,
            steps=1,
            loss_bits=loss_bits_of(last),
            proof=loss_siblings(last),
            slot=SLOTS,
        )
        return client.task(self.task)

    def open(self, challenger: Truth, *, doubter: str = "doubter") -> int:
        client = self.accounts(doubter)
        slot = client.slot(self.task, 0, SLOTS)
        points = opening_points(challenger, steps=slot.steps, submitted=slot.state_root)
        assert not isinstance(points, Concede), points.reason
        return client.open(Opening(client.address, self.task, 0, SLOTS, slot.attempt, slot.state_root), points)


def loss_bits_of(run: PlainRun) -> int:
    return int.from_bytes(run.state_after[0].numpy().tobytes(), "little")


def post_round(at: World, accounts: Accounts) -> RoundWorld:
    """Posts the task, and has the first and the last slot of its round trained."""
    parameters = replace(
        parameters_of(at),
        challenge_window=3600,  # slots stay open to challenge while a merge is played
        initial_state_root=plain_state_root(list(base_state(SHORT).values())),
        state_tensors=len(base_state(SHORT)),
        slots_per_round=SLOTS,
        quorum=2,
        round_seconds=ROUND_SECONDS,
        merge_reward=TOKEN,
        steps_per_round=STEPS,
        minimum_steps=STEPS,
    )
    on = RoundWorld(at, accounts, accounts("requester").post_task(parameters, ""))
    for slot in (0, 2):
        train(on, slot, slot_state(SHORT, slot))
    accounts.chain.advance(ROUND_SECONDS + 1)
    accounts("stranger").collect(on.task, 0, 0)
    return on


def train(on: RoundWorld, slot: int, state: State) -> None:
    client = on.accounts("worker")
    base = client.base_root(on.task, 0)
    client.claim(client.task(on.task), 0, base_root=base, attempt=0, worker=client.address, slot=slot)
    client.submit(
        on.task,
        0,
        attempt=0,
        base_root=base,
        state_root=plain_state_root(list(state.values())),
        steps=STEPS,
        loss_bits=heldout_loss_bits(state),
        proof=loss_proof(state.values()),
        slot=slot,
    )


@pytest.fixture(scope="module")
def on(
    chain: LocalChain, deployment: Deployment, deployer: Wallet, artifacts: dict[str, Artifact]
) -> Iterator[RoundWorld]:
    with Accounts.opened(chain, deployment, deployer, artifacts) as opened:
        opened.fund("stranger")
        yield post_round(merge_world(SHORT), opened)


@pytest.fixture(autouse=True)
def _taken_back(on: RoundWorld) -> Iterator[None]:
    with on.accounts.undone():
        yield


def lie(at: World, name: str, run: int) -> PlainSegment:
    return at.liar(run, next(one for one in plants(at.plain.run(run), random.Random(8)) if one.name == name))


def test_merge_that_lies_falls_and_the_true_one_is_the_next_base(on: RoundWorld) -> None:
    accounts, liar = on.accounts, lie(on.at, "state moment.unused element 0", MERGE)
    on.submit(liar)
    game = on.open(on.at.party)
    assert accounts("worker").view(game).position.matter.merge
    played = on.play_out(game, liar, on.at.party, honest="challenger")
    assert (played.outcome, played.names[-1]) == (Outcome.CHALLENGER_WON, "proveStateLeaf")
    worker, doubter = accounts("worker"), accounts("doubter")
    assert worker.slot(on.task, 0, SLOTS).status is SlotStatus.OPEN
    assert worker.slot(on.task, 0, 2).status is SlotStatus.SUBMITTED  # its inputs stand
    on.submit(on.at.plain, worker="doubter")  # who won has first claim
    merged = on.at.plain.state_root(2)
    accounts.chain.advance(doubter.slot(on.task, 0, SLOTS).deadline - doubter.chain_time() + 1)
    for slot in (0, 2):
        root = doubter.slot(on.task, 0, slot).state_root
        doubter.finalise(on.task, 0, attempt=0, state_root=root, slot=slot)
    doubter.finalise(on.task, 0, attempt=1, state_root=merged, slot=SLOTS)
    assert doubter.checkpoint(on.task, 0).state_root == merged
    assert doubter.slot(on.task, 0, SLOTS).status is SlotStatus.FINALISED


def test_true_merge_stands_against_a_challenge_that_lies(on: RoundWorld) -> None:
    liar = lie(on.at, "load 2 element 0 alone", MERGE)
    on.submit(on.at.plain)
    played = on.play_out(on.open(liar), on.at.party, liar, honest="defender")
    assert played.outcome is Outcome.DEFENDER_WON
    slot = on.accounts("worker").slot(on.task, 0, SLOTS)
    assert (slot.status, slot.open_games) == (SlotStatus.SUBMITTED, 0)


@pytest.mark.parametrize("honest", ["challenger", "defender"])
def test_game_about_a_merge_goes_on_about_the_inputs_it_took_when_one_falls(on: RoundWorld, honest: str) -> None:
    accounts, liar = on.accounts, lie(on.at, "state moment.unused element 0", MERGE)
    truths = (liar, on.at.party) if honest == "challenger" else (on.at.party, liar)
    on.submit(liar if honest == "challenger" else on.at.plain)
    input_game = challenge_slot(on, 2)
    accounts.chain.advance(100)
    game = on.open(truths[1])
    accounts.chain.advance(25)  # of the clock of 120 seconds of the game before
    accounts("stranger").settle_late(input_game)
    book = accounts("stranger").round(on.task, 0)
    assert (book.generation, book.frozen_at, book.submitted_slots) == (1, 0, {0})
    played = on.play_out(game, *truths, honest=honest)
    assert not played.late
    assert played.outcome is (Outcome.CHALLENGER_WON if honest == "challenger" else Outcome.DEFENDER_WON)
    assert accounts("worker").view(game).position.matter.base == on.at.plain.state_root(0)


def challenge_slot(on: RoundWorld, number: int) -> int:
    """A game about what a slot has trained, which nobody defends."""
    client = on.accounts("stranger")
    slot = client.slot(on.task, 0, number)
    opening = Opening(client.address, on.task, 0, number, slot.attempt, slot.state_root)
    return client.open(opening, [bytes([at]) * 32 for at in range(1, STEPS + 2)])


@heavy
@pytest.mark.parametrize("run", [MERGE, EVALUATION])
def test_every_tenth_lie_about_a_merge_of_a_round_loses(on: RoundWorld, run: int) -> None:
    games = 0
    for plant in list(plants(on.at.plain.run(run), random.Random(run)))[::10]:
        liar = on.at.liar(run, plant)
        if run == EVALUATION and "metric" in plant.name:
            continue  # the ledger itself refuses a state whose loss is not proved
        for honest in ("challenger", "defender"):
            with on.accounts.undone():
                truths = (liar, on.at.party) if honest == "challenger" else (on.at.party, liar)
                on.submit(liar if honest == "challenger" else on.at.plain)
                played = on.play_out(on.open(truths[1]), *truths, honest=honest)
                won = Outcome.CHALLENGER_WON if honest == "challenger" else Outcome.DEFENDER_WON
                assert played.outcome is won, plant.name
                games += 1
    assert games > 10
