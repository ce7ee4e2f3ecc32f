"""The loop of a requester of an open task: shows each round's held-out data, answers questions about states."""

from __future__ import annotations

from dataclasses import dataclass

from ledger.canonical import root_hex
from ledger.errors import ChainError, ContractReverted, DataError, TransactionFailed
from ledger.open.records import OpenTask, Question, Stage
from trainer.open.held_out import SecretFolder
from trainer.open.policy import RoundView, why_waiting
from trainer.open.ports import OpenChain, look
from trainer.open.source import OpenSource
from trainer.open.upkeep import OpenUpkeep
from trainer.worker.lease import LONGEST_PAUSE, is_outage
from trainer.worker.progress import Reporter
from trainer.worker.stop import Stop

_RESUME = "Run the same command again, or a round whose data is not shown in time is paid in full."


@dataclass
class ServeSummary:
    """What was done: rounds whose data was shown, and states that were found after a question."""

    shown: int = 0
    acknowledged: int = 0


class OpenRequester:
    """Serves one task.

    Args:
        secrets: what was held out when the task was posted.
        upkeep: whether it sends what anybody may send.
    """

    def __init__(
        self,
        chain: OpenChain,
        source: OpenSource,
        secrets: SecretFolder,
        *,
        task: int,
        poll_seconds: float,
        reporter: Reporter,
        stop: Stop,
        upkeep: bool = True,
    ) -> None:
        self._chain, self._source, self._secrets = chain, source, secrets
        self._task, self._poll_seconds, self._reporter, self._stop = task, poll_seconds, reporter, stop
        self._upkeep = OpenUpkeep(chain, reporter) if upkeep else None
        self._summary = ServeSummary()
        self._shown: object = None
        self._absent: set[tuple[int, int]] = set()

    def check(self) -> None:
        """Checks that nothing held out is missing here for the rounds to come.

        Raises:
            DataError: something is: those rounds would be paid in full, whatever comes.
        """
        task = self._chain.task(self._task)
        rounds = [
            number
            for number in range(task.current_round, task.rounds)
            if self._secrets.find(self._chain.held_out_root(self._task, number)) is None
        ]
        if rounds:
            raise DataError(
                f"The held-out data of round {rounds[0]} of open task {self._task} is not in this home.",
                remedy="Run this with the home (--home) that the task was posted with.",
            )

    def run(self) -> ServeSummary:
        """Serves until the task is over or it is asked to stop.

        Raises:
            Interrupted, Terminated: asked to stop.
        """
        pause, silent = self._poll_seconds, False
        while True:
            if self._stop.requested:
                raise self._stop.error(remedy=_RESUME)
            try:
                acted = self.turn()
            except ChainError as error:
                if not is_outage(error):
                    raise
                if not silent:
                    self._reporter.say("chain-lost", f"{error.problem} Asking again until it answers.")
                silent, pause = True, min(LONGEST_PAUSE, pause * 2)
                self._stop.wait(pause)
                continue
            silent, pause = False, self._poll_seconds
            if acted is None:
                return self._summary
            if not acted:
                self._stop.wait(self._poll_seconds)

    def turn(self) -> bool | None:
        """One look, and at most one thing done. Returns whether something was; None when the task is over."""
        view = look(self._chain, self._task, None)
        if view.over:
            return None
        if self._show_due(view) or self._answer(view) or (self._upkeep is not None and self._upkeep.turn(view)):
            return True
        waiting = why_waiting(view, "")
        if (view.state.round, waiting.text) != self._shown:
            self._shown = (view.state.round, waiting.text)
            self._say("waiting", f"Open task {self._task}: {waiting.text}.", view, reason=waiting.code)
        return False

    def _show_due(self, view: RoundView) -> bool:
        state = view.state
        due = not state.held_out_at and state.revealed > 0 and view.now <= state.held_out_end
        if not due or not state.reveals_over(view.width, view.now):
            return False
        root = self._chain.held_out_root(self._task, state.round)
        tokens = self._secrets.find(root)
        if tokens is None:
            raise DataError(
                f"The held-out data of round {state.round} of open task {self._task} is not in this home.",
                remedy="Run this with the home (--home) that the task was posted with.",
            )
        self._chain.reveal_held_out(self._task, state.round, tokens)
        self._summary.shown += 1
        text = f"Showed the held-out data of round {state.round}: {len(tokens)} bytes."
        self._say("held-out", text, view, held_out_root=root, bytes=len(tokens))
        return True

    def _answer(self, view: RoundView) -> bool:
        """Acknowledges states that somebody asks for, once they were fetched and their root compared."""
        for slot in view.slots:
            asked = slot.question is Question.OPEN and slot.stage in (Stage.REVEALED, Stage.SCORED)
            if not asked:
                continue
            if not self._there(view.task, slot.trained_root):
                if (view.state.round, slot.slot) not in self._absent:
                    text = f"The state {root_hex(slot.trained_root)} is not in the store: auditors decide."
                    self._say("absent", text, view, slot=slot.slot)
                    self._absent.add((view.state.round, slot.slot))
                continue
            try:
                self._chain.acknowledge(self._task, view.state.round, slot.slot)
            except (ContractReverted, TransactionFailed) as refusal:
                self._say("refused", f"{refusal}", view, slot=slot.slot, what="acknowledge")
                continue
            self._summary.acknowledged += 1
            self._say("acknowledged", f"The state of slot {slot.slot} can be fetched.", view, slot=slot.slot)
            return True
        return False

    def _there(self, task: OpenTask, root: bytes) -> bool:
        try:
            self._source.fetched(task, root)
        except DataError:
            return False
        return True

    def _say(self, event: str, text: str, view: RoundView, **fields: object) -> None:
        self._reporter.say(event, text, task=self._task, round=view.state.round, **fields)
