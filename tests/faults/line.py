"""What each call of a process goes through: it takes time, its answer may be lost, and the process may die at it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from clockwork import Clockwork, Killed
from node import Node
from web3.types import RPCEndpoint, RPCResponse

from ledger.errors import DataError
from ledger.rpc import ChainProvider
from trainer.store import BlobStore
from trainer.worker.progress import RoundProgress
from trainer.worker.stop import Stop

_T = TypeVar("_T")
# Seconds that a call takes, at most, on a machine of ordinary speed; and how many of a hundred calls take none.
_SECONDS = {"read": 1.0, "send": 3.0, "store": 2.0, "step": 4.0}
_AT_ONCE = {"read": 80, "send": 0, "store": 50, "step": 0}


@dataclass
class Dice:
    """How likely faults are; all 0 once a schedule is calm. Chances are per call."""

    lost_read: float = 0.0
    lost_send: float = 0.0
    lost_store: float = 0.0
    stall: float = 0.0
    mail: dict[str, float] = field(default_factory=dict)

    def clear(self) -> None:
        """No more faults."""
        self.lost_read = self.lost_send = self.lost_store = self.stall = 0.0
        self.mail = {}


@dataclass
class Line:
    """The calls of one process at a time.

    Attributes:
        slowness: how many times longer its calls take. cut: times until which the chain or the store is out of reach.
        doom: a kind of call ("read", "send", "store", "step", "word"), how many of them are left, and whether it dies
            "before" the call is made or "after".
    """

    name: str
    clock: Clockwork
    rng: random.Random
    dice: Dice
    counts: Counter[str]
    trace: Callable[[str, str], None]
    slowness: float = 1.0
    cut: dict[str, float] = field(default_factory=dict)
    doom: tuple[str, int, str] | None = None

    def cross(self, kind: str, call: Callable[[], _T], lost: Callable[[], Exception]) -> _T:
        """Makes a call of a kind; `lost` is what a broken connection raises."""
        actor = self.clock.here()
        if actor is None:  # a thread beside the actor's, which would not be the same twice
            raise lost()
        if actor.killed:
            raise Killed
        if kind in _SECONDS and self.rng.random() * 100 >= _AT_ONCE[kind]:
            self.clock.sleep(self.rng.random() * _SECONDS[kind] * self.slowness)
        end = self.cut.get("store" if kind == "store" else "chain", 0.0)
        if kind in ("read", "send", "store") and self.clock.now < end:
            raise lost()
        if kind == "store" and self.rng.random() < self.dice.stall:
            self.counts["stall of the store"] += 1
            self.clock.sleep(self.rng.uniform(10, 90))
        moment = self._falls(kind)
        if moment == "before":
            self._die(kind, moment)
        result = call()
        if moment == "after":
            self._die(kind, moment)
        if self.rng.random() < getattr(self.dice, f"lost_{kind}", 0.0):
            self.counts[f"answer lost ({kind})"] += 1
            raise lost()
        return result

    def _falls(self, kind: str) -> str | None:
        if self.doom is None or self.doom[0] != kind:
            return None
        _, left, moment = self.doom
        self.doom = (kind, left - 1, moment)
        return moment if left <= 0 else None

    def _die(self, kind: str, moment: str) -> None:
        actor = self.clock.here()
        assert actor is not None
        self.doom, actor.killed = None, True
        self.counts[f"killed {moment} a call ({kind})"] += 1
        self.trace(self.name, f"KILLED {moment} a call ({kind})")
        raise Killed


class Wire(ChainProvider):
    """A process's connection to the chain."""

    def __init__(self, node: Node, line: Line) -> None:
        super().__init__(node.chain.rpc_url, timeout=30)
        self._node, self._line = node, line

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        kind = "send" if method == "eth_sendRawTransaction" else "read"
        answer: RPCResponse = self._line.cross(
            kind, lambda: self._node.answer(self._line.name, method, params), self._node.refuse
        )
        return answer


class Shelf(BlobStore):
    """A process's connection to the store."""

    def __init__(self, url: str, *, cache: Path, line: Line) -> None:
        super().__init__(url, cache=cache, pause=0.0)
        self._line = line

    def _cross(self, path: str, call: Callable[[], _T]) -> _T:
        lost = DataError(f"The store {self.url} does not serve {path}: TimeoutError.")
        return self._line.cross("store", call, lambda: lost)

    def put_bytes(self, path: str, data: bytes) -> None:
        self._cross(path, lambda: super(Shelf, self).put_bytes(path, data))

    def put_file(self, path: str, local: Path) -> None:
        self._cross(path, lambda: super(Shelf, self).put_file(path, local))

    def get_bytes(self, path: str, *, max_bytes: int) -> bytes:
        return self._cross(path, lambda: super(Shelf, self).get_bytes(path, max_bytes=max_bytes))

    def get_file(self, path: str, local: Path, **options: Any) -> None:
        self._cross(path, lambda: super(Shelf, self).get_file(path, local, **options))

    def exists(self, path: str) -> bool:
        return self._cross(path, lambda: super(Shelf, self).exists(path))


class Scribe:
    """What a process says, kept for the trace; each step of training passes through `progress`."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def say(self, event: str, text: str, **fields: object) -> None:
        self._line.trace(self._line.name, f"{event}: {text}")
        self._line.cross("word", lambda: None, lambda: AssertionError("words are not lost"))

    def progress(self, progress: RoundProgress) -> None:
        self._line.cross("step", lambda: None, lambda: AssertionError("steps are not lost"))

    def round_over(self) -> None:
        return


class VirtualStop(Stop):
    """Waits in virtual time."""

    def __init__(self, clock: Clockwork) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, seconds: float) -> None:
        self._clock.sleep(seconds)
