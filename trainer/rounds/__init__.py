"""Many at one model: the ranks of one worker."""

from trainer.rounds.calls import RankContext, RankFailed, Ranks
from trainer.rounds.engine import RanksEngine
from trainer.rounds.launched import Launch, LaunchedRanks, launch_of, serve_launched
from trainer.rounds.processes import RankProcesses
from trainer.rounds.ranks import RankedProgram

__all__ = [
    "Launch",
    "LaunchedRanks",
    "RankContext",
    "RankFailed",
    "RankProcesses",
    "RankedProgram",
    "Ranks",
    "RanksEngine",
    "launch_of",
    "serve_launched",
]
