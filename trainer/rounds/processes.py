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
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import NoReturn

import torch
import torch.distributed

from trainer.engine.exact.exchange import TorchGroup
from trainer.rounds.calls import Failure, RankContext, RankFailed, Ranks, send, serve

MOST_RANKS = 64
# Seconds: to see which rank died when the others complain first; to end by themselves.
_BLAME, _FAREWELL = 1.0, 5.0
# Seconds that starting may take at least: a process imports PyTorch first.
_START = 120.0


class RankProcesses(Ranks):
    """Ranks on this machine that this process starts, asks and ends; it is none of them.

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
        super().__init__(timeout=timeout)
        self._folder = tempfile.TemporaryDirectory(prefix="trainledger-ranks-")
        self._processes: list[SpawnProcess] = []
        spawn = multiprocessing.get_context("spawn")
        store = str(Path(self._folder.name) / "store")
        try:
            for rank in range(ranks):
                ours, theirs = spawn.Pipe()
                self._links[rank] = ours
                arguments = (rank, ranks, threads, store, timeout, theirs)
                process = spawn.Process(target=_serve, args=arguments, name=f"rank {rank}", daemon=True)
                process.start()
                self._processes.append(process)
                theirs.close()
            self._answers(max(timeout, _START), {})
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

    def close(self) -> None:
        """Ends the ranks: asked first, then killed."""
        for link in self._links.values():
            link.close()  # which is how a rank that waits for work learns that there will be none
        deadline = time.monotonic() + (_FAREWELL if self._failure is None else 0.0)
        for process in self._processes:
            process.join(max(0.0, deadline - time.monotonic()))
        self._end()
        self._folder.cleanup()

    def _fail(self, rank: int, failure: Failure) -> NoReturn:
        """Stops all ranks and blames the one that died, if one did: the others only miss it."""
        problem, details = failure.problem, failure.details
        gone = multiprocessing.connection.wait([process.sentinel for process in self._processes], _BLAME)
        for number, process in enumerate(self._processes):
            if process.sentinel in gone:
                process.join(_BLAME)  # a process closes its files, the sentinel too, just before it has ended
                if process.exitcode is not None:
                    rank, problem, details = number, _ending(process.exitcode), ""
                    break
        self._failure = RankFailed(rank, problem, details=details)
        self._end()
        raise self._failure

    def _end(self) -> None:
        for process in self._processes:
            if process.is_alive():
                process.kill()
        for process in self._processes:
            process.join()


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was ended by signal {-code} ({signal.strsignal(-code)})"


def _serve(rank: int, ranks: int, threads: int, store: str, timeout: float, pipe: Connection) -> None:
    """A rank's whole life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the first process's to handle, which then ends this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        context = _joined(rank, ranks, threads, store, timeout)
    except Exception as error:
        send(pipe, pickle.dumps(Failure.of(error)))
    else:
        send(pipe, pickle.dumps(None))
        serve(context, pipe, leave_on_failure=False)
    # At once: other ranks may be gone already, and taking leave of them would wait.
    os._exit(0)


def _joined(rank: int, ranks: int, threads: int, store: str, timeout: float) -> RankContext:
    torch.set_num_threads(threads)
    os.environ["GLOO_SOCKET_IFNAME"] = loopback()
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=ranks,
        timeout=datetime.timedelta(seconds=timeout),
    )
    return RankContext(TorchGroup())


def loopback() -> str:
    """Name of the interface that leads to this machine alone."""
    names = {name for _, name in socket.if_nameindex()}
    return "lo0" if "lo0" in names else "lo"


def _end_with_parent() -> None:
    """Ends this process when the one that started it is gone, however it went."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
