"""Random schedules of joins, kills, delays, reorganisations and restarts: each ends with the right states and pay."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from stage_of_faults import FaultStage, open_fault_stage

from ledger.compile import Artifact

pytestmark = pytest.mark.chain

QUICK, FULL = 12, 240


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, artifacts: dict[str, Artifact]) -> Iterator[FaultStage]:
    with open_fault_stage(tmp_path_factory.mktemp("faults"), artifacts) as opened:
        yield opened


@pytest.mark.parametrize(
    "seed", [*range(QUICK), *(pytest.param(seed, marks=pytest.mark.full) for seed in range(QUICK, FULL))]
)
def test_schedule(stage: FaultStage, tmp_path: Path, seed: int) -> None:
    stage.play(seed, tmp_path)
