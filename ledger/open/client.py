"""Everything that trainledger does with open tasks. With `reader`, the one place that names their ABI methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple

from web3 import Web3
from web3.contract.contract import ContractFunction

from ledger.accounts import AccountClient, refusal_of
from ledger.compile import Artifact
from ledger.deploy import Deployment
from ledger.errors import ChainError, ContractReverted, TransactionFailed
from ledger.open.reader import OpenReader
from ledger.open.records import OpenParameters, Stage, slot_key
from ledger.tx import Receipt, TransactionSender

__all__ = ["OpenClient"]


class OpenClient(AccountClient, OpenReader):
    """Open tasks of one account: the writes, on top of all that `AccountClient` and `OpenReader` do.

    Rounds and slots count from 0; slot `parameters.baseline` is the base's own. Games about scores are those of
    `DisputeClient` with `open_tasks`.

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
        super().__init__(web3, deployment, sender, artifacts=artifacts, open_tasks=True)

    # --- requesters ---

    def post_task(self, parameters: OpenParameters, held_out_roots: Sequence[bytes], store_url: str) -> int:
        """Posts a task of as many rounds as held-out roots, and escrows its whole reward; returns its number.

        The vault is given the allowance first, in a transaction of its own. Posting twice makes two tasks: see
        `find_task`.

        Raises:
            InsufficientFunds: too few tokens for the reward.
            ContractReverted: among others `InvalidParameter`, `ZeroRoot`.
        """
        reward = parameters.total_reward(len(held_out_roots))
        self._need_tokens(reward)
        self._approve(reward)
        call = self._ledger.functions.postTask(astuple(parameters), list(held_out_roots), store_url)
        receipt = self._write(call)
        for event in self._events(receipt, "OpenTaskPosted"):
            return int(str(event.arguments["task"]))
        raise ChainError(f"Transaction {receipt.transaction} posted no task.", remedy="Check the deployment record.")

    def close_task(self, task: int) -> Receipt:
        """Makes the round that runs the last one and refunds the others; the requester only."""
        return self._write(self._ledger.functions.closeTask(task), task=task)

    def reveal_held_out(self, task: int, round_number: int, tokens: bytes) -> Receipt | None:
        """Shows a round's held-out tokens. None where that is done already.

        Args:
            tokens: the held-out part of the round's data set, as many bytes as the task was posted with.

        Raises:
            ContractReverted: among others `TooEarly`, `TooLate`, `WrongHeldOut`, `WrongHeldOutSize`.
        """
        call = self._ledger.functions.revealHeldOut(task, round_number, tokens)
        return self._write_once(call, done="HeldOutShown", task=task)

    # --- workers ---

    def commit(
        self,
        task: int,
        round_number: int,
        specification_hash: bytes,
        base_root: bytes,
        worker: str,
        commitment: bytes,
    ) -> int:
        """Commits to a state on the stake of `worker`: this account, or one that made it an operator.

        Returns the slot. Where the worker has committed to just that before, nothing is sent.

        Raises:
            ContractReverted: among others `CommitsOver`, `WrongBase`, `InsufficientFreeStake`, `TaskIsClosed`;
                `AlreadyCommitted`: to something else.
        """
        who = Web3.to_checksum_address(worker)
        request = (task, round_number, specification_hash, base_root, who, commitment)
        try:
            receipt = self._write(self._ledger.functions.commit(request), task=task)
        except (ContractReverted, TransactionFailed):
            # A round that is full, or over, says so before it says who is in it.
            taken = self.slot_of(task, round_number, who)
            if taken is None or self.slot(task, round_number, taken).commitment != commitment:
                raise
            return taken
        for event in self._events(receipt, "StateCommitted"):
            return int(str(event.arguments["slot"]))
        raise ChainError(f"Transaction {receipt.transaction} committed nothing.", remedy="Check the deployment record.")

    def reveal(self, task: int, round_number: int, slot: int, trained_root: bytes, salt: bytes) -> Receipt | None:
        """Opens a commitment. None where that is done already.

        Raises:
            ContractReverted: among others `TooEarly`, `TooLate`, `WrongCommitment`.
        """
        call = self._ledger.functions.reveal(task, round_number, slot, trained_root, salt)
        return self._write_once(call, done="AlreadyDone", task=task)

    def score(
        self,
        task: int,
        round_number: int,
        slot: int,
        attempt: int,
        worker: str,
        trained_root: bytes,
        scored_root: bytes,
        loss_bits: int,
        loss_proof: Sequence[bytes],
    ) -> Receipt | None:
        """Scores a revealed state, or the base, on the stake of `worker`. None where the slot has exactly this already.

        Args:
            worker: whose stake answers for it: this account, or one that made it an operator.
            loss_bits: the held-out loss, tensor 0 of the scored state. loss_proof: siblings up from its leaf.

        Raises:
            ContractReverted: among others `HeldOutShown` (not yet), `NotYourScore`, `WrongStage`, `WrongAttempt`,
                `WrongLossProof`.
        """
        who = Web3.to_checksum_address(worker)
        result = (
            task, round_number, slot, attempt, who, trained_root, scored_root, loss_bits, list(loss_proof),
        )  # fmt: skip
        return self._write_once(self._ledger.functions.score(result), done="AlreadyDone", task=task)

    # --- what anybody may do ---

    def forfeit(self, task: int, round_number: int, slot: int) -> Receipt | None:
        """Frees a commit that was not revealed in time, less the fee. None where that is done already.

        Raises:
            ContractReverted: among others `TooEarly`, `WrongStage`.
        """
        call = self._ledger.functions.forfeit(task, round_number, slot)
        return self._write_unless_missing(call, task, round_number, slot)

    def expire(self, task: int, round_number: int, slot: int, attempt: int) -> Receipt | None:
        """Gives up a state that nobody has scored. None where that is done already.

        Raises:
            ContractReverted: among others `TooEarly`, `WrongStage`, `WrongAttempt`, `HeldOutShown` (not yet).
        """
        call = self._ledger.functions.expire(task, round_number, slot, attempt)
        return self._write_unless_missing(call, task, round_number, slot)

    def finalise(self, task: int, round_number: int, slot: int, attempt: int, scored_root: bytes) -> Receipt | None:
        """Pays a score whose window is over; ends the round with the last one. None where that is done already.

        Raises:
            ContractReverted: among others `WindowStillOpen`, `GamesStillOpen`, `BaselineNotFinal`, `Questioned`.
        """
        call = self._ledger.functions.finalise(task, round_number, slot, attempt, scored_root)
        return self._write_once(call, done="AlreadyDone", task=task)

    def skip(self, task: int, round_number: int) -> Receipt | None:
        """Ends a round in which nobody revealed anything new. None where it has ended already.

        Raises:
            ContractReverted: among others `RoundHasStates`, `TooEarly`.
        """
        try:
            return self._write(self._ledger.functions.skip(task, round_number), task=task)
        except (ContractReverted, TransactionFailed):
            if round_number < self.task(task).current_round:
                return None
            raise

    def settle_default(self, task: int, round_number: int, slot: int, trained_root: bytes) -> Receipt | None:
        """Pays a revealed state in full whose held-out data was not shown in time. None where that is done already.

        Raises:
            ContractReverted: among others `HeldOutShown` (in time), `TooEarly`, `WrongStage`.
        """
        call = self._ledger.functions.settleDefault(task, round_number, slot, trained_root)
        return self._write_once(call, done="AlreadyDone", task=task)

    def award_fall(self, task: int, round_number: int, slot: int, attempt: int) -> Receipt | None:
        """Takes the bond of a fallen score once its slot is final or missing. None where that is done already.

        Raises:
            ContractReverted: among others `WrongStage` (neither yet), `NothingToAward` (no score of this attempt fell).
        """
        try:
            return self._write(self._ledger.functions.awardFall(task, round_number, slot, attempt), task=task)
        except (ContractReverted, TransactionFailed) as problem:
            if refusal_of(problem) == "NothingToAward":
                for event in self._task_events({"FallAwarded"}, task, round_number):
                    if (event.arguments["slot"], event.arguments["attempt"]) == (slot, attempt):
                        return None
            raise

    def _write_unless_missing(self, call: ContractFunction, task: int, round_number: int, slot: int) -> Receipt | None:
        """Sends what makes a slot missing; None where it is that already."""
        try:
            return self._write(call, task=task)
        except (ContractReverted, TransactionFailed) as problem:
            gone = refusal_of(problem) in ("WrongStage", "WrongAttempt", "WrongRound")
            if gone and self.slot(task, round_number, slot).stage is Stage.MISSING:
                return None
            raise

    # --- states that nobody can fetch ---

    def unavailable(self, task: int, round_number: int, slot: int, trained_root: bytes, asker: str) -> Receipt | None:
        """Says that a revealed state cannot be fetched; locks the task's bond in the stake of `asker`.

        Each state is asked about once: None where somebody has.

        Raises:
            ContractReverted: among others `TooFewSeats`, `WrongStage`, `WindowOver`, `InsufficientFreeStake`.
        """
        who = Web3.to_checksum_address(asker)
        call = self._availability.functions.unavailable(task, round_number, slot, trained_root, who)
        return self._write_once(call, done="Questioned", task=task)

    def acknowledge(self, task: int, round_number: int, slot: int) -> Receipt | None:
        """Requester: a state that was asked for can be fetched. None where it was found to be there already.

        Raises:
            ContractReverted: among others `OnlyRequesterAcknowledges`; `AlreadyDecided`: the slot is missing.
        """
        try:
            return self._write(self._availability.functions.acknowledge(task, round_number, slot), task=task)
        except (ContractReverted, TransactionFailed) as problem:
            decided = refusal_of(problem) == "AlreadyDecided"
            if decided and self.slot(task, round_number, slot).stage is not Stage.MISSING:
                return None
            raise

    def draw(self, task: int, round_number: int, slot: int) -> Receipt | None:
        """Draws the votes of an inquiry, or names another block where its hash is gone. None where they are drawn.

        Raises:
            ContractReverted: among others `SeedUnavailable`, `AlreadyDecided`.
        """
        call = self._availability.functions.draw(slot_key(task, round_number, slot))
        return self._write_once(call, done="AlreadyDrawn", task=task)

    def commit_finding(
        self, task: int, round_number: int, slot: int, seed: bytes, auditor: str, commitment: bytes
    ) -> Receipt | None:
        """Commits an auditor to a salted root (`finding_commitment_of`). None where it has committed to it already.

        Raises:
            ContractReverted: among others `CommitOver`, `NotDrawnInto`, `WrongSeed`; `AlreadyCommitted`: to
                something else.
        """
        who, key = Web3.to_checksum_address(auditor), slot_key(task, round_number, slot)
        try:
            return self._write(self._availability.functions.commit(key, seed, who, commitment), task=task)
        except (ContractReverted, TransactionFailed) as problem:
            known = refusal_of(problem) == "AlreadyCommitted"
            if known and self.ballot(task, round_number, slot, who).commitment == commitment:
                return None
            raise

    def reveal_finding(
        self, task: int, round_number: int, slot: int, auditor: str, salted_root: bytes, salt: bytes
    ) -> Receipt | None:
        """Opens an auditor's commitment. None where that is done already.

        Raises:
            ContractReverted: among others `CommitStillOpen`, `RevealOver`, `WrongOpening`.
        """
        who, key = Web3.to_checksum_address(auditor), slot_key(task, round_number, slot)
        call = self._availability.functions.reveal(key, who, salted_root, salt)
        return self._write_once(call, done="AlreadyRevealed", task=task)

    def collect_share(self, task: int, round_number: int, slot: int, auditor: str) -> int:
        """Credits an auditor's share of an asker's deposit; returns it, wei. Nothing is owed, or paid already: 0."""
        call = self._availability.functions.collect(
            slot_key(task, round_number, slot), Web3.to_checksum_address(auditor)
        )
        receipt = self._write_once(call, done="NothingToCollect", task=task)
        if receipt is None:
            return 0
        return sum(int(str(event.arguments["amount"])) for event in self._events(receipt, "ShareTaken"))

    def close_inquiry(self, task: int, round_number: int, slot: int) -> Receipt | None:
        """Ends an inquiry after its time: without an agreement, the slot is missing. None where that is done already.

        Raises:
            ContractReverted: among others `NotDrawn`, `InquiryStillRuns`.
        """
        call = self._availability.functions.close(slot_key(task, round_number, slot))
        return self._write_once(call, done="AlreadyDecided", task=task)
