"""Checking a task's rounds, slot by slot: links, counts, replays, and, apart from all that, what lies in the store.

Verification needs the data set and any one state before the rounds in question: states missing from the store are
replayed from the last one that is there. A damaged stored file is therefore told apart from a false root on chain.
"""

from __future__ import annotations

import dataclasses
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
from trainer.commit.states import inputs_root
from trainer.differences import load_slot_state
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
    """A slot's result as the chain has it: final, or submitted and still open to challenge.

    Attributes:
        entry: with the round's base as its parent.
        inputs_root: what a merge names as its base; empty for a slot that trains.
        inputs: state roots that a merge takes, the base's first; empty where nobody knows them.
    """

    entry: Checkpoint
    final: bool
    slot: int = 0
    inputs_root: bytes = b""
    inputs: tuple[bytes, ...] = ()

    @property
    def merge(self) -> bool:
        return bool(self.inputs_root)


@dataclass(frozen=True, kw_only=True)
class RoundVerdict:
    """What checking one slot of a round gave.

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
            "slot": self.claim.slot,
            "merge": self.claim.merge,
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
    """All rounds that were checked, in order, and in each its slots."""

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
    """Every result so far: those of each round in the order of their slots, the merge last."""
    claims = []
    for number in range(min(task.current_round + 1, task.parameters.rounds)):
        claims += _claims_of_round(chain, task, number)
    return claims


def _claims_of_round(chain: ChainReader, task: Task, number: int) -> list[Claim]:
    last, final = task.parameters.last_slot, number < task.current_round
    slots: list[int] = [last]
    if task.parameters.merges:
        slots = [*sorted(chain.round(task.number, number).submitted_slots), last]
    claims = []
    for place in slots:
        if final and place == last:
            entry, slot = chain.checkpoint(task.number, number), None
        else:
            slot = chain.slot(task.number, number, place)
            if slot.status < SlotStatus.SUBMITTED:
                continue
            entry = Checkpoint(
                task=task.number,
                round=number,
                parent=chain.base_root(task.number, number),
                state_root=slot.state_root,
                worker=slot.worker,
                steps=slot.steps,
                heldout_loss=slot.heldout_loss,
            )
        known = final or (slot is not None and slot.status is SlotStatus.FINALISED)
        claim = Claim(entry=entry, final=known, slot=place)
        if task.parameters.is_merge(place):
            generation = (slot or chain.slot(task.number, number, place)).generation
            root = chain.inputs_root(task.number, number, generation)
            claim = dataclasses.replace(claim, inputs_root=root, inputs=chain.merge_inputs(task.number, number, root))
        claims.append(claim)
    return claims


class TaskVerifier:
    """Verifies rounds of one task. Holds at most two states at a time; of rounds with merges what a merge takes."""

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
        last = materials.task.parameters.last_slot
        self._ends = {claim.entry.round: claim for claim in self._claims if claim.slot == last}
        # States known to have the root beside them: the end of the replay before, and, with merges, a round's base.
        self._at: tuple[bytes, State] | None = None
        self._base: tuple[bytes, State] | None = None

    def verify(self, rounds: Sequence[int]) -> Iterator[RoundVerdict]:
        """Checks the results of the rounds in order, each as it is asked for.

        Raises:
            SpecificationError: a round that has no result yet.
            ResourceError: memory or disk ran out.
        """
        there = {claim.entry.round for claim in self._claims}
        for number in rounds:
            if number not in there:
                task = self._materials.task.number
                raise SpecificationError(
                    f"Round {number} of task {task} has no result yet; {len(there)} rounds have.",
                    field="round",
                    remedy=f"Name a round below {len(there)}." if there else "Wait for a submission.",
                )
        for claim in [claim for claim in self._claims if claim.entry.round in set(rounds)]:
            yield self._check(claim)

    def _check(self, claim: Claim) -> RoundVerdict:
        problems = self._judge_entry(claim)
        replay, missing = self._replay(claim)
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
        stored, stored_problem = self._stored(claim)
        return RoundVerdict(
            claim=claim,
            verdict="differs" if problems else ("unchecked" if missing else "agrees"),
            problems=tuple(problems) if problems else tuple([missing] if missing else []),
            replayed=replayed,
            seconds=seconds,
            stored=stored,
            stored_problem=stored_problem,
        )

    def _judge_entry(self, claim: Claim) -> list[str]:
        """What is wrong with a result by itself. The contract rules these out; a lying node does not."""
        parameters, entry = self._materials.task.parameters, claim.entry
        problems: list[str] = []
        before = parameters.initial_state_root if entry.round == 0 else self._ends[entry.round - 1].entry.state_root
        if entry.parent != before:
            problems.append(f"its parent is {root_hex(entry.parent)}, but the round before ended in {root_hex(before)}")
        least, most = (1, 1) if claim.merge else (parameters.minimum_steps, parameters.steps_per_round)
        if not least <= entry.steps <= most:
            problems.append(f"it did {entry.steps} steps, and {least} to {most} are asked")
        return problems

    def _replay(self, claim: Claim) -> tuple[ReplayResult | None, str]:
        """The replay, or why there is none."""
        try:
            base = self.state_before(claim.entry.round)
        except DataError as error:
            return None, f"its base cannot be had: {error.problem}"
        try:
            return self._run(base, claim), ""
        except DataError as error:
            return None, f"what it merges cannot be had: {error.problem}"

    def _run(self, base: State, claim: Claim) -> ReplayResult:
        """Raises DataError where the states that a merge takes cannot be had."""
        report = self._on_step
        result = replay_round(
            self._materials,
            base,
            claim.entry,
            slot=claim.slot,
            inputs=self._inputs(base, claim) if claim.merge else None,
            engine=self._engine,
            on_step=None if report is None else (lambda step: report(claim.entry.round, step)),
        )
        assert result is not None  # nothing was given that could stop it
        return result

    def _inputs(self, base: State, claim: Claim) -> list[State | None]:
        """The states that a merge takes: from the store, or replayed; None for a slot that is the base again."""
        parent, roots = claim.entry.parent, claim.inputs[1:]
        known = len(roots) == self._materials.program.slots and claim.inputs[0] == parent
        if not known or inputs_root(parent, roots) != claim.inputs_root:
            raise DataError(f"no states are known that it takes as {root_hex(claim.inputs_root)}")
        places = range(len(roots))
        return [
            None if roots[at] == parent else self.slot_state(base, claim.entry.round, at, roots[at]) for at in places
        ]

    def slot_state(self, base: State, number: int, slot: int, root: bytes) -> State:
        """What a slot of a round was submitted as: from the store, or replayed on the round's base.

        Raises:
            DataError: the store has it not, and the replay gives another state.
        """
        store, layout = self._materials.store, self._materials.layout
        try:
            return load_slot_state(store, root, base, layout, base_root=self.base_root(number))
        except (BlobMissing, BlobCorrupt):
            for claim in self._claims:
                if (claim.entry.round, claim.slot, claim.entry.state_root) == (number, slot, root):
                    replay = self._run(base, claim)
                    if replay.actual == root:
                        return replay.state
            raise

    def base_root(self, number: int) -> bytes:
        """Root of the state that a round starts from: a round with a result, or the one after the last.

        Raises:
            DataError: there is no such round on the chain.
        """
        for claim in self._claims:
            if claim.entry.round == number:
                return claim.entry.parent
        if number == 0:
            return self._materials.task.parameters.initial_state_root
        if number - 1 not in self._ends:
            raise DataError(
                f"Round {number} has no base, since round {number - 1} has not ended.",
                remedy="The chain was reorganised: look again.",
            )
        return self._ends[number - 1].entry.state_root

    def state_before(self, number: int) -> State:
        """The state that a round starts from: just replayed, stored, or replayed from the nearest one that is.

        Raises:
            DataError: neither the store has it, nor what it could be replayed from.
        """
        wanted = self.base_root(number)
        for held in (self._at, self._base):
            if held is not None and held[0] == wanted:
                return self._keep_base(wanted, held[1])
        self._at = self._base = None
        first, state = self._nearest(number)
        for claim in (self._ends[at] for at in range(first, number)):
            replay = self._run(state, claim)
            if replay.actual != claim.entry.state_root:
                raise DataError(
                    f"state {root_hex(wanted)} is not in the store {self._materials.store.url}, and cannot be "
                    f"replayed either, since round {claim.entry.round} differs"
                )
            state = replay.state
        return self._keep_base(wanted, state)

    def _keep_base(self, root: bytes, state: State) -> State:
        """Other slots of the round start from it too."""
        if self._materials.task.parameters.merges:
            self._base = (root, state)
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

    def _stored(self, claim: Claim) -> tuple[Stored, str]:
        """Whether the store has the submitted state, whole. Never through a cache, which would hide damage."""
        store, layout, root, base = self._materials.store, self._materials.layout, claim.entry.state_root, self._base
        with tempfile.TemporaryDirectory(prefix="trainledger-verify-") as fresh:
            try:
                if base is None or base[0] != claim.entry.parent or claim.merge:
                    load_state(store, root, layout, Path(fresh))
                else:
                    load_slot_state(store, root, base[1], layout, base_root=base[0], folder=Path(fresh))
            except BlobMissing as error:
                return "missing", error.problem
            except BlobCorrupt as error:
                return "corrupt", error.problem
        return "whole", ""
