"""Devices that programs can be run on."""

from __future__ import annotations

import torch

from ledger.errors import SettingsError


def check_device(device: str) -> None:
    """Raises SettingsError where PyTorch does not see the device: "cpu", "cuda" or "cuda:<number>"."""
    kind, _, number = device.partition(":")
    if kind == "cuda" and int(number or 0) >= (count := torch.cuda.device_count()):
        raise SettingsError(
            f"The device {device} cannot be used: PyTorch sees {count} GPUs.",
            remedy="Set TRAINLEDGER_DEVICE (or `device` in config.toml) to cpu or to a GPU that is there.",
        )
