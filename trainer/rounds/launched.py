"""Ranks that torchrun started, on one machine or several (docs/ranks.md).

Rank 0 is the worker's own process, the others serve it. They meet as torchrun's environment says (RANK, WORLD_SIZE,
LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT) and exchange tensors by gloo or NCCL. What rank 0 asks for goes
over a TCP connection to each, whose address and key rank 0 leaves in the store where all meet.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import multiprocessing.connection
import os
import queue
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection, Listener
from typing import Any, NoReturn

import torch
import torch.distributed
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from ledger.errors import SettingsError
from trainer.engine.exact.exchange import TorchGroup
from trainer.rounds.calls import Failure, RankContext, RankFailed, Ranks, dismiss, received, serve
from trainer.rounds.processes import MOST_RANKS, loopback

_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# Seconds: to see which rank began it when all miss one another; for all to meet, which have to import PyTorch first.
_BLAME, _START = 2.0, 300.0
_REMEDY = (
    "torchrun ends all ranks now; with --max-restarts it starts them again, and training goes on from the last "
    "snapshot, as it does when the same command is run again."
)


@dataclass(frozen=True)
class Launch:
    """This process's place among those that torchrun started."""

    rank: int
    size: int
    local_rank: int
    local_size: int

    @property
    def one_machine(self) -> bool:
        """Whether all ranks are on this machine."""
        return self.local_size == self.size

    def device(self, setting: str) -> str:
        """The device of this rank: of "cuda" the GPU with its local rank's number, else what the setting says."""
        return f"cuda:{self.local_rank}" if setting == "cuda" else setting


def launch_of(environ: Mapping[str, str]) -> Launch | None:
    """The place that torchrun gave this process; None where it started none, or this one alone.

    Raises:
        SettingsError: a variable of torchrun's is no number, or there are more than 64 ranks.
    """
    if any(not environ.get(name) for name in _VARIABLES):
        return None
    try:
        rank, size, local_rank, local_size = (int(environ[name]) for name in _VARIABLES[:4])
    except ValueError as error:
        raise SettingsError(
            f"{', '.join(_VARIABLES[:4])} are set, as torchrun does, but not all to numbers: {error}.",
            remedy="Unset them, or start the worker with torchrun.",
        ) from None
    if not (0 <= rank < size <= MOST_RANKS and 0 <= local_rank < local_size <= size):
        raise SettingsError(
            f"Rank {rank} of {size}, number {local_rank} of {local_size} on its machine, is not possible: a worker has "
            f"at most {MOST_RANKS} ranks.",
            remedy="Give torchrun fewer processes (--nproc-per-node, --nnodes).",
        )
    return Launch(rank, size, local_rank, local_size) if size > 1 else None


class LaunchedRanks(Ranks):
    """All ranks that torchrun started, as rank 0 sees them: it is one of them, and asks the others.

    Example::

        with LaunchedRanks(launch, "cpu") as ranks:  # on the others: serve_launched(launch, "cpu")
            ranks.call(work, 1, 2)
    """

    def __init__(self, launch: Launch, device: str, *, threads: int = 1, timeout: float = 600.0) -> None:
        """Returns when all have met.

        Args:
            device: of this rank. threads: CPU threads of it, in PyTorch.
            timeout: seconds that a call may take, and that a rank waits for another.

        Raises:
            RankFailed: a rank did not come.
        """
        super().__init__(timeout=timeout)
        self._size = launch.size
        try:
            self.own, store = _joined(launch, device, threads=threads, timeout=timeout)
            self._links = _accepted(launch, store)
        except (RuntimeError, queue.Empty) as error:
            raise RankFailed(0, f"waited in vain for the others: {error}", remedy=_REMEDY) from error

    @property
    def ranks(self) -> int:
        return self._size

    def close(self) -> None:
        """Lets the other ranks leave."""
        for link in self._links.values():
            dismiss(link)
        self._links = {}

    def _done_here(self, work: Callable[..., Any], args: tuple[Any, ...]) -> dict[int, Any]:
        assert self.own is not None
        try:
            return {0: work(self.own, *args)}
        except Exception as error:
            self._fail(0, Failure.of(error))

    def _fail(self, rank: int, failure: Failure) -> NoReturn:
        first, blamed = who_began({rank: failure} | self._failures(but=rank), list(self._links))
        self._failure = RankFailed(first, blamed.problem, details=blamed.details, remedy=_REMEDY)
        self._end()
        raise self._failure

    def _failures(self, *, but: int) -> dict[int, Failure]:
        """What the other ranks have to say of it within a moment. Answers of work that went well say nothing."""
        waiting = {link: at for at, link in self._links.items() if at != but}
        found: dict[int, Failure] = {}
        deadline = time.monotonic() + _BLAME
        while waiting and (left := deadline - time.monotonic()) > 0:
            for link in multiprocessing.connection.wait(list(waiting), left):
                assert isinstance(link, Connection)
                answer = received(link)
                at = waiting.pop(link)
                found[at] = answer if isinstance(answer, Failure) else Failure("did its part", "", True)
        return found

    def _end(self) -> None:
        """Closes what they wait for; torchrun ends those that hang."""
        for link in self._links.values():
            link.close()
        self._links = {}


