"""Takes part in audits that a stake's seats are drawn into: asks, draws, commits, reveals, collects (docs/auditors.md).

What was committed to is on disk before it is sent, so that an auditor that was killed can still reveal it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from ledger.amounts import format_tokens
from ledger.atomic import write_atomically
from ledger.audits.records import VOTES, Audit, Ballot, Budget, Stage, attempt_key, commitment_of, split_key
from ledger.canonical import parse_json_strict
from ledger.errors import ChainError, ContractReverted, DataError, MachineFault, SpecificationError
from ledger.rounds import describe_slot
from ledger.types import Slot, SlotStatus, Task
from trainer.dispute.segments import Segment
from trainer.dispute.truth import SegmentTruth
from trainer.verify.watch import SlotView
from trainer.worker.lease import is_outage
from trainer.worker.progress import Reporter

__all__ = ["CommitteeMember", "Finding", "FindingFolder"]

# What was refused is asked for again after so many seconds: budgets are filled, auditors enrol.
_PAUSE = 30.0


class CommitteeChain(Protocol):
    """What a member needs of `CommitteeClient`."""

    def chain_time(self) -> int: ...
    def block_number(self) -> int: ...
    def task(self, number: int, /) -> Task: ...
    def seats_of(self, owner: str, /) -> int: ...
    def audit_budget(self, task: int, /) -> Budget: ...
    def audit(self, key: int, /) -> Audit: ...
    def ballot(self, key: int, auditor: str, /) -> Ballot: ...
    def votes_of(self, key: int, auditor: str, /) -> int: ...
    def drawn_seat(self, key: int, vote: int, /) -> tuple[int, str, bool]: ...
    def request_audit(self, task: int, round_number: int, attempt: int, state_root: bytes, slot: int = 0, /) -> int: ...
    def draw_audit(self, key: int, /) -> object: ...
    def commit_finding(self, key: int, seed: bytes, auditor: str, commitment: bytes, /) -> object: ...
    def reveal_finding(
        self, key: int, auditor: str, trace_root: bytes, state_root: bytes, salt: bytes, /
    ) -> object: ...
    def collect_fee(self, key: int, auditor: str, /) -> int: ...
    def close_audit(self, key: int, /) -> object: ...
    def evict(self, key: int, vote: int, /) -> object: ...


class CommitteeSource(Protocol):
    """Where true values come from (`SegmentSource`)."""

    def truth(self, segment: Segment, /) -> SegmentTruth: ...


@dataclass(frozen=True)
class Finding:
    """What an auditor found and committed to. `seed` is that of the audit: another one makes it worthless."""

    key: int
    seed: bytes
    trace_root: bytes
    state_root: bytes
    salt: bytes

    def commitment(self, auditor: str) -> bytes:
        """What goes on chain."""
        return commitment_of(self.key, self.seed, auditor, self.trace_root, self.state_root, self.salt)


class FindingFolder:
    """Findings of one deployment on disk, a file each. Their salts are secret until they are revealed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def all(self) -> list[Finding]:
        """All that can be read, oldest key first; a damaged file is no finding."""
        found = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                found.append(_read(path))
            except (SpecificationError, OSError, ValueError, TypeError, KeyError):
                continue
        return sorted(found, key=lambda one: one.key)

    def keep(self, finding: Finding) -> None:
        """Writes one, whole or not at all.

        Raises:
            ResourceError: the disk is full.
        """
        document = {name: value.hex() if isinstance(value, bytes) else value for name, value in asdict(finding).items()}
        self._folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path(finding.key), json.dumps(document).encode(), mode=0o600)

    def forget(self, key: int) -> None:
        """Removes one."""
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: int) -> Path:
        return self._folder / f"{key:048x}.json"


def _read(path: Path) -> Finding:
    document = parse_json_strict(path.read_bytes(), "It")
    if not isinstance(document, dict):
        raise TypeError(f"{path} is not an object")
    key = document["key"]
    values = [bytes.fromhex(document[name]) for name in ("seed", "trace_root", "state_root", "salt")]
    if type(key) is not int or any(len(value) != 32 for value in values):
        raise ValueError(f"{path} is damaged")
    return Finding(key, *values)


