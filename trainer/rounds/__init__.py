"""Many at one model: the ranks of one worker."""

from trainer.rounds.engine import RanksEngine
from trainer.rounds.processes import RankFailed, RankProcesses
from trainer.rounds.ranks import RankedProgram

__all__ = ["RankFailed", "RankProcesses", "RankedProgram", "RanksEngine"]
