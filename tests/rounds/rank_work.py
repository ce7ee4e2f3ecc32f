"""What tests have ranks do: functions that a spawned process finds by name."""

import os
import signal
import time

import torch

from trainer.rounds.processes import RankContext


def numbers(context: RankContext, more: int) -> tuple[int, int, int, int]:
    return context.group.rank, context.group.size, torch.get_num_threads(), more


def refuse(context: RankContext, rank: int) -> None:
    """One rank raises, and the others wait for it."""
    if context.group.rank == rank:
        raise ValueError("a step too far")
    context.group.gather(torch.zeros(1))


def vanish(context: RankContext, rank: int) -> None:
    """One rank kills itself, and the others wait for it."""
    if context.group.rank == rank:
        os.kill(os.getpid(), signal.SIGKILL)
    context.group.gather(torch.zeros(1))


def sleep(context: RankContext, seconds: float) -> None:
    time.sleep(seconds)


def listening(context: RankContext) -> list[str]:
    """Addresses, in hexadecimal, at which this process listens for TCP."""
    inodes = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the folder's own
            continue
        inodes.add(target.removeprefix("socket:[").removesuffix("]"))
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with open(table) as lines:
            rows = [line.split() for line in lines][1:]
        found += [row[1].rpartition(":")[0] for row in rows if row[3] == "0A" and row[9] in inodes]
    return found
