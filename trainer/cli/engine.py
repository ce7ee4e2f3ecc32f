"""The engine that the settings ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ledger.cli.common import CommandContext

if TYPE_CHECKING:
    from trainer.engine.engines import Engine

__all__ = ["open_engine"]


def open_engine(context: CommandContext) -> Engine:
    """The fastest engine of the device, or the reference where the settings name it; says why one is slow.

    Raises:
        SettingsError: the device is not there.
    """
    from trainer.native.engine import choose_engine

    settings = context.settings
    return choose_engine(
        settings.device,
        settings.library_folder,
        threads=settings.threads or None,
        reference=settings.engine == "reference",
        notice=context.say,
    )
