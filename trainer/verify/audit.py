"""Watches the submissions of a ledger: replays each on this machine, challenges the wrong ones, and plays to the end.

Nobody is suspected for a fault. What cannot be replayed for want of data is not challenged, and what differs is
replayed a second time, from the beginning, before any stake is put on it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from ledger.amounts import format_tokens
from ledger.canonical import root_hex
from ledger.disputes.moves import Opening
from ledger.disputes.positions import Outcome
from ledger.errors import (
    ChainError,
    ContractReverted,
    InsufficientFunds,
    MachineFault,
    ResourceError,
    TrainledgerError,
    TransactionFailed,
)
from ledger.types import Slot, SlotStatus
from trainer.dispute.player import GameChain, Player, TruthSource
from trainer.dispute.segments import Segment
from trainer.dispute.solver import opening_points
from trainer.dispute.values import Concede, Truth
from trainer.verify.committee import CommitteeMember
from trainer.verify.watch import SlotView, Watch
from trainer.worker.lease import LONGEST_PAUSE, ODD_ANSWERS, is_outage
from trainer.worker.policy import mine
from trainer.worker.progress import Reporter
from trainer.worker.stop import Interrupted, Stop, Terminated

RESUME = "Run the same command again: it goes on where this one stopped."
# What could not be replayed is tried again after so many seconds, then twice as many, up to the last.
_FIRST_RETRY, _LAST_RETRY = 5.0, 300.0

# Answers to a challenge that comes too late: the submission fell, or its window closed.
_GONE = frozenset({"WrongStatus", "WrongAttempt", "WrongState", "WindowOver"})

Finding = Literal["agrees", "differs", "unchecked"]


class AuditChain(GameChain, Protocol):
    """What an auditor needs of `DisputeClient`."""

    def open(self, opening: Opening, points: Sequence[bytes], /) -> int: ...

    def finalise(
        self, task: int, round_number: int, /, *, attempt: int, state_root: bytes, slot: int = 0
    ) -> object: ...


class AuditSource(TruthSource, Protocol):
    """Where true values come from (`SegmentSource`)."""

    def fresh(self, segment: Segment, /) -> Truth: ...


@dataclass(frozen=True, kw_only=True)
class AuditOptions:
    """What an auditor does.

    Attributes:
        challenge: put stake against what is wrong; otherwise only report it.
        finalise: close rounds that were found right, once their window has passed.
        once: leave after one look at all submissions, when the games that came of it are over.
        exit_when_done: leave when no considered task has work left, no game runs and no prize is due.
        turn_seconds: how long others go first with closing a round.
    """

    only_task: int | None = None
    challenge: bool = True
    finalise: bool = True
    once: bool = False
    exit_when_done: bool = False
    poll_seconds: float = 1.0
    turn_seconds: float = 3.0


@dataclass(frozen=True, kw_only=True)
class Audited:
    """What replaying one submission gave.

    Attributes:
        place: which submission in words, such as "slot 2 of round 3".
        replayed: root that the replay ended in; None without one.
        problem: what is wrong, and what is in the way of a challenge; or why there was no replay.
        game: about it, that this auditor opened.
    """

    slot: Slot
    place: str
    finding: Finding
    replayed: bytes | None = None
    seconds: float = 0.0
    problem: str = ""
    game: int | None = None

    def as_json(self) -> dict[str, object]:
        return {
            "task": self.slot.task,
            "round": self.slot.round,
            "slot": self.slot.slot,
            "attempt": self.slot.attempt,
            "worker": self.slot.worker,
            "finding": self.finding,
            "submitted_root": root_hex(self.slot.state_root),
            "replayed_root": None if self.replayed is None else root_hex(self.replayed),
            "problem": self.problem,
            "game": self.game,
            "seconds": round(self.seconds, 3),
        }


@dataclass
class AuditSummary:
    """What a session came to: submissions by what was found, games by how they ended."""

    audited: list[Audited] = field(default_factory=list)
    won: list[int] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    stake_missing: InsufficientFunds | None = None


_Key = tuple[int, int, int, int, bytes]


@dataclass
class _Retry:
    at: float
    pause: float


class Auditor:
    """Audits as the key `signer` on the stake of `owner` (the same address, or one it is an operator of).

    Args:
        member: takes part in drawn audits, for the same stake; None leaves them to others.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        chain: AuditChain,
        source: AuditSource,
        *,
        owner: str,
        options: AuditOptions,
        reporter: Reporter,
        stop: Stop,
        clock: Callable[[], float],
        member: CommitteeMember | None = None,
    ) -> None:
        self._chain, self._source, self._owner, self._member = chain, source, owner, member
        self._options, self._reporter, self._stop, self._clock = options, reporter, stop, clock
        self._watch = Watch(chain, only_task=options.only_task)
        self._player = Player(chain, source, owner=owner, reporter=reporter, clock=clock)
        self._known: dict[_Key, Audited] = {}
        self._retries: dict[_Key, _Retry] = {}
        self._games: set[int] = set()
        self.summary = AuditSummary()

    def run(self) -> AuditSummary:
        """Audits until told to leave by the options.

        Raises:
            Interrupted, Terminated: asked to stop.
            ResourceError: disk or memory ran out.
            ContractReverted: the task that the options name does not exist.
        """
        pause, silent, odd = self._options.poll_seconds, False, 0
        while True:
            if self._stop.requested:
                raise self._stop.error(remedy=RESUME)
            try:
                acted, leave = self._turn()
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
                return self.summary
            if not acted:
                self._stop.wait(self._options.poll_seconds)

    def _turn(self) -> tuple[bool, bool]:
        """Games first, for they have clocks; then one submission. Returns (something was done, it is time to leave)."""
        if self._options.challenge and self._player.turn():
            return True, False
        self._note_ends()
        views = self._watch.refresh()
        for view in views:
            if self._is_due(view):
                self._audit(view)
                return True, False
        # After the replays, which hold whatever comes of a draw: a finding costs one more traced run.
        if self._member is not None and self._member.turn(views, self._segment):
            return True, False
        if self._options.finalise and any(self._finalise(view) for view in views):
            return True, False
        return False, self._may_leave()

    def _is_due(self, view: SlotView) -> bool:
        """Whether a submission can still be challenged, is not this stake's own, and has not been looked at."""
        slot = view.slot
        if slot.status is not SlotStatus.SUBMITTED or mine(slot, self._owner):
            return False
        key = _key(slot)
        retry = self._retries.get(key)
        due = key not in self._known or self._lost_challenge(key) if retry is None else self._clock() >= retry.at
        return due and self._chain.chain_time() <= slot.deadline

    def _lost_challenge(self, key: _Key) -> bool:
        """Whether a submission that is still there was challenged, and the chain has lost the game about it."""
        game = self._known[key].game
        return game is not None and game not in self._games and game not in self.summary.lost

    def _audit(self, view: SlotView) -> None:
        """Replays a submission that was not replayed before, and challenges it if it is wrong."""
        slot, key = view.slot, _key(view.slot)
        found = self._known.get(key)
        if found is None or found.finding == "unchecked":
            self._reporter.say(
                "replaying",
                f"Replaying {view.name}: "
                + (
                    f"submitted by {slot.worker}." if view.merge else f"{slot.steps} steps, submitted by {slot.worker}."
                ),
                task=slot.task,
                round=slot.round,
                slot=slot.slot,
            )
            found = self._tried(
                slot, Audited(slot=slot, place=view.place, finding="unchecked"), lambda _: self._judge(view)
            )
        if found.finding == "differs" and self._options.challenge:
            found = self._tried(slot, found, lambda differs: self._challenged(view, differs))
        self._note(view, found)

    def _tried(self, slot: Slot, found: Audited, act: Callable[[Audited], Audited]) -> Audited:
        """What an act makes of a finding; where something is in its way, the finding with that, to be tried again."""
        began, key = self._clock(), _key(slot)
        retry = self._retries.pop(key, None)
        try:
            return act(found)
        except (ResourceError, Interrupted, Terminated):
            raise
        except TrainledgerError as error:
            if isinstance(error, ChainError) and is_outage(error):
                raise
            if isinstance(error, MachineFault):
                self._source.distrust()
            if isinstance(error, InsufficientFunds):
                self.summary.stake_missing = error
            if not (isinstance(error, ContractReverted) and error.error in _GONE):
                pause = _FIRST_RETRY if retry is None else min(_LAST_RETRY, retry.pause * 2)
                self._retries[key] = _Retry(self._clock() + pause, pause)
            return dataclasses.replace(found, problem=str(error), seconds=found.seconds + self._clock() - began)

    def _judge(self, view: SlotView) -> Audited:
        """Replays a submission; one that differs twice, the second time from the beginning."""
        slot, segment, began = view.slot, self._segment(view), self._clock()
        runs = slot.steps + 1
        replayed = self._source.truth(segment).state_root(runs)
        if replayed == slot.state_root:
            return Audited(
                slot=slot, place=view.place, finding="agrees", replayed=replayed, seconds=self._clock() - began
            )
        again = self._source.fresh(segment).state_root(runs)
        if again != replayed:
            raise MachineFault(
                f"Two replays of {view.name} gave {root_hex(replayed)} and {root_hex(again)}.",
                remedy="Nothing was challenged. Try `trainledger selftest`, and check this machine's memory.",
            )
        return Audited(
            slot=slot,
            place=view.place,
            finding="differs",
            replayed=replayed,
            seconds=self._clock() - began,
            problem=f"the replay ends in {root_hex(replayed)}, but {root_hex(slot.state_root)} was submitted.",
        )

    def _challenged(self, view: SlotView, found: Audited) -> Audited:
        """The finding with the game that was opened about it.

        Raises:
            InsufficientFunds: too little stake is free.
            ContractReverted: somebody was faster, or the window is over.
        """
        slot, bond = view.slot, view.task.parameters.bond
        free = self._chain.stake_account(self._owner).free
        if free < bond:
            raise InsufficientFunds(
                self._owner,
                "tokens of free stake",
                free,
                bond,
                remedy=f"{view.title} is wrong, and a challenge locks a bond of "
                f"{format_tokens(bond)} tokens: add stake with `trainledger account stake` while its window is open.",
            )
        truth = self._source.truth(self._segment(view))
        points = opening_points(truth, steps=slot.steps, submitted=slot.state_root)
        assert not isinstance(points, Concede)  # the replay differed
        opening = Opening(self._owner, slot.task, slot.round, slot.slot, slot.attempt, slot.state_root)
        game = self._chain.open(opening, points)
        self._games.add(game)
        self._reporter.say(
            "challenged",
            f"Challenged {view.name} with a bond of {format_tokens(bond)} tokens: game {game}.",
            task=slot.task,
            round=slot.round,
            slot=slot.slot,
            game=game,
            bond=str(bond),
        )
        return dataclasses.replace(found, game=game)

    def _note(self, view: SlotView, found: Audited) -> None:
        key = _key(view.slot)
        before = self._known.get(key)
        self._known[key] = found
        self.summary.audited = list(self._known.values())
        if before is not None and dataclasses.replace(before, seconds=found.seconds) == found:
            return
        where = view.title
        text = {
            "agrees": f"{where} is right: the replay gives the same state ({found.seconds:.1f} s).",
            "differs": f"{where} is WRONG: {found.problem}",
            "unchecked": f"{where} was not checked: {found.problem}",
        }[found.finding]
        self._reporter.say("audited", text, **found.as_json())

    def _finalise(self, view: SlotView) -> bool:
        """Closes what was found right, where its own worker has not done so; and merges of inputs that are gone."""
        slot = view.slot
        found = self._known.get(_key(slot))
        if slot.status is not SlotStatus.SUBMITTED:
            return False
        due = self._chain.chain_time() > slot.deadline + self._options.turn_seconds
        if found is None or found.finding != "agrees" or slot.open_games or not due:
            return False
        try:
            self._chain.finalise(
                slot.task, slot.round, attempt=slot.attempt, state_root=slot.state_root, slot=slot.slot
            )
        except (ContractReverted, TransactionFailed):
            # Somebody was faster, or a dispute was opened, or a merge waits for its inputs: the next look shows which.
            return False
        self._reporter.say("finalised", f"Finalised {view.name}.", task=slot.task, round=slot.round, slot=slot.slot)
        return True

    def _segment(self, view: SlotView) -> Segment:
        slot = view.slot
        if view.merge:
            base = self._chain.inputs_root(slot.task, slot.round, slot.generation)
        else:
            base = self._chain.base_root(slot.task, slot.round)
        return Segment.of_slot(view.task, slot, base)

    def _note_ends(self) -> None:
        """Notes which games have ended; one that a reorganisation took back is forgotten, and opened again."""
        for game in sorted(self._games):
            outcome = self._outcome(game)
            if outcome is None:
                self._games.discard(game)
                continue
            if outcome is Outcome.RUNNING:
                continue
            self._games.discard(game)
            if outcome is not Outcome.VOID:
                (self.summary.won if outcome is Outcome.CHALLENGER_WON else self.summary.lost).append(game)

    def _outcome(self, game: int) -> Outcome | None:
        """How a game of this auditor stands; None where there is none, or its number is another game's now."""
        try:
            view = self._chain.view(game)
        except ContractReverted as refusal:
            if refusal.error != "NoSuchGame":
                raise
            return None
        matter = view.position.matter
        place = (matter.task, matter.round, matter.slot, matter.attempt)
        ours = any(_key(found.slot)[:4] == place for found in self._known.values() if found.game == game)
        return view.outcome if ours and matter.challenger.lower() == self._owner.lower() else None

    def _may_leave(self) -> bool:
        if self._player.running or self._games or (self._member is not None and self._member.waits):
            return False
        if self._options.once:
            return True  # what could not be checked is in the summary
        return self._options.exit_when_done and self._watch.all_over and not self._player.waits_for_award


def _key(slot: Slot) -> _Key:
    return slot.task, slot.round, slot.slot, slot.attempt, slot.state_root
