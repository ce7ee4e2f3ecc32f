"""`trainledger worker run` under torchrun: which part this process plays."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ledger.cli.common import CommandContext
from ledger.errors import SettingsError, TrainledgerError

if TYPE_CHECKING:
    from trainer.rounds import Launch

__all__ = ["find_launch", "serve_rank"]


def find_launch(context: CommandContext) -> Launch | None:
    """The place that torchrun gave this process, if it gave one.

    Raises:
        SettingsError: the settings ask for ranks of their own, or torchrun's variables make no sense.
    """
    from trainer.rounds import launch_of

    launch = launch_of(os.environ)
    if launch is not None and context.settings.ranks != 1:
        raise SettingsError(
            f"torchrun started {launch.size} ranks, and the setting ranks asks each for {context.settings.ranks} more.",
            remedy="Leave ranks (TRAINLEDGER_RANKS) out, or start the worker without torchrun.",
        )
    return launch


def serve_rank(context: CommandContext, launch: Launch) -> None:
    """The whole life of a rank other than 0, which knows neither chain nor key.

    Raises:
        MachineFault: this machine does not compute exactly.
        TrainledgerError: rank 0 is gone, or work failed here.
    """
    from trainer.cli.engine import threads_of
    from trainer.cli.selftest import check_machine
    from trainer.rounds import serve_launched

    device = launch.device(context.settings.device)
    check_machine(device)
    if not serve_launched(launch, device, threads=threads_of(context, launch)):
        raise TrainledgerError(
            f"Rank {launch.rank} ended because another rank is gone, or because its own work failed.",
            remedy="See what rank 0 said.",
        )
