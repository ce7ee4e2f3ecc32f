"""Exact programs from ordinary PyTorch: capture, lowering, optimizers and fusing (docs/tracing.md)."""

from trainer.program.description import Precision
from trainer.program.tracing.fusing import fuse
from trainer.program.tracing.generation import trace_generation
from trainer.program.tracing.merging import trace_merge
from trainer.program.tracing.optimizers import Optimizer, SgdConfig
from trainer.program.tracing.refusals import TracingError
from trainer.program.tracing.training import trace_description, trace_evaluation, trace_training

__all__ = [
    "Optimizer",
    "Precision",
    "SgdConfig",
    "TracingError",
    "fuse",
    "trace_description",
    "trace_evaluation",
    "trace_generation",
    "trace_merge",
    "trace_training",
]
