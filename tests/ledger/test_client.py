"""The typed client, through the whole life of a task and every refusal that a user can meet."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from eth_utils.crypto import keccak
from life import BOND, ETHER, FEE, LEASE, LOSS, TENSORS, WINDOW, ClientFor, WalletFactory, claim, parameters, submit
from states import make_state
from web3 import Web3

from ledger.anvil import LocalChain
from ledger.client import LedgerClient
from ledger.deploy import Deployment
from ledger.errors import (
    ChainError,
    ChainUnreachable,
    ContractReverted,
    StaleDeployment,
    WalletError,
)
from ledger.performance import float_bits
from ledger.rpc import connect
from ledger.types import Admission, SlotStatus, Task

pytestmark = [pytest.mark.chain, pytest.mark.usefixtures("solvent")]


def test_whole_life_pays_and_leaves_a_lineage(
    requester: LedgerClient, worker: LedgerClient, task: Task, chain: LocalChain
) -> None:
    before = worker.token_balance(worker.address)
    assert requester.escrow(task.number) == task.parameters.total_reward
    states = [make_state(LOSS, TENSORS, seed) for seed in (1, 2)]
    for number, state in enumerate(states):
        attempt = claim(worker, task, number)
        leased = worker.slot(task.number, number)
        assert (leased.status, leased.worker, leased.payout) == (SlotStatus.LEASED, worker.address, worker.address)
        assert worker.stake_account(worker.address).locked == BOND
        assert submit(worker, task, number, attempt, state) is not None
        assert worker.slot(task.number, number).state_root == state.root
        chain.advance(WINDOW + 1)
        assert requester.finalise(task.number, number, attempt=attempt, state_root=state.root) is not None
    # gain 1.5 of the 1.5 (round 0) and 3 (round 1) asked for: paid in full, then by half
    account = worker.stake_account(worker.address)
    assert (account.staked, account.locked, account.free, account.credit) == (ETHER, 0, ETHER, 15 * ETHER)
    assert [worker.pay_for(task.number, number, steps=10, loss_bits=LOSS) for number in (0, 1)] == [
        10 * ETHER,
        5 * ETHER,
    ]
    assert worker.withdraw() == 15 * ETHER
    assert worker.token_balance(worker.address) == before + 15 * ETHER
    assert requester.withdraw() == 5 * ETHER
    lineage = requester.lineage(task.number)
    assert [entry.state_root for entry in lineage] == [state.root for state in states]
    assert [entry.parent for entry in lineage] == [task.parameters.initial_state_root, states[0].root]
    assert [(entry.round, entry.worker, entry.steps, entry.heldout_loss) for entry in lineage] == [
        (number, worker.address, 10, LOSS) for number in (0, 1)
    ]
    final = requester.task(task.number)
    assert final.complete
    assert requester.escrow(task.number) == 0


def test_post_task_reads_back_as_posted(requester: LedgerClient, task: Task) -> None:
    assert task.parameters == parameters()
    assert (task.requester, task.current_round, task.closed, task.complete) == (requester.address, 0, False, False)
    assert requester.tasks()[task.number - 1] == task
    assert requester.store_url(task.number) == "file:///store"
    assert requester.base_root(task.number, 0) == b"\4" * 32
    assert requester.base_root(task.number, 1) == bytes(32)


def test_find_task_finds_the_requesters_own(requester: LedgerClient, worker: LedgerClient) -> None:
    unique = keccak(text="a specification of its own")
    assert requester.find_task(unique, requester.address) is None
    number = requester.post_task(parameters(specification_hash=unique), "")
    assert requester.find_task(unique, requester.address) == number
    assert requester.find_task(unique, worker.address) is None


def test_post_task_invalid_parameter_is_named(requester: LedgerClient) -> None:
    with pytest.raises(ContractReverted) as caught:
        requester.post_task(parameters(bond=1), "")
    assert (caught.value.error, caught.value.arguments) == ("InvalidParameter", {"field": "bond", "value": 1})


def test_unknown_task_says_which_there_are(requester: LedgerClient, worker: LedgerClient, task: Task) -> None:
    count = requester.task_count()
    ghost = dataclasses.replace(task, number=999)
    calls: list[Callable[[], object]] = [
        lambda: requester.task(999),
        lambda: requester.slot(999, 0),
        lambda: requester.base_root(999, 0),
        lambda: requester.store_url(999),
        lambda: requester.close_task(999),
        lambda: claim(worker, ghost),
        lambda: requester.finalise(999, 0, attempt=0, state_root=b"\1" * 32),
    ]
    for call in calls:
        with pytest.raises(ContractReverted, match="Task 999 does not exist; there ") as caught:
            call()
        assert (caught.value.error, caught.value.arguments) == ("UnknownTask", {"task": 999})
        assert caught.value.problem.endswith(f"{count}.")


def test_claim_slot_taken_names_the_holder(
    worker: LedgerClient, task: Task, client_for: ClientFor, funded_wallet: WalletFactory
) -> None:
    claim(worker, task)
    rival = client_for(funded_wallet())
    rival.stake(ETHER)
    with pytest.raises(ContractReverted) as caught:
        rival.claim(task, 0, base_root=b"\4" * 32, attempt=rival.next_attempt(task.number, 0), worker=rival.address)
    deadline = worker.slot(task.number, 0).deadline
    assert caught.value.error == "SlotTaken"
    assert caught.value.arguments == {"worker": worker.address, "status": SlotStatus.LEASED, "deadline": deadline}


@pytest.mark.parametrize(
    ("changes", "error", "arguments"),
    [
        ({"base_root": b"\x09" * 32}, "WrongBase", {"given": "0x" + "09" * 32, "expected": "0x" + "04" * 32}),
        ({"attempt": 7}, "WrongAttempt", {"attempt": 7, "current": 0}),
    ],
)
def test_claim_of_something_else_is_refused(
    worker: LedgerClient, task: Task, changes: dict[str, Any], error: str, arguments: dict[str, Any]
) -> None:
    assert worker.next_attempt(task.number, 0) == 0
    fields: dict[str, Any] = {"base_root": b"\4" * 32, "attempt": 0, "worker": worker.address}
    with pytest.raises(ContractReverted) as caught:
        worker.claim(task, 0, **(fields | changes))
    assert (caught.value.error, caught.value.arguments) == (error, arguments)


def test_submit_twice_is_success_once(worker: LedgerClient, task: Task, web3: Web3) -> None:
    attempt, state = claim(worker, task), make_state(LOSS, TENSORS)
    assert submit(worker, task, 0, attempt, state) is not None
    sent = web3.eth.get_transaction_count(Web3.to_checksum_address(worker.address))
    assert submit(worker, task, 0, attempt, state) is None
    assert web3.eth.get_transaction_count(Web3.to_checksum_address(worker.address)) == sent


def test_submit_another_root_afterwards_is_refused(worker: LedgerClient, task: Task) -> None:
    attempt = claim(worker, task)
    submit(worker, task, 0, attempt, make_state(LOSS, TENSORS, 1))
    with pytest.raises(ContractReverted) as caught:
        submit(worker, task, 0, attempt, make_state(LOSS, TENSORS, 2))
    assert caught.value.error == "WrongStatus"


def test_submit_wrong_loss_is_refused(worker: LedgerClient, task: Task) -> None:
    attempt = claim(worker, task)
    with pytest.raises(ContractReverted) as caught:
        submit(worker, task, 0, attempt, make_state(LOSS, TENSORS), loss_bits=float_bits(1.0))
    assert caught.value.error == "WrongLossProof"


def test_submit_after_the_lease_is_refused(worker: LedgerClient, task: Task, chain: LocalChain) -> None:
    attempt = claim(worker, task)
    deadline = worker.slot(task.number, 0).deadline
    chain.advance(LEASE + 5)
    with pytest.raises(ContractReverted) as caught:
        submit(worker, task, 0, attempt, make_state(LOSS, TENSORS))
    assert caught.value.error == "LeaseOver"
    assert caught.value.arguments["deadline"] == deadline
    assert caught.value.arguments["nowTime"] > deadline


def test_expire_lease_reopens_the_slot_and_burns_the_fee(
    requester: LedgerClient, worker: LedgerClient, task: Task, chain: LocalChain
) -> None:
    attempt = claim(worker, task)
    with pytest.raises(ContractReverted) as caught:
        requester.expire_lease(task.number, 0, attempt)
    assert caught.value.error == "LeaseStillRunning"
    chain.advance(LEASE + 5)
    assert worker.next_attempt(task.number, 0) == attempt + 1
    requester.expire_lease(task.number, 0, attempt)
    assert worker.slot(task.number, 0).status == SlotStatus.OPEN
    account = worker.stake_account(worker.address)
    assert (account.staked, account.locked) == (ETHER - FEE, 0)
    assert claim(worker, task) == attempt + 1


def test_finalise_too_early_is_refused(worker: LedgerClient, task: Task) -> None:
    attempt, state = claim(worker, task), make_state(LOSS, TENSORS)
    submit(worker, task, 0, attempt, state)
    with pytest.raises(ContractReverted) as caught:
        worker.finalise(task.number, 0, attempt=attempt, state_root=state.root)
    assert caught.value.error == "WindowStillOpen"
    assert caught.value.arguments["deadline"] == worker.slot(task.number, 0).deadline


def test_finalise_twice_pays_once(worker: LedgerClient, task: Task, chain: LocalChain) -> None:
    attempt, state = claim(worker, task), make_state(LOSS, TENSORS)
    submit(worker, task, 0, attempt, state)
    chain.advance(WINDOW + 1)
    assert worker.finalise(task.number, 0, attempt=attempt, state_root=state.root) is not None
    assert worker.finalise(task.number, 0, attempt=attempt, state_root=state.root) is None
    assert worker.stake_account(worker.address).credit == 10 * ETHER


def test_checkpoint_before_finalising_is_refused(worker: LedgerClient, task: Task) -> None:
    with pytest.raises(ContractReverted) as caught:
        worker.checkpoint(task.number, 0)
    assert caught.value.error == "WrongStatus"


def test_ticket_admission_takes_work(requester: LedgerClient, worker: LedgerClient) -> None:
    target = 2**256 // 256
    number = requester.post_task(parameters(admission=Admission.TICKET, ticket_target=target), "")
    task = requester.task(number)
    with pytest.raises(ContractReverted) as caught:
        claim(worker, task)
    assert caught.value.error in ("TicketTooWeak", "TicketBlockUnknown")
    attempt, base = worker.next_attempt(number, 0), worker.base_root(number, 0)
    fields: dict[str, Any] = {"attempt": attempt, "base_root": base, "worker": worker.address}
    ticket = worker.mine_ticket(task, 0, **fields, seconds=60)
    assert ticket is not None
    worker.claim(task, 0, **fields, ticket=ticket)
    assert worker.slot(number, 0).worker == worker.address


def test_write_without_account_says_so(web3: Web3, deployment: Deployment) -> None:
    reader = LedgerClient(web3, deployment)
    assert reader.token_symbol == "TRAIN"
    with pytest.raises(WalletError, match="needs an account"):
        reader.withdraw()


def test_read_where_nothing_is_deployed_is_stale(web3: Web3, deployment: Deployment) -> None:
    nobody = str(Web3.to_checksum_address("0x" + "00" * 19 + "cc"))
    client = LedgerClient(web3, dataclasses.replace(deployment, ledger=nobody))
    with pytest.raises(StaleDeployment, match=f"What is at {nobody} does not answer as TrainingLedger"):
        client.task_count()


def test_read_chain_down_is_unreachable(deployment: Deployment, chain: LocalChain, tmp_path: Any) -> None:
    with LocalChain(tmp_path, 0) as other:
        client = LedgerClient(connect(other.rpc_url), deployment)
    with pytest.raises(ChainUnreachable, match="trainledger up"):
        client.task_count()


def test_chain_time_moves_with_the_chain(worker: LedgerClient, chain: LocalChain) -> None:
    before = worker.chain_time()
    after = chain.advance(50)
    assert before + 50 <= after <= worker.chain_time()
    assert worker.block_number() >= 1


def test_block_hash_is_empty_beyond_the_chain(worker: LedgerClient, web3: Web3) -> None:
    number = worker.block_number()
    assert worker.block_hash(number) == bytes(web3.eth.get_block(number)["hash"])
    assert worker.block_hash(number + 10_000) == b""


def test_store_url_pruned_log_is_named(requester: LedgerClient, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.client.fetch_events", lambda *arguments, **options: iter(()))
    with pytest.raises(ChainError, match=f"no longer has the log of task {task.number}"):
        requester.store_url(task.number)
