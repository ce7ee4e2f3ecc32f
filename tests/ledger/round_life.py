"""Rounds of two slots in short calls, with made-up states, for tests of the client and of commands."""

from __future__ import annotations

from typing import Any

from life import ETHER, LEASE, LOSS, TENSORS, parameters
from states import make_state

from ledger.anvil import LocalChain
from ledger.client import LedgerClient
from ledger.disputes.client import DisputeClient
from ledger.disputes.moves import Opening
from ledger.disputes.positions import RUN_POINTS, points_of
from ledger.types import Task, TaskParameters

SLOTS = MERGE = 2
DEADLINE = 2 * LEASE
MERGE_REWARD = 3 * ETHER


def round_parameters(**fields: Any) -> TaskParameters:
    """Two slots a round, of which one is enough once the deadline has passed."""
    merges: dict[str, Any] = {
        "slots_per_round": SLOTS,
        "quorum": 1,
        "round_seconds": DEADLINE,
        "merge_reward": MERGE_REWARD,
    }
    return parameters(**(merges | fields))


def base_of(client: LedgerClient, task: Task, slot: int, round_number: int = 0) -> bytes:
    """What a slot starts from."""
    if not task.parameters.is_merge(slot):
        return client.base_root(task.number, round_number)
    return client.round(task.number, round_number).inputs_root


def claim_slot(client: LedgerClient, task: Task, slot: int, round_number: int = 0) -> int:
    attempt = client.next_attempt(task.number, round_number, slot)
    base = base_of(client, task, slot, round_number)
    client.claim(task, round_number, base_root=base, attempt=attempt, worker=client.address, slot=slot)
    return attempt


def do_slot(client: LedgerClient, task: Task, slot: int, seed: int, round_number: int = 0) -> bytes:
    """Claims a slot, or the merge, and submits a made-up state; returns its root."""
    attempt, state = claim_slot(client, task, slot, round_number), make_state(LOSS, TENSORS, seed)
    client.submit(
        task.number,
        round_number,
        attempt=attempt,
        base_root=base_of(client, task, slot, round_number),
        state_root=state.root,
        steps=1 if task.parameters.is_merge(slot) else 10,
        loss_bits=LOSS,
        proof=state.loss_proof,
        slot=slot,
    )
    return state.root


def collect(client: LedgerClient, task: Task, round_number: int = 0) -> bytes:
    """Freezes the round, and gives the root of what its merge takes."""
    client.collect(task.number, round_number, client.round(task.number, round_number).generation)
    return client.round(task.number, round_number).inputs_root


def finalise_slot(client: LedgerClient, task: Task, slot: int, round_number: int = 0) -> None:
    done = client.slot(task.number, round_number, slot)
    client.finalise(task.number, round_number, attempt=done.attempt, state_root=done.state_root, slot=slot)


def fell(challenger: DisputeClient, task: Task, slot: int, chain: LocalChain, round_number: int = 0) -> None:
    """The submission in a slot falls to a challenger whom nobody answers."""
    made = challenger.slot(task.number, round_number, slot)
    opening = Opening(challenger.address, task.number, round_number, slot, made.attempt, made.state_root)
    points = [bytes([number + 1]) * 32 for number, _ in enumerate(points_of(0, made.steps + 1, RUN_POINTS))]
    game = challenger.open(opening, points)
    chain.advance(2 * LEASE + 1)
    challenger.settle_late(game)
