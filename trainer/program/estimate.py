"""What a program will need, before any of it is allocated or downloaded."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.models.config import TransformerConfig
from trainer.program.description import TrainingProgram
from trainer.program.layout import StateLayout

_FLOAT = 4
# What PyTorch and its libraries allocate for themselves on the first step: measured 85 to 110 MB on x86-64.
_WORKSPACE = 2**27


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Sizes of a program.

    Attributes:
        parameters: elements. state_bytes: of a checkpoint. memory_bytes: a guess, rather high than low, of what
            training adds at its peak to a process that has loaded PyTorch (CPU). flops_per_step: forward and
            backward.
    """

    parameters: int
    state_bytes: int
    memory_bytes: int
    flops_per_step: int


def estimate(program: TrainingProgram) -> Estimate:
    """Sizes of a program, from its shapes alone."""
    layout = StateLayout.of(program)
    parameters = layout.parameter_count
    model = program.model
    tokens = program.batch_size * program.context
    # Activations kept for the backward pass: a transformer block keeps about 18 vectors of its width a token (norms,
    # queries, keys, values, attention's output, the feed-forward layer's 4 + 4, sums); a recurrent layer about 12.
    kept = 18 if isinstance(model, TransformerConfig) else 12
    activations = tokens * model.width * _FLOAT * (kept * model.layers + 8)
    training_logits = 3 * tokens * program.vocabulary * _FLOAT  # logits, their softmax, their gradient
    evaluation_tokens = program.evaluation_batch * program.context
    evaluation = evaluation_tokens * (2 * program.vocabulary + 8 * model.width) * _FLOAT
    # The state handed in, the model's own copy with gradients, and one captured copy.
    tensors = 3 * layout.total_bytes + parameters * _FLOAT
    attention_layers = model.layers if isinstance(model, TransformerConfig) else 1
    flops = 6 * parameters * tokens + 12 * attention_layers * model.width * program.context * tokens
    return Estimate(
        parameters=parameters,
        state_bytes=layout.total_bytes,
        memory_bytes=_WORKSPACE + tensors + max(activations + training_logits, evaluation),
        flops_per_step=flops,
    )
