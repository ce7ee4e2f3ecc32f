"""Kernels on a GPU through the CUDA driver: loaded once, launched on PyTorch's stream, recorded as a graph."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence

import torch

from ledger.errors import ToolMissing
from trainer.engine.exact.cuda import Launch, Run, Unit

_PLACES = 40  # addresses of `struct tl_given` in device.h, which one number follows
_Given = ctypes.c_uint64 * (_PLACES + 1)
_LIBRARY = "libcuda.so.1"

Launching = Callable[[int], None]  # launches kernels on the stream at an address
Recorder = Callable[[Launching], Run]  # makes a run of that, again and again


class DriverError(ToolMissing):
    """The CUDA driver is missing, or refuses a call; programs still run on the reference interpreter."""


class Driver:
    """The driver's library, in the context that PyTorch uses on a GPU.

    Args:
        number: of the GPU, from 0.

    Raises:
        DriverError: there is no driver, or it cannot use the GPU.
    """

    def __init__(self, number: int = 0, *, library: str = _LIBRARY) -> None:
        try:
            self._library = ctypes.CDLL(library)
        except OSError as error:
            raise DriverError(f"The CUDA driver cannot be loaded: {error}.") from None
        device, self._context = ctypes.c_int(), ctypes.c_void_p()
        self.call("cuInit", 0)
        self.call("cuDeviceGet", ctypes.byref(device), number)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), device)

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
        recorder: what becomes of launches, such as `recorder(device)`.

    Raises:
        DriverError: the driver refuses what was compiled.
    """

    def __init__(self, units: Sequence[Unit], made: Sequence[bytes], driver: Driver, recorder: Recorder) -> None:
        self._driver, self._recorder = driver, recorder
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
        """What launches them in order, with memories that begin at the given addresses."""
        calls = []
        for one in launches:
            addresses = [bases[base] + at for base, at in one.addresses]
            given = _Given(*addresses, *(_PLACES - len(addresses)) * [0], one.first)
            calls.append((self._functions[one.kernel], one.blocks, one.threads, given))

        def launch(stream: int) -> None:
            self._driver.enter()
            for function, blocks, threads, given in calls:
                arguments = (ctypes.c_void_p * 1)(ctypes.addressof(given))
                sizes = map(ctypes.c_uint, (blocks, 1, 1, threads, 1, 1, 0))
                self._driver.call("cuLaunchKernel", function, *sizes, ctypes.c_void_p(stream), arguments, None)

        return self._recorder(launch)


def recorder(device: torch.device) -> Recorder:
    """Launches on the stream that is PyTorch's at the time: one by one the first time, then all at once as a graph."""

    def recorded(launch: Launching) -> Run:
        tried, graph = False, None

        def run() -> None:
            nonlocal tried, graph
            with torch.cuda.device(device):
                if not tried:
                    launch(torch.cuda.current_stream().cuda_stream)
                    tried = True
                    return
                if graph is None:
                    made = torch.cuda.CUDAGraph()
                    with torch.cuda.graph(made):
                        launch(torch.cuda.current_stream().cuda_stream)
                    graph = made
                graph.replay()

        return run

    return recorded
