"""Held-out loss of a model or a state."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from trainer.engine.batches import TokenData, heldout_windows
from trainer.engine.determinism import set_determinism
from trainer.engine.state import model_of
from trainer.models import LanguageModel
from trainer.models.heldout import heldout_loss as _loss_over_windows
from trainer.program.description import TrainingProgram


def heldout_loss(model: LanguageModel, dataset: TokenData, program: TrainingProgram) -> float:
    """Held-out loss of a model as a float32 value, measured as the program says."""
    windows = heldout_windows(dataset, windows=program.evaluation_windows, context=program.context)
    tokens = torch.from_numpy(windows.astype(np.int64))
    return _loss_over_windows(model, tokens, batch=program.evaluation_batch)


def evaluate_state(
    program: TrainingProgram, dataset: TokenData, state: Mapping[str, Tensor], *, device: str = "cpu"
) -> float:
    """Held-out loss of a state's parameters, whatever the loss stored in it says."""
    set_determinism(program.threads)
    return heldout_loss(model_of(program, state, device=device), dataset, program)
