"""What a worker of open tasks keeps on its own disk: each round's state, and the salt that it is committed with."""

from __future__ import annotations

import secrets
from pathlib import Path

from ledger.atomic import write_atomically
from trainer.engine.state import State, step_of
from trainer.program.layout import StateLayout
from trainer.worker.snapshots import JobKey, Snapshot, SnapshotStore, Stage

_SALT_BYTES = 32


class KeptStates:
    """States and salts under a folder that no other process writes to. Both are on disk before anything is committed.

    The state of training that was interrupted lies where the one to hand in will.
    """

    def __init__(self, folder: Path) -> None:
        self._snapshots = SnapshotStore(folder)

    def begun(self, key: JobKey, layout: StateLayout) -> State | None:
        """The state of training that was interrupted; None where none was."""
        found = self._snapshots.load(key, layout)
        return found.state if found is not None and found.stage == "training" else None

    def made(self, key: JobKey, layout: StateLayout) -> Snapshot | None:
        """The state to hand in; None where none was made, or its file is damaged."""
        found = self._snapshots.load(key, layout)
        return found if found is not None and found.stage == "trained" else None

    def keep(self, key: JobKey, base: State, state: State, *, done: bool) -> None:
        """Keeps a state: of training that goes on, or the one to hand in. Raises ResourceError."""
        stage: Stage = "trained" if done else "training"
        self._snapshots.save(key, attempt=0, base_step=step_of(base), stage=stage, state=state)

    def salt(self, key: JobKey) -> bytes:
        """32 random bytes, the same at every call for a round; written before they are given. Raises ResourceError."""
        path = self._snapshots.path(key).with_suffix(".salt")
        if not path.exists():
            write_atomically(path, secrets.token_bytes(_SALT_BYTES), mode=0o600)
        return path.read_bytes()

    def forget_before(self, key: JobKey) -> None:
        """Deletes what was kept for earlier rounds of the task."""
        self._snapshots.remove_before(key)
