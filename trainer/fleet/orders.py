"""What a fleet tells a machine to run, and what it hears back. Both go through Ray, so both are plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["placing", "starting", "working", "restarting", "done", "failed", "stopped"]
ENDED: frozenset[State] = frozenset({"done", "failed", "stopped"})


@dataclass(frozen=True, kw_only=True)
class Order:
    """One worker: all that a machine with trainledger on it needs to run it.

    Attributes:
        name, address: of its account. key: the encrypted keystore file. password: opens it.
        deployment: the deployment record, deployment.json.
        home: folder on that machine for all that workers keep.
        settings: environment variables of settings.
        words: of `worker run`, beside the account.
        ranks: processes of the worker, by torchrun where there are several.
        restarts: how often in a row, without a submission between, it may be started again.
    """

    name: str = ""
    address: str = ""
    key: bytes = field(default=b"", repr=False)
    password: str = field(repr=False)
    deployment: bytes = field(repr=False)
    home: str
    settings: dict[str, str] = field(repr=False)  # URLs may carry credentials
    words: tuple[str, ...] = ()
    ranks: int = 1
    restarts: int = 5


@dataclass(frozen=True, kw_only=True)
class Report:
    """Where a worker stands.

    Attributes:
        incarnation: another one for each process that watches the worker.
        machine: its host name. process: the worker's process id, None between two.
        starts: of the worker by this incarnation.
        progress: fields of the last line of progress, of the round that is being trained, else None.
        submitted: rounds; earned: wei, both since this incarnation began.
        news: (number, event) of what the worker said since the number that was asked for.
        problem: why it ended or was started again, "" if it did neither. exit_code: of its last process.
    """

    name: str
    incarnation: str
    machine: str
    state: State
    process: int | None = None
    starts: int = 0
    progress: dict[str, Any] | None = None
    submitted: int = 0
    earned: int = 0
    news: tuple[tuple[int, dict[str, Any]], ...] = ()
    problem: str = ""
    exit_code: int | None = None
