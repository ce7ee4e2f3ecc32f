"""Where a worker keeps what is its own; known without PyTorch."""

from __future__ import annotations

from pathlib import Path


def worker_folder(home: Path, address: str) -> Path:
    """Where a worker keeps its lock and its snapshots."""
    return home / "workers" / address.lower()
