"""Ranks that are processes: the reference's bits, and clean ends."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from compiled_programs import same
from rank_work import listening, numbers, refuse, sleep, vanish
from threaded_ranks import Windows, reference_states, training

from trainer.commit.states import state_root
from trainer.rounds import RankedProgram, RankFailed, RankProcesses

_MOST_SECONDS = 10.0  # to end by, where gloo by itself would wait for 600


@pytest.fixture(scope="module")
def pair() -> Iterator[RankProcesses]:
    with RankProcesses(2) as processes:
        yield processes


def alive(process: int) -> bool:
    """Whether a process is there, and no mere entry that its parent has yet to read."""
    try:
        with open(f"/proc/{process}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_call_runs_on_every_rank(pair: RankProcesses) -> None:
    assert pair.ranks == 2
    assert pair.call(numbers, 7) == [(0, 2, 1, 7), (1, 2, 1, 7)]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's tables of sockets")
def test_processes_listen_on_the_loopback_only(pair: RankProcesses) -> None:
    for addresses in pair.call(listening):
        assert addresses
        assert set(addresses) == {"0100007F"}  # 127.0.0.1


def test_ranked_program_training_and_whole_programs_are_the_reference_s(pair: RankProcesses) -> None:
    for shards in (4, 1):
        built, state = training(shards)
        run = RankedProgram(pair, built.program, built.constants)
        run.load(state)
        for step in range(2):
            run.step(Windows(step))
        assert same(run.state(), reference_states(built, state, steps=2)), shards
        assert [one.ratio > 1 for one in run.traffic] == [shards > 1] * 2
        run.close()


def test_ranked_program_without_batches_refused(pair: RankProcesses) -> None:
    built, state = training(2)
    run = RankedProgram(pair, built.program, built.constants)
    run.load(state)
    with pytest.raises(ValueError, match="the program reads tokens, and no batches were given"):
        run.step()
    run.step(Windows(0))
    assert same(run.state(), reference_states(built, state))


def test_call_killed_rank_ends_the_others_and_is_blamed() -> None:
    with RankProcesses(2) as processes:
        started = time.monotonic()
        with pytest.raises(RankFailed, match=r"^Rank 1 was ended by signal 9 \(Killed\); the other ranks were") as told:
            processes.call(vanish, 1)
        assert time.monotonic() - started < _MOST_SECONDS
        assert told.value.rank == 1
        assert not any(alive(process) for process in processes.process_ids)
        with pytest.raises(RankFailed, match=r"^Rank 1 was ended by signal 9"):
            processes.call(numbers, 7)


def test_call_raising_rank_ends_the_others_and_is_blamed() -> None:
    with RankProcesses(2) as processes:
        started = time.monotonic()
        with pytest.raises(RankFailed, match=r"^Rank 1 failed: ValueError: a step too far; the other ranks") as told:
            processes.call(refuse, 1)
        assert time.monotonic() - started < _MOST_SECONDS
        assert "in refuse" in told.value.details
        assert not any(alive(process) for process in processes.process_ids)


def test_call_without_answer_ends_in_time() -> None:
    with RankProcesses(1, timeout=1.0) as processes:
        with pytest.raises(RankFailed, match=r"^Rank 0 gave no answer within 1 seconds"):
            processes.call(sleep, 60.0)
        assert not alive(processes.process_ids[0])


def test_rank_processes_none_refused() -> None:
    with pytest.raises(ValueError, match=r"^a worker has 1 to 64 ranks, not 0$"):
        RankProcesses(0)


@pytest.mark.full
@pytest.mark.parametrize("ranks", [1, 4])
def test_ranked_program_more_ranks_same_state_root(ranks: int) -> None:
    built, state = training(4)
    expected = state_root(reference_states(built, state, steps=3))
    with RankProcesses(ranks) as processes:
        run = RankedProgram(processes, built.program, built.constants)
        run.load(state)
        for step in range(3):
            run.step(Windows(step))
        assert state_root(run.state()) == expected


_PARENT = """
from trainer.rounds import RankProcesses
if __name__ == "__main__":
    processes = RankProcesses(2)
    print(*processes.process_ids, flush=True)
    input()
"""


@pytest.mark.full
def test_processes_end_with_a_killed_parent(tmp_path: "os.PathLike[str]") -> None:
    script = os.path.join(tmp_path, "parent.py")
    with open(script, "w") as file:
        file.write(_PARENT)
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    with subprocess.Popen(
        [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as parent:
        assert parent.stdout is not None
        children = [int(one) for one in parent.stdout.readline().split()]
        assert len(children) == 2
        assert all(alive(one) for one in children)
        parent.kill()
    deadline = time.monotonic() + _MOST_SECONDS
    while any(alive(one) for one in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(one) for one in children)
