"""Exact programs compiled to C: the reference's bits at the speed of plain PyTorch (docs/fast-path.md)."""

from trainer.engine.exact.fast.runner import CompiledProgram
from trainer.engine.exact.fast.source import Source, write_source

__all__ = ["CompiledProgram", "Source", "write_source"]
