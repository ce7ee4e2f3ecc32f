"""Programs on NVIDIA GPUs: NVRTC compiles them, the driver launches them (docs/fast-path.md, "CUDA")."""

from trainer.native.cuda.compiler import CudaCompiler, build_units, find_nvrtc
from trainer.native.cuda.driver import Driver, DriverError, GpuKernels
from trainer.native.cuda.engine import CudaEngine, open_cuda

__all__ = [
    "CudaCompiler",
    "CudaEngine",
    "Driver",
    "DriverError",
    "GpuKernels",
    "build_units",
    "find_nvrtc",
    "open_cuda",
]
