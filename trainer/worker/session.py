"""Puts a worker together: its folder, its lock, and all the parts that it is made of."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from ledger.atomic import release_lock, try_lock
from ledger.errors import UsageError
from trainer.dispute.player import GameChain, Player
from trainer.dispute.segments import SegmentSource
from trainer.engine.engines import Engine
from trainer.store import BlobStore
from trainer.worker.board import Board
from trainer.worker.folders import worker_folder
from trainer.worker.machine import SpeedRecord
from trainer.worker.policy import WorkerOptions, judge_store
from trainer.worker.ports import WorkerChain
from trainer.worker.progress import Reporter
from trainer.worker.round import RESUME, RoundRunner
from trainer.worker.snapshots import SnapshotStore
from trainer.worker.stop import Stop
from trainer.worker.worker import Worker
from trainer.worker.workshop import Identity, Workshop

__all__ = ["make_worker", "stop_between", "worker_folder", "worker_lock"]


@contextmanager
def worker_lock(folder: Path, address: str, *, what: str = "worker") -> Iterator[None]:
    """One worker (audit, player) of an account in a home at a time: two would do the same, and write the same files.

    Raises:
        UsageError: another one runs.
    """
    path = folder / "lock"
    descriptor = try_lock(path)
    if descriptor is None:
        pid = ""
        with contextlib.suppress(OSError):
            pid = path.read_text().strip()
        raise UsageError(
            f"{'An' if what == 'audit' else 'A'} {what} of account {address} is already running in this home "
            f"(process {pid or 'unknown'}).",
            remedy=f"Let it work, or end it first; a second {what} needs an account of its own (--account).",
        )
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        release_lock(descriptor)


def make_worker(
    chain: WorkerChain,
    *,
    signer: str,
    worker: str,
    identity: Identity,
    options: WorkerOptions,
    engine: Engine,
    home: Path,
    store_url: str,
    reporter: Reporter,
    stop: Stop,
    games: GameChain | None = None,
    open_store: Callable[[str], BlobStore] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Worker:
    """A worker over its parts; the caller holds its lock.

    `games` is where it defends its submissions; without, it does not. `open_store` and `clock` (seconds that only go
    forward) are given by tests; time for them may be a chain's.
    """
    folder, cache = worker_folder(home, signer), home / "cache"
    bases = folder / "bases"
    snapshots = SnapshotStore(folder / "snapshots")
    speeds = SpeedRecord(folder / "speeds.json")
    board = Board(chain, worker=worker, only_task=options.only_task, clock=clock)
    workshop = Workshop(
        chain,
        identity=identity,
        options=options,
        engine=engine,
        store_url=store_url,
        open_store=open_store or (lambda url: BlobStore(url, cache=cache)),
        cache=cache,
        bases=bases,
        snapshots=snapshots,
        speeds=speeds,
        reporter=reporter,
        stop=stop,
        clock=clock,
    )
    player = None
    if games is not None:
        source = SegmentSource(
            chain,
            store_of=lambda task: judge_store(chain.store_url(task), store_url, options.allowed_stores) or store_url,
            cache=cache,
            journals=folder / "disputes",
            engine=engine,
            between=partial(stop_between, stop),
        )
        player = Player(games, source, owner=worker, reporter=reporter, clock=clock, poll_seconds=options.poll_seconds)
    runner = RoundRunner(
        chain,
        options=options,
        engine=engine,
        snapshots=snapshots,
        bases=bases,
        speeds=speeds,
        reporter=reporter,
        stop=stop,
        earned=lambda: board.earned,
        move_due=(lambda: False) if player is None else player.must_move,
    )
    return Worker(
        chain,
        signer=signer,
        worker=worker,
        options=options,
        board=board,
        workshop=workshop,
        runner=runner,
        snapshots=snapshots,
        reporter=reporter,
        stop=stop,
        clock=clock,
        player=player,
    )


def stop_between(stop: Stop) -> None:
    """Ends the computing of a dispute's values where a stop was asked for; states on disk are kept."""
    if stop.requested:
        raise stop.error(remedy=RESUME)
