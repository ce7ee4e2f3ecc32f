"""The worker's loop: look, finalise, go on with what is leased, else claim what is worth it, else say why not.

The loop keeps nothing that it could not find again: what it has leased and submitted stands on chain, what it has
trained lies in snapshots. So it may be killed anywhere, and the same command goes on.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

from ledger.amounts import format_tokens
from ledger.client import refusal_of
from ledger.errors import ChainError, ContractReverted, LeaseLost, TransactionFailed
from ledger.rounds import describe_slot
from ledger.ticket import Ticket
from ledger.types import SlotStatus
from trainer.dispute.player import Player
from trainer.worker.board import Board, TaskView
from trainer.worker.choice import best_first
from trainer.worker.lease import LONGEST_PAUSE, ODD_ANSWERS, Lease, is_outage
from trainer.worker.policy import (
    Reason,
    TaskFacts,
    WorkerOptions,
    changed,
    describe_pay,
    judge_claim,
    lease_over,
    mine,
)
from trainer.worker.ports import WorkerChain
from trainer.worker.progress import Reporter
from trainer.worker.round import RESUME, MoveDue, Prepared, RoundDone, RoundRunner, describe_lease
from trainer.worker.slots import slot_name, slots_to_try, what_it_waits_for
from trainer.worker.snapshots import SnapshotStore
from trainer.worker.stop import Stop
from trainer.worker.upkeep import Upkeep
from trainer.worker.workshop import Workshop

# After a refused claim a task is left alone for so many looks: whoever was faster has taken it, or a ticket is hard.
_REFUSED_POLLS = 3
# What a claim meets that somebody else's claim or finalisation came before.
_RACES = frozenset({"SlotTaken", "WrongAttempt", "WrongRound", "WrongBase", "RoundIsFrozen", "InputsNotCollected"})
# Why a task is left alone whose data are not to be had: a fault, where all other reasons are choices or turns.
_UNFETCHED = frozenset({"materials", "store"})
_TICKET_PIECE_SECONDS = 20.0


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a session of a worker came to. `earned` is wei of final rounds; `waiting` submissions are not final.

    `lost` is a lease that was lost, where nothing was submitted after it. `missing` says what could not be fetched,
    where a task or a number of rounds was asked for and nothing was submitted for want of it.
    """

    rounds_submitted: int
    rounds_paid: int
    earned: int
    waiting: int
    lost: LeaseLost | None
    missing: str | None


