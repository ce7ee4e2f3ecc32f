"""Ranks that torchrun starts: one state root however many there are, and one step done again where one is lost."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_programs import TEXT, Runs, first_state, small, traced

from ledger.errors import SettingsError
from trainer.commit.states import state_root
from trainer.engine.segment import run_segment
from trainer.rounds import Launch, launch_of
from trainer.rounds.calls import Failure
from trainer.rounds.launched import who_began

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("torchrun_segment.py")
STEPS = 3
SET = {
    "RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
}


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A file that says what to train, and the state root that the reference gives."""
    tokens = np.frombuffer(TEXT, dtype=np.uint8).astype(np.uint16)
    runs = Runs(train=tokens[:9000], heldout=tokens[9000:])
    description = small(batch_size=8, shards=4, model={"layers": 1})
    program, first = traced(description, runs), first_state(description, runs)
    path = tmp_path_factory.mktemp("torchrun") / "job"
    path.write_bytes(pickle.dumps((program, runs, first, STEPS)))
    return path, state_root(run_segment(program, runs, first, steps=STEPS).state.values()).hex()


def torchrun(folder: Path, job: Path, *options: str, kill_at: int | None = None) -> dict[str, Any]:
    """How the segment ended under torchrun."""
    folder.mkdir(exist_ok=True)
    (folder / "job").write_bytes(job.read_bytes())
    words = [sys.executable, "-m", "torch.distributed.run", *options, str(SCRIPT), str(folder)]
    done = subprocess.run(
        [*words, *([] if kill_at is None else [str(kill_at)])],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests/engine")))},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ends: dict[str, Any] = json.loads((folder / "ends").read_text())
    return ends


def test_killed_rank_costs_the_step_and_not_a_bit(job: tuple[Path, str], tmp_path: Path) -> None:
    """Rank 1 dies after the first of three steps; torchrun starts both again, and they go on with the second."""
    path, wanted = job
    ends = torchrun(tmp_path / "two", path, "--standalone", "--nproc-per-node=2", "--max-restarts=1", kill_at=1)
    assert ends == {"root": wanted, "from": 1, "ranks": "2 ranks"}


@pytest.mark.full
@pytest.mark.parametrize(("ranks", "name"), [(1, "reference"), (2, "2 ranks"), (4, "4 ranks")])
def test_torchrun_of_any_size_has_the_references_root(
    ranks: int, name: str, job: tuple[Path, str], tmp_path: Path
) -> None:
    path, wanted = job
    ends = torchrun(tmp_path / name, path, "--standalone", f"--nproc-per-node={ranks}")
    assert ends == {"root": wanted, "from": 0, "ranks": name}


def test_who_began_is_blamed_and_not_who_missed_it() -> None:
    missed, failed = Failure("missed another", "trace", True), Failure("failed: ValueError: odd", "trace", False)
    gone = Failure("is gone", "", False)
    assert who_began({0: missed, 1: failed, 3: missed}, [1, 2, 3]) == (1, failed)
    assert who_began({0: missed, 1: failed, 3: gone}, [1, 2, 3]) == (3, gone)
    assert who_began({0: missed, 1: missed}, [1, 2])[0] == 2
    assert who_began({0: failed, 1: missed}, [1]) == (0, failed)
    assert who_began({0: missed}, []) == (0, missed)


def test_launch_of_torchruns_environment() -> None:
    assert launch_of(SET) == Launch(rank=1, size=4, local_rank=1, local_size=2)
    assert launch_of({}) is None
    assert launch_of({**SET, "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}) is None
    assert launch_of({**SET, "MASTER_ADDR": ""}) is None


@pytest.mark.parametrize("wrong", [{"RANK": "one"}, {"RANK": "4"}, {"WORLD_SIZE": "65"}, {"LOCAL_RANK": "2"}])
def test_launch_of_impossible_places_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=r"RANK|Rank"):
        launch_of({**SET, **wrong})


def test_launch_gives_each_rank_its_own_gpu() -> None:
    launch = Launch(rank=3, size=4, local_rank=1, local_size=2)
    assert [launch.device(setting) for setting in ("cpu", "cuda", "cuda:0")] == ["cpu", "cuda:1", "cuda:0"]
    assert not launch.one_machine
