"""A segment that torchrun runs, in a folder: `job` says of what, `kept` is its snapshot, `ends` what became of it.

torchrun … torchrun_segment.py FOLDER [STEP]

With STEP, the first time, the last rank is killed (kill -9) once so many steps are done. Whatever the number of ranks,
`ends` is a line of JSON: the state root, the step it started from, and the number of ranks.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
from pathlib import Path

from trainer.commit.states import state_root
from trainer.engine.engines import Engine, ReferenceEngine
from trainer.engine.segment import StepReport, run_segment
from trainer.engine.state import State, step_of
from trainer.rounds import LaunchedRanks, RankContext, RanksEngine, launch_of, serve_launched


def process_id(context: RankContext) -> int:
    return os.getpid()


def train(folder: Path, engine: Engine, ranks: LaunchedRanks | None, kill_at: int | None) -> None:
    program, data, first, steps = pickle.loads((folder / "job").read_bytes())
    kept = folder / "kept"
    start: State = pickle.loads(kept.read_bytes()) if kept.exists() else first
    victim = ranks.call(process_id)[-1] if ranks is not None else os.getpid()

    def on_step(report: StepReport) -> None:
        if report.step == kill_at and not kept.exists():
            os.kill(victim, signal.SIGKILL)

    result = run_segment(
        program,
        data,
        start,
        steps=steps - step_of(start),
        engine=engine,
        report_every=1,
        on_step=on_step,
        snapshot=lambda state: (kept.write_bytes(pickle.dumps(state)), None)[1],
        snapshot_seconds=1e9,  # none but that of a step that is lost
        recheck=0,
    )
    ends = {"root": state_root(result.state.values()).hex(), "from": step_of(start), "ranks": engine.name}
    (folder / "ends").write_text(json.dumps(ends))


def main(folder: Path, kill_at: int | None) -> int:
    launch = launch_of(os.environ)
    if launch is None:
        train(folder, ReferenceEngine(), None, kill_at)
        return 0
    if launch.rank > 0:
        return int(not serve_launched(launch, "cpu", timeout=60.0))
    with LaunchedRanks(launch, "cpu", timeout=60.0) as ranks:
        engine = RanksEngine(launch.size, threads=1, folder=None, start=lambda: ranks)
        train(folder, engine, ranks, kill_at)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None))
