"""Sends what anybody may send so that a round of an open task goes on, and scores."""

from __future__ import annotations

from ledger.errors import ContractReverted, TransactionFailed
from ledger.open.records import OpenSlot, OpenTask, Stage
from trainer.open.policy import Deed, Due, RoundView, upkeep_due
from trainer.open.ports import OpenChain
from trainer.open.scoring import Score
from trainer.open.source import OpenSource
from trainer.worker.progress import Reporter

_WORDS = {
    Deed.FORFEIT: "Slot {slot} of round {round} was not revealed in time: its bond is free, less the fee.",
    Deed.EXPIRE: "Nobody scored slot {slot} of round {round} in time: it is missing.",
    Deed.FINALISE: "Slot {slot} of round {round} is final.",
    Deed.SKIP: "Nobody revealed anything new in round {round}: it is over.",
    Deed.SETTLE: "The held-out data of round {round} was not shown in time: slot {slot} is paid in full.",
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
        due = upkeep_due(view)
        if due is None or (view.state, due) in self._refused:
            return False
        task, number = view.task.number, view.state.round
        try:
            self._send(view, due)
        except (ContractReverted, TransactionFailed) as refusal:
            # Somebody else was faster, or the chain went on since the look; a real refusal is said once.
            self._refused.add((view.state, due))
            self._reporter.say("refused", f"{refusal}", task=task, round=number, slot=due.slot, what=due.deed.value)
            return False
        text = _WORDS[due.deed].format(slot=due.slot, round=number)
        self._reporter.say("upkeep", text, task=task, round=number, slot=due.slot, what=due.deed.value)
        return True

    def _send(self, view: RoundView, due: Due) -> None:
        task, number, chain = view.task.number, view.state.round, self._chain
        if due.deed is Deed.SKIP:
            chain.skip(task, number)
            return
        slot = slot_at(view, due.slot)
        if due.deed is Deed.FORFEIT:
            chain.forfeit(task, number, slot.slot)
        elif due.deed is Deed.EXPIRE:
            chain.expire(task, number, slot.slot, slot.attempt)
        elif due.deed is Deed.FINALISE:
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
