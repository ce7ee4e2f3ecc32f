"""The client of the audit committee on a real node: seats, budgets, and audits from the request to the fee."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from audit_world import FEE, SALT, TRACE, WINDOW, World, commit, drawn
from life import LOSS, TENSORS, claim, parameters, submit
from states import make_state
from web3 import Web3

from ledger.anvil import LocalChain
from ledger.audits.records import (
    KNOWN_BLOCKS,
    VOTES,
    Stage,
    attempt_key,
    commitment_of,
    finding_of,
    split_key,
)
from ledger.compile import Artifact
from ledger.deploy import Deployment
from ledger.errors import ContractReverted, InsufficientFunds
from ledger.keys import Wallet
from ledger.rpc import rpc
from ledger.types import Task

pytestmark = [pytest.mark.chain, pytest.mark.usefixtures("solvent")]


@pytest.fixture(scope="module")
def made(
    chain: LocalChain, web3: Web3, deployment: Deployment, artifacts: dict[str, Artifact], deployer: Wallet
) -> Iterator[tuple[World, Task, bytes]]:
    """Undone afterwards: seats that stay would be drawn elsewhere."""
    before = rpc(web3, "evm_snapshot")
    world = World(web3, deployment, artifacts, chain)
    yield world, *world.people(deployer)
    rpc(web3, "evm_revert", before)


@pytest.fixture
def scene(made: tuple[World, Task, bytes], rolled_back: None) -> tuple[World, Task, bytes]:
    """As new for each test."""
    return made


def test_seats_are_taken_counted_and_given_up(scene: tuple[World, Task, bytes]) -> None:
    world, _, _ = scene
    anna = world.client("anna")
    before = anna.stake_account(anna.address).free
    assert anna.seats_of(anna.address) == 6
    count = anna.seat_count()
    anna.enrol(2)
    assert anna.seat_count() == count + 2
    assert anna.stake_account(anna.address).free == before - 2 * anna.seat_stake()
    seat = anna.seat(count)
    assert (seat.owner, seat.since) == (anna.address, seat.placed)
    assert anna.seat_indexes(anna.address, 3) == [count + 1, count, 5]
    anna.resign(count)
    assert anna.seats_of(anna.address) == 7
    with pytest.raises(ContractReverted, match=r"refused: UnknownSeat\(index=\d+, seats=13\)"):
        anna.seat(count + 1)
    with pytest.raises(ContractReverted, match=r"WrongSeatCount\(count=0, most=32\).*at least one seat"):
        anna.enrol(0)
    with pytest.raises(ContractReverted, match=r"InsufficientFreeStake.*Stake more"):
        anna.enrol(32)
    with pytest.raises(ContractReverted, match="NotYourSeat"):
        world.client("boris").resign(0)


def test_budget_is_opened_added_to_and_refunded(scene: tuple[World, Task, bytes]) -> None:
    world, task, root = scene
    requester, stranger = world.client("requester"), world.client("stranger")
    budget = requester.audit_budget(task.number)
    assert (budget.fee, budget.reserved, budget.free, budget.audits_left) == (FEE, 0, 3 * VOTES * FEE, 3)
    stranger.fund_audits(task.number, FEE, 5)
    assert requester.audit_budget(task.number).held == budget.held + 5
    with pytest.raises(ContractReverted, match=r"WrongFee\(given=0\.5 tokens, expected=0\.25 tokens\).*opened with"):
        stranger.fund_audits(task.number, 2 * FEE, 5)
    with pytest.raises(InsufficientFunds):
        stranger.fund_audits(task.number, FEE, 10**24)
    with pytest.raises(ContractReverted, match="Task 999 does not exist"):
        stranger.fund_audits(999, FEE, 5)
    with pytest.raises(ContractReverted, match=r"TaskStillRuns.*complete or closed"):
        stranger.refund_audits(task.number)
    drawn(world, task, root)
    requester.close_task(task.number)
    credit = requester.stake_account(requester.address).credit
    assert stranger.refund_audits(task.number) == 2 * VOTES * FEE + 5
    assert requester.stake_account(requester.address).credit == credit + 2 * VOTES * FEE + 5
    left = requester.audit_budget(task.number)
    assert (left.held, left.reserved, left.free) == (VOTES * FEE, VOTES * FEE, 0)
    assert requester.audit_budget(999).audits_left == 0


def test_agreement_pays_and_shortens_the_window(scene: tuple[World, Task, bytes]) -> None:
    world, task, root = scene
    anna, boris = world.client("anna"), world.client("boris")
    end = anna.slot(task.number, 0).deadline
    audit = drawn(world, task, root)
    assert (audit.window_end, audit.fee, audit.steps, audit.state_root) == (end, FEE, 10, root)
    votes = {client.address: anna.votes_of(audit.key, client.address) for client in (anna, boris)}
    seats = [anna.drawn_seat(audit.key, vote) for vote in range(VOTES)]
    assert votes == {address: [owner for _, owner, _ in seats].count(address) for address in votes}
    assert all(counts for _, _, counts in seats)
    stage = lambda: anna.audit(audit.key).stage(now=anna.chain_time(), block=anna.block_number())  # noqa: E731
    assert stage() is Stage.COMMITTING
    for client in (anna, boris):
        commitment = commit(client, audit, root)
        assert anna.ballot(audit.key, client.address).commitment == commitment
        assert client.commit_finding(audit.key, audit.seed, client.address, commitment) is None  # once is enough
    assert stage() is Stage.REVEALING
    for client in (anna, boris):
        client.reveal_finding(audit.key, client.address, TRACE, root, SALT)
        assert client.reveal_finding(audit.key, client.address, TRACE, root, SALT) is None
    assert anna.audit(audit.key).agreed == finding_of(TRACE, root)
    floor = anna.window_floor(task.number)
    assert anna.slot(task.number, 0).deadline == end - WINDOW + floor
    for client in (anna, boris):
        assert client.collect_fee(audit.key, client.address) == votes[client.address] * FEE
        assert client.collect_fee(audit.key, client.address) == 0
    world.chain.advance(floor + 1)
    world.client("stranger").finalise(task.number, 0, attempt=0, state_root=root)
    assert anna.audit_budget(task.number).held == 2 * VOTES * FEE
    with pytest.raises(ContractReverted, match=r"SeatBusy.*committed in an audit"):
        anna.resign(0)


def test_commit_again_to_something_else_is_refused(scene: tuple[World, Task, bytes]) -> None:
    world, task, root = scene
    anna = world.client("anna")
    audit = drawn(world, task, root)
    commit(anna, audit, root)
    with pytest.raises(ContractReverted, match="AlreadyCommitted"):
        commit(anna, audit, b"\x09" * 32)
    with pytest.raises(ContractReverted, match="CommitStillOpen"):
        anna.reveal_finding(audit.key, anna.address, TRACE, root, SALT)


def test_no_show_is_evicted_and_the_audit_closed(scene: tuple[World, Task, bytes]) -> None:
    world, task, root = scene
    anna, boris = world.client("anna"), world.client("boris")
    audit = drawn(world, task, root)
    commit(anna, audit, root)
    world.chain.advance(audit.commit_end - anna.chain_time() + 1)
    anna.reveal_finding(audit.key, anna.address, TRACE, root, SALT)
    with pytest.raises(ContractReverted, match="AuditStillRuns"):
        anna.close_audit(audit.key)
    world.chain.advance(audit.reveal_end - anna.chain_time() + 1)
    assert anna.audit(audit.key).stage(now=anna.chain_time(), block=anna.block_number()) is Stage.OVER
    staked = boris.stake_account(boris.address).staked
    his = next(vote for vote in range(VOTES) if anna.drawn_seat(audit.key, vote)[1] == boris.address)
    assert anna.evict(audit.key, his) is not None
    assert anna.evict(audit.key, his) is None
    assert (boris.seats_of(boris.address), boris.stake_account(boris.address).staked) == (5, staked)
    assert anna.close_audit(audit.key) is not None
    assert anna.close_audit(audit.key) is None


def test_missed_seed_ends_the_audit(scene: tuple[World, Task, bytes]) -> None:
    world, task, root = scene
    anna = world.client("anna")
    key = anna.request_audit(task.number, 0, 0, root)
    assert anna.request_audit(task.number, 0, 0, root) == key == attempt_key(task.number, 0, 0)
    assert split_key(key) == (task.number, 0, 0, 0)
    audit = anna.audit(key)
    assert audit.stage(now=anna.chain_time(), block=anna.block_number()) is Stage.ASKED
    rpc(world.web3, "anvil_mine", hex(KNOWN_BLOCKS + 3))
    assert audit.stage(now=anna.chain_time(), block=anna.block_number()) is Stage.MISSED
    with pytest.raises(ContractReverted, match="SeedUnavailable"):
        anna.draw_audit(key)
    anna.close_audit(key)
    assert anna.audit_budget(task.number).reserved == 0
    never = anna.audit(attempt_key(task.number, 0, 1))
    assert never.stage(now=anna.chain_time(), block=anna.block_number()) is Stage.NONE


def test_request_refusals_say_what_to_do(scene: tuple[World, Task, bytes]) -> None:
    world, task, _ = scene
    anna, requester, worker = world.client("anna"), world.client("requester"), world.client("worker")
    with pytest.raises(ContractReverted, match=r"NotSubmitted.*another submission now"):
        anna.request_audit(task.number, 0, 0, b"\x09" * 32)
    other = requester.task(requester.post_task(parameters(), "file:///store"))
    attempt, state = claim(worker, other), make_state(LOSS, TENSORS, 2)
    submit(worker, other, 0, attempt, state)
    with pytest.raises(ContractReverted, match=r"NoTimeForAudit.*longer than lease"):
        anna.request_audit(other.number, 0, attempt, state.root)
    long = requester.task(requester.post_task(parameters(challenge_window=WINDOW), "file:///store"))
    attempt = claim(worker, long)
    submit(worker, long, 0, attempt, state)
    with pytest.raises(ContractReverted, match=r"BudgetTooSmall\(free=0 tokens, needed=0 tokens\).*auditor fund"):
        anna.request_audit(long.number, 0, attempt, state.root)


def test_commitment_and_finding_are_the_contracts(scene: tuple[World, Task, bytes]) -> None:
    world, _, root = scene
    anna = world.client("anna")
    fields = (attempt_key(3, 2, 1), b"\x05" * 32, anna.address, TRACE, root, SALT)
    told: Callable[..., object] = anna._committee.functions["commitmentOf"]
    assert bytes(anna._read(told(*fields))) == commitment_of(*fields)  # type: ignore[arg-type]  # a web3 call
