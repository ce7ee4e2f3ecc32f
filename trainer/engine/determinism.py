"""Every knob that would otherwise let the same step give other bits."""

from __future__ import annotations

import os

import torch

from ledger.errors import SettingsError

# Variables that change how many threads share a sum behind PyTorch's back.
_THREAD_VARIABLES = ("OMP_DYNAMIC", "OMP_THREAD_LIMIT")


def check_device(device: str) -> None:
    """Raises SettingsError where PyTorch does not see the device: "cpu", "cuda" or "cuda:<number>"."""
    kind, _, number = device.partition(":")
    if kind == "cuda" and int(number or 0) >= (count := torch.cuda.device_count()):
        raise SettingsError(
            f"The device {device} cannot be used: PyTorch sees {count} GPUs.",
            remedy="Set TRAINLEDGER_DEVICE (or `device` in config.toml) to cpu or to a GPU that is there.",
        )


def set_determinism(threads: int) -> None:
    """Make everything this process computes from here on a function of its inputs.

    Bits are the same for the same PyTorch build on the same kind of processor; other processors may differ until
    programs are exact.

    Args:
        threads: CPU threads. A program says how many, because a sum split among n threads is rounded otherwise than
            one split among m.

    Raises:
        SettingsError: an environment variable lets OpenMP use fewer threads than asked.
    """
    for variable in _THREAD_VARIABLES:
        value = os.environ.get(variable, "")
        harmless = value.lower() in ("", "false", "0") or (value.isdigit() and int(value) >= threads)
        if not harmless:
            raise SettingsError(
                f"{variable}={value} lets OpenMP use other than the program's {threads} threads, "
                "which changes results.",
                remedy=f"Unset {variable}.",
            )
    # OpenMP keeps the number for each calling thread, so it is set again by whoever trains.
    torch.set_num_threads(threads)
    # Refuse kernels that add in the order in which threads finish (scatter and index additions on CUDA).
    torch.use_deterministic_algorithms(True)
    # The flag above also fills every fresh tensor; nothing here reads one before writing it, and filling costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # set by __setattr__ of a module class
    # cuBLAS keeps workspaces for each stream and picks by what is free unless it is told a fixed size.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Timing candidates and keeping the fastest would pick a kernel by chance.
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    # TF32 and reduced-precision accumulation give other bits on cards that have them.
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    # The flash and memory-efficient backward passes add with atomics on CUDA; the plain one is a chain of products.
    torch.backends.cuda.enable_flash_sdp(False)
    torch.backends.cuda.enable_mem_efficient_sdp(False)
    torch.backends.cuda.enable_math_sdp(True)
    # Subnormals count; another library in the process may have turned them off.
    torch.set_flush_denormal(False)
    # Nothing draws random numbers while it trains; a fixed seed turns a mistake there into a repeatable one.
    torch.manual_seed(0)
