"""Everything that trainledger does with the training ledger. With `reader`, the one place that names ABI methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple

from web3 import Web3

from ledger.accounts import AccountClient, refusal_of
from ledger.errors import ChainError, ContractReverted, TransactionFailed
from ledger.events import fetch_events
from ledger.reader import LedgerReader
from ledger.ticket import Ticket, find_ticket
from ledger.tx import Receipt
from ledger.types import Task, TaskParameters

__all__ = ["LedgerClient", "refusal_of"]


class LedgerClient(AccountClient, LedgerReader):
    """Tasks, rounds and slots of one account, on top of all that `AccountClient` does."""

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
            open_tasks=self.open_tasks,
            artifacts=self.artifacts,
        )
        return any((event.arguments["attempt"], event.arguments["slot"]) == (attempt, slot) for event in found)
