"""The loop of a worker of one open task: make a state, commit, reveal, score, and see the round to its end.

Nothing is kept that a kill could lose: where a round stands is on the chain, and the state and its salt are on disk
before they are committed to. The same command goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ledger.amounts import format_tokens
from ledger.canonical import root_hex
from ledger.errors import ChainError, ContractReverted, DataError, TransactionFailed, UsageError
from ledger.open.records import OpenSlot, OpenTask, Stage
from ledger.performance import bits_float, open_pay
from trainer.checkpoints import save_state
from trainer.dispute.player import Player
from trainer.engine.segment import StepReport
from trainer.engine.state import State
from trainer.open.kept import KeptStates
from trainer.open.policy import Deed, Due, RoundView, Waiting, why_waiting, work_due
from trainer.open.ports import OpenChain, look
from trainer.open.source import OpenMaterials, OpenSource
from trainer.open.training import Job, Training
from trainer.open.upkeep import OpenUpkeep, slot_at, submit_score
from trainer.worker.lease import LONGEST_PAUSE, is_outage
from trainer.worker.progress import Reporter, RoundProgress
from trainer.worker.snapshots import JobKey
from trainer.worker.stop import Stop
from trainer.worker.workshop import Identity

# What could not be done is tried again after so many seconds, then twice as many, up to the last.
_FIRST_RETRY, _LAST_RETRY = 1.0, 60.0
_RESUME = "Run the same command again: it goes on where this one stopped."


@dataclass(frozen=True, kw_only=True)
class OpenWorkerOptions:
    """How a worker works.

    Attributes:
        train_seconds: for which a script may train; less where commits end earlier.
        maximum_rounds: after so many rounds, counted when they end, it leaves; None: when the task is over.
        upkeep: whether it sends what anybody may send.
    """

    task: int
    train_seconds: float
    poll_seconds: float
    maximum_rounds: int | None = None
    upkeep: bool = True


@dataclass(frozen=True)
class _Trouble:
    retry_at: float
    pause: float
    text: str


@dataclass
class OpenSummary:
    """What came of it: rounds that ended with a state of this worker's, and what they pay, wei."""

    rounds: int = 0
    earned: int = 0
    ended: set[int] = field(default_factory=set)


