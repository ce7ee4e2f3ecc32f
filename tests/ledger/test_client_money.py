"""Stakes, escrow, credit and payouts through the typed client; and what is said when money is missing."""

from __future__ import annotations

from typing import Any

import pytest
from eth_utils.crypto import keccak
from life import BOND, ETHER, LOSS, TENSORS, WINDOW, ClientFor, WalletFactory, claim, parameters, submit
from states import make_state
from web3 import Web3

from ledger.anvil import LocalChain
from ledger.client import LedgerClient
from ledger.deploy import LOCAL_PARAMETERS
from ledger.errors import (
    ContractReverted,
    InsufficientFunds,
)
from ledger.types import ZERO_ADDRESS, Admission, SlotStatus, Task

pytestmark = [pytest.mark.chain, pytest.mark.usefixtures("solvent")]


def test_close_task_refunds_the_escrow(requester: LedgerClient, worker: LedgerClient, task: Task) -> None:
    with pytest.raises(ContractReverted) as caught:
        worker.close_task(task.number)
    assert caught.value.error == "OnlyRequester"
    requester.close_task(task.number)
    assert requester.task(task.number).closed
    assert requester.withdraw() == task.parameters.total_reward
    with pytest.raises(ContractReverted) as caught:
        claim(worker, task)
    assert (caught.value.error, caught.value.arguments) == ("TaskIsClosed", {"task": task.number})


def test_unbonding_takes_its_time(worker: LedgerClient, chain: LocalChain) -> None:
    before = worker.token_balance(worker.address)
    worker.request_unbond(ETHER // 4)
    account = worker.stake_account(worker.address)
    assert (account.staked, account.unbonding) == (ETHER - ETHER // 4, ETHER // 4)
    with pytest.raises(ContractReverted) as caught:
        worker.complete_unbond()
    assert caught.value.error == "StillUnbonding"
    assert caught.value.arguments["releaseTime"] == account.unbonding_release
    chain.advance(LOCAL_PARAMETERS.unbonding_delay + 1)
    worker.complete_unbond()
    assert worker.token_balance(worker.address) == before + ETHER // 4


def test_stake_for_somebody_else(worker: LedgerClient, requester: LedgerClient) -> None:
    requester.stake(5, owner=worker.address)
    assert worker.stake_account(worker.address).staked == ETHER + 5
    assert requester.stake_account(requester.address).staked == 0


def test_stake_more_than_there_is_named(client_for: ClientFor, funded_wallet: WalletFactory) -> None:
    client = client_for(funded_wallet(tokens=3))
    with pytest.raises(InsufficientFunds) as caught:
        client.stake(4)
    assert (caught.value.asset, caught.value.available, caught.value.needed) == ("TRAIN", 3, 4)


def test_withdraw_nothing_is_named(worker: LedgerClient) -> None:
    with pytest.raises(ContractReverted) as caught:
        worker.withdraw()
    assert (caught.value.error, caught.value.arguments) == ("NothingToWithdraw", {"account": worker.address})


def test_withdraw_to_another_address(requester: LedgerClient, task: Task) -> None:
    requester.close_task(task.number)
    to = str(Web3.to_checksum_address("0x" + "00" * 19 + "ee"))
    before = requester.token_balance(to)
    assert requester.withdraw(to) == task.parameters.total_reward
    assert requester.token_balance(to) == before + task.parameters.total_reward


def test_transfer_ether_and_token(requester: LedgerClient) -> None:
    to = str(Web3.to_checksum_address(keccak(text="receiver")[12:]))
    requester.transfer_ether(to, 11)
    requester.transfer_token(to, 12)
    assert (requester.ether_balance(to), requester.token_balance(to)) == (11, 12)


def test_post_task_too_few_tokens_is_named(client_for: ClientFor, funded_wallet: WalletFactory) -> None:
    poor = client_for(funded_wallet(tokens=19 * ETHER))
    with pytest.raises(InsufficientFunds) as caught:
        poor.post_task(parameters(), "")
    assert (caught.value.account, caught.value.asset) == (poor.address, "TRAIN")
    assert (caught.value.available, caught.value.needed) == (19 * ETHER, 20 * ETHER)


def test_post_task_no_ether_is_named(client_for: ClientFor, funded_wallet: WalletFactory) -> None:
    poor = client_for(funded_wallet(ether=0))
    with pytest.raises(InsufficientFunds) as caught:
        poor.post_task(parameters(), "")
    assert (caught.value.asset, caught.value.available) == ("ether", 0)


def test_post_task_is_one_transaction_by_permit(requester: LedgerClient, web3: Web3) -> None:
    address = Web3.to_checksum_address(requester.address)
    requester.post_task(parameters(), "")
    assert web3.eth.get_transaction_count(address) == 1


def test_post_task_without_permits_approves_first(
    requester: LedgerClient, web3: Web3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requester, "_permit", lambda amount: None)
    number = requester.post_task(parameters(), "")
    assert requester.escrow(number) == 20 * ETHER
    assert web3.eth.get_transaction_count(Web3.to_checksum_address(requester.address)) == 2


def test_claim_by_an_operator_pays_the_named_address(
    worker: LedgerClient, task: Task, client_for: ClientFor, funded_wallet: WalletFactory, chain: LocalChain
) -> None:
    hot = client_for(funded_wallet(tokens=0))
    cold = "0x00000000000000000000000000000000000000Dd"
    cold = str(Web3.to_checksum_address(cold.lower()))
    fields: dict[str, Any] = {"base_root": b"\4" * 32, "attempt": 0, "worker": worker.address}
    with pytest.raises(ContractReverted) as caught:
        hot.claim(task, 0, **fields)
    assert caught.value.error == "NotAuthorised"
    assert caught.value.arguments == {"caller": hot.address, "worker": worker.address}
    worker.set_operator(hot.address, True)
    worker.set_payout(cold)
    assert worker.is_operator(worker.address, hot.address)
    assert worker.stake_account(worker.address).payout == cold
    hot.claim(task, 0, **fields)
    state = make_state(LOSS, TENSORS)
    submit(hot, task, 0, 0, state)
    chain.advance(WINDOW + 1)
    hot.finalise(task.number, 0, attempt=0, state_root=state.root)
    assert hot.stake_account(cold).credit == 10 * ETHER
    worker.set_operator(hot.address, False)
    worker.set_payout(ZERO_ADDRESS)
    assert not worker.is_operator(worker.address, hot.address)
    assert worker.stake_account(worker.address).payout == worker.address


def test_claim_without_stake_names_what_is_missing(
    client_for: ClientFor, funded_wallet: WalletFactory, task: Task
) -> None:
    bare = client_for(funded_wallet())
    with pytest.raises(ContractReverted) as caught:
        claim(bare, task)
    assert caught.value.error == "InsufficientFreeStake"
    assert caught.value.arguments == {"owner": bare.address, "free": 0, "needed": BOND}
    assert "Stake more" in caught.value.remedy


def test_stake_admission_needs_the_stake(requester: LedgerClient, worker: LedgerClient) -> None:
    number = requester.post_task(parameters(admission=Admission.STAKE, minimum_stake=2 * ETHER), "")
    with pytest.raises(ContractReverted) as caught:
        claim(worker, requester.task(number))
    assert caught.value.error == "StakeTooSmall"
    assert caught.value.arguments == {"worker": worker.address, "staked": ETHER, "minimumStake": 2 * ETHER}
    worker.stake(ETHER)
    claim(worker, requester.task(number))
    assert worker.slot(number, 0).status == SlotStatus.LEASED
