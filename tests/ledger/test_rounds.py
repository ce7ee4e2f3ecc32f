"""Rounds with several slots as the client has them: the states that merges take, those of before a fall too; words."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from life import ETHER, LEASE, LOSS
from round_life import (
    DEADLINE,
    MERGE,
    MERGE_REWARD,
    claim_slot,
    collect,
    do_slot,
    fell,
    finalise_slot,
    round_parameters,
)
from web3 import Web3

from ledger.anvil import LocalChain
from ledger.client import LedgerClient
from ledger.compile import Artifact
from ledger.deploy import Deployment
from ledger.disputes.client import DisputeClient
from ledger.errors import ContractReverted
from ledger.keys import Wallet
from ledger.performance import pay_of
from ledger.reverts import ErrorDecoder
from ledger.rounds import describe_slot, describe_wait
from ledger.tx import TransactionSender
from ledger.types import Round, Slot, SlotStatus, Task

pytestmark = [pytest.mark.chain, pytest.mark.usefixtures("solvent")]


@pytest.fixture
def task(requester: LedgerClient) -> Task:
    return requester.task(requester.post_task(round_parameters(), "file:///store"))


@pytest.fixture
def challenger(
    web3: Web3, deployment: Deployment, artifacts: dict[str, Artifact], funded_wallet: Callable[..., Wallet]
) -> DisputeClient:
    sender = TransactionSender(web3, funded_wallet(), errors=ErrorDecoder(artifacts))
    client = DisputeClient(web3, deployment, sender, artifacts=artifacts)
    client.stake(ETHER)
    return client


def waits(client: LedgerClient, task: Task) -> str:
    """What the first round waits for, without times."""
    merge = client.slot(task.number, 0, MERGE)
    return describe_wait(task.parameters, client.round(task.number, 0), merge, now=client.chain_time())


def test_round_from_the_first_claim_to_its_merge(worker: LedgerClient, task: Task, chain: LocalChain) -> None:
    assert waits(worker, task) == "no slot has been claimed yet"
    claimed = worker.chain_time()
    root = do_slot(worker, task, 1, seed=5)
    assert waits(worker, task).startswith("1 of 2 submitted, quorum 1 after ")
    assert worker.merge_inputs(task.number, 0, bytes(32)) == ()
    deadline = worker.round(task.number, 0).deadline
    assert claimed <= deadline - DEADLINE <= claimed + 10
    chain.advance(DEADLINE + 1)
    assert waits(worker, task) == "1 of 2 submitted: anybody may collect the merge's inputs"
    inputs, base = collect(worker, task), worker.base_root(task.number, 0)
    assert waits(worker, task) == "the merge of 1 slots can be claimed"
    assert worker.merge_inputs(task.number, 0, inputs) == (base, base, root)  # slot 0 is missing
    merged = do_slot(worker, task, MERGE, seed=6)
    assert waits(worker, task) == "the merge is submitted; 0 of the 1 slots that it took are final"
    chain.advance(LEASE + 1)
    finalise_slot(worker, task, 1)
    assert waits(worker, task).startswith("the merge is submitted; its window ends at ")
    credit = worker.stake_account(worker.address).credit
    finalise_slot(worker, task, MERGE)
    paid = worker.stake_account(worker.address).credit - credit
    assert paid == MERGE_REWARD == pay_of(task.parameters, worker.slot(task.number, 0, MERGE))
    trained = pay_of(task.parameters, worker.slot(task.number, 0, 1))
    assert trained == credit == worker.pay_for(task.number, 0, steps=10, loss_bits=LOSS)
    assert worker.checkpoint(task.number, 0).state_root == merged
    assert worker.merge_inputs(task.number, 0, inputs) == (base, base, root)


def test_leases_that_run_or_ran_out_are_found_in_the_log(
    worker: LedgerClient, task: Task, requester: LedgerClient, chain: LocalChain
) -> None:
    worker.stake(ETHER)
    do_slot(worker, task, 1, seed=5)
    attempt = claim_slot(worker, task, 0)
    (slot,) = worker.leases(worker.address)
    assert (slot.task, slot.round, slot.slot, slot.attempt) == (task.number, 0, 0, attempt)
    assert requester.leases(requester.address) == []
    chain.advance(DEADLINE + 1)
    collect(worker, task)
    assert worker.leases(worker.address) == [slot]  # it ran out, and nobody can claim it any more
    worker.expire_lease(task.number, 0, attempt, 0)
    assert worker.leases(worker.address) == []


def test_merge_inputs_of_before_a_fall_are_in_the_log(
    worker: LedgerClient, challenger: DisputeClient, task: Task, chain: LocalChain
) -> None:
    worker.stake(ETHER)
    first, second = do_slot(worker, task, 0, seed=1), do_slot(worker, task, 1, seed=2)
    base, before = worker.base_root(task.number, 0), collect(worker, task)
    do_slot(worker, task, MERGE, seed=3)
    fell(challenger, task, 1, chain)
    assert waits(worker, task).startswith("thawed, 1 of 2 submitted, quorum 1 ")
    assert worker.merge_inputs(task.number, 0, before) == (base, first, second)
    redone = do_slot(challenger, task, 1, seed=4)
    after = collect(worker, task)
    assert "a merge of earlier inputs is submitted" in waits(worker, task)
    assert worker.merge_inputs(task.number, 0, before) == (base, first, second)
    assert worker.merge_inputs(task.number, 0, after) == (base, first, redone)
    assert worker.merge_inputs(task.number, 0, b"\x07" * 32) == ()


def test_refusals_of_rounds_say_what_to_do(worker: LedgerClient, task: Task, chain: LocalChain) -> None:
    do_slot(worker, task, 0, seed=1)
    with pytest.raises(ContractReverted) as caught:
        worker.collect(task.number, 0, 0)
    assert caught.value.error == "RoundNotReady"
    assert "`trainledger task show` tells which" in caught.value.remedy
    with pytest.raises(ContractReverted) as caught:
        claim_slot(worker, task, MERGE)
    assert caught.value.error == "InputsNotCollected"
    with pytest.raises(ContractReverted) as caught:
        worker.collect(task.number, 0, 7)
    assert (caught.value.error, bool(caught.value.remedy)) == ("WrongGeneration", True)
    chain.advance(DEADLINE + 1)
    collect(worker, task)
    assert worker.collect(task.number, 0, 0) is None  # it is done
    with pytest.raises(ContractReverted) as caught:
        claim_slot(worker, task, 1)
    assert caught.value.error == "RoundIsFrozen"
    assert caught.value.remedy.startswith("It is decided which slots count")


def test_describe_slot_names_slots_only_where_there_are_several() -> None:
    several, alone = round_parameters(), round_parameters(slots_per_round=1, merge_reward=0)
    assert [describe_slot(several, 4, slot) for slot in range(3)] == [
        "slot 0 of round 4",
        "slot 1 of round 4",
        "the merge of round 4",
    ]
    assert describe_slot(alone, 4, 0) == "round 4"


def test_describe_wait_before_all_inputs_are_collected() -> None:
    state = Round(
        task=1,
        round=0,
        deadline=1,
        frozen_at=1,
        generation=0,
        running=2,
        submitted=2,
        finalised=0,
        counted=2,
        collected=1,
        submitted_slots=frozenset({0, 1}),
        counted_slots=frozenset({0, 1}),
        inputs_root=bytes(32),
        ready=False,
    )
    merge = Slot(
        task=1,
        round=0,
        slot=2,
        worker="",
        attempt=0,
        deadline=60,
        status=SlotStatus.OPEN,
        open_games=0,
        payout="",
        steps=0,
        heldout_loss=0,
        state_root=bytes(32),
    )

    def said(state: Round, merge: Slot) -> str:
        return describe_wait(round_parameters(), state, merge, now=2)

    assert said(state, merge) == "2 slots count; 1 of 3 inputs of the merge are collected"
    collected = dataclasses.replace(state, collected=3)
    leased = dataclasses.replace(merge, status=SlotStatus.LEASED)
    assert said(collected, leased) == "the merge of 2 slots is leased until 01 Jan 00:01:00 UTC"
    assert said(collected, dataclasses.replace(merge, status=SlotStatus.FINALISED)) == "its merge is final"
    thawed = dataclasses.replace(state, frozen_at=0, generation=2, submitted=1, deadline=60)
    assert said(thawed, merge) == "thawed 2 times, 1 of 2 submitted, quorum 1 after 01 Jan 00:01:00 UTC"
    late = dataclasses.replace(thawed, generation=0, submitted=0, counted=0, deadline=1)
    assert said(late, merge) == "0 of 2 submitted, quorum 1 since 01 Jan 00:00:01 UTC"
