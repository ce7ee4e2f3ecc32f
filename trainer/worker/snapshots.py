"""Training kept on the worker's own disk, so that a kill costs seconds and not the round.

One file per job, replaced atomically, in the safetensors format: tensors under their layout names, and in
`__metadata__` what the file is about and the state root of its tensors, which is checked when it is read. A file that
is cut short or damaged is never trained on: it counts as absent.

A job is known by the chain (id, ledger, deployment block: a fresh local chain has the same id and addresses), the task,
round and slot, and what the training starts from. The attempt is noted but is no part of the name: the same training is
as good under a later lease.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Literal

import torch
from safetensors import SafetensorError, safe_open

from ledger.errors import ResourceError
from trainer.commit.states import state_root
from trainer.commit.tensors import tensor_bytes
from trainer.engine.state import State, check_state
from trainer.program.layout import StateLayout

FORMAT: Final = "trainledger/snapshot/1"
Stage = Literal["training", "trained"]
_STAGES: Final[dict[str, Stage]] = {"training": "training", "trained": "trained"}

_DTYPES: Final = {
    torch.float32: "F32",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.uint16: "U16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
}


@dataclass(frozen=True, kw_only=True)
class JobKey:
    """What a piece of training is about. Roots and hashes are 32 bytes, `deployment_block` is a block hash in hex."""

    chain_id: int
    ledger: str
    deployment_block: str
    task: int
    round: int
    slot: int
    base_root: bytes
    specification_hash: bytes

    @property
    def chain_folder(self) -> str:
        """Name of the folder for everything about this chain and deployment."""
        return f"{self.chain_id}-{self.ledger.lower()}-{self.deployment_block.removeprefix('0x')[:16]}"

    @property
    def file_name(self) -> str:
        identity = hashlib.sha256(self.base_root + self.specification_hash).hexdigest()[:16]
        return f"round-{self.round}-slot-{self.slot}-{identity}.safetensors"

    def describe(self) -> dict[str, str]:
        """All fields as text, for the file's metadata."""
        return {
            "chain_id": str(self.chain_id),
            "ledger": self.ledger.lower(),
            "deployment_block": self.deployment_block,
            "task": str(self.task),
            "round": str(self.round),
            "slot": str(self.slot),
            "base_root": self.base_root.hex(),
            "specification_hash": self.specification_hash.hex(),
        }


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A state in the middle ("training") or at the end ("trained") of a round.

    `root` is its state root; `base_step` the step counter of the state that the round started from.
    """

    key: JobKey
    attempt: int
    base_step: int
    stage: Stage
    state: State
    root: bytes


class SnapshotStore:
    """Snapshots of one worker under `folder`, which no other process writes to (the worker's lock sees to that)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, key: JobKey) -> Path:
        return self._folder / key.chain_folder / f"task-{key.task}" / key.file_name

    def has(self, key: JobKey) -> bool:
        """Whether a snapshot of this job is there; it may still turn out to be damaged."""
        return self.path(key).is_file()

    def save(self, key: JobKey, *, attempt: int, base_step: int, stage: Stage, state: State) -> Snapshot:
        """Replaces the job's snapshot. Streams: no second copy of the state is made.

        Raises:
            ResourceError: no space left; the snapshot before this one is still whole.
        """
        root = state_root(state.values())
        metadata = {
            "format": FORMAT,
            "attempt": str(attempt),
            "base_step": str(base_step),
            "stage": stage,
            "root": root.hex(),
            **key.describe(),
        }
        with _replacing(self.path(key)) as file:
            write_tensors(file, state, metadata)
        return Snapshot(key=key, attempt=attempt, base_step=base_step, stage=stage, state=state, root=root)

    def load(self, key: JobKey, layout: StateLayout) -> Snapshot | None:
        """The job's snapshot, checked against the layout and its own root; None where there is none to trust."""
        path = self.path(key)
        if not path.is_file():
            return None
        try:
            # clone: the file is mapped, and will be replaced by the next snapshot
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT or not key.describe().items() <= metadata.items():
                    return None
                state: State = OrderedDict((spec.name, file.get_tensor(spec.name).clone()) for spec in layout.tensors)
            check_state(state, layout)
            root = state_root(state.values())
            attempt, base_step = int(metadata["attempt"]), int(metadata["base_step"])
            stage = _STAGES[metadata["stage"]]
            damaged = root.hex() != metadata["root"]
        except (OSError, SafetensorError, KeyError, ValueError):
            return None
        if damaged:
            return None
        return Snapshot(key=key, attempt=attempt, base_step=base_step, stage=stage, state=state, root=root)

    def remove(self, key: JobKey) -> None:
        """Deletes the job's snapshot: nothing of it can be trusted."""
        self.path(key).unlink(missing_ok=True)

    def remove_before(self, key: JobKey) -> int:
        """Deletes snapshots of the key's task that belong to earlier rounds; returns how many."""
        removed = 0
        for path in self.path(key).parent.glob("round-*.safetensors"):
            number = path.name.split("-")[1]
            if number.isdigit() and int(number) < key.round:
                path.unlink(missing_ok=True)
                removed += 1
        return removed

    def free_bytes(self) -> int:
        """Bytes left on the disk that snapshots are written to."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self._folder).free


def write_tensors(file: IO[bytes], state: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Writes a safetensors file tensor by tensor (the library's own writer holds two copies of everything)."""
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    position = 0
    for name, tensor in state.items():
        end = position + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [position, end],
        }
        position = end
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    file.write(len(encoded).to_bytes(8, "little"))
    file.write(encoded)
    for tensor in state.values():
        file.write(tensor_bytes(tensor))


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of `path` when the block ends well, and vanishes when it does not."""
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ResourceError(
            f"The snapshot {path} cannot be written: {error.strerror or error}.",
            remedy="Free some space or name another folder with --home, and start the worker again: it goes on from "
            "the snapshot before.",
        ) from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
