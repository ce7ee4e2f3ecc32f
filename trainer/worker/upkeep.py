"""What anybody may do for a round, and a worker does in its own interest: close, release, collect."""

from __future__ import annotations

from collections.abc import Sequence

from ledger.errors import ContractReverted, TransactionFailed
from ledger.types import Round, Slot, SlotStatus, TaskParameters
from trainer.worker.board import TaskView
from trainer.worker.policy import WorkerOptions, mine
from trainer.worker.ports import WorkerChain
from trainer.worker.progress import Reporter
from trainer.worker.slots import slot_name, to_collect, to_finalise, to_release


class Upkeep:
    """Calls that move rounds on. Each says what it did; a call that somebody else made first is no fault."""

    def __init__(self, chain: WorkerChain, *, worker: str, options: WorkerOptions, reporter: Reporter) -> None:
        self._chain, self._worker = chain, worker
        self._options, self._reporter = options, reporter
        # Rounds of the tasks at the last look: one that ended may have left a lease of this worker behind.
        self._rounds: dict[int, int] | None = None

    def close(self, views: Sequence[TaskView]) -> bool:
        """Finalises what can be, if the options say so, and releases leases that came to nothing. True if any."""
        slots = [view.at(slot) for view in views for slot in view.slots]
        closed = sum(self._finalise(view) for view in slots) if self._options.finalise else 0
        return closed > 0 or sum(self._release(view) for view in slots) > 0 or self._release_old(views)

    def open_merges(self, views: Sequence[TaskView]) -> bool:
        """Freezes rounds that are ready, and has the contract read the inputs of their merges. True if any."""
        return sum(self._collect(view) for view in views) > 0

    def _finalise(self, view: TaskView) -> bool:
        """Closes a submission whose window has passed. Others' are left to them for a moment first."""
        slot, parameters = view.slot, view.task.parameters
        if slot.status is not SlotStatus.SUBMITTED:
            return False
        grace = 0.0 if mine(slot, self._worker) else self._options.turn_seconds
        if not to_finalise(parameters, slot, view.state, now=self._chain.chain_time() - grace):
            return False
        try:
            self._chain.finalise(
                slot.task, slot.round, attempt=slot.attempt, state_root=slot.state_root, slot=slot.slot
            )
        except (ContractReverted, TransactionFailed) as refusal:
            # Somebody was faster, or a dispute was opened; the next look shows which.
            self._reporter.say("not-finalised", str(refusal), task=slot.task, round=slot.round)
            return False
        void = view.state is not None and parameters.is_merge(slot.slot) and self._is_stale(slot, view.state)
        name = slot_name(parameters, slot.task, slot.round, slot.slot)
        self._reporter.say(
            "voided" if void else "finalised",
            f"Declared {name} void: it took other states than the round has now." if void else f"Finalised {name}.",
            task=slot.task,
            round=slot.round,
            slot=slot.slot,
        )
        return True

    def _is_stale(self, slot: Slot, state: Round) -> bool:
        """Whether a merge took other inputs than its round has now."""
        return self._chain.inputs_root(slot.task, slot.round, slot.generation) != state.inputs_root

    def _release(self, view: TaskView) -> bool:
        """Ends a lease that came to nothing: its round went on, its inputs are others, or its task is closed."""
        slot, parameters = view.slot, view.task.parameters
        if slot.status is not SlotStatus.LEASED:
            return False
        state, now, inputs = view.state, self._chain.chain_time(), b""
        if state is not None and parameters.is_merge(slot.slot):
            inputs = self._chain.inputs_root(slot.task, slot.round, slot.generation)
        closed = view.task.closed
        if not to_release(parameters, slot, state, inputs, now=now, worker=self._worker, closed=closed):
            return False
        return self._expire(parameters, slot)

    def _release_old(self, views: Sequence[TaskView]) -> bool:
        """Ends leases of this worker in rounds that are over: nobody claims there any more, so nobody else would.

        It looks for them when it starts, where it may have been away, and whenever a round has ended.
        """
        rounds = {view.task.number: view.task.current_round for view in views}
        if rounds == self._rounds:
            return False
        released = False
        if self._chain.stake_account(self._worker).locked:
            for slot in self._chain.leases(self._worker):
                task = self._chain.task(slot.task)
                released |= slot.round < task.current_round and self._expire(task.parameters, slot)
        self._rounds = rounds
        return released

    def _expire(self, parameters: TaskParameters, slot: Slot) -> bool:
        try:
            self._chain.expire_lease(slot.task, slot.round, slot.attempt, slot.slot)
        except (ContractReverted, TransactionFailed) as refusal:
            # Somebody was faster; the next look shows.
            self._reporter.say("not-released", str(refusal), task=slot.task, round=slot.round, slot=slot.slot)
            return False
        name = slot_name(parameters, slot.task, slot.round, slot.slot)
        self._reporter.say("released", f"Released {name}.", task=slot.task, round=slot.round, slot=slot.slot)
        return True

    def _collect(self, view: TaskView) -> bool:
        """Freezes a round that is ready, and has the contract read the inputs of its merge."""
        state = view.state
        if state is None or view.task.closed or not to_collect(view.task.parameters, state):
            return False
        try:
            if self._chain.collect(state.task, state.round, state.generation) is None:
                return False
        except (ContractReverted, TransactionFailed) as refusal:
            # Somebody was faster, or a slot fell; the next look shows which.
            self._reporter.say("not-collected", str(refusal), task=state.task, round=state.round)
            return False
        self._reporter.say(
            "collected",
            f"Round {state.round} of task {state.task} goes on to its merge.",
            task=state.task,
            round=state.round,
        )
        return True
