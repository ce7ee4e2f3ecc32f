"""Exact programs as CUDA C++: the reference's bits on an NVIDIA GPU (docs/fast-path.md, "CUDA")."""

from trainer.engine.exact.cuda.runner import CudaProgram, Kernels, Run
from trainer.engine.exact.cuda.source import CudaSource, Launch, Unit, write_cuda

__all__ = ["CudaProgram", "CudaSource", "Kernels", "Launch", "Run", "Unit", "write_cuda"]
