"""The processes of one worker's ranks, on this machine: started, given work, and ended together (docs/ranks.md).

They meet over a file in a private folder and talk gloo over the loopback interface, on ports that the system chooses:
nothing listens to other machines. A rank that dies, fails or does not answer ends them all.
"""

from __future__ import annotations

import datetime
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import socket
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, NoReturn, ParamSpec, Self, TypeVar

import torch
import torch.distributed

from ledger.errors import TrainledgerError
from trainer.engine.exact.exchange import TorchGroup

MOST_RANKS = 64
# Seconds: to see which rank died when the others complain first; to end by themselves.
_BLAME, _FAREWELL = 1.0, 5.0
# Seconds that starting may take at least: a process imports PyTorch first.
_START = 120.0

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class RankFailed(TrainledgerError):
    """A rank died, failed or did not answer; the others were stopped.

    Attributes:
        rank: which one. details: its traceback, "" where it left none.
    """

    def __init__(self, rank: int, problem: str, *, details: str = "") -> None:
        super().__init__(
            f"Rank {rank} {problem}; the other ranks were stopped.",
            remedy="Run the segment again from its last checkpoint, on fewer ranks if memory was short.",
        )
        self.rank = rank
        self.details = details


@dataclass
class RankContext:
    """What work finds on its rank: the group, and what earlier work left there."""

    group: TorchGroup
    held: dict[Any, Any] = field(default_factory=dict)


class RankProcesses:
    """Ranks that wait for work. Not for two threads at a time.

    Processes are spawned: a script that makes this needs its `if __name__ == "__main__":`.

    Example::

        with RankProcesses(2) as processes:
            roots = processes.call(work, 1, 2)  # work(context, 1, 2) on both ranks at once
    """

    def __init__(self, ranks: int, *, threads: int = 1, timeout: float = 600.0) -> None:
        """Starts the ranks, and returns when all have met.

        Args:
            threads: CPU threads of each rank, in PyTorch.
            timeout: seconds that a call may take, and that a rank waits for another.

        Raises:
            RankFailed: a rank did not start.
        """
        if not 1 <= ranks <= MOST_RANKS:
            raise ValueError(f"a worker has 1 to {MOST_RANKS} ranks, not {ranks}")
        self._timeout = timeout
        self._failure: RankFailed | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="trainledger-ranks-")
        self._pipes: list[Connection] = []
        self._processes: list[SpawnProcess] = []
        spawn = multiprocessing.get_context("spawn")
        store = str(Path(self._folder.name) / "store")
        try:
            for rank in range(ranks):
                ours, theirs = spawn.Pipe()
                self._pipes.append(ours)
                arguments = (rank, ranks, threads, store, timeout, theirs)
                process = spawn.Process(target=_serve, args=arguments, name=f"rank {rank}", daemon=True)
                process.start()
                self._processes.append(process)
                theirs.close()
            self._answers(max(timeout, _START))
        except BaseException:
            self.close()
            raise

    @property
    def ranks(self) -> int:
        """How many there are."""
        return len(self._processes)

    @property
    def process_ids(self) -> list[int]:
        """The system's numbers of the processes, by rank."""
        return [process.pid or 0 for process in self._processes]

    def call(
        self, work: Callable[Concatenate[RankContext, Arguments], Result], *args: Arguments.args, **_: Arguments.kwargs
    ) -> list[Result]:
        """work(context, *args) on every rank at once: their results, by rank.

        Args:
            work: a function that its module names; arguments and results are pickled.

        Raises:
            RankFailed: a rank died, raised or took too long; the others were stopped, and there are no more calls.
        """
        if self._failure is not None:
            raise self._failure
        message = pickle.dumps((work, args))
        for pipe in self._pipes:
            # Beside this thread: a rank that has stopped reading must not keep it from the timeout.
            threading.Thread(target=_send, args=(pipe, message), daemon=True).start()
        return self._answers(self._timeout)

    def stop(self, rank: int, problem: str) -> NoReturn:
        """Ends the ranks because one did something that it should not.

        Raises:
            RankFailed: always.
        """
        self._failure = RankFailed(rank, problem)
        self._kill()
        raise self._failure

    def close(self) -> None:
        """Ends the ranks: asked first, then killed."""
        for pipe in self._pipes:
            pipe.close()  # which is how a rank that waits for work learns that there will be none
        deadline = time.monotonic() + (_FAREWELL if self._failure is None else 0.0)
        for process in self._processes:
            process.join(max(0.0, deadline - time.monotonic()))
        self._kill()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answers(self, timeout: float) -> list[Any]:
        """Waits for one answer of each rank."""
        answers: dict[int, Any] = {}
        deadline = time.monotonic() + timeout
        while len(answers) < self.ranks:
            missing = {self._pipes[rank]: rank for rank in range(self.ranks) if rank not in answers}
            left = max(0.0, deadline - time.monotonic())
            ready = multiprocessing.connection.wait(list(missing), left)
            if not ready:
                self._fail(min(missing.values()), f"gave no answer within {timeout:g} seconds")
            for pipe in ready:
                assert isinstance(pipe, Connection)
                rank = missing[pipe]
                try:
                    succeeded, answer = pickle.loads(pipe.recv_bytes())
                except (EOFError, OSError):  # its end is closed, because it is gone
                    self._fail(rank, "closed its pipe")
                if not succeeded:
                    self._fail(rank, f"failed: {answer[0]}", answer[1])
                answers[rank] = answer
        return [answers[rank] for rank in range(self.ranks)]

    def _fail(self, rank: int, problem: str, details: str = "") -> NoReturn:
        """Stops all ranks and blames the one that died, if one did: the others only miss it."""
        gone = multiprocessing.connection.wait([process.sentinel for process in self._processes], _BLAME)
        for number, process in enumerate(self._processes):
            if process.sentinel in gone:
                process.join(_BLAME)  # a process closes its files, the sentinel too, just before it has ended
                if process.exitcode is not None:
                    rank, problem, details = number, _ending(process.exitcode), ""
                    break
        self._failure = RankFailed(rank, problem, details=details)
        self._kill()
        raise self._failure

    def _kill(self) -> None:
        for process in self._processes:
            if process.is_alive():
                process.kill()
        for process in self._processes:
            process.join()


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was ended by signal {-code} ({signal.strsignal(-code)})"