class OpenWorker:
    """Works on one task, on the stake of `worker`.

    Args:
        player: defends its scores; None does not.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        chain: OpenChain,
        source: OpenSource,
        training: Training,
        *,
        worker: str,
        identity: Identity,
        options: OpenWorkerOptions,
        kept: KeptStates,
        reporter: Reporter,
        stop: Stop,
        clock: Callable[[], float],
        player: Player | None = None,
    ) -> None:
        self._clock = clock
        self._chain, self._source, self._training = chain, source, training
        self._worker, self._identity, self._options = worker, identity, options
        self._kept, self._reporter, self._stop, self._player = kept, reporter, stop, player
        self._upkeep = OpenUpkeep(chain, reporter)
        self._summary = OpenSummary()
        self._shown: tuple[object, ...] = ()
        self._trouble: dict[tuple[int, Due], _Trouble] = {}

    def run(self) -> OpenSummary:
        """Works until the task is over, enough rounds are done or it is asked to stop.

        Raises:
            Interrupted, Terminated: asked to stop.
            UsageError: the script or file gives no state of this task.
            ResourceError: disk or memory ran out. MachineFault: the reference gave another score.
        """
        pause, silent = self._options.poll_seconds, False
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
            if silent:
                self._reporter.say("chain-back", "The chain answers again.")
                silent, pause = False, self._options.poll_seconds
            if acted is None:
                return self._summary
            if not acted:
                self._stop.wait(self._options.poll_seconds)

    def turn(self) -> bool | None:
        """One look, and at most one thing done. Returns whether something was; None when it is time to leave."""
        if self._player is not None and self._player.turn():
            return True  # a game's clock runs
        view = look(self._chain, self._options.task, self._worker)
        self._note_ends(view)
        playing = self._player is not None and (self._player.running or self._player.waits_for_award)
        limit = self._options.maximum_rounds
        if view.over or (limit is not None and self._summary.rounds >= limit):
            return False if playing else None
        if any(self._tried(view, due) for due in work_due(view, self._worker)):
            return True
        if self._options.upkeep and self._upkeep.turn(view):
            return True
        self._show(view, why_waiting(view, self._worker))
        return False

    def _tried(self, view: RoundView, due: Due) -> bool:
        """Does a piece of work; what cannot be done now is said once, and holds up nothing else."""
        key = (view.state.round, due)
        before = self._trouble.get(key)
        if before is not None and self._clock() < before.retry_at:
            return False
        try:
            done = self._do(view, due)
        except (ContractReverted, TransactionFailed, DataError) as error:
            text = f"Round {view.state.round} of open task {view.task.number}: {due.deed.value} cannot be done: {error}"
            if before is None or before.text != text:
                self._say("trouble", text, view, slot=due.slot, what=due.deed.value)
            pause = _FIRST_RETRY if before is None else min(_LAST_RETRY, 2 * before.pause)
            self._trouble[key] = _Trouble(self._clock() + pause, pause, text)
            return False
        self._trouble.pop(key, None)
        return done

    def _do(self, view: RoundView, due: Due) -> bool:
        if due.deed is Deed.COMMIT:
            return self._commit(view)
        if due.deed is Deed.REVEAL:
            return self._reveal(view, slot_at(view, due.slot))
        return self._score(view, slot_at(view, due.slot))

    def _key(self, view: RoundView, base_root: bytes) -> JobKey:
        return JobKey(
            chain_id=self._identity.chain_id,
            ledger=self._identity.ledger,
            deployment_block=self._identity.deployment_block,
            task=view.task.number,
            round=view.state.round,
            slot=0,  # it has none before it commits
            base_root=base_root,
            specification_hash=view.task.parameters.specification_hash,
        )

    def _commit(self, view: RoundView) -> bool:
        task, number = view.task, view.state.round
        account, parameters = self._chain.stake_account(self._worker), task.parameters
        if account.free < parameters.bond or account.staked < parameters.minimum_stake:
            least = max(parameters.bond, parameters.minimum_stake)
            self._show(view, Waiting("stake", f"a commit needs {format_tokens(least)} tokens of free stake"))
            return False
        materials = self._source.materials(task)
        base_root = self._chain.base_root(task.number, number)
        key = self._key(view, base_root)
        made = self._kept.made(key, materials.layout)
        if made is None:
            base = self._source.base(task, number)
            state = self._train(view, materials, key, base)
            self._kept.keep(key, base, state, done=True)
            return True  # training took a while: look again
        if made.root == base_root:
            self._say("unchanged", "The state to hand in is the round's base: it would be an unpaid copy.", view)
        salt = self._kept.salt(key)
        commitment = self._chain.commitment(task.number, number, self._worker, made.root, salt)
        slot = self._chain.commit(
            task.number, number, parameters.specification_hash, base_root, self._worker, commitment
        )
        self._kept.forget_before(key)
        self._say("committed", f"Committed to a state of round {number}, in slot {slot}.", view, slot=slot)
        return True

    def _train(self, view: RoundView, materials: OpenMaterials, key: JobKey, base: State) -> State:
        seconds = self._options.train_seconds
        if view.state.commit_end:
            seconds = max(0.0, min(seconds, view.state.commit_end - view.now))
        self._say("training", f"Making a state for round {view.state.round} by {self._training.name}.", view)
        asked = materials.specification.steps_per_round

        def show(report: StepReport) -> None:
            done, elapsed = asked - report.total + report.done, max(report.seconds, 1e-9)
            self._reporter.progress(
                RoundProgress(
                    task=view.task.number,
                    round=view.state.round,
                    step=done,
                    steps=asked,
                    loss=report.loss,
                    tokens_per_second=report.tokens / elapsed,
                    eta_seconds=(report.total - report.done) * elapsed / report.done,
                    earned=self._summary.earned,
                )
            )

        job = Job(
            materials=materials,
            base=base,
            begun=self._kept.begun(key, materials.layout),
            worker=self._worker,
            seconds=seconds,
            keep=lambda state: self._kept.keep(key, base, state, done=False),
            on_step=show,
            should_stop=lambda: self._stop.requested or (self._player is not None and self._player.must_move()),
        )
        try:
            state = self._training.train(job)
        finally:
            self._reporter.round_over()
        if state is None:
            if self._stop.requested:
                raise self._stop.error(remedy=f"The training so far is kept. {_RESUME}")
            raise DataError("Training waits for a move in a dispute.", remedy="It goes on by itself.")
        return state

    def _reveal(self, view: RoundView, slot: OpenSlot) -> bool:
        """Publishes the state, which nobody can copy any more, then opens the commitment."""
        task, number = view.task, view.state.round
        materials = self._source.materials(task)
        key = self._key(view, self._chain.base_root(task.number, number))
        made = self._kept.made(key, materials.layout)
        if made is None:
            raise DataError(
                "The state that was committed to is not on this machine.",
                remedy="Run this on the machine and with the home (--home) that committed.",
            )
        save_state(materials.store, made.state, materials.layout)
        self._chain.reveal(task.number, number, slot.slot, made.root, self._kept.salt(key))
        text = f"Revealed the state {root_hex(made.root)} of round {number}; it is in the store."
        self._say("revealed", text, view, slot=slot.slot, state_root=made.root)
        return True

    def _score(self, view: RoundView, slot: OpenSlot) -> bool:
        task, number, parameters = view.task, view.state.round, view.task.parameters
        own = slot.worker.lower() == self._worker.lower()
        if not (own and slot.bonded) and self._chain.stake_account(self._worker).free < parameters.bond:
            text = f"scoring slot {slot.slot} needs a bond of {format_tokens(parameters.bond)} tokens of free stake"
            self._show(view, Waiting("stake", text))
            return False
        score = submit_score(self._chain, self._source, task, slot, self._worker)
        if score is None:
            return True  # somebody was faster
        loss = bits_float(score.loss_bits)
        what = "the base" if slot.slot == parameters.baseline else f"the state of slot {slot.slot}"
        text = f"Scored {what} of round {number}: held-out loss {loss:.4f}."
        self._say("scored", text, view, slot=slot.slot, heldout_loss=loss, scored_root=score.root)
        return True

    def _note_ends(self, view: RoundView) -> None:
        """Says what each round of this worker's came to, once it is final."""
        last = view.task.current_round - 1 if not view.over else view.state.round
        for number in range(last, -1, -1):
            if number in self._summary.ended:
                return
            self._summary.ended.add(number)
            ended = view if number == view.state.round else look(self._chain, view.task.number, self._worker, number)
            earned = sum(paid_for(ended, slot) for slot in ended.slots if _paid_to(slot, self._worker))
            self._summary.earned += earned
            if ended.mine is None:
                continue
            self._summary.rounds += 1
            stage = ended.mine.stage.name.lower()
            text = f"Round {number} is over: your state is {stage}; the round pays you {format_tokens(earned)} tokens."
            self._say("round-over", text, ended, slot=ended.mine.slot, stage=stage, earned=str(earned))

    def _show(self, view: RoundView, waiting: Waiting) -> None:
        key = (view.task.number, view.state.round, waiting.code, waiting.text)
        if key != self._shown:
            left = "" if waiting.until is None else f" (for {max(0, waiting.until - view.now)} s at most)"
            text = f"Open task {view.task.number}: {waiting.text}{left}."
            self._say("waiting", text, view, reason=waiting.code, detail=waiting.text, until=waiting.until)
            self._shown = key

    def _say(self, event: str, text: str, view: RoundView, **fields: object) -> None:
        self._reporter.say(event, text, task=view.task.number, round=view.state.round, **fields)


def paid_for(view: RoundView, slot: OpenSlot) -> int:
    """What a slot of a round that has ended paid, wei."""
    parameters = view.task.parameters
    if slot.stage is not Stage.FINALISED:
        return 0
    if not view.state.held_out_at:
        return parameters.slot_reward  # its requester's default
    if slot.slot == parameters.baseline:
        return parameters.score_reward
    base = view.baseline.held_out_loss if view.baseline.stage is Stage.FINALISED else None
    return open_pay(parameters, base, slot.held_out_loss)


def _paid_to(slot: OpenSlot, worker: str) -> bool:
    return slot.worker.lower() == worker.lower()


def find_task(chain: OpenChain, number: int) -> OpenTask:
    """A task that can be worked on.

    Raises:
        ContractReverted: there is none. UsageError: it is over.
    """
    task = chain.task(number)
    if task.complete or (task.closed and not chain.round(number, task.current_round).committed):
        raise UsageError(f"Open task {number} is over.", remedy="Name another one with work left.")
    return task
