"""Kernels on a GPU through the CUDA driver: loaded once, launched on PyTorch's stream, recorded as a graph."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch

from ledger.errors import ToolMissing
from trainer.engine.exact.cuda import Launch, Run, Unit

_PLACES = 18  # addresses of `struct tl_given` in device.h, which one number follows
_Given = ctypes.c_uint64 * (_PLACES + 1)


class DriverError(ToolMissing):
    """The CUDA driver is missing, or refuses a call; programs still run on the reference interpreter."""


class Driver:
    """The driver's library, in the context that PyTorch uses on a GPU.

    Raises:
        DriverError: there is no driver, or it cannot use the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        try:
            self._library = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise DriverError(f"The CUDA driver cannot be loaded: {error}.") from None
        number, self._context = ctypes.c_int(), ctypes.c_void_p()
        self.call("cuInit", 0)
        self.call("cuDeviceGet", ctypes.byref(number), device.index or 0)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), number)

    def enter(self) -> None:
        """Makes the GPU's context that of this thread, as PyTorch does."""
        self.call("cuCtxSetCurrent", self._context)

    def call(self, name: str, *arguments: object) -> None:
        """Calls a function. Raises DriverError with what the driver says."""
        fault = getattr(self._library, name)(*arguments)
        if fault:
            text = ctypes.c_char_p()
            self._library.cuGetErrorString(fault, ctypes.byref(text))
            said = text.value.decode() if text.value else f"error {fault}"
            raise DriverError(f"The CUDA driver refuses {name}: {said}.")


class GpuKernels:
    """The kernels of a program on a GPU; `Kernels` of trainer.engine.exact.cuda.

    Args:
        units, made: what was compiled, and to what.

    Raises:
        DriverError: the driver refuses what was compiled.
    """

    def __init__(self, units: Sequence[Unit], made: Sequence[bytes], device: torch.device, driver: Driver) -> None:
        self._device, self._driver = device, driver
        self._functions: dict[str, ctypes.c_void_p] = {}
        driver.enter()
        for unit, data in zip(units, made, strict=True):
            module = ctypes.c_void_p()
            driver.call("cuModuleLoadData", ctypes.byref(module), data)
            for name in unit.kernels:
                function = ctypes.c_void_p()
                driver.call("cuModuleGetFunction", ctypes.byref(function), module, name.encode())
                self._functions[name] = function

    def prepare(self, launches: Sequence[Launch], bases: Sequence[int]) -> Run:
        """What launches them in order, on the stream that is PyTorch's at the time."""
        calls = []
        for one in launches:
            addresses = [bases[base] + at for base, at in one.addresses]
            given = _Given(*addresses, *(_PLACES - len(addresses)) * [0], one.first)
            calls.append((self._functions[one.kernel], one.blocks, one.threads, given))
        return _Recorded(calls, self._device, self._driver)


class _Recorded:
    """Launches: one by one the first time, then recorded, then all at once."""

    def __init__(
        self,
        calls: Sequence[tuple[ctypes.c_void_p, int, int, ctypes.Array[ctypes.c_uint64]]],
        device: torch.device,
        driver: Driver,
    ) -> None:
        self._calls, self._device, self._driver = calls, device, driver
        self._tried = False
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        with torch.cuda.device(self._device):
            self._driver.enter()
            if not self._tried:
                self._launch()
                self._tried = True
                return
            if self._graph is None:
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    self._launch()
                self._graph = graph
            self._graph.replay()

    def _launch(self) -> None:
        stream = ctypes.c_void_p(torch.cuda.current_stream(self._device).cuda_stream)
        for function, blocks, threads, given in self._calls:
            arguments = (ctypes.c_void_p * 1)(ctypes.addressof(given))
            sizes = map(ctypes.c_uint, (blocks, 1, 1, threads, 1, 1, 0))
            self._driver.call("cuLaunchKernel", function, *sizes, stream, arguments, None)
