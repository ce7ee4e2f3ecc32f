"""What clients of either ledger share: tokens, stake and credit, the chain itself, and how calls are made."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from web3 import Web3
from web3.contract import Contract
from web3.contract.contract import ContractFunction
from web3.exceptions import BadFunctionCallOutput, ContractLogicError, Web3Exception

from ledger.compile import Artifact, compile_contracts
from ledger.deploy import Deployment
from ledger.errors import (
    ChainError,
    ContractReverted,
    InsufficientFunds,
    StaleDeployment,
    TransactionFailed,
    WalletError,
)
from ledger.events import decode_logs
from ledger.reverts import ErrorDecoder, revert_data
from ledger.rpc import endpoint
from ledger.tx import Receipt, TransactionSender
from ledger.types import Event, StakeAccount, VaultTotals

__all__ = ["AccountClient", "AccountReader", "refusal_of"]

_BEHIND_SECONDS = 10.0
_PERMIT_SECONDS = 3600  # long enough for a congested chain, short enough for a signature that went astray
_PERMIT_TYPES = {
    "EIP712Domain": [
        {"name": "name", "type": "string"},
        {"name": "version", "type": "string"},
        {"name": "chainId", "type": "uint256"},
        {"name": "verifyingContract", "type": "address"},
    ],
    "Permit": [
        {"name": "owner", "type": "address"},
        {"name": "spender", "type": "address"},
        {"name": "value", "type": "uint256"},
        {"name": "nonce", "type": "uint256"},
        {"name": "deadline", "type": "uint256"},
    ],
}


class AccountReader:
    """The contracts of one deployment, read at the newest block.

    After a transaction, reads wait until the node has that transaction's block: a provider with several nodes behind
    one URL may answer from one that lags. All reads raise ChainUnreachable without an answer.

    Args:
        open_tasks: read the ledger of open tasks and its dispute game, which have numbers of their own, in place of the
            training ledger and its game.
    """

    def __init__(
        self,
        web3: Web3,
        deployment: Deployment,
        *,
        artifacts: Mapping[str, Artifact] | None = None,
        open_tasks: bool = False,
    ) -> None:
        self.web3 = web3
        self.deployment = deployment
        self.artifacts = artifacts if artifacts is not None else compile_contracts()
        self.errors = ErrorDecoder(self.artifacts)
        self.open_tasks = open_tasks
        self._names: dict[str, str] = {}
        self._token = self._contract("TrainingToken", deployment.token)
        self._vault = self._contract("StakeVault", deployment.vault)
        if open_tasks:
            self._ledger = self._contract("OpenLedger", deployment.open_ledger)
            self._game = self._contract("DisputeGame", deployment.open_game)
        else:
            self._ledger = self._contract("TrainingLedger", deployment.ledger)
            self._game = self._contract("DisputeGame", deployment.game)
        self._symbol: str | None = None
        self._behind_seconds = _BEHIND_SECONDS

    def task_count(self) -> int:
        """Tasks ever posted; they are numbered from 1."""
        return int(self._read(self._ledger.functions.taskCount()))

    # --- money ---

    def stake_account(self, owner: str) -> StakeAccount:
        """What `owner` has in the vault: stake, stake on its way out, and credit to withdraw."""
        who = Web3.to_checksum_address(owner)
        staked, locked = self._read(self._vault.functions.stakeOf(who))
        unbonding, release = self._read(self._vault.functions.unbondingOf(who))
        return StakeAccount(
            staked=staked,
            locked=locked,
            unbonding=unbonding,
            unbonding_release=release,
            credit=int(self._read(self._vault.functions.creditOf(who))),
            payout=str(self._read(self._vault.functions.payoutOf(who))),
        )

    def totals(self) -> VaultTotals:
        """The vault's books against the tokens that it holds."""
        return VaultTotals(
            held=self.token_balance(self.deployment.vault),
            staked=int(self._read(self._vault.functions.totalStaked())),
            owed=int(self._read(self._vault.functions.totalOwed())),
        )

    def is_operator(self, owner: str, operator: str) -> bool:
        """Whether `operator` may claim and submit on `owner`'s stake."""
        pair = (Web3.to_checksum_address(owner), Web3.to_checksum_address(operator))
        return bool(self._read(self._vault.functions.isOperator(*pair)))

    def unbonding_delay(self) -> int:
        """Seconds between asking for stake and getting it."""
        return int(self._read(self._vault.functions.unbondingDelay()))

    def token_balance(self, address: str) -> int:
        """Tokens of an account, wei."""
        return int(self._read(self._token.functions.balanceOf(Web3.to_checksum_address(address))))

    def ether_balance(self, address: str) -> int:
        """Ether of an account, wei."""
        self._wait_for_node()
        return int(self.web3.eth.get_balance(Web3.to_checksum_address(address), "latest"))

    @property
    def token_symbol(self) -> str:
        """Such as TRAIN."""
        if self._symbol is None:
            self._symbol = str(self._read(self._token.functions.symbol()))
        return self._symbol

    # --- the chain ---

    def chain_time(self) -> int:
        """Time of the newest block, Unix seconds: what leases and windows are measured by."""
        self._wait_for_node()
        return int(self.web3.eth.get_block("latest")["timestamp"])

    def block_number(self) -> int:
        """Number of the newest block."""
        self._wait_for_node()
        return int(self.web3.eth.block_number)

    def _floor(self) -> int:
        """The block that reads must have seen."""
        return 0

    def _wait_for_node(self) -> None:
        floor = self._floor()
        if floor == 0:
            return
        end = time.monotonic() + self._behind_seconds
        while (newest := self.web3.eth.block_number) < floor:
            if time.monotonic() >= end:
                raise ChainError(
                    f"The node at {endpoint(self.web3)} is behind: it is at block {newest}, and a transaction of "
                    f"this account was mined in block {floor}.",
                    remedy="Wait until it has caught up, or name another node with --rpc-url.",
                )
            time.sleep(0.2)

    def _read(self, call: ContractFunction, *, task: int | None = None) -> Any:
        self._wait_for_node()
        name = self._names[str(call.address)]
        try:
            return call.call(block_identifier="latest")
        except ContractLogicError as problem:
            reverted = self.errors.decode(name, call.fn_name, revert_data(problem))
            if reverted.error == "UnknownTask" and task is not None:
                raise self._unknown_task(task, reverted) from None
            raise reverted from None
        except BadFunctionCallOutput:
            raise StaleDeployment(
                f"What is at {call.address} does not answer as {name}.",
                remedy="Deploy again with `trainledger deploy`, or name another record with --deployment.",
            ) from None
        except Web3Exception as problem:
            raise ChainError(
                f"The node at {endpoint(self.web3)} refuses {name}.{call.fn_name}: {problem}."
            ) from problem

    def _unknown_task(self, task: int, reverted: ContractReverted) -> ContractReverted:
        count = self.task_count()
        there = {0: "there is none yet", 1: "there is only task 1"}.get(count, f"there are tasks 1 to {count}")
        reverted.problem = f"{'Open task' if self.open_tasks else 'Task'} {task} does not exist; {there}."
        return reverted

    def _contract(self, name: str, address: str) -> Contract:
        artifact = self.artifacts[name]
        self._names[address] = name
        return self.web3.eth.contract(address=Web3.to_checksum_address(address), abi=artifact.abi)


