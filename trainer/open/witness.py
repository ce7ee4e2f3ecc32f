"""Takes part in questions about states that a stake's seats are drawn into (docs/open-tasks.md).

What was committed to is on disk before it is sent, so that an auditor that was killed can still reveal it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ledger.amounts import format_tokens
from ledger.atomic import write_atomically
from ledger.canonical import parse_json_strict
from ledger.errors import ContractReverted, DataError, SpecificationError
from ledger.open.records import Inquiry, InquiryStage, OpenSlot, Question, Stage, finding_commitment_of
from trainer.commit.states import salted_root
from trainer.open.policy import RoundView
from trainer.open.ports import InquiryChain
from trainer.open.source import OpenSource
from trainer.worker.progress import Reporter

_PAUSE = 5.0  # after what was refused, or a state that is not there; a question lasts minutes at least


@dataclass(frozen=True)
class SaltedFinding:
    """What was committed to. `seed` is that of the inquiry: another one makes it worthless."""

    seed: bytes
    salted_root: bytes
    salt: bytes


class SaltedFindings:
    """Findings of one deployment on disk, a file for each question. Secret until they are revealed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, key: int, finding: SaltedFinding) -> None:
        """Writes one, whole or not at all. Raises ResourceError."""
        document = {name: value.hex() for name, value in vars(finding).items()}
        write_atomically(self._path(key), json.dumps(document).encode(), mode=0o600)

    def find(self, key: int) -> SaltedFinding | None:
        """What was committed to; None where nothing was, or its file is damaged."""
        try:
            document = parse_json_strict(self._path(key).read_bytes(), "It")
            values = [bytes.fromhex(document[name]) for name in ("seed", "salted_root", "salt")]
        except (FileNotFoundError, SpecificationError, ValueError, TypeError, KeyError):
            return None
        return SaltedFinding(*values) if all(len(value) == 32 for value in values) else None

    def _path(self, key: int) -> Path:
        return self._folder / f"{key:048x}.json"


class Witness:
    """Takes part as the key that signs, for the seats of `owner`.

    Args:
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        chain: InquiryChain,
        source: OpenSource,
        *,
        owner: str,
        findings: SaltedFindings,
        reporter: Reporter,
        clock: Callable[[], float],
    ) -> None:
        self._chain, self._source, self._owner, self._findings = chain, source, owner, findings
        self._reporter, self._clock = reporter, clock
        self._retry_at: dict[int, float] = {}
        self.fees = 0

    def turn(self, view: RoundView) -> bool:
        """Does one thing about the questions of a round. Returns whether something was done.

        Raises:
            ChainUnreachable, ChainError: no answer; ask again. ResourceError: disk or memory ran out.
        """
        for slot in view.slots:
            if slot.question is Question.OPEN or (
                slot.question is Question.CLEARED and slot.stage is not Stage.MISSING
            ):
                inquiry = self._chain.inquiry(slot.task, slot.round, slot.slot)
                if self._clock() < self._retry_at.get(inquiry.key, 0.0):
                    continue
                try:
                    if self._act(view, slot, inquiry):
                        return True
                except (ContractReverted, DataError) as error:
                    self._retry_at[inquiry.key] = self._clock() + _PAUSE
                    self._say("question-trouble", f"Slot {slot.slot}: {error}", slot)
        return False

    def _act(self, view: RoundView, slot: OpenSlot, inquiry: Inquiry) -> bool:
        at = (slot.task, slot.round, slot.slot)
        stage = inquiry.stage(view.now)
        if stage is InquiryStage.ASKED:
            self._chain.draw(*at)
            return True
        found = any(inquiry.agreed) and not inquiry.closed and view.now > inquiry.reveal_end
        if stage is InquiryStage.OVER or found:
            self._chain.close_inquiry(*at)
            self._say("question-closed", f"The question about slot {slot.slot} is closed.", slot)
            return True
        if not inquiry.drawn or self._chain.votes_of(*at, self._owner) == 0:
            return False
        ballot = self._chain.ballot(*at, self._owner)
        if stage is InquiryStage.COMMITTING and not ballot.committed:
            return self._commit(view, slot, inquiry)
        if stage is InquiryStage.REVEALING and ballot.committed and not any(ballot.finding):
            return self._reveal(slot, inquiry)
        if stage is InquiryStage.DECIDED and not ballot.paid and ballot.finding == inquiry.agreed != bytes(32):
            fee = self._chain.collect_share(*at, self._owner)
            self.fees += fee
            self._say("share", f"Collected {format_tokens(fee)} tokens for finding the state.", slot, fee=str(fee))
            return fee > 0
        return False

    def _commit(self, view: RoundView, slot: OpenSlot, inquiry: Inquiry) -> bool:
        finding = self._findings.find(inquiry.key)
        if finding is None or finding.seed != inquiry.seed:
            state = self._source.fetched(view.task, inquiry.trained_root)
            finding = SaltedFinding(inquiry.seed, salted_root(state.values(), inquiry.seed), secrets.token_bytes(32))
            self._findings.keep(inquiry.key, finding)
        commitment = finding_commitment_of(inquiry.key, inquiry.seed, self._owner, finding.salted_root, finding.salt)
        self._chain.commit_finding(slot.task, slot.round, slot.slot, inquiry.seed, self._owner, commitment)
        self._say("finding-committed", f"The state of slot {slot.slot} is there: committed to it.", slot)
        return True

    def _reveal(self, slot: OpenSlot, inquiry: Inquiry) -> bool:
        finding = self._findings.find(inquiry.key)
        if finding is None or finding.seed != inquiry.seed:
            return False
        self._chain.reveal_finding(slot.task, slot.round, slot.slot, self._owner, finding.salted_root, finding.salt)
        self._say("finding-revealed", f"Revealed what was found of slot {slot.slot}.", slot)
        return True

    def _say(self, event: str, text: str, slot: OpenSlot, **fields: object) -> None:
        self._reporter.say(event, text, task=slot.task, round=slot.round, slot=slot.slot, **fields)
