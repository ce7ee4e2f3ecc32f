"""The engine that the settings ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ledger.cli.common import CommandContext

if TYPE_CHECKING:
    from trainer.engine.engines import Engine

__all__ = ["open_engine"]


def open_engine(context: CommandContext) -> Engine:
    """The fastest engine of the device, or the reference where the settings name it; says why one is slow.

    States are hashed by compiled code from then on, but beside a reference that was asked for; on the GPU where it is
    one's device and faster.

    Several ranks are processes of this machine, which share the steps of programs traced with shards.

    Raises:
        SettingsError: the device is not there.
    """
    from trainer.commit.hashing import use_tree_hasher
    from trainer.native.engine import available_threads, choose_engine
    from trainer.native.hashing import hash_natively

    settings = context.settings
    if settings.engine == "reference":
        use_tree_hasher(None)
    else:
        hash_natively(settings.library_folder, threads=settings.threads or available_threads(), device=settings.device)
    engine = choose_engine(
        settings.device,
        settings.library_folder,
        threads=settings.threads or None,
        reference=settings.engine == "reference",
        notice=context.say,
    )
    if settings.ranks == 1 or settings.device != "cpu":
        return engine
    from trainer.rounds import RanksEngine

    threads = settings.threads or max(1, available_threads() // settings.ranks)
    return RanksEngine(settings.ranks, threads=threads, folder=None if engine.is_reference else settings.library_folder)
