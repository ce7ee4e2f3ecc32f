"""Checking a task's rounds: links, counts, replays, and, apart from all that, what lies in the store.

Verification needs the data set and any one state before the rounds in question: states missing from the store are
replayed from the last one that is there. A damaged stored file is therefore told apart from a false root on chain.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ledger.canonical import root_hex
from ledger.errors import BlobCorrupt, BlobMissing, DataError, SpecificationError
from ledger.performance import bits_float
from ledger.types import Checkpoint, SlotStatus, Task
from trainer.checkpoints import load_state
from trainer.engine.engines import Engine
from trainer.engine.segment import StepReport
from trainer.engine.state import State
from trainer.materials import Materials
from trainer.verify.replay import ReplayResult, replay_round
from trainer.worker.ports import ChainReader

Verdict = Literal["agrees", "differs", "unchecked"]
Stored = Literal["whole", "missing", "corrupt"]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A round's result as the chain has it: final, or submitted and still open to challenge."""

    entry: Checkpoint
    final: bool


@dataclass(frozen=True, kw_only=True)
class RoundVerdict:
    """What checking one round gave.

    Attributes:
        verdict: "differs" where anything on chain is false; "unchecked" where no base could be had.
        problems: what is false, or what is missing, one sentence each.
        replayed: root that the replay gave, None without a replay. seconds: of the replay.
        stored: the state of that root in the store; says nothing about the chain.
    """

    claim: Claim
    verdict: Verdict
    problems: tuple[str, ...]
    replayed: bytes | None
    seconds: float
    stored: Stored
    stored_problem: str

    def as_json(self) -> dict[str, object]:
        entry = self.claim.entry
        loss = bits_float(entry.heldout_loss)
        return {
            "round": entry.round,
            "worker": entry.worker,
            "final": self.claim.final,
            "verdict": self.verdict,
            "problems": list(self.problems),
            "submitted_root": root_hex(entry.state_root),
            "replayed_root": None if self.replayed is None else root_hex(self.replayed),
            "steps": entry.steps,
            "heldout_loss": loss if math.isfinite(loss) else None,
            "seconds": round(self.seconds, 3),
            "stored": self.stored,
            "stored_problem": self.stored_problem,
        }


@dataclass(frozen=True, kw_only=True)
class TaskVerdict:
    """All rounds that were checked, in order."""

    task: int
    rounds: tuple[RoundVerdict, ...]

    @property
    def first_difference(self) -> RoundVerdict | None:
        return next((verdict for verdict in self.rounds if verdict.verdict == "differs"), None)

    @property
    def unchecked(self) -> tuple[RoundVerdict, ...]:
        return tuple(verdict for verdict in self.rounds if verdict.verdict == "unchecked")

    @property
    def damaged(self) -> tuple[RoundVerdict, ...]:
        """Rounds whose stored state is there but is not what its name says."""
        return tuple(verdict for verdict in self.rounds if verdict.stored == "corrupt")


def claims_of(chain: ChainReader, task: Task) -> list[Claim]:
    """Every round's result so far: the lineage, and the submission that waits for its window, if there is one."""
    claims = [Claim(entry=chain.checkpoint(task.number, at), final=True) for at in range(task.current_round)]
    if task.complete:
        return claims
    slot = chain.slot(task.number, task.current_round, 0)
    if slot.status is SlotStatus.SUBMITTED:
        entry = Checkpoint(
            task=task.number,
            round=slot.round,
            parent=chain.base_root(task.number, task.current_round),
            state_root=slot.state_root,
            worker=slot.worker,
            steps=slot.steps,
            heldout_loss=slot.heldout_loss,
        )
        claims.append(Claim(entry=entry, final=False))
    return claims