class CommitteeMember:
    """Takes part as the key that signs, for the seats of `owner`.

    Args:
        findings: what it has committed to before it was started.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        chain: CommitteeChain,
        source: CommitteeSource,
        *,
        owner: str,
        findings: FindingFolder,
        reporter: Reporter,
        clock: Callable[[], float],
    ) -> None:
        self._chain, self._source, self._owner = chain, source, owner
        self._findings, self._reporter, self._clock = findings, reporter, clock
        self._open = {one.key: one for one in findings.all()}
        self._left: set[int] = set()  # audits without a vote of ours, or over
        self._again: dict[int, float] = {}
        self._hindered: dict[int, str] = {}  # what was said of it last
        self.fees = 0

    @property
    def waits(self) -> bool:
        """Whether something committed to is still to be revealed, or paid."""
        now = self._chain.chain_time() if self._open else 0
        return any(self._unsettled(key, now) for key in self._open)

    def turn(self, views: Sequence[SlotView], segment_of: Callable[[SlotView], Segment]) -> bool:
        """Does one thing that is due, if any. `segment_of` gives what a submission is about.

        Raises:
            ChainUnreachable: no answer; ask again.
            ResourceError: disk or memory ran out.
        """
        for finding in list(self._open.values()):
            if self._tried(finding.key, partial(self._go_on, finding)):
                return True
        submitted = [view for view in views if view.slot.status is SlotStatus.SUBMITTED]
        if not submitted or not self._chain.seats_of(self._owner):
            return False
        for view in submitted:
            key = _key_of(view.slot)
            if key in self._open or key in self._left or self._again.get(key, 0.0) > self._clock():
                continue
            if self._tried(key, partial(self._take_part, view, segment_of)):
                return True
        return False

    def _tried(self, key: int, act: Callable[[], bool]) -> bool:
        """What an act says; where it is refused, or data are missing, it is tried again after a pause."""
        try:
            return act()
        except (ChainError, DataError, MachineFault, SpecificationError) as error:
            if isinstance(error, ChainError) and is_outage(error):
                raise
            self._again[key] = self._clock() + _PAUSE
            if not isinstance(error, ContractReverted) and self._hindered.get(key) != error.problem:
                self._hindered[key] = error.problem
                self._say("audit-hindered", key, f"no part is taken in its audit yet: {error.problem}")
            return False

    def _stage(self, audit: Audit) -> Stage:
        return audit.stage(now=self._chain.chain_time(), block=self._chain.block_number())

    def _take_part(self, view: SlotView, segment_of: Callable[[SlotView], Segment]) -> bool:
        slot, key = view.slot, _key_of(view.slot)
        audit = self._chain.audit(key)
        match self._stage(audit):
            case Stage.NONE:
                return self._ask(slot, key)
            case Stage.ASKED:
                if self._chain.block_number() <= audit.seed_block:
                    return False
                self._chain.draw_audit(key)
                return True
            case Stage.COMMITTING:
                return self._commit(audit, segment_of(view))
            case Stage.MISSED | Stage.OVER:
                self._close(audit)
        self._left.add(key)
        return False

    def _ask(self, slot: Slot, key: int) -> bool:
        if not self._chain.audit_budget(slot.task).audits_left:
            self._again[key] = self._clock() + _PAUSE
            return False
        self._chain.request_audit(slot.task, slot.round, slot.attempt, slot.state_root, slot.slot)
        self._say("audit-asked", key, "its audit was asked for.")
        return True

    def _commit(self, audit: Audit, segment: Segment) -> bool:
        key, votes = audit.key, self._chain.votes_of(audit.key, self._owner)
        if not votes or self._chain.ballot(key, self._owner).committed:
            self._left.add(key)  # committed elsewhere: only who has the salt can reveal
            return False
        run = audit.drawn_run
        self._say(
            "audit-drawn", key, f"{votes} of {VOTES} votes of its audit are ours; tracing run {run}.", votes=votes
        )
        truth = self._source.truth(segment)
        # The whole segment first: its end is part of the finding, and the drawn run's state is on the way.
        state_root, trace_root = truth.state_root(segment.steps + 1), truth.run(run).trace_root
        finding = Finding(key, audit.seed, trace_root, state_root, secrets.token_bytes(32))
        self._findings.keep(finding)
        self._open[key] = finding
        self._chain.commit_finding(key, audit.seed, self._owner, finding.commitment(self._owner))
        self._say("audit-committed", key, "committed to what the replay found.", votes=votes)
        return True

    def _go_on(self, finding: Finding) -> bool:
        """The next step of an audit that this auditor has committed in, or was about to."""
        key, owner = finding.key, self._owner
        if self._again.get(key, 0.0) > self._clock():
            return False
        audit = self._chain.audit(key)
        stage, ballot = self._stage(audit), self._chain.ballot(key, owner)
        if audit.seed != finding.seed:  # the chain was reorganised: another run will be drawn, or was
            self._drop(key)
            return True
        if not ballot.committed:
            if stage is not Stage.COMMITTING:
                self._drop(key)
                return False
            self._chain.commit_finding(key, finding.seed, owner, finding.commitment(owner))
            return True
        if not ballot.revealed and stage is Stage.REVEALING:
            self._chain.reveal_finding(key, owner, finding.trace_root, finding.state_root, finding.salt)
            agreed = self._chain.audit(key).agreed
            text = "six votes agree" if any(agreed) else "no agreement yet"
            self._say("audit-revealed", key, f"revealed what the replay found; {text}.")
            return True
        if self._is_owed(audit, ballot):
            paid = self._chain.collect_fee(key, owner)
            self.fees += paid
            self._say("audit-paid", key, f"{format_tokens(paid)} tokens credited for its audit.", wei=str(paid))
            return True
        if stage is Stage.OVER:
            self._close(audit)
            self._drop(key)
            self._left.add(key)
        return False

    def _unsettled(self, key: int, now: int) -> bool:
        audit, ballot = self._chain.audit(key), self._chain.ballot(key, self._owner)
        return now <= audit.reveal_end and not ballot.paid and not (ballot.revealed and self._is_lost(audit, ballot))

    @staticmethod
    def _is_owed(audit: Audit, ballot: Ballot) -> bool:
        return ballot.revealed and not ballot.paid and ballot.finding == audit.agreed

    @staticmethod
    def _is_lost(audit: Audit, ballot: Ballot) -> bool:
        return any(audit.agreed) and ballot.finding != audit.agreed

    def _close(self, audit: Audit) -> None:
        """Frees the budget, and takes seats off the register whose auditors did not show up: they hinder agreements."""
        if not audit.closed:
            self._chain.close_audit(audit.key)
        if not any(audit.seed):
            return
        # The last in the register first: an eviction moves the last seat, and one that has moved cannot be evicted.
        drawn = sorted(((*self._chain.drawn_seat(audit.key, vote), vote) for vote in range(VOTES)), reverse=True)
        for _, auditor, counts, vote in drawn:
            if counts and auditor != self._owner and not self._chain.ballot(audit.key, auditor).revealed:
                try:
                    self._chain.evict(audit.key, vote)
                except ContractReverted:
                    continue  # busy in another audit

    def _drop(self, key: int) -> None:
        self._findings.forget(key)
        del self._open[key]

    def _say(self, event: str, key: int, text: str, **fields: object) -> None:
        task, number, slot, attempt = split_key(key)
        place = describe_slot(self._chain.task(task).parameters, number, slot)
        where = f"{place[0].upper()}{place[1:]} of task {task}"
        self._reporter.say(event, f"{where}: {text}", task=task, round=number, slot=slot, attempt=attempt, **fields)


def _key_of(slot: Slot) -> int:
    return attempt_key(slot.task, slot.round, slot.attempt, slot.slot)
