"""One Anvil node whose clock follows virtual time: its mempool loses, delays and repeats, blocks are reorganised."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from clockwork import Clockwork
from eth_utils.crypto import keccak

from ledger.anvil import LocalChain
from ledger.errors import ChainUnreachable

# Seconds after which a block is mined although nobody sends anything.
BLOCK_SECONDS = 10
# Reorganisations go back to one of so many remembered places.
MARKS = 4
_YEARS = 3 * 10**8


class QuietChain(LocalChain):
    """Saves when it is told, not when a thread comes to it."""

    def _save_when_changed(self) -> None:
        return


@dataclass(frozen=True)
class _Mark:
    """Where the chain may go back to: a snapshot, and how many transactions had been sent by then."""

    snapshot: str
    sent: int


class Node:
    """What all actors' connections lead to.

    Attributes:
        clock: virtual time of the schedule that is played; None between schedules, when faults are off.
        down: whether it answers nobody.
        mail: what becomes of a transaction that an account sends: "now", "twice", "later" or "never".
    """

    def __init__(self, chain: LocalChain) -> None:
        self.chain = chain
        self.clock: Clockwork | None = None
        self.down = False
        self.mail: Callable[[str], str] = lambda account: "now"
        self.rng = random.Random(0)
        self.counts: dict[str, int] = {}
        self._line = http.client.HTTPConnection("127.0.0.1", chain.port, timeout=30)
        self._answers: dict[str, Any] = {}
        self._decoded: dict[str, tuple[Any]] = {}
        self._sent: list[tuple[str, str]] = []
        self._marks: list[_Mark] = []
        self._origin = self._latest = 0
        self._pristine: str | None = None
        # Ahead of this machine's clock, which a node that starts again looks at.
        self._mine(self._time() + _YEARS)

    # --- schedules ---

    def settle(self) -> None:
        """What is on the chain now is what each schedule begins with."""
        self.chain.save()
        shutil.copyfile(self.chain.directory / "state.gz", self.chain.directory / "pristine.gz")
        self._pristine = str(self._rpc("evm_snapshot"))

    def begin(self, clock: Clockwork, rng: random.Random) -> None:
        """A schedule: from now on time is the clock's."""
        self.clock, self.rng, self.down = clock, rng, False
        self.counts = {}
        self._forget()
        self._latest = self._time()
        self._origin = self._latest + 1

    def end(self) -> None:
        """Takes back all that the schedule did."""
        self.clock, self.mail = None, lambda account: "now"
        if self._pristine is None:
            self._begin_anew()
        else:
            self._rpc("anvil_dropAllTransactions")
            assert self._rpc("evm_revert", self._pristine), "the node has lost its first snapshot"
        self._pristine = self._rpc("evm_snapshot")
        self._forget()

    def _begin_anew(self) -> None:
        """A node that was started again knows the snapshots of before no more."""
        if not self.down:
            self._kill()
        shutil.copyfile(self.chain.directory / "pristine.gz", self.chain.directory / "state.gz")
        self.chain.start()
        self.down = False

    # --- what actors ask ---

    def answer(self, account: str, method: str, params: Any) -> Any:
        """A request of an actor's. Raises ChainUnreachable while the node is down."""
        if self.down:
            raise ChainUnreachable(self.chain.rpc_url, "connection refused")
        self._keep_time()
        if method == "eth_sendRawTransaction":
            return self._post(account, params[0])
        key = json.dumps([method, params], default=_plain)
        if key not in self._answers:
            answer = self._ask(method, params)
            if "result" not in answer:
                return answer
            self._answers[key] = json.dumps(answer)
        return json.loads(self._answers[key])

    def decoded(self, key: str) -> tuple[Any] | None:
        """What a read gave since the chain last changed, if anybody has asked; as `answer` otherwise."""
        if self.down:
            raise self.refuse()
        self._keep_time()
        return self._decoded.get(key)

    def remember(self, key: str, value: object) -> None:
        """Keeps what a read gave."""
        self._decoded[key] = (value,)

    def refuse(self) -> ChainUnreachable:
        """What a connection that breaks gives."""
        return ChainUnreachable(self.chain.rpc_url, "the connection was closed")

    # --- faults ---

    def reorganise(self) -> str:
        """Goes back to a place remembered; what was sent since comes again in another order, or not at all."""
        if self.down or not self._marks:
            return "nothing to go back to"
        place = self.rng.randrange(max(0, len(self._marks) - MARKS), len(self._marks))
        mark, height, latest = self._marks[place], self._height(), self._latest
        if not self._rpc("evm_revert", mark.snapshot):
            raise AssertionError("the node has lost a snapshot")
        dropped, self._sent = self._sent[mark.sent :], self._sent[: mark.sent]
        del self._marks[place:]
        self._changed()
        self._latest = self._time()
        gone = height - self._height()
        kept = self._shuffled([one for one in dropped if self.rng.random() < 0.7])
        for account, raw in kept:
            self._deliver(account, raw, moment=self._latest + 1)
        # The branch that wins is the longer one, and its time goes on.
        for _ in range(height - self._height()):
            self._mine(self._latest + 1)
        self._mine(max(latest, self._latest) + 1)
        self._count("reorganisation")
        return f"{gone} blocks back, {len(dropped)} transactions dropped, {len(kept)} of them mined again"

    def save(self) -> None:
        """A dump that a restart begins with."""
        if not self.down:
            self.chain.save()

    def stop(self, *, saved: bool) -> None:
        """The node dies; what came after its last dump is lost, if it is not `saved` now."""
        if self.down:
            return
        if saved:
            self.chain.save()
        self._kill()
        self.down, self._pristine = True, None
        self._count("restart")

    def start(self) -> str:
        """The node is there again, with its last dump."""
        if not self.down:
            return "it runs"
        self.chain.start()
        self._forget()
        self._latest, self.down = self._time(), False
        return f"it is at block {self._height()}"

    # --- inside ---

    def _post(self, account: str, raw: str) -> Any:
        fate = self.mail(account)
        if fate != "now":
            self._count(f"transaction {fate}")
        if fate in ("now", "twice"):
            answer = self._deliver(account, raw)
            if fate == "twice":
                self._deliver(account, raw)
            return answer
        assert self.clock is not None
        if fate == "later":
            self.clock.at(self.clock.now + self.rng.uniform(2, 60), lambda: self._late(account, raw))
        return {"jsonrpc": "2.0", "id": 0, "result": "0x" + keccak(hexstr=raw).hex()}

    def _late(self, account: str, raw: str) -> None:
        if not self.down:
            self._keep_time()
            self._deliver(account, raw)

    def _deliver(self, account: str, raw: str, *, moment: int | None = None) -> Any:
        self._mark()
        wanted = max(self._wanted(), self._latest + 1) if moment is None else moment
        self._rpc("evm_setNextBlockTimestamp", wanted)
        answer = self._ask("eth_sendRawTransaction", [raw])
        self._changed()
        self._latest = self._time()
        if "result" in answer:
            self._sent.append((account, raw))
        return answer

    def _keep_time(self) -> None:
        if self._wanted() - self._latest >= BLOCK_SECONDS:
            self._mark()
            self._mine(self._wanted())

    def _wanted(self) -> int:
        return self._origin + int(self.clock.now) if self.clock is not None else self._latest + 1

    def _mark(self) -> None:
        if self.clock is not None and self.rng.random() < 0.2:
            self._marks.append(_Mark(self._rpc("evm_snapshot"), len(self._sent)))

    def _mine(self, timestamp: int) -> None:
        self._rpc("evm_setNextBlockTimestamp", timestamp)
        self._rpc("evm_mine")
        self._changed()
        self._latest = timestamp

    def _shuffled(self, sent: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """In another order, but each account's own as they were."""
        queues: dict[str, list[tuple[str, str]]] = {}
        for one in sent:
            queues.setdefault(one[0], []).append(one)
        order = [account for account, _ in sent]
        self.rng.shuffle(order)
        return [queues[account].pop(0) for account in order]

    def _kill(self) -> None:
        pid = self.chain.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)

    def _forget(self) -> None:
        self._marks.clear()
        self._sent.clear()
        self._changed()

    def _changed(self) -> None:
        self._answers.clear()
        self._decoded.clear()

    def _count(self, fault: str) -> None:
        self.counts[fault] = self.counts.get(fault, 0) + 1

    def _time(self) -> int:
        return int(self._rpc("eth_getBlockByNumber", "latest", False)["timestamp"], 16)

    def _height(self) -> int:
        return int(self._rpc("eth_blockNumber"), 16)

    def _rpc(self, method: str, *params: Any) -> Any:
        return self._ask(method, list(params))["result"]

    def _ask(self, method: str, params: Any) -> Any:
        """The node's answer, over one connection that stays: web3's own takes most of the time of a schedule."""
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}, default=_plain)
        for last in (False, True):
            try:
                self._line.request("POST", "/", body, {"Content-Type": "application/json"})
                return json.loads(self._line.getresponse().read())
            except (http.client.HTTPException, OSError):  # the node was started again
                self._line.close()
                if last:
                    raise
        raise AssertionError("the last attempt returns or raises")


def _plain(value: Any) -> Any:
    """What web3 puts into requests beside JSON's own kinds."""
    return dict(value) if isinstance(value, Mapping) else str(value)