def who_began(failures: Mapping[int, Failure], others: Sequence[int]) -> tuple[int, Failure]:
    """The rank to blame: one that is gone, then one that failed by itself, then one of the others that says nothing.

    Args:
        failures: by rank. others: ranks that should have told theirs.
    """
    own = {rank: one for rank, one in failures.items() if not one.missed}
    gone = [rank for rank, one in own.items() if not one.details]
    silent = [rank for rank in others if rank not in failures]
    first = next(iter([*gone, *own, *silent, *failures]))
    return first, failures.get(first, Failure("gave no answer", "", False))


def serve_launched(launch: Launch, device: str, *, threads: int = 1, timeout: float = 600.0) -> bool:
    """The whole life of a rank other than 0; whether rank 0 let it go, and did not end without a word.

    From the time when all have met, signals are rank 0's to heed, which gets the same ones: it ends between two steps,
    and lets the others go. Before, they end this process at once, since rank 0 may never come.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    context, store = _joined(launch, device, threads=threads, timeout=timeout)
    address = json.loads(store.get("address"))
    link = Client((address["host"], address["port"]), authkey=bytes.fromhex(address["key"]))
    _quicken(link)
    link.send_bytes(str(launch.rank).encode())
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    return serve(context, link, leave_on_failure=True)


def _joined(launch: Launch, device: str, *, threads: int, timeout: float) -> tuple[RankContext, Store]:
    """The group of all ranks, and the store where they met."""
    torch.set_num_threads(threads)
    if launch.one_machine:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback())
    target = torch.device(device)
    # A GPU that several ranks share cannot be NCCL's.
    own_gpu = target.type == "cuda" and target.index == launch.local_rank
    if target.type == "cuda":
        torch.cuda.set_device(target)
    limit = datetime.timedelta(seconds=max(timeout, _START))
    met, rank, size = next(rendezvous("env://", timeout=limit))
    # Those that were started again must not find what those before them left.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    torch.distributed.init_process_group(
        "nccl" if own_gpu else "gloo",
        store=PrefixStore(f"trainledger/{attempt}/group", met),
        rank=rank,
        world_size=size,
        timeout=datetime.timedelta(seconds=timeout),
    )
    store = PrefixStore(f"trainledger/{attempt}/links", met)
    return RankContext(TorchGroup(), device), store


def _accepted(launch: Launch, store: Store) -> dict[int, Connection]:
    """A connection from each of the other ranks."""
    bind, host = _own_addresses(launch)
    key = secrets.token_bytes(32)
    found: queue.Queue[tuple[int, Connection]] = queue.Queue()
    with Listener((bind, 0), backlog=launch.size, authkey=key) as listener:
        store.set("address", json.dumps({"host": host, "port": listener.address[1], "key": key.hex()}))
        # Beside this thread: accepting knows no timeout.
        threading.Thread(target=_accept, args=(listener, launch.size - 1, found), daemon=True).start()
        return dict(found.get(timeout=_START) for _ in range(launch.size - 1))


def _accept(listener: Listener, count: int, found: queue.Queue[tuple[int, Connection]]) -> None:
    while count:
        # Who does not know the key, or hangs up, is none of the ranks.
        with contextlib.suppress(multiprocessing.AuthenticationError, EOFError, ConnectionError):
            link = listener.accept()
            _quicken(link)
            found.put((int(link.recv_bytes()), link))
            count -= 1


def _own_addresses(launch: Launch) -> tuple[str, str]:
    """Where this machine listens, and the name by which the other ranks reach it.

    That is its address on the way to where all met. Where that is on this machine, others know it by MASTER_ADDR.
    """
    if launch.one_machine:
        return "127.0.0.1", "127.0.0.1"
    master = os.environ["MASTER_ADDR"]
    with socket.create_connection((master, int(os.environ["MASTER_PORT"])), timeout=30.0) as way:
        own = str(way.getsockname()[0])
    return ("", master) if ipaddress.ip_address(own).is_loopback else (own, own)


def _quicken(link: Connection) -> None:
    """Has short messages sent at once, and the end of a machine noticed."""
    with socket.socket(fileno=os.dup(link.fileno())) as one:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
