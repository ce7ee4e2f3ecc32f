"""The client of the dispute game on a real node: games are rebuilt, moved and ended, whatever is repeated or lost."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from dispute_positions import records
from games import STEPS, GameWorld, Submission, make_submission, narrow, open_game, roots
from hypothesis import given, settings
from life import BOND, ETHER, LEASE, LOSS, TENSORS, WINDOW, claim, submit
from proxies import Proxy
from states import make_state
from web3 import Web3

from ledger.anvil import LocalChain
from ledger.compile import Artifact
from ledger.deploy import LOCAL_PARAMETERS, Deployment
from ledger.disputes.client import DisputeClient
from ledger.disputes.moves import SettleLate
from ledger.disputes.positions import Outcome, Phase, Position, points_of
from ledger.errors import ChainError, ContractReverted
from ledger.keys import Wallet
from ledger.rpc import rpc
from ledger.types import SlotStatus

pytestmark = [pytest.mark.chain, pytest.mark.usefixtures("solvent")]


@pytest.fixture(scope="module")
def played(
    chain: LocalChain, web3: Web3, deployment: Deployment, artifacts: dict[str, Artifact], deployer: Wallet
) -> tuple[GameWorld, Submission]:
    world = GameWorld(web3, deployment, artifacts, chain)
    return world, world.people(deployer)


@pytest.fixture
def world(played: tuple[GameWorld, Submission], rolled_back: None) -> GameWorld:
    """As new for each test."""
    return played[0]


@pytest.fixture
def made(played: tuple[GameWorld, Submission], world: GameWorld) -> Submission:
    return played[1]


@pytest.fixture
def defender(world: GameWorld) -> DisputeClient:
    return world.client("defender")


@pytest.fixture
def challenger(world: GameWorld) -> DisputeClient:
    return world.client("challenger")


def behind(web3: Web3, client: DisputeClient, proxy: Proxy) -> DisputeClient:
    """A reader of the same deployment through another connection, which does not wait between its looks."""
    reader = DisputeClient(Web3(proxy), client.deployment, artifacts=client.artifacts)
    reader._look_seconds = 0.0
    return reader


def test_open_makes_the_position_that_the_contract_keeps(
    made: Submission, defender: DisputeClient, challenger: DisputeClient
) -> None:
    view = open_game(challenger, made)
    position, matter = view.position, view.position.matter
    assert challenger.game_state(view.number) == (position.digest(), view.deadline, Outcome.RUNNING)
    fixed = made.task.parameters
    assert (matter.task, matter.round, matter.slot, matter.attempt) == (made.task.number, 0, 0, made.attempt)
    assert (matter.defender, matter.challenger) == (defender.address, challenger.address)
    assert (matter.base, matter.submitted) == (fixed.initial_state_root, made.root)
    assert matter.claimed == roots("challenger", 32)[-1]
    assert (matter.task_program, matter.dataset) == (fixed.program_root, fixed.dataset_root)
    assert (matter.steps, matter.clock) == (STEPS, 2 * LEASE)
    assert (position.phase, position.moves, position.low, position.high) == (Phase.RUNS, 1, 0, STEPS + 1)
    assert position.places == points_of(0, STEPS + 1, 32)
    assert (position.mover, view.posted, view.winner) == (defender.address, b"", None)
    assert view.deadline == position.deadline(challenger.minimum_move())
    assert challenger.stake_account(challenger.address).locked == BOND
    assert challenger.slot(made.task.number, 0).open_games == 1


def test_digest_is_the_contracts_for_any_position(made: Submission, challenger: DisputeClient) -> None:
    number = open_game(challenger, made).number
    settle = challenger._game.functions["settleLate"]

    @settings(max_examples=40)
    @given(position=records(Position))
    def compare(position: Position) -> None:
        asked = dataclasses.replace(position, matter=dataclasses.replace(position.matter, game=number))
        with pytest.raises(ContractReverted) as caught:
            challenger._read(settle(asked.to_abi()))
        assert caught.value.error == "WrongPosition"  # which says what the contract made of the position
        assert caught.value.arguments["given"] == "0x" + asked.digest().hex()

    compare()


def test_open_again_is_the_same_game(made: Submission, challenger: DisputeClient, world: GameWorld) -> None:
    first = open_game(challenger, made)
    assert open_game(challenger, made).number == first.number
    reborn = world.client("challenger")
    assert open_game(reborn, made) == first
    assert challenger.stake_account(challenger.address).locked == BOND
    assert open_game(challenger, made, "another").number == first.number + 1


def test_open_refusals_say_tokens_and_what_to_do(made: Submission, challenger: DisputeClient, world: GameWorld) -> None:
    poor = world.client("stranger")
    with pytest.raises(ContractReverted, match=r"free=0 tokens, needed=0\.1 tokens.*Stake more"):
        open_game(poor, made)
    with pytest.raises(ContractReverted, match="NotYourMove"):
        poor.open(made.opening(challenger.address), roots("x", 32))
    with pytest.raises(ContractReverted, match="WrongCount"):
        challenger.open(made.opening(challenger.address), roots("x", 31))
    with pytest.raises(ContractReverted, match="NothingDisputed"):
        challenger.open(made.opening(challenger.address), (*roots("x", 31), made.root))


def test_open_after_the_window_is_refused(made: Submission, challenger: DisputeClient, world: GameWorld) -> None:
    world.chain.advance(WINDOW + 1)
    with pytest.raises(ContractReverted, match=r"WindowOver.*only until its challenge window ends"):
        open_game(challenger, made)


def test_play_turns_alternate_and_narrow_the_interval(
    made: Submission, defender: DisputeClient, challenger: DisputeClient
) -> None:
    first = open_game(challenger, made)
    assert defender.play(first, narrow(first, 2, "defender")) is not None
    second = challenger.view(first.number)
    places = first.position.places
    assert (second.position.low, second.position.high) == (places[1], places[2])
    assert second.position.agreed == roots("challenger", 32)[1]
    assert second.position.mover == challenger.address
    assert second.position.digest() == challenger.game_state(first.number).digest
    assert challenger.play(second, narrow(second, 0, "me")) is not None
    third = defender.view(first.number)
    assert (third.position.moves, third.position.mover) == (3, defender.address)
    assert (third.position.low, third.position.high) == (places[1], second.position.places[0])


def test_play_again_changes_nothing(made: Submission, defender: DisputeClient, challenger: DisputeClient) -> None:
    first = open_game(challenger, made)
    move = narrow(first, 2, "defender")
    assert defender.play(first, move) is not None
    second = defender.view(first.number)
    assert defender.play(first, move) is None
    assert defender.play(first, narrow(first, 5, "other")) is None
    assert defender.view(first.number) == second


def test_play_out_of_turn_is_refused_and_operators_may(
    made: Submission, defender: DisputeClient, challenger: DisputeClient, world: GameWorld
) -> None:
    first = open_game(challenger, made)
    move = narrow(first, 0, "defender")
    with pytest.raises(ContractReverted, match=f"caller={challenger.address}, mover={defender.address}"):
        challenger.play(first, move)
    hot = world.client("stranger")
    defender.set_operator(hot.address, True)
    assert hot.play(first, move) is not None
    assert hot.view(first.number).position.mover == challenger.address


def test_settle_late_ends_the_game_once(
    made: Submission, defender: DisputeClient, challenger: DisputeClient, world: GameWorld
) -> None:
    view = open_game(challenger, made)
    anybody = world.client("stranger")
    with pytest.raises(ContractReverted, match="NotLate"):
        anybody.settle_late(view.number)
    world.chain.advance(2 * LEASE + 1)
    with pytest.raises(ContractReverted, match=r"TooLate.*trainledger dispute settle"):
        defender.play(view, narrow(view, 0, "defender"))
    assert anybody.settle_late(view.number) is not None
    assert anybody.settle_late(view.number) is None
    assert anybody.play(view, SettleLate()) is None
    ended = defender.view(view.number)
    assert (ended.outcome, ended.winner, ended.late) == (Outcome.CHALLENGER_WON, challenger.address, True)
    with pytest.raises(ContractReverted, match="GameOver"):  # the move was not made: the clock was faster
        defender.play(view, narrow(view, 0, "defender"))
    slot = anybody.slot(made.task.number, 0)
    assert (slot.status, slot.attempt, slot.open_games) == (SlotStatus.OPEN, 1, 0)
    assert challenger.stake_account(challenger.address).locked == 0
    assert defender.stake_account(defender.address).locked == BOND


def test_late_challenger_pays_the_defender(
    made: Submission, defender: DisputeClient, challenger: DisputeClient, world: GameWorld
) -> None:
    view = open_game(challenger, made)
    defender.play(view, narrow(view, 0, "defender"))
    world.chain.advance(2 * LEASE + 1)
    defender.settle_late(view.number)
    ended = challenger.view(view.number)
    assert (ended.outcome, ended.winner) == (Outcome.DEFENDER_WON, defender.address)
    assert challenger.stake_account(challenger.address).staked == ETHER - BOND
    assert defender.stake_account(defender.address).credit == BOND // 2


def test_release_frees_what_another_game_decided(made: Submission, challenger: DisputeClient, world: GameWorld) -> None:
    other = world.client("other")
    won, void = open_game(challenger, made), open_game(other, made, "other")
    with pytest.raises(ContractReverted, match="SubmissionStands"):
        other.release(void.number)
    world.chain.advance(2 * LEASE + 1)
    challenger.settle_late(won.number)
    assert other.stake_account(other.address).locked == BOND
    assert challenger.release(void.number) is not None
    assert challenger.release(void.number) is None
    ended = other.view(void.number)
    assert (ended.outcome, ended.winner) == (Outcome.VOID, None)
    assert other.stake_account(other.address).locked == 0


def test_award_fall_goes_to_who_had_named_the_right_state(
    made: Submission, defender: DisputeClient, challenger: DisputeClient, world: GameWorld
) -> None:
    right = make_state(LOSS, TENSORS, 2)
    number = challenger.open(made.opening(challenger.address), (*roots("challenger", 31), right.root))
    assert challenger.earliest_challenger(made.task.number, 0, made.attempt, right.root) == challenger.address
    world.chain.advance(2 * LEASE + 1)
    challenger.settle_late(number)
    task = made.task.number
    slot = challenger.slot(task, 0)
    assert slot.reserved_for(challenger.chain_time()) == challenger.address
    assert slot.reserved_for(slot.deadline + 1) is None
    with pytest.raises(ContractReverted, match="SlotTaken"):
        claim(defender, made.task)
    with pytest.raises(ContractReverted, match="WrongStatus"):
        defender.award_fall(task, 0, attempt=made.attempt)
    attempt = claim(challenger, made.task)
    submit(challenger, made.task, 0, attempt, right, steps=STEPS)
    world.chain.advance(WINDOW + 1)
    challenger.finalise(task, 0, attempt=attempt, state_root=right.root)
    before = challenger.stake_account(challenger.address).credit
    assert defender.award_fall(task, 0, attempt=made.attempt) is not None
    assert challenger.stake_account(challenger.address).credit == before + BOND // 2
    assert defender.stake_account(defender.address).staked == ETHER - BOND
    assert challenger.award_fall(task, 0, attempt=made.attempt) is None
    with pytest.raises(ContractReverted, match="NothingToAward"):
        challenger.award_fall(task, 0, attempt=attempt)


def test_games_are_found_by_task_party_and_state(
    made: Submission, defender: DisputeClient, challenger: DisputeClient, world: GameWorld
) -> None:
    other = make_submission(world.client("requester"), defender, seed=3)
    first, second = open_game(challenger, made), open_game(challenger, other)
    assert challenger.games(task=made.task.number) == [first]
    assert defender.games(party=challenger.address.lower()) == [first, second]
    assert defender.games(party=world.client("requester").address) == []
    assert {view.number for view in defender.games()} >= {first.number, second.number}
    defender.play(second, narrow(second, 0, "defender"))
    world.chain.advance(2 * LEASE + 1)
    challenger.settle_late(first.number)
    (running,) = defender.games(party=defender.address, only_running=True)
    assert (running.number, running.position.moves) == (second.number, 2)


def test_view_of_no_such_game_says_which_there_are(challenger: DisputeClient, made: Submission) -> None:
    number = open_game(challenger, made).number
    with pytest.raises(ContractReverted, match=rf"Game {number + 1} does not exist; there .*trainledger dispute list"):
        challenger.view(number + 1)
    assert challenger.game_count() == number


def test_view_after_a_reorganisation_is_the_chains(
    made: Submission, defender: DisputeClient, challenger: DisputeClient, web3: Web3
) -> None:
    first = open_game(challenger, made)
    snapshot = rpc(web3, "evm_snapshot")
    defender.play(first, narrow(first, 2, "defender"))
    moved = challenger.view(first.number)
    challenger.play(moved, narrow(moved, 0, "challenger"))
    seen = challenger.view(first.number)
    assert seen.position.moves == 3
    rpc(web3, "evm_revert", snapshot)
    assert challenger.view(first.number) == first
    with pytest.raises(ContractReverted, match="WrongPosition"):
        challenger.play(moved, narrow(moved, 0, "challenger"))
    # Another move in the same block as before: the same height, another hash.
    defender.play(first, narrow(first, 7, "defender"))
    assert challenger.view(first.number).position.high == first.position.places[7]


def test_view_of_a_node_that_hides_moves_is_an_error(
    made: Submission, defender: DisputeClient, challenger: DisputeClient, web3: Web3
) -> None:
    first = open_game(challenger, made)
    defender.play(first, narrow(first, 2, "defender"))
    moved = challenger.view(first.number)

    def hide(method: str, params: Any, go: Callable[[], Any]) -> Any:
        answer = go()
        if method == "eth_getLogs":
            answer["result"] = [log for log in answer["result"] if int(log["blockNumber"], 16) < moved.moved_block]
        return answer

    reader = behind(web3, challenger, Proxy(web3.provider, hide))
    with pytest.raises(ChainError, match=f"log that the node gives of game {first.number} does not lead to"):
        reader.view(first.number)
    nothing = Proxy(web3.provider, lambda method, _, go: {**go(), "result": []} if method == "eth_getLogs" else go())
    reader = behind(web3, challenger, nothing)
    with pytest.raises(ChainError, match="the node's log has 0 of them"):
        reader.games()


def test_view_of_a_forged_position_is_an_error(made: Submission, challenger: DisputeClient, web3: Web3) -> None:
    view = open_game(challenger, made)
    true = roots("challenger", 32)[3].hex()

    def forge(method: str, params: Any, go: Callable[[], Any]) -> Any:
        answer = go()
        if method == "eth_getLogs":
            answer["result"] = [{**log, "data": log["data"].replace(true, "ab" * 32)} for log in answer["result"]]
        return answer

    reader = behind(web3, challenger, Proxy(web3.provider, forge))
    with pytest.raises(ChainError, match="does not lead to what the contract keeps"):
        reader.view(view.number)


@pytest.mark.parametrize(
    "forge",
    [
        lambda data: "0x",
        lambda data: data[:66],
        lambda data: data[:-64],
        lambda data: "0x" + "ff" * ((len(data) - 2) // 2),
        lambda data: data[:-1] + "7",
        lambda data: data.replace("00" * 31 + "02", "00" * 31 + "07"),
    ],
    ids=["nothing", "a-word", "cut", "ones", "last-bit", "no-such-outcome"],
)
def test_view_of_a_garbled_log_is_a_chain_error(
    made: Submission, challenger: DisputeClient, world: GameWorld, web3: Web3, forge: Callable[[str], str]
) -> None:
    view = open_game(challenger, made)
    world.chain.advance(2 * LEASE + 1)
    challenger.settle_late(view.number)

    def garble(method: str, params: Any, go: Callable[[], Any]) -> Any:
        answer = go()
        if method == "eth_getLogs":
            answer["result"] = [log | {"data": forge(log["data"])} for log in map(dict, answer["result"])]
        return answer

    reader = behind(web3, challenger, Proxy(web3.provider, garble))
    with pytest.raises(ChainError):
        reader.view(view.number)
    with pytest.raises(ChainError):
        reader.games()


def test_log_forgets_what_no_rewind_needs(
    made: Submission, defender: DisputeClient, challenger: DisputeClient, web3: Web3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.disputes.log._KEPT_MARKS", 2)
    view = open_game(challenger, made)
    for _ in range(3):
        side = defender if view.position.defender_to_move else challenger
        side.play(view, narrow(view, 0, "somebody"))
        view = challenger.view(view.number)
    rpc(web3, "anvil_mine", hex(3))
    for _ in range(4):
        rpc(web3, "anvil_mine", hex(1))
        assert challenger.view(view.number) == view
    assert len(challenger._log._events[view.number]) == 1
    assert len(challenger._log._marks) == 2


def test_clocks_are_the_deployments(challenger: DisputeClient) -> None:
    assert challenger.minimum_clock() == LOCAL_PARAMETERS.minimum_clock
    assert challenger.minimum_move() == LOCAL_PARAMETERS.minimum_move
