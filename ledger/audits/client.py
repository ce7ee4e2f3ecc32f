"""Everything that trainledger does with the audit committee. The one place that names its ABI methods."""

from __future__ import annotations

from web3 import Web3

from ledger.audits.records import Audit, Ballot, Budget, Seat, attempt_key, split_key
from ledger.disputes.client import DisputeClient
from ledger.errors import ContractReverted
from ledger.events import fetch_events
from ledger.tx import Receipt

__all__ = ["CommitteeClient"]

_BUDGET_BIT = 1 << 63  # of the vault's number of an audit budget


class CommitteeClient(DisputeClient):
    """Seats, budgets and audits, on top of all that `DisputeClient` does."""

    # --- seats ---

    def seat_stake(self) -> int:
        """Stake of a seat, wei."""
        return int(self._read(self._committee.functions.seatStake()))

    def seat_age(self) -> int:
        """Seconds for which a seat must have been taken before it counts."""
        return int(self._read(self._committee.functions.seatAge()))

    def reveal_seconds(self) -> int:
        """Seconds that drawn auditors have to reveal in."""
        return int(self._read(self._committee.functions.revealSeconds()))

    def seat_count(self) -> int:
        """Seats of all auditors."""
        return int(self._read(self._committee.functions.seatCount()))

    def seats_of(self, owner: str) -> int:
        """Seats of one auditor."""
        return int(self._read(self._committee.functions.seatsOf(Web3.to_checksum_address(owner))))

    def seat(self, index: int) -> Seat:
        """One seat.

        Raises:
            ContractReverted: `UnknownSeat`.
        """
        owner, since, placed = self._read(self._committee.functions.seatAt(index))
        return Seat(str(owner), since, placed)

    def seat_indexes(self, owner: str, most: int) -> list[int]:
        """Up to `most` places of an owner's seats, the last ones first; each place is asked for."""
        who, found = Web3.to_checksum_address(owner), list[int]()
        for index in reversed(range(self.seat_count())):
            if len(found) == most:
                break
            if self.seat(index).owner == who:
                found.append(index)
        return found

    def busy_until(self, owner: str) -> int:
        """Until when an owner's seats cannot be given up, Unix seconds; zero if never busy."""
        return int(self._read(self._committee.functions.busyUntil(Web3.to_checksum_address(owner))))

    def enrol(self, count: int) -> Receipt:
        """Takes seats of this account; 1 to 32 at once.

        Raises:
            ContractReverted: among others `InsufficientFreeStake`.
        """
        return self._write(self._committee.functions.enrol(count))

    def resign(self, index: int) -> Receipt:
        """Gives up one of this account's seats.

        Raises:
            ContractReverted: among others `NotYourSeat`, `SeatBusy`.
        """
        return self._write(self._committee.functions.resign(index))

    # --- budgets ---

    def audit_budget(self, task: int) -> Budget:
        """What a task pays for audits; all zero where nobody has opened its budget."""
        fee, reserved = self._read(self._committee.functions.budgetOf(task))
        return Budget(fee, reserved, int(self._read(self._vault.functions.escrowOf(task | _BUDGET_BIT))))

    def fund_audits(self, task: int, fee: int, amount: int) -> Receipt:
        """Adds `amount` wei to a task's audit budget, at `fee` wei for each vote. The requester opens it.

        Raises:
            InsufficientFunds: too few tokens.
            ContractReverted: among others `WrongFee`, `OnlyRequesterOpensBudget`, `UnknownTask`.
        """
        self._need_tokens(amount)
        self._approve(amount)
        return self._write(self._committee.functions.fund(task, fee, amount), task=task)

    def refund_audits(self, task: int) -> int:
        """Credits what no audit has reserved of an ended task's budget to its requester; returns it, wei.

        Raises:
            ContractReverted: among others `TaskStillRuns`.
        """
        receipt = self._write(self._committee.functions.refund(task), task=task)
        return sum(int(str(event.arguments["amount"])) for event in self._events(receipt, "BudgetRefunded"))

    # --- audits ---

    def window_floor(self, task: int) -> int:
        """Seconds after a submission before which its window never ends."""
        return int(self._read(self._ledger.functions.windowFloor(task), task=task))

    def audit(self, key: int) -> Audit:
        """The audit of an attempt as the contract keeps it; all zero where nobody has asked for one."""
        return Audit(key, *self._read(self._committee.functions.getAudit(key)))

    def audits_of(self, task: int) -> list[int]:
        """Keys of all audits of a task that were ever asked for, oldest first.

        Raises:
            ChainError: the node does not keep logs that far back.
        """
        events = fetch_events(self.web3, self.deployment, names={"AuditRequested"}, artifacts=self.artifacts)
        keys = [int(str(event.arguments["audit"])) for event in events]
        return [key for key in keys if split_key(key)[0] == task]

    def ballot(self, key: int, auditor: str) -> Ballot:
        """An auditor's part in an audit."""
        commitment, finding, votes, paid = self._read(
            self._committee.functions.ballotOf(key, Web3.to_checksum_address(auditor))
        )
        return Ballot(bytes(commitment), bytes(finding), votes, paid)

    def votes_of(self, key: int, auditor: str) -> int:
        """Votes of an auditor in a drawn audit.

        Raises:
            ContractReverted: `NotDrawn`.
        """
        return int(self._read(self._committee.functions.votesOf(key, Web3.to_checksum_address(auditor))))

    def drawn_seat(self, key: int, vote: int) -> tuple[int, str, bool]:
        """(index, owner, whether it counts) of the seat that a vote (0 to 8) of a drawn audit fell on."""
        index, owner, counts = self._read(self._committee.functions.drawnSeat(key, vote))
        return int(index), str(owner), bool(counts)

    def request_audit(self, task: int, round_number: int, attempt: int, state_root: bytes, slot: int = 0) -> int:
        """Asks for the audit of a submission; returns its key. Asked for already: nothing is sent.

        Raises:
            ContractReverted: among others `NotSubmitted`, `NoTimeForAudit`, `BudgetTooSmall`, `TooFewSeats`.
        """
        call = self._committee.functions.request(task, round_number, slot, attempt, state_root)
        self._write_once(call, done="AlreadyRequested", task=task)
        return attempt_key(task, round_number, attempt, slot)

    def draw_audit(self, key: int) -> Receipt | None:
        """Records the seed. None where that is done already.

        Raises:
            ContractReverted: among others `SeedUnavailable`, `NoTimeForAudit`.
        """
        return self._write_once(self._committee.functions.draw(key), done="AlreadyDrawn", task=split_key(key)[0])

    def commit_finding(self, key: int, seed: bytes, auditor: str, commitment: bytes) -> Receipt | None:
        """Commits an auditor to what it found. None where it has committed to just that already.

        Raises:
            ContractReverted: among others `CommitOver`, `NotDrawnInto`, `WrongSeed`; `AlreadyCommitted`: to
                something else.
        """
        who = Web3.to_checksum_address(auditor)
        call = self._committee.functions.commit(key, seed, who, commitment)
        receipt = self._write_once(call, done="AlreadyCommitted", task=split_key(key)[0])
        if receipt is None and self.ballot(key, who).commitment != commitment:
            raise ContractReverted("AuditCommittee", "commit", "AlreadyCommitted", {"audit": key, "auditor": who})
        return receipt

    def reveal_finding(
        self, key: int, auditor: str, trace_root: bytes, state_root: bytes, salt: bytes
    ) -> Receipt | None:
        """Opens an auditor's commitment. None where that is done already.

        Raises:
            ContractReverted: among others `CommitStillOpen`, `RevealOver`, `WrongOpening`.
        """
        who = Web3.to_checksum_address(auditor)
        call = self._committee.functions.reveal(key, who, trace_root, state_root, salt)
        return self._write_once(call, done="AlreadyRevealed", task=split_key(key)[0])

    def collect_fee(self, key: int, auditor: str) -> int:
        """Credits an auditor's fees for an audit; returns them, wei. Nothing is owed, or paid already: 0."""
        call = self._committee.functions.collect(key, Web3.to_checksum_address(auditor))
        receipt = self._write_once(call, done="NothingToCollect", task=split_key(key)[0])
        if receipt is None:
            return 0
        return sum(int(str(event.arguments["amount"])) for event in self._events(receipt, "FeePaid"))

    def close_audit(self, key: int) -> Receipt | None:
        """Frees what an ended audit has reserved and does not owe. None where that is done already.

        Raises:
            ContractReverted: among others `AuditStillRuns`.
        """
        return self._write_once(self._committee.functions.close(key), done="AlreadyClosed", task=split_key(key)[0])

    def evict(self, key: int, vote: int) -> Receipt | None:
        """Takes the seat of a drawn vote whose auditor did not reveal off the register. None where there is none.

        Raises:
            ContractReverted: among others `AuditStillRuns`, `SeatBusy`.
        """
        call = self._committee.functions.evict(key, vote)
        return self._write_once(call, done="NothingToEvict", task=split_key(key)[0])
