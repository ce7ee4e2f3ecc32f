"""Random schedules of joins, kills, delays, reorganisations and restarts: each ends with the right states and pay."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import audit_books
import pytest
from stage_of_faults import FaultStage, open_fault_stage
from toys import Toy

from ledger.compile import Artifact
from ledger.types import Slot, TaskParameters

pytestmark = pytest.mark.chain

QUICK, FULL = 5, 240
SHORT = 4  # a seed of a schedule that takes a moment


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, artifacts: dict[str, Artifact]) -> Iterator[FaultStage]:
    with open_fault_stage(tmp_path_factory.mktemp("faults"), artifacts) as opened:
        yield opened


@pytest.mark.parametrize(
    "seed", [*range(QUICK), *(pytest.param(seed, marks=pytest.mark.full) for seed in range(QUICK, FULL))]
)
def test_schedule(stage: FaultStage, tmp_path: Path, seed: int) -> None:
    stage.play(seed, tmp_path)


def test_seed_gives_the_same_faults_again(stage: FaultStage, tmp_path: Path) -> None:
    def heads(folder: Path) -> list[list[str]]:
        """Times, names and kinds of the faults. What comes of them may differ: the node simulates by its own clock."""
        words = [line.split() for line in stage.play(SHORT, folder).trace]
        return [[*line[: at + 1]] for line in words for at, word in enumerate(line) if word.isupper() and len(word) > 2]

    first = heads(tmp_path / "first")
    assert len(first) > 5
    assert heads(tmp_path / "second") == first


def test_pay_that_is_off_by_a_wei_is_noticed(
    stage: FaultStage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = audit_books.pay

    def off(terms: TaskParameters, slot: Slot) -> int:
        return right(terms, slot) + 1

    monkeypatch.setattr(audit_books, "pay", off)
    with pytest.raises(AssertionError, match="the credit of worker") as caught:
        stage.play(SHORT, tmp_path)
    assert f"test_schedule[{SHORT}]" in str(caught.value)


def test_state_of_no_undisturbed_run_is_noticed(
    stage: FaultStage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Toy.trained
    monkeypatch.setattr(Toy, "trained", lambda toy, base, slot: right(toy, base, slot + 1))
    with pytest.raises(AssertionError, match="of round 0"):
        stage.play(SHORT, tmp_path)
