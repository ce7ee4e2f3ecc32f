"""The engine that the settings ask for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ledger.cli.common import CommandContext

if TYPE_CHECKING:
    from trainer.engine.engines import Engine
    from trainer.rounds import Launch

__all__ = ["open_engine", "open_workers_engine", "threads_of"]


def open_engine(context: CommandContext) -> Engine:
    """The fastest engine of the device, or the reference where the settings name it; says why one is slow.

    States are hashed by compiled code from then on, but beside a reference that was asked for; on the GPU where it is
    one's device and faster.

    Several ranks are processes of this machine, which share the steps of programs traced with shards.

    Raises:
        SettingsError: the device is not there.
    """
    from trainer.native.engine import available_threads

    settings = context.settings
    engine = _own_engine(context, settings.device)
    if settings.ranks == 1 or settings.device != "cpu":
        return engine
    from trainer.rounds import RanksEngine

    threads = settings.threads or max(1, available_threads() // settings.ranks)
    return RanksEngine(settings.ranks, threads=threads, folder=None if engine.is_reference else settings.library_folder)


@contextmanager
def open_workers_engine(context: CommandContext, launch: Launch | None) -> Iterator[Engine]:
    """As `open_engine`; in rank 0 of a worker that torchrun started, the engine of all ranks, which end with the block.

    Raises:
        SettingsError: the device is not there. RankFailed: a rank did not come.
    """
    if launch is None:
        yield open_engine(context)
        return
    from trainer.rounds import LaunchedRanks, RanksEngine

    settings, device, threads = context.settings, launch.device(context.settings.device), threads_of(context, launch)
    alone = _own_engine(context, device)
    # What a GPU's own reference runs would be as slow on all ranks.
    folder = (
        None if settings.engine == "reference" or (device == "cpu" and alone.is_reference) else settings.library_folder
    )
    with LaunchedRanks(launch, device, threads=threads) as ranks:
        yield RanksEngine(launch.size, threads=threads, folder=folder, device=device, start=lambda: ranks, alone=alone)


def threads_of(context: CommandContext, launch: Launch) -> int:
    """CPU threads of a rank: those of the settings, or its share of this machine's."""
    from trainer.native.engine import available_threads

    return context.settings.threads or max(1, available_threads() // launch.local_size)


def _own_engine(context: CommandContext, device: str) -> Engine:
    """The engine of this process alone; hashing is done as it does."""
    from trainer.commit.hashing import use_tree_hasher
    from trainer.native.engine import available_threads, choose_engine
    from trainer.native.hashing import hash_natively

    settings = context.settings
    if settings.engine == "reference":
        use_tree_hasher(None)
    else:
        hash_natively(settings.library_folder, threads=settings.threads or available_threads(), device=device)
    return choose_engine(
        device,
        settings.library_folder,
        threads=settings.threads or None,
        reference=settings.engine == "reference",
        notice=context.say,
    )