class AccountClient(AccountReader):
    """Reads and writes of one account.

    Each write is simulated, sent once, awaited, and raises what `TransactionSender.send` raises. Where the contract
    says that the very same thing has been done already, a write succeeds without a transaction and returns None.

    Args:
        sender: who signs; without one only reads work.
        open_tasks: as `AccountReader` has it.
    """

    def __init__(
        self,
        web3: Web3,
        deployment: Deployment,
        sender: TransactionSender | None = None,
        *,
        artifacts: Mapping[str, Artifact] | None = None,
        open_tasks: bool = False,
    ) -> None:
        super().__init__(web3, deployment, artifacts=artifacts, open_tasks=open_tasks)
        self._sender = sender

    @property
    def address(self) -> str:
        """The account that writes.

        Raises:
            WalletError: the client only reads.
        """
        return self._writer().address

    # --- stakers ---

    def stake(self, amount: int, owner: str | None = None) -> Receipt:
        """Stakes `amount` wei of this account's tokens, for `owner` where named.

        Raises:
            InsufficientFunds: too few tokens.
        """
        who = Web3.to_checksum_address(owner if owner is not None else self.address)
        self._need_tokens(amount)
        permit = self._permit(amount)
        if permit is None:
            self._approve(amount)
            return self._write(self._vault.functions.stake(who, amount))
        return self._write(self._vault.functions.stakeWithPermit(who, amount, *permit))

    def request_unbond(self, amount: int) -> Receipt:
        """Starts to take free stake out; `complete_unbond` pays it after the delay."""
        return self._write(self._vault.functions.requestUnbond(amount))

    def complete_unbond(self) -> Receipt:
        """Pays out unbonding stake whose delay has passed."""
        return self._write(self._vault.functions.completeUnbond())

    def set_operator(self, operator: str, allowed: bool) -> Receipt:
        """Allows or forbids a hot key to claim and submit on this account's stake."""
        return self._write(self._vault.functions.setOperator(Web3.to_checksum_address(operator), allowed))

    def set_payout(self, payout: str) -> Receipt:
        """Names the address that claims made from now on will pay; the zero address means this account."""
        return self._write(self._vault.functions.setPayout(Web3.to_checksum_address(payout)))

    def withdraw(self, to: str | None = None) -> int:
        """Sends all of this account's credit to itself or to `to`; returns the amount, wei.

        Raises:
            ContractReverted: `NothingToWithdraw`.
        """
        functions = self._vault.functions
        receipt = self._write(
            functions.withdraw() if to is None else functions.withdrawTo(Web3.to_checksum_address(to))
        )
        return sum(int(str(event.arguments["amount"])) for event in self._events(receipt, "Withdrawn"))

    # --- money ---

    def transfer_token(self, to: str, amount: int) -> Receipt:
        """Sends `amount` wei of the token.

        Raises:
            InsufficientFunds: too few tokens.
        """
        self._need_tokens(amount)
        return self._write(self._token.functions.transfer(Web3.to_checksum_address(to), amount))

    def transfer_ether(self, to: str, amount: int) -> Receipt:
        """Sends `amount` wei of ether, for somebody's gas."""
        request: dict[str, Any] = {"to": Web3.to_checksum_address(to), "data": "0x"}
        return self._writer().send_request(request, value=amount, contract="account", method="transfer")

    def _writer(self) -> TransactionSender:
        if self._sender is None:
            raise WalletError(
                "This needs an account to sign with.", remedy="Name one with --account; `trainledger account list`."
            )
        return self._sender

    def _floor(self) -> int:
        return self._sender.last_block if self._sender is not None else 0

    def _write(self, call: ContractFunction, *, task: int | None = None) -> Receipt:
        self._wait_for_node()
        try:
            return self._writer().send(call, contract=self._names[str(call.address)])
        except ContractReverted as problem:
            if problem.error == "UnknownTask" and task is not None:
                raise self._unknown_task(task, problem) from None
            raise

    def _write_once(self, call: ContractFunction, *, done: str, task: int) -> Receipt | None:
        try:
            return self._write(call, task=task)
        except (ContractReverted, TransactionFailed) as problem:
            if refusal_of(problem) == done:
                return None
            raise

    def _events(self, receipt: Receipt, name: str) -> list[Event]:
        return decode_logs(
            self.web3,
            self.deployment,
            receipt.logs,
            names={name},
            open_tasks=self.open_tasks,
            artifacts=self.artifacts,
        )

    def _need_tokens(self, amount: int) -> None:
        available = self.token_balance(self.address)
        if available < amount:
            raise InsufficientFunds(
                self.address,
                self.token_symbol,
                available,
                amount,
                remedy="Get more tokens; on the local chain `trainledger account fund` gives some.",
            )

    def _permit(self, amount: int) -> tuple[int, int, bytes, bytes] | None:
        """(deadline, v, r, s) of an EIP-2612 permit for the vault; None where the token knows no permits."""
        owner = Web3.to_checksum_address(self.address)
        try:
            _, name, version, chain, verifier, _, _ = self._token.functions.eip712Domain().call()
            nonce = self._token.functions.nonces(owner).call()
        except Web3Exception:
            return None
        deadline = self.chain_time() + _PERMIT_SECONDS
        signature = self._writer().wallet.sign_typed(
            {
                "types": _PERMIT_TYPES,
                "primaryType": "Permit",
                "domain": {"name": name, "version": version, "chainId": chain, "verifyingContract": verifier},
                "message": {
                    "owner": owner,
                    "spender": self.deployment.vault,
                    "value": amount,
                    "nonce": nonce,
                    "deadline": deadline,
                },
            }
        )
        return deadline, signature.v, signature.r.to_bytes(32, "big"), signature.s.to_bytes(32, "big")

    def _approve(self, amount: int) -> None:
        self._write(self._token.functions.approve(self.deployment.vault, amount))


def refusal_of(problem: ContractReverted | TransactionFailed) -> str | None:
    """Name of the contract's refusal; of a transaction that somebody else's was mined before, what it meets now."""
    found = problem if isinstance(problem, ContractReverted) else problem.__cause__
    return found.error if isinstance(found, ContractReverted) else None