class TaskVerifier:
    """Verifies rounds of one task. Holds at most two states at a time."""

    def __init__(
        self,
        materials: Materials,
        claims: Sequence[Claim],
        *,
        engine: Engine | None = None,
        on_step: Callable[[int, StepReport], None] | None = None,
    ) -> None:
        self._materials = materials
        self._claims = list(claims)
        self._engine = engine
        self._on_step = on_step
        # The last state known to have the root beside it: the end of the replay before.
        self._at: tuple[bytes, State] | None = None

    def verify(self, rounds: Sequence[int]) -> Iterator[RoundVerdict]:
        """Checks the rounds in order, each as it is asked for.

        Raises:
            SpecificationError: a round that has no result yet.
            ResourceError: memory or disk ran out.
        """
        for number in rounds:
            if not 0 <= number < len(self._claims):
                raise SpecificationError(
                    f"Round {number} of task {self._materials.task.number} has no result yet; "
                    f"{len(self._claims)} rounds have.",
                    field="round",
                    remedy=f"Name a round below {len(self._claims)}." if self._claims else "Wait for a submission.",
                )
        for number in sorted(set(rounds)):
            yield self._check(number)

    def _check(self, number: int) -> RoundVerdict:
        claim = self._claims[number]
        problems = self._judge_entry(claim.entry)
        replay, missing = self._replay(claim.entry)
        if replay is not None and replay.actual != replay.expected:
            problems.append(
                f"the replay ends in {root_hex(replay.actual)}, but {root_hex(replay.expected)} was submitted"
            )
        if replay is not None and replay.actual_loss != replay.expected_loss:
            problems.append(
                f"the held-out loss is {bits_float(replay.actual_loss)!r}, but "
                f"{bits_float(replay.expected_loss)!r} was submitted"
            )
        seconds, replayed = (0.0, None) if replay is None else (replay.seconds, replay.actual)
        if replay is not None:
            self._at = (replay.actual, replay.state)
        del replay  # the state is held by self._at alone, so that the stored one can take its place in memory
        stored, stored_problem = self._stored(claim.entry.state_root)
        return RoundVerdict(
            claim=claim,
            verdict="differs" if problems else ("unchecked" if missing else "agrees"),
            problems=tuple(problems) if problems else tuple([missing] if missing else []),
            replayed=replayed,
            seconds=seconds,
            stored=stored,
            stored_problem=stored_problem,
        )

    def _judge_entry(self, entry: Checkpoint) -> list[str]:
        """What is wrong with a lineage entry by itself. The contract rules these out; a lying node does not."""
        parameters = self._materials.task.parameters
        problems: list[str] = []
        before = parameters.initial_state_root if entry.round == 0 else self._claims[entry.round - 1].entry.state_root
        if entry.parent != before:
            problems.append(f"its parent is {root_hex(entry.parent)}, but the round before ended in {root_hex(before)}")
        if not parameters.minimum_steps <= entry.steps <= parameters.steps_per_round:
            problems.append(
                f"it did {entry.steps} steps, and {parameters.minimum_steps} to {parameters.steps_per_round} are asked"
            )
        return problems

    def _replay(self, entry: Checkpoint) -> tuple[ReplayResult | None, str]:
        """The replay, or why there is none."""
        try:
            base = self.state_before(entry.round)
        except DataError as error:
            return None, f"its base cannot be had: {error.problem}"
        return self._run(base, entry), ""

    def _run(self, base: State, entry: Checkpoint) -> ReplayResult:
        report = self._on_step
        result = replay_round(
            self._materials,
            base,
            entry,
            engine=self._engine,
            on_step=None if report is None else (lambda step: report(entry.round, step)),
        )
        assert result is not None  # nothing was given that could stop it
        return result

    def base_root(self, number: int) -> bytes:
        """Root of the state that a round starts from: a round with a result, or the one after the last."""
        if number < len(self._claims):
            return self._claims[number].entry.parent
        return self._claims[-1].entry.state_root if self._claims else self._materials.task.parameters.initial_state_root

    def state_before(self, number: int) -> State:
        """The state that a round starts from: just replayed, stored, or replayed from the nearest one that is.

        Raises:
            DataError: neither the store has it, nor what it could be replayed from.
        """
        wanted = self.base_root(number)
        if self._at is not None and self._at[0] == wanted:
            return self._at[1]
        self._at = None
        first, state = self._nearest(number)
        for entry in (claim.entry for claim in self._claims[first:number]):
            replay = self._run(state, entry)
            if replay.actual != entry.state_root:
                raise DataError(
                    f"state {root_hex(wanted)} is not in the store {self._materials.store.url}, and cannot be "
                    f"replayed either, since round {entry.round} differs"
                )
            state = replay.state
        return state

    def _nearest(self, number: int) -> tuple[int, State]:
        """The last round up to `number` whose base is in the store, and that state."""
        for first in range(number, -1, -1):
            try:
                return first, load_state(self._materials.store, self.base_root(first), self._materials.layout)
            except (BlobMissing, BlobCorrupt):
                if first == 0:
                    raise
        raise AssertionError("round 0 returns or raises")

    def _stored(self, root: bytes) -> tuple[Stored, str]:
        """Whether the store has the submitted state, whole. Never through a cache, which would hide damage."""
        with tempfile.TemporaryDirectory(prefix="trainledger-verify-") as fresh:
            try:
                load_state(self._materials.store, root, self._materials.layout, Path(fresh))
            except BlobMissing as error:
                return "missing", error.problem
            except BlobCorrupt as error:
                return "corrupt", error.problem
        return "whole", ""
