"""Everything that trainledger does with its contracts. With `reader`, the one place that names ABI methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any

from web3 import Web3
from web3.contract.contract import ContractFunction
from web3.exceptions import Web3Exception

from ledger.compile import Artifact
from ledger.deploy import Deployment
from ledger.errors import ChainError, ContractReverted, InsufficientFunds, TransactionFailed, WalletError
from ledger.events import decode_logs, fetch_events
from ledger.reader import LedgerReader
from ledger.ticket import Ticket, find_ticket
from ledger.tx import Receipt, TransactionSender
from ledger.types import Event, Task, TaskParameters

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


class LedgerClient(LedgerReader):
    """Reads and writes of one account.

    Each write is simulated, sent once, awaited, and raises what `TransactionSender.send` raises. Where the contract
    says that the very same thing has been done already, a write succeeds without a transaction and returns None.

    Args:
        sender: who signs; without one only reads work.
    """

    def __init__(
        self,
        web3: Web3,
        deployment: Deployment,
        sender: TransactionSender | None = None,
        *,
        artifacts: Mapping[str, Artifact] | None = None,
    ) -> None:
        super().__init__(web3, deployment, artifacts=artifacts)
        self._sender = sender

    @property
    def address(self) -> str:
        """The account that writes.

        Raises:
            WalletError: the client only reads.
        """
        return self._writer().address

    # --- requesters ---

    def post_task(self, parameters: TaskParameters, store_url: str) -> int:
        """Posts a task and escrows its whole reward, in one transaction; returns the task's number.

        Posting twice makes two tasks: see `find_task`.

        Raises:
            InsufficientFunds: too few tokens for the reward.
        """
        self._need_tokens(parameters.total_reward)
        fields = astuple(parameters)
        permit = self._permit(parameters.total_reward)
        if permit is None:
            self._approve(parameters.total_reward)
            call = self._ledger.functions.postTask(fields, store_url)
        else:
            call = self._ledger.functions.postTaskWithPermit(fields, store_url, *permit)
        receipt = self._write(call)
        for event in self._events(receipt, "TaskPosted"):
            return int(str(event.arguments["task"]))
        raise ChainError(f"Transaction {receipt.transaction} posted no task.", remedy="Check the deployment record.")

    def find_task(self, specification_hash: bytes, requester: str) -> int | None:
        """The newest task that `requester` posted with this specification: for going on after a crash."""
        found = [
            event.arguments["task"]
            for event in fetch_events(
                self.web3,
                self.deployment,
                names={"TaskPosted"},
                topics=[None, bytes(12) + bytes.fromhex(requester[2:]), specification_hash],
                artifacts=self.artifacts,
            )
        ]
        return int(str(found[-1])) if found else None

    def store_url(self, task: int) -> str:
        """Where the requester says the task's specification, data set and first state can be fetched.

        Raises:
            ContractReverted: there is no such task.
            ChainError: the node does not keep logs that far back.
        """
        self.task(task)
        for event in fetch_events(
            self.web3,
            self.deployment,
            names={"TaskPosted"},
            topics=[task.to_bytes(32, "big")],
            artifacts=self.artifacts,
        ):
            return str(event.arguments["storeUrl"])
        raise ChainError(
            f"The node no longer has the log of task {task}, which names its store.",
            remedy="Name the store with --store, or a node that keeps the history with --rpc-url.",
        )

    def close_task(self, task: int) -> Receipt:
        """Stops new claims of a task and refunds what no running slot can still earn; the requester only."""
        return self._write(self._ledger.functions.closeTask(task), task=task)

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

    # --- workers ---

    def mine_ticket(
        self,
        task: Task,
        round_number: int,
        *,
        attempt: int,
        worker: str,
        base_root: bytes,
        seconds: float,
        slot: int = 0,
    ) -> Ticket | None:
        """A proof-of-work ticket for a claim, bound to a recent block; None if none was found in that time."""
        # Nodes simulate a call as if inside the newest block, and the EVM does not know a block's hash from inside it:
        # a ticket bound to the newest block itself would be refused until the next one.
        block = self.web3.eth.get_block(max(self.block_number() - 1, 0))
        return find_ticket(
            chain_id=self.deployment.chain_id,
            ledger=self.deployment.ledger,
            task=task.number,
            round_number=round_number,
            slot=slot,
            attempt=attempt,
            worker=worker,
            base_root=base_root,
            block=block["number"],
            block_hash=bytes(block["hash"]),
            target=task.parameters.ticket_target,
            seconds=seconds,
        )

    def claim(
        self,
        task: Task,
        round_number: int,
        *,
        base_root: bytes,
        attempt: int,
        worker: str,
        ticket: Ticket | None = None,
        slot: int = 0,
    ) -> Receipt:
        """Leases a slot on the stake of `worker`: this account, or one that made it an operator.

        Raises:
            ContractReverted: among others `SlotTaken`, `WrongAttempt`, `InsufficientFreeStake`, `TaskIsClosed`.
        """
        request = (
            task.number,
            round_number,
            slot,
            attempt,
            task.parameters.specification_hash,
            base_root,
            Web3.to_checksum_address(worker),
            ticket.block if ticket is not None else 0,
            ticket.nonce if ticket is not None else 0,
        )
        return self._write(self._ledger.functions.claim(request), task=task.number)

    def submit(
        self,
        task: int,
        round_number: int,
        *,
        attempt: int,
        base_root: bytes,
        state_root: bytes,
        steps: int,
        loss_bits: int,
        proof: Sequence[bytes],
        slot: int = 0,
    ) -> Receipt | None:
        """Submits the result of a lease. None where exactly this submission is in the slot already.

        Raises:
            ContractReverted: among others `LeaseOver`, `WrongAttempt`, `WrongLossProof`.
        """
        result = (
            task, round_number, slot, attempt, base_root, state_root, steps, loss_bits, list(proof),
        )  # fmt: skip
        return self._write_once(self._ledger.functions.submit(result), done="AlreadySubmitted", task=task)

    def finalise(
        self, task: int, round_number: int, *, attempt: int, state_root: bytes, slot: int = 0
    ) -> Receipt | None:
        """Turns a submission whose window is over into a checkpoint, and pays it. None where that is done already.

        Raises:
            ContractReverted: among others `WindowStillOpen`, `GamesStillOpen`.
        """
        call = self._ledger.functions.finalise(task, round_number, slot, attempt, state_root)
        return self._write_once(call, done="AlreadyFinalised", task=task)

    def expire_lease(self, task: int, round_number: int, attempt: int, slot: int = 0) -> Receipt:
        """Reopens a slot whose lease ran out.

        Raises:
            ContractReverted: among others `LeaseStillRunning`.
        """
        return self._write(self._ledger.functions.expireLease(task, round_number, slot, attempt), task=task)

    def collect(self, task: int, round_number: int, generation: int, *, count: int = 256) -> Receipt | None:
        """Freezes a round that is ready, and reads up to `count` of its merge's inputs. None where all are read.

        Raises:
            ContractReverted: among others `RoundNotReady`, `WrongGeneration` (a slot fell meanwhile).
        """
        call = self._book.functions.collect(task, round_number, generation, count)
        return self._write_once(call, done="AlreadyCollected", task=task)

    def award_fall(self, task: int, round_number: int, *, attempt: int, slot: int = 0) -> Receipt | None:
        """Takes the bond of a submission that fell, once its slot has found its state. None where that is done already.

        Anybody may: half is burned, half goes to the earliest challenger who had named the right state.

        Raises:
            ContractReverted: among others `WrongStatus` (the slot is not final yet), `NothingToAward` (no submission
                of this attempt fell).
        """
        try:
            return self._write(self._ledger.functions.awardFall(task, round_number, slot, attempt), task=task)
        except (ContractReverted, TransactionFailed) as problem:
            if refusal_of(problem) == "NothingToAward" and self._is_awarded(task, round_number, attempt, slot):
                return None
            raise

    def _is_awarded(self, task: int, round_number: int, attempt: int, slot: int) -> bool:
        found = fetch_events(
            self.web3,
            self.deployment,
            names={"FallAwarded"},
            topics=[task.to_bytes(32, "big"), round_number.to_bytes(32, "big")],
            artifacts=self.artifacts,
        )
        return any((event.arguments["attempt"], event.arguments["slot"]) == (attempt, slot) for event in found)

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
        return decode_logs(self.web3, self.deployment, receipt.logs, names={name}, artifacts=self.artifacts)

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