class Worker:
    """One worker: the key `signer` claims on the stake of `worker` (the same address, or one it is an operator of)."""

    def __init__(
        self,
        chain: WorkerChain,
        *,
        signer: str,
        worker: str,
        options: WorkerOptions,
        board: Board,
        workshop: Workshop,
        runner: RoundRunner,
        snapshots: SnapshotStore,
        reporter: Reporter,
        stop: Stop,
        clock: Callable[[], float],
        player: Player | None = None,
    ) -> None:
        self._chain = chain
        self._signer = signer
        self._worker = worker
        self._options = options
        self._board = board
        self._workshop = workshop
        self._runner = runner
        self._snapshots = snapshots
        self._reporter = reporter
        self._stop = stop
        self._clock = clock
        self._player = player
        self._upkeep = Upkeep(chain, worker=worker, options=options, reporter=reporter)
        # By task, round and slot.
        self._submitted: set[tuple[int, int, int]] = set()
        self._waiting: dict[tuple[int, int, int], RoundDone] = {}
        self._submitted_at = -math.inf
        self._lost: LeaseLost | None = None
        self._shown: dict[int, Reason] = {}
        # Tasks whose claim was refused, with the local time until which they are left alone.
        self._refused: dict[int, tuple[float, Reason]] = {}
        self._active_at = clock()

    def run(self) -> Summary:
        """Works until told to leave by the options.

        Raises:
            Interrupted, Terminated: asked to stop.
            ResourceError: disk or memory ran out.
            ContractReverted: the task that the options name does not exist.
            InsufficientFunds: no ether left for gas.
        """
        pause, silent, odd = self._options.poll_seconds, False, 0
        while True:
            if self._stop.requested:
                raise self._stop.error(remedy=RESUME)
            try:
                acted, leave = self._turn()
            except LeaseLost as error:
                self._lost = error
                self._reporter.say("lease-lost", str(error))
                self._shown.clear()
                continue
            except MoveDue:
                self._reporter.say("move-due", "Training is kept: a dispute waits for a move, which comes first.")
                continue
            except ChainError as error:
                odd = odd + 1 if isinstance(error, ContractReverted) else 0
                if not is_outage(error) and not 0 < odd < ODD_ANSWERS:
                    raise
                if not silent:
                    self._reporter.say("chain-lost", f"{error.problem} Asking again until it answers.")
                silent, pause = True, min(LONGEST_PAUSE, pause * 2)
                self._stop.wait(pause)
                continue
            odd = 0
            if silent:
                self._reporter.say("chain-back", "The chain answers again.")
                silent, pause = False, self._options.poll_seconds
            if leave:
                return self._summary()
            if acted:
                self._active_at = self._clock()
            else:
                self._stop.wait(self._options.poll_seconds)

    def _summary(self) -> Summary:
        return Summary(
            rounds_submitted=len(self._submitted),
            rounds_paid=self._board.rounds_paid,
            earned=self._board.earned,
            waiting=len(self._waiting),
            lost=self._lost,
            missing=self._missing(),
        )

    def _missing(self) -> str | None:
        """What no waiting mends and kept this worker from a round that it was told to do."""
        told = self._options.only_task is not None or self._options.maximum_rounds is not None
        if self._submitted or not told:  # strangers' tasks may be as broken as they like
            return None
        for number, reason in sorted(self._shown.items()):
            if reason.code in _UNFETCHED:
                return f"Task {number}: {reason.text.rstrip('.')}."
        return None

    def _turn(self) -> tuple[bool, bool]:
        """One look at the chain, and at most one move made or round done.

        Returns (something was done, it is time to leave).
        """
        if self._player is not None and self._player.turn():
            return True, False  # disputes first: more is at stake there than in any round
        views = self._board.refresh()
        self._note_ends(views)
        if self._upkeep.close(views):
            return True, False
        for view in views:
            for slot in view.slots:
                if self._is_leased(view.at(slot)):
                    return self._go_on(view.at(slot)), False
        if self._may_leave():
            return False, True
        if self._has_done_enough() or self._defends(views):
            return False, False
        if self._upkeep.open_merges(views):
            return True, False
        return self._take_one(views), False

    def _defends(self, views: list[TaskView]) -> bool:
        """Whether disputes of this worker run. Then it claims nothing: a lease and a clock would run at once."""
        games = sorted(self._player.running) if self._player is not None else []
        if games:
            which = f"dispute {games[0]} of yours runs" if len(games) == 1 else f"{len(games)} disputes of yours run"
            reason = Reason("disputed", f"{which}; no round is claimed until that is over", tuple(games))
            self._show({view.task.number: reason for view in views if not view.over})
        return bool(games)

    def _note_ends(self, views: list[TaskView]) -> None:
        """Forgets submissions that became final or fell, and snapshots of rounds that are over."""
        for view in views:
            number, current = view.task.number, view.task.current_round
            for at in [at for at in self._waiting if at[0] == number]:
                done = self._waiting[at]
                slot = self._chain.slot(*at) if current > done.round else view.slots[done.slot]
                stands = slot.state_root == done.state_root and mine(slot, self._worker)
                if stands and slot.status is SlotStatus.FINALISED:
                    self._ended(view, done)
                elif slot.status is not SlotStatus.SUBMITTED or not stands:
                    del self._waiting[at]
                    name = slot_name(view.task.parameters, number, done.round, done.slot)
                    self._reporter.say(
                        "submission-gone",
                        f"The submission of {name} no longer stands (the slot is {slot.status.name.lower()}).",
                        task=number,
                        round=done.round,
                        slot=done.slot,
                    )

    def _ended(self, view: TaskView, done: RoundDone) -> None:
        del self._waiting[(done.task, done.round, done.slot)]
        if view.task.current_round > done.round:
            self._snapshots.remove_before(dataclasses.replace(done.key, round=done.round + 1))
        else:
            self._snapshots.remove(done.key)
        name = slot_name(view.task.parameters, done.task, done.round, done.slot)
        self._reporter.say(
            "paid",
            f"{name[0].upper()}{name[1:]} is final and pays "
            f"{format_tokens(self._board.paid_for(done.task, done.round, done.slot))} tokens; "
            f"{format_tokens(self._board.earned)} earned so far.",
            task=done.task,
            round=done.round,
            slot=done.slot,
            earned=str(self._board.earned),
        )

    def _is_leased(self, view: TaskView) -> bool:
        slot = view.slot
        leased = slot.status is SlotStatus.LEASED and mine(slot, self._worker)
        return leased and not lease_over(slot, self._chain.chain_time())

    def _go_on(self, view: TaskView) -> bool:
        """Takes up a round that is leased to this worker."""
        prepared = self._workshop.prepare(view, leased=True)
        if isinstance(prepared, Reason):
            self._show({view.task.number: prepared})
            return False
        step = 0 if prepared.is_merge else view.task.parameters.steps_per_round - prepared.steps_left
        self._reporter.say(
            "resumed",
            f"Going on with {prepared.name}" + ("." if prepared.is_merge else f" from step {step}."),
            task=view.task.number,
            round=view.task.current_round,
            slot=prepared.key.slot,
            step=step,
        )
        self._do(prepared, self._lease(prepared))
        return True

    def _lease(self, prepared: Prepared) -> Lease:
        key = prepared.key
        slot = self._chain.slot(key.task, key.round, key.slot)
        return Lease(
            task=slot.task,
            round=slot.round,
            slot=slot.slot,
            attempt=slot.attempt,
            worker=self._worker,
            deadline=slot.deadline,
            merges=prepared.materials.task.parameters.merges,
            inputs_root=key.base_root if prepared.is_merge else None,
        )

    def _do(self, prepared: Prepared, lease: Lease) -> None:
        done = self._runner.run(prepared, lease)
        self._lost = None
        self._submitted_at = self._clock()
        self._submitted.add((done.task, done.round, done.slot))
        self._waiting[(done.task, done.round, done.slot)] = done
        self._shown.pop(done.task, None)

    def _take_one(self, views: list[TaskView]) -> bool:
        """Claims and does what promises most for a second here and can be had; otherwise shows why nothing can."""
        reasons: dict[int, Reason] = {}
        now = self._chain.chain_time()
        for view, waits in best_first([self._focus(view, now) for view in views], self._workshop.seconds_of):
            prepared = waits if waits is not None else self._consider(view)
            if isinstance(prepared, Reason):
                reasons[view.task.number] = prepared
                continue
            refusal = self._claim(view, prepared)
            if refusal is None:
                self._shown.pop(view.task.number, None)
                self._do(prepared, self._lease(prepared))
                return True
            reasons[view.task.number] = refusal
            self._refused[view.task.number] = (self._clock() + _REFUSED_POLLS * self._options.poll_seconds, refusal)
        self._show(reasons)
        return False

    def _focus(self, view: TaskView, now: int) -> tuple[TaskView, Reason | None]:
        """The task looked at from the slot that this worker would claim; or why its round has none to claim."""
        parameters, state = view.task.parameters, view.state
        if state is None or view.task.complete or view.task.closed:
            return view, None
        candidates = slots_to_try(parameters, view.slots, state, now=now, worker=self._worker)
        if not candidates:
            return view, what_it_waits_for(parameters, state, now=now)
        begun = [slot for slot in candidates if self._snapshots.has(self._workshop.key(view.at(slot)))]
        return view.at((begun or candidates)[0]), None

    def _turn_left(self, view: TaskView) -> float:
        """Seconds for which this worker still lets others go first."""
        if view.task.parameters.merges:
            has_one = any(mine(slot, self._worker) for slot in view.slots)
            return self._options.turn_seconds - (self._clock() - self._submitted_at) if has_one else 0.0
        did_last = view.last_worker is not None and view.last_worker.lower() == self._worker.lower()
        return self._options.turn_seconds - (self._clock() - view.round_since) if did_last else 0.0

    def _consider(self, view: TaskView) -> Prepared | Reason:
        task = view.task
        until, refusal = self._refused.get(task.number, (0.0, None))
        if refusal is not None and self._clock() < until:
            return refusal
        has_snapshot = not task.complete and self._snapshots.has(self._workshop.key(view))
        facts = TaskFacts(
            task=task,
            slot=view.slot,
            now=self._chain.chain_time(),
            worker=self._worker,
            account=self._chain.stake_account(self._worker),
            authorised=self._signer.lower() == self._worker.lower()
            or self._chain.is_operator(self._worker, self._signer),
            turn_left=self._turn_left(view),
            has_snapshot=has_snapshot,
        )
        reason = judge_claim(facts, self._options)
        return reason if reason is not None else self._workshop.prepare(view, leased=False)

    def _claim(self, view: TaskView, prepared: Prepared) -> Reason | None:
        """Claims a round; None if it is leased now, else why not. Losing a race for it is nothing unusual."""
        task, parameters = view.task, view.task.parameters
        slot = prepared.key.slot
        attempt = self._chain.next_attempt(task.number, task.current_round, slot)
        ticket: Ticket | None = None
        if parameters.admission.needs_ticket:
            found = self._find_ticket(prepared, attempt)
            if isinstance(found, Reason):
                return found
            ticket = found
        try:
            self._chain.claim(
                task,
                task.current_round,
                base_root=prepared.key.base_root,
                attempt=attempt,
                worker=self._worker,
                ticket=ticket,
                slot=slot,
            )
        except (ContractReverted, TransactionFailed) as refusal:
            return _why_refused(refusal, prepared)
        lease = self._lease(prepared)
        self._reporter.say(
            "claimed",
            f"{describe_lease(prepared)} It pays {describe_pay(parameters, slot)}.",
            task=task.number,
            round=task.current_round,
            slot=slot,
            attempt=attempt,
            deadline=lease.deadline,
        )
        return None

    def _find_ticket(self, prepared: Prepared, attempt: int) -> Ticket | Reason:
        task = prepared.materials.task
        self._reporter.say(
            "mining",
            f"Looking for a proof-of-work ticket for {prepared.name}, for at most "
            f"{self._options.ticket_seconds:.0f} s.",
            task=task.number,
            round=prepared.key.round,
        )
        end = self._clock() + self._options.ticket_seconds
        while (left := end - self._clock()) > 0 and not self._stop.requested:
            # In pieces, each bound to a fresh block: a ticket whose block is too old is refused.
            ticket = self._chain.mine_ticket(
                task,
                prepared.key.round,
                attempt=attempt,
                worker=self._worker,
                base_root=prepared.key.base_root,
                seconds=min(left, _TICKET_PIECE_SECONDS),
                slot=prepared.key.slot,
            )
            if ticket is not None:
                return ticket
        tries = 2**256 // max(task.parameters.ticket_target, 1)
        return Reason(
            "ticket",
            f"no proof-of-work ticket was found in {self._options.ticket_seconds:.0f} s (one takes {tries:,} tries on "
            "average); --ticket-seconds allows more",
            (prepared.key.round, attempt),
        )

    def _show(self, reasons: dict[int, Reason]) -> None:
        for number, reason in changed(reasons, self._shown).items():
            self._reporter.say(
                "waiting",
                f"Task {number}: {reason.text.rstrip('.')}.",
                task=number,
                reason=reason.code,
                detail=reason.text,
            )
        self._shown.update(reasons)

    def _has_done_enough(self) -> bool:
        limit = self._options.maximum_rounds
        return limit is not None and len(self._submitted) >= limit

    def _may_leave(self) -> bool:
        if self._player is not None and self._player.running:
            return False
        waits = bool(self._waiting) and self._options.finalise
        if self._has_done_enough() and not waits:
            return True
        if self._options.exit_when_done and not waits and self._board.all_over:
            return True
        idle = self._options.idle_exit
        return idle is not None and self._clock() - self._active_at >= idle


def _why_refused(refusal: ContractReverted | TransactionFailed, prepared: Prepared) -> Reason:
    """A refused claim in words; losing the race for a slot is the usual one."""
    error = refusal_of(refusal) or type(refusal).__name__
    name = describe_slot(prepared.materials.task.parameters, prepared.key.round, prepared.key.slot)
    about = (prepared.key.round, prepared.key.slot)
    if error in _RACES:
        return Reason("raced", f"another worker was faster with {name}", about)
    return Reason("refused", f"the claim was refused: {refusal}", (*about, error))