def _send(pipe: Connection, message: bytes) -> None:
    try:
        pipe.send_bytes(message)
    except OSError:
        return  # the rank is gone, which whoever waits for its answer sees


def _serve(rank: int, ranks: int, threads: int, store: str, timeout: float, pipe: Connection) -> None:
    """A rank's whole life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the first process's to handle, which then ends this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    context: RankContext | None = None
    try:
        context = _joined(rank, ranks, threads, store, timeout)
        answer: tuple[bool, Any] = (True, None)
    except Exception as error:
        answer = (False, _told(error))
    _send(pipe, pickle.dumps(answer))
    while context is not None:
        try:
            message = pipe.recv_bytes()
        except (EOFError, OSError):
            break
        try:
            work, arguments = pickle.loads(message)
            answer = (True, work(context, *arguments))
        except Exception as error:
            answer = (False, _told(error))
        _send(pipe, pickle.dumps(answer))
    # At once: other ranks may be gone already, and taking leave of them would wait.
    os._exit(0)


def _joined(rank: int, ranks: int, threads: int, store: str, timeout: float) -> RankContext:
    torch.set_num_threads(threads)
    names = {name for _, name in socket.if_nameindex()}
    os.environ["GLOO_SOCKET_IFNAME"] = "lo0" if "lo0" in names else "lo"
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=ranks,
        timeout=datetime.timedelta(seconds=timeout),
    )
    return RankContext(TorchGroup())


def _told(error: Exception) -> tuple[str, str]:
    return f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error))


def _end_with_parent() -> None:
    """Ends this process when the one that started it is gone, however it went."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
