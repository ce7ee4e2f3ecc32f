"""The auditor of open tasks: scores again, challenges what differs, and asks for states that are not there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from ledger.amounts import format_tokens
from ledger.canonical import root_hex
from ledger.disputes.moves import Opening
from ledger.disputes.positions import GameView, Outcome
from ledger.errors import (
    BlobMissing,
    ChainError,
    ContractReverted,
    DataError,
    InsufficientFunds,
    MachineFault,
    ResourceError,
    TrainledgerError,
)
from ledger.open.records import OpenSlot, Question, Stage
from trainer.dispute.player import Player
from trainer.dispute.solver import opening_points
from trainer.dispute.values import Concede
from trainer.open.policy import RoundView
from trainer.open.ports import OpenChain, look
from trainer.open.source import OpenSource
from trainer.open.truths import OpenTruths, segment_of
from trainer.open.upkeep import OpenUpkeep, submit_score
from trainer.open.witness import Witness
from trainer.worker.lease import LONGEST_PAUSE, is_outage
from trainer.worker.progress import Reporter
from trainer.worker.stop import Interrupted, Stop, Terminated

# A score that could not be checked is tried again after so many seconds, then twice as many, up to the last.
_FIRST_RETRY, _LAST_RETRY = 2.0, 120.0


class OpenGames(Protocol):
    """What an auditor needs of `DisputeClient`, beside what its player does."""

    def open(self, opening: Opening, points: tuple[bytes, ...], /) -> int: ...

    def view(self, game: int, /) -> GameView: ...


@dataclass(frozen=True, kw_only=True)
class OpenAuditOptions:
    """How an auditor works.

    Attributes:
        task: this one only; None: all.
        challenge: whether wrong scores are challenged, on the stake of the owner.
        question_seconds: for which a state could not be fetched before its worker is asked for it, with a deposit as
            large as the bond; None: never.
        exit_when_done: leaves when no task has work left and no game runs.
    """

    poll_seconds: float
    task: int | None = None
    challenge: bool = True
    question_seconds: float | None = None
    upkeep: bool = True
    exit_when_done: bool = False


@dataclass(frozen=True, kw_only=True)
class OpenAudited:
    """A score that was looked at. `finding` is agrees, differs or unchecked; `game` was opened about it."""

    slot: OpenSlot
    finding: str
    computed: bytes | None = None
    problem: str = ""
    game: int | None = None


@dataclass
class OpenAuditSummary:
    """What a session came to."""

    audited: dict[tuple[int, int, int, int, bytes], OpenAudited] = field(default_factory=dict)
    won: list[int] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)


class OpenAuditor:
    """Audits on the stake of `owner`.

    Args:
        clock: seconds that only go forward.
        player: plays the games of `owner`; None where nobody is challenged.
        witness: takes part in questions that seats of `owner` are drawn into; None does not.
    """

    def __init__(
        self,
        chain: OpenChain,
        games: OpenGames,
        source: OpenSource,
        truths: OpenTruths,
        *,
        owner: str,
        options: OpenAuditOptions,
        reporter: Reporter,
        stop: Stop,
        clock: Callable[[], float],
        player: Player | None,
        witness: Witness | None = None,
    ) -> None:
        self._chain, self._games, self._source, self._truths = chain, games, source, truths
        self._owner, self._options, self._reporter, self._stop, self._clock = owner, options, reporter, stop, clock
        self._player, self._witness = player, witness
        self._upkeep = OpenUpkeep(chain, reporter) if options.upkeep else None
        self._retries: dict[object, tuple[float, float]] = {}
        self._missing_since: dict[bytes, float] = {}
        self._opened: set[int] = set()
        self._over: set[int] = set()
        self.summary = OpenAuditSummary()

    def run(self) -> OpenAuditSummary:
        """Audits until told to leave.

        Raises:
            Interrupted, Terminated: asked to stop.
            ResourceError: disk or memory ran out.
        """
        pause, silent = self._options.poll_seconds, False
        while True:
            if self._stop.requested:
                raise self._stop.error(remedy="Games go on: start it again before their clocks run out.")
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
            silent, pause = False, self._options.poll_seconds
            if acted is None:
                return self.summary
            if not acted:
                self._stop.wait(self._options.poll_seconds)

    def turn(self) -> bool | None:
        """Games first, for they have clocks; then one thing. None when it is time to leave."""
        if self._player is not None and self._player.turn():
            return True
        self._note_ends()
        views = self._views()
        for view in views:
            for slot in view.slots:
                if self._is_won(slot) and self._scored_anew(view, slot):
                    return True
                if self._is_due(view, slot):
                    self._audit(view, slot)
                    return True
                if self._asked(view, slot):
                    return True
        if self._witness is not None and any(self._witness.turn(view) for view in views):
            return True
        if self._upkeep is not None and any(self._upkeep.turn(view) for view in views):
            return True
        plays = self._player is not None and (self._player.running or self._player.waits_for_award)
        return None if self._options.exit_when_done and not views and not plays else False

    def _views(self) -> list[RoundView]:
        """The rounds that run. A task that is over stays so, and is not asked about again."""
        only = self._options.task
        numbers = range(1, self._chain.task_count() + 1) if only is None else [only]
        views = [look(self._chain, number, None) for number in numbers if number not in self._over]
        self._over |= {view.task.number for view in views if view.over}
        return [view for view in views if not view.over]

    def _is_due(self, view: RoundView, slot: OpenSlot) -> bool:
        if slot.stage is not Stage.SCORED or self._is_mine(slot) or view.now > slot.deadline:
            return False
        retry = self._retries.get(_key(slot))
        known = self.summary.audited.get(_key(slot))
        if retry is not None:
            return self._clock() >= retry[0]
        return known is None

    def _audit(self, view: RoundView, slot: OpenSlot) -> None:
        """Scores a state again, twice where the score differs, and challenges it."""
        retry = self._retries.pop(_key(slot), None)
        found = OpenAudited(slot=slot, finding="unchecked")
        try:
            found = self._judged(view, slot)
            if found.finding == "differs" and self._options.challenge:
                found = self._challenged(view, found)
        except (ResourceError, Interrupted, Terminated):
            raise
        except TrainledgerError as error:
            if isinstance(error, ChainError) and is_outage(error):
                raise
            if isinstance(error, MachineFault):
                self._truths.distrust()
            pause = _FIRST_RETRY if retry is None else min(_LAST_RETRY, 2 * retry[1])
            self._retries[_key(slot)] = (self._clock() + pause, pause)
            found = dataclasses.replace(found, problem=str(error))
        if self.summary.audited.get(_key(slot)) != found:
            self._note(found)

    def _judged(self, view: RoundView, slot: OpenSlot) -> OpenAudited:
        segment = segment_of(view.task, slot, self._chain.held_out_root(slot.task, slot.round))
        computed = self._truths.truth(segment).state_root(1)
        if computed == slot.scored_root:
            return OpenAudited(slot=slot, finding="agrees", computed=computed)
        again = self._truths.fresh(segment).state_root(1)
        if again != computed:
            raise MachineFault(
                f"Two evaluations of one state gave {root_hex(computed)} and {root_hex(again)}.",
                remedy="Nothing was challenged. Try `trainledger selftest`, and check this machine's memory.",
            )
        text = f"the evaluation gives {root_hex(computed)}, but {root_hex(slot.scored_root)} was submitted."
        return OpenAudited(slot=slot, finding="differs", computed=computed, problem=text)

    def _challenged(self, view: RoundView, found: OpenAudited) -> OpenAudited:
        slot, bond = found.slot, view.task.parameters.bond
        free = self._chain.stake_account(self._owner).free
        if free < bond:
            raise InsufficientFunds(
                self._owner,
                "tokens of free stake",
                free,
                bond,
                remedy=f"{_title(slot)} is wrong, and a challenge locks a bond of {format_tokens(bond)} tokens: add "
                "stake with `trainledger account stake` while its window is open.",
            )
        segment = segment_of(view.task, slot, self._chain.held_out_root(slot.task, slot.round))
        points = opening_points(self._truths.truth(segment), steps=0, submitted=slot.scored_root)
        assert not isinstance(points, Concede)  # the score differed
        opening = Opening(self._owner, slot.task, slot.round, slot.slot, slot.attempt, slot.scored_root)
        game = self._games.open(opening, points)
        self._opened.add(game)
        text = f"Challenged {_title(slot)} with a bond of {format_tokens(bond)} tokens: game {game}."
        self._reporter.say(
            "challenged", text, task=slot.task, round=slot.round, slot=slot.slot, game=game, bond=str(bond)
        )
        return dataclasses.replace(found, game=game)

    def _is_won(self, slot: OpenSlot) -> bool:
        """Whether a state is to be scored anew by this stake, which showed its score to be false."""
        return self._options.challenge and slot.stage is Stage.REVEALED and slot.attempt > 0 and self._is_mine(slot)

    def _scored_anew(self, view: RoundView, slot: OpenSlot) -> bool:
        retry = self._retries.get(_key(slot))
        bond = view.task.parameters.bond
        if (retry is not None and self._clock() < retry[0]) or self._chain.stake_account(self._owner).free < bond:
            return False
        try:
            score = submit_score(self._chain, self._source, view.task, slot, self._owner)
        except (DataError, ContractReverted) as error:
            self._retries[_key(slot)] = (self._clock() + _LAST_RETRY, _LAST_RETRY)
            text = f"Slot {slot.slot} of round {slot.round} cannot be scored anew: {error}"
            self._reporter.say("trouble", text, task=slot.task, round=slot.round, slot=slot.slot)
            return False
        if score is not None:
            text = f"Scored the state of slot {slot.slot} of round {slot.round} anew, in place of its worker."
            self._reporter.say("scored", text, task=slot.task, round=slot.round, slot=slot.slot, scored_root=score.root)
        return True

    def _note(self, found: OpenAudited) -> None:
        slot = found.slot
        self.summary.audited[_key(slot)] = found
        text = {
            "agrees": f"{_title(slot)} is right.",
            "differs": f"{_title(slot)} is WRONG: {found.problem}",
            "unchecked": f"{_title(slot)} was not checked: {found.problem}",
        }[found.finding]
        self._reporter.say(
            "audited",
            text,
            task=slot.task,
            round=slot.round,
            slot=slot.slot,
            attempt=slot.attempt,
            worker=slot.worker,
            finding=found.finding,
            submitted_root=slot.scored_root,
            computed_root=found.computed,
            problem=found.problem,
            game=found.game,
        )

    def _asked(self, view: RoundView, slot: OpenSlot) -> bool:
        """Asks for a state that could not be fetched for a while. Returns whether it did."""
        seconds = self._options.question_seconds
        there = slot.stage in (Stage.REVEALED, Stage.SCORED) and slot.slot != view.task.parameters.baseline
        if seconds is None or not there or slot.question is not Question.NONE or self._is_mine(slot):
            return False
        if slot.stage is Stage.SCORED and view.now > slot.deadline:
            return False
        try:
            self._source.state(view.task, slot.trained_root)
        except BlobMissing:
            since = self._missing_since.setdefault(slot.trained_root, self._clock())
            if self._clock() - since < seconds:
                return False
        except TrainledgerError:
            return False  # a damaged copy, or a store that is down: it may come back
        else:
            self._missing_since.pop(slot.trained_root, None)
            return False
        self._missing_since[slot.trained_root] = float("inf")  # asked once, whatever comes of it
        try:
            self._chain.unavailable(slot.task, slot.round, slot.slot, slot.trained_root, self._owner)
        except ContractReverted as refusal:
            self._reporter.say("refused", f"{refusal}", task=slot.task, round=slot.round, slot=slot.slot)
            return False
        text = f"{_title(slot)}: the state {root_hex(slot.trained_root)} cannot be fetched; asked for it."
        self._reporter.say("asked", text, task=slot.task, round=slot.round, slot=slot.slot)
        return True

    def _note_ends(self) -> None:
        running = self._player.running if self._player is not None else frozenset()
        for game in sorted(self._opened - running):
            outcome = self._games.view(game).outcome
            if outcome is not Outcome.RUNNING:
                self._opened.discard(game)
                if outcome is not Outcome.VOID:
                    (self.summary.won if outcome is Outcome.CHALLENGER_WON else self.summary.lost).append(game)

    def _is_mine(self, slot: OpenSlot) -> bool:
        return slot.worker.lower() == self._owner.lower()


def _key(slot: OpenSlot) -> tuple[int, int, int, int, bytes]:
    return slot.task, slot.round, slot.slot, slot.attempt, slot.scored_root


def _title(slot: OpenSlot) -> str:
    return f"The score of slot {slot.slot} of round {slot.round} of open task {slot.task}"
