"""Sends what anybody may send so that a round of an open task goes on, and scores."""

from __future__ import annotations

from ledger.errors import ContractReverted, TransactionFailed
from ledger.open.records import OpenSlot, OpenTask, Stage
from ledger.open.words import Due, due_now
from trainer.open.policy import RoundView
from trainer.open.ports import OpenChain
from trainer.open.scoring import Score
from trainer.open.source import OpenSource
from trainer.worker.progress import Reporter

_WORDS = {
    "forfeit": "Slot {slot} of round {round} was not revealed in time: its bond is free, less the fee.",
    "expire": "Nobody scored slot {slot} of round {round} in time: it is missing.",
    "finalise": "Slot {slot} of round {round} is final.",
    "skip": "Nobody revealed anything new in round {round}: it is over.",
    "settle_default": "The held-out data of round {round} was not shown in time: slot {slot} is paid in full.",
}


class OpenUpkeep:
    """Does one thing at a time. What was refused is not tried again before the round has changed."""

    def __init__(self, chain: OpenChain, reporter: Reporter) -> None:
        self._chain, self._reporter = chain, reporter
        self._refused: set[tuple[object, ...]] = set()

    def turn(self, view: RoundView) -> bool:
        """Sends what is due, if anything is. Returns whether something was sent.

        Raises:
            ChainUnreachable, ChainError: no answer; ask again.
        """
        found = due_now(view.task, view.state, view.slots, now=view.now)
        due = next((one for one in found if (view.state, one) not in self._refused), None)
        if due is None:
            return False
        task, number, slot = view.task.number, view.state.round, None if due.slot is None else due.slot.slot
        try:
            self._send(view, due)
        except (ContractReverted, TransactionFailed) as refusal:
            # Somebody else was faster, or the chain went on since the look; a real refusal is said once.
            self._refused.add((view.state, due))
            self._reporter.say("refused", f"{refusal}", task=task, round=number, slot=slot, what=due.action)
            return False
        text = _WORDS[due.action].format(slot=slot, round=number)
        self._reporter.say("upkeep", text, task=task, round=number, slot=slot, what=due.action)
        return True

    def _send(self, view: RoundView, due: Due) -> None:
        task, number, slot, chain = view.task.number, view.state.round, due.slot, self._chain
        if slot is None:
            chain.skip(task, number)
        elif due.action == "forfeit":
            chain.forfeit(task, number, slot.slot)
        elif due.action == "expire":
            chain.expire(task, number, slot.slot, slot.attempt)
        elif due.action == "finalise":
            chain.finalise(task, number, slot.slot, slot.attempt, slot.scored_root)
        else:
            chain.settle_default(task, number, slot.slot, slot.trained_root)


def submit_score(chain: OpenChain, source: OpenSource, task: OpenTask, slot: OpenSlot, worker: str) -> Score | None:
    """Scores what is in a slot on the stake of `worker`; None where somebody was faster.

    Raises:
        MachineFault: the reference gave other bits. DataError: state or data cannot be had.
        ContractReverted: the slot is another's, or its time is over.
    """
    score = source.score(task, slot.round, slot.slot)
    now = chain.slot(task.number, slot.round, slot.slot)
    if (now.stage, now.attempt) != (Stage.REVEALED, slot.attempt):
        return None
    sent = chain.score(
        task.number,
        slot.round,
        slot.slot,
        slot.attempt,
        worker,
        slot.trained_root,
        score.root,
        score.loss_bits,
        score.proof,
    )
    return None if sent is None else score


def slot_at(view: RoundView, number: int) -> OpenSlot:
    """A slot of the round by its number."""
    return next(slot for slot in view.slots if slot.slot == number)
