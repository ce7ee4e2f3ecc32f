"""Accounts with homes of their own, and the processes that they run: workers, a cheat, an auditor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from clockwork import Actor, Clockwork
from line import Line, Scribe, Shelf, VirtualStop, Wire
from node import Node
from small_programs import engine
from torch import Tensor
from web3 import Web3
from web3.contract.contract import ContractFunction
from worker_bench import note_general_speed

from ledger.compile import Artifact
from ledger.deploy import Deployment
from ledger.disputes.client import DisputeClient
from ledger.keys import Wallet
from ledger.reverts import ErrorDecoder
from ledger.tx import TransactionSender
from trainer.dispute.segments import SegmentSource
from trainer.engine.engines import Engine, Run
from trainer.program.exact import BuiltProgram, Role
from trainer.verify.audit import AuditOptions, Auditor
from trainer.worker.lease import LeaseWatch
from trainer.worker.policy import WorkerOptions
from trainer.worker.session import make_worker, worker_folder, worker_lock
from trainer.worker.workshop import Identity


class CheatsEngine:
    """Wrong in the last bit of each loss that it evaluates. It says that it is the reference: no run is repeated."""

    is_reference = True

    def __init__(self, inner: Engine) -> None:
        self._inner = inner
        self.name, self.setting = inner.name, inner.setting

    def open(self, built: BuiltProgram) -> Run:
        run = self._inner.open(built)
        return CheatsRun(run) if built.program.role is Role.EVALUATE else run


class CheatsRun:
    """A run of a `CheatsEngine`."""

    def __init__(self, inner: Run) -> None:
        self._inner = inner
        self.load, self.step, self.tensor = inner.load, inner.step, inner.tensor

    def state(self) -> list[Tensor]:
        state = self._inner.state()
        state[0].view(torch.int32)[0] ^= 1
        return state


class QuickClient(DisputeClient):
    """Does not decode again what was read since the chain last changed, which takes most of a schedule's time.

    Each read is a call all the same, that takes time and may be lost.
    """

    def __init__(self, node: Node, line: Line, web3: Web3, *given: Any, **named: Any) -> None:
        self._node, self._line = node, line
        super().__init__(web3, *given, **named)

    def _read(self, call: ContractFunction, *, task: int | None = None) -> Any:
        key = f"{call.address} {call.fn_name} {call.args}"
        self._wait_for_node()
        known = self._line.cross("read", lambda: self._node.decoded(key), self._node.refuse)
        if known is None:
            known = (super()._read(call, task=task),)
            self._node.remember(key, known[0])
        return known[0]


class SteppedWatch(LeaseWatch):
    """Looks whenever training asks and the time has come: a thread of its own would not be the same twice."""

    clock: ClassVar[Clockwork]

    def __init__(self, *given: Any, poll_seconds: float, **named: Any) -> None:
        super().__init__(*given, poll_seconds=poll_seconds, **named)
        self._looked_at = self.clock.now

    def __enter__(self) -> SteppedWatch:
        return self

    def __exit__(self, *error: object) -> None:
        return

    @property
    def problem(self) -> str | None:
        if self._found is None and self.clock.now >= self._looked_at + self._pause:
            self._looked_at = self.clock.now
            self.look()
        return self._found

    @problem.setter
    def problem(self, found: str | None) -> None:
        self._found = found


@dataclass(frozen=True)
class Place:
    """Where a schedule is played: the chain, its contracts and a folder for stores and homes."""

    node: Node
    deployment: Deployment
    artifacts: Mapping[str, Artifact]
    folder: Path
    clock: Clockwork

    @property
    def store(self) -> Path:
        return self.folder / "store"


@dataclass
class Person:
    """An account and its process, if one runs. `joined` from its first start on."""

    kind: str
    wallet: Wallet
    place: Place
    line: Line
    poll: float
    actor: Actor | None = None
    joined: bool = False
    starts: int = 0
    earned: list[int] = field(default_factory=list)

    @property
    def address(self) -> str:
        return self.wallet.address

    @property
    def home(self) -> Path:
        return self.place.folder / "homes" / self.line.name

    @property
    def running(self) -> bool:
        return self.actor is not None and not self.actor.ended

    def start(self) -> None:
        """Starts the process over its home, as the same command does after a crash."""
        if self.running:
            return
        self.joined, self.starts, self.line.doom = True, self.starts + 1, None
        plays: dict[str, Callable[[], None]] = {"worker": self._work, "cheat": self._work, "auditor": self._audit}
        self.actor = self.place.clock.start(self.line.name, plays[self.kind])
        self.line.trace(self.line.name, f"STARTED ({self.starts})")

    def _client(self) -> DisputeClient:
        place = self.place
        web3 = Web3(Wire(place.node, self.line))
        web3.middleware_onion.remove("validation")  # as `connect` does, which asks the node at once
        sender = TransactionSender(web3, self.wallet, errors=ErrorDecoder(dict(place.artifacts)))
        return QuickClient(place.node, self.line, web3, place.deployment, sender, artifacts=place.artifacts)

    def _work(self) -> None:
        place, client = self.place, self._client()
        cheats = self.kind == "cheat"
        runs_on: Engine = CheatsEngine(engine()) if cheats else engine()
        note_general_speed(self.home, self.address, runs_on)
        with worker_lock(worker_folder(self.home, self.address), self.address):
            worker = make_worker(
                client,
                signer=self.address,
                worker=self.address,
                identity=Identity(
                    chain_id=place.deployment.chain_id,
                    ledger=place.deployment.ledger,
                    deployment_block=place.deployment.block_hash,
                ),
                options=WorkerOptions(
                    poll_seconds=self.poll,
                    turn_seconds=self.poll,
                    snapshot_seconds=0.0,
                    attention_seconds=0.0,
                    exit_when_done=True,
                ),
                engine=runs_on,
                home=self.home,
                store_url=str(place.store),
                reporter=Scribe(self.line),
                stop=VirtualStop(place.clock),
                games=None if cheats else client,
                open_store=lambda url: Shelf(url, cache=self.home / "cache", line=self.line),
                clock=lambda: place.clock.now,
            )
            self.earned.append(worker.run().earned)

    def _audit(self) -> None:
        place, client = self.place, self._client()
        source = SegmentSource(
            client,
            store_of=lambda task: str(place.store),
            cache=self.home / "cache",
            journals=self.home / "disputes",
            engine=engine(),
        )
        auditor = Auditor(
            client,
            source,
            owner=self.address,
            options=AuditOptions(poll_seconds=self.poll, turn_seconds=self.poll, exit_when_done=True),
            reporter=Scribe(self.line),
            stop=VirtualStop(place.clock),
            clock=lambda: place.clock.now,
        )
        auditor.run()
