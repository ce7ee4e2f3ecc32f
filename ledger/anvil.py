"""A local chain: starts, adopts, saves and stops Anvil, so that the chain outlives its processes.

What is where, under HOME/chain:

==================== ==================================================================================
``state.gz``         the newest dump; ``state.previous.gz`` the one before, taken if the newest is broken
``identity``         32 random bytes in hex, also kept on the chain itself: whether a node is this chain
``node.json``        pid and port of the running node
``owner.lock``       locked for as long as the process that saves and stops the node lives
``anvil.log``        what Anvil said since its last start
==================== ==================================================================================

The node runs in a session of its own and survives its owner. Where the owner was killed, the next `start` finds a node
that answers with this chain's identity, and adopts it; where the node was killed too, `start` loads the newest dump.
A dump follows each block with transactions within about half a second; what came later is lost with the node,
exactly as in a reorganisation of that depth, and clients must (and do) repeat it.

Time follows the wall clock, a block a second, also without transactions, because leases and windows end by block
time. `--prune-history` keeps only the newest state: without it Anvil keeps a copy of the state per block, in memory
and then on disk (0.9 GB and 1.9 GB measured for a few thousand empty blocks, against 38 MB). Blocks, transactions,
receipts and logs are kept, and dumped, whole.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import socket
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from web3 import Web3

from ledger._node import find_anvil, last_timestamp, running_nodes, terminate, unpack_dump
from ledger.atomic import exclusive_lock, release_lock, sync_directory, try_lock, write_atomically
from ledger.errors import ChainError, ChainUnreachable
from ledger.rpc import ChainProvider, rpc

__all__ = ["CHAIN_ID", "LocalChain", "find_anvil"]

CHAIN_ID = 31337
_HOST = "127.0.0.1"
# An address that nobody has a key for (the name in ASCII); its storage slot 0 holds the chain's identity.
_MARKER = Web3.to_checksum_address("0x" + b"trainledger-marker\0\0".hex())
_START_SECONDS = 30.0
_STOP_SECONDS = 10.0
_SAVE_POLL_SECONDS = 0.5

_log = logging.getLogger(__name__)


class LocalChain:
    """An Anvil node on 127.0.0.1 whose state is kept in `home`/chain.

    The process that starts or adopts the node owns it, and stops it in `stop`. A second process that asks for the same
    chain while the owner lives is a guest: it may use the chain, and its `stop` leaves it running.

    Args:
        home: directory of all of trainledger's files.
        port: TCP port; 0 chooses a free one (`port` and `rpc_url` tell which).
        block_seconds: seconds between blocks.
    """

    def __init__(self, home: Path, port: int, *, block_seconds: int = 1) -> None:
        self.directory = home.absolute() / "chain"
        self.port = port
        self.block_seconds = block_seconds
        self.pid: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._owner_lock: int | None = None
        self._saver: threading.Thread | None = None
        self._stopping = threading.Event()
        self._save_lock = threading.Lock()
        self._saved_block = -1

    @property
    def rpc_url(self) -> str:
        """Where the node answers."""
        return f"http://{_HOST}:{self.port}"

    @property
    def owned(self) -> bool:
        """Whether this object saves and stops the node."""
        return self._owner_lock is not None

    def start(self) -> LocalChain:
        """Makes the chain answer: adopts a live node of this home, or starts one on the saved state. Idempotent.

        Raises:
            ToolMissing: Anvil is not installed.
            ChainError: the port is taken by another program, or no saved state can be loaded.
        """
        if self.owned and self._is_ours(self.port):
            return self
        self.directory.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(self.directory / "start.lock", timeout=2 * _START_SECONDS):
            if self._owner_lock is None:
                self._owner_lock = try_lock(self.directory / "owner.lock")
            if self._owner_lock is None:
                self._join_as_guest()
                return self
            try:
                if not self._adopt():
                    self._launch()
            except BaseException:
                self._give_up_ownership()
                raise
        self._stopping.clear()
        if self._saver is None or not self._saver.is_alive():
            self._saver = threading.Thread(target=self._save_when_changed, name="chain-saver", daemon=True)
            self._saver.start()
        return self

    def __enter__(self) -> LocalChain:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Saves and ends the node where this object owns it; leaves it to its owner otherwise.

        Raises:
            ResourceError: the disk is full. The node goes on, so that nothing is lost: the next `start` adopts it.
        """
        if not self.owned:
            return
        self._stopping.set()
        if self._saver is not None:
            self._saver.join()
            self._saver = None
        try:
            with contextlib.suppress(ChainUnreachable):  # a node that died has nothing left to save
                self.save()
            self._terminate()
            self._record.unlink(missing_ok=True)
        finally:
            self._give_up_ownership()

    def save(self) -> None:
        """Dumps the chain to disk. A crash at any moment leaves this dump or the one before.

        Raises:
            ChainUnreachable: the node does not answer.
            ResourceError: the disk is full; the dump before stays.
        """
        # Between threads, and between the owner and guests: two rotations at once would lose the older dump.
        with self._save_lock, exclusive_lock(self.directory / "save.lock"):
            for _ in range(10):
                before = self._block_number()
                dump = bytes.fromhex(str(self._rpc("anvil_dumpState"))[2:])
                # Accounts and blocks are dumped one after the other: a block mined between would be half in it.
                if self._block_number() == before:
                    break
            newest = self.directory / "state.gz"
            if newest.exists():
                # A link, then a rename onto the old name: the newest dump never goes without a name.
                spare = self.directory / ".state.previous"
                spare.unlink(missing_ok=True)
                os.link(newest, spare)
                os.replace(spare, self.directory / "state.previous.gz")
                sync_directory(self.directory)
            write_atomically(newest, dump)
            self._saved_block = before

    def advance(self, seconds: int) -> int:
        """Moves the chain's clock forward and mines a block; returns the new block time, Unix seconds.

        Raises:
            ChainError: `seconds` is negative, or the node refuses.
        """
        if seconds < 0:
            raise ChainError(f"The chain's clock cannot go back by {-seconds} seconds.")
        once = self._web3(attempts=1)  # said twice, it would count twice
        rpc(once, "evm_increaseTime", seconds)
        rpc(once, "evm_mine")
        return int(self._rpc("eth_getBlockByNumber", "latest", False)["timestamp"], 16)

    def set_balance(self, address: str, wei: int) -> None:
        """Gives `address` exactly `wei` of the local chain's ether.

        Raises:
            ChainError: the node refuses.
        """
        self._rpc("anvil_setBalance", address, hex(wei))

    @property
    def _record(self) -> Path:
        return self.directory / "node.json"

    def _web3(self, port: int | None = None, *, attempts: int = 2, timeout: float = 30) -> Web3:
        url = f"http://{_HOST}:{self.port if port is None else port}"
        return Web3(ChainProvider(url, timeout=timeout, attempts=attempts))

    def _rpc(self, method: str, *parameters: Any) -> Any:
        return rpc(self._web3(), method, *parameters)

    def _block_number(self) -> int:
        return int(self._rpc("eth_blockNumber"), 16)

    def _identity(self) -> str:
        path = self.directory / "identity"
        if not path.exists():
            write_atomically(path, secrets.token_hex(32).encode())
        return path.read_text().strip()

    def _is_ours(self, port: int) -> bool:
        """Whether a node answers on `port` and carries this chain's identity."""
        web3 = self._web3(port, attempts=1, timeout=5)
        try:
            slot = rpc(web3, "eth_getStorageAt", _MARKER, "0x0", "latest")
        except ChainError:
            return False
        return str(slot) == "0x" + self._identity()

    def _read_record(self) -> dict[str, int]:
        try:
            record = json.loads(self._record.read_text())
            return {"pid": int(record["pid"]), "port": int(record["port"])}
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return {}

    def _adopt(self) -> bool:
        """Takes over a node that outlived its owner, recorded or not; ends any other of this folder. False if none.

        A node without a record was started by a process that was killed a moment later; one with another identity
        belonged to a home that was deleted and made anew in the same place.
        """
        record = self._read_record()
        nodes = running_nodes(self.directory / "cache")
        candidates = [*nodes, (record["pid"], record["port"])] if record else nodes
        adopted = next(((pid, port) for pid, port in candidates if self._is_ours(port)), None)
        for pid, port in nodes:
            if (pid, port) != adopted:
                _log.warning("ending an Anvil (process %d) that was left behind in %s", pid, self.directory)
                terminate(pid, seconds=_STOP_SECONDS)
        if adopted is None:
            return False
        if self.port not in (0, adopted[1]):
            _log.info("the chain of %s already runs on port %d", self.directory, adopted[1])
        self.pid, self.port = adopted
        write_atomically(self._record, json.dumps({"pid": self.pid, "port": self.port}).encode())
        return True

    def _join_as_guest(self) -> None:
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end:
            record = self._read_record()
            if record and self._is_ours(record["port"]):
                self.pid, self.port = record["pid"], record["port"]
                return
            time.sleep(0.1)
        raise ChainError(
            f"Another process keeps the chain of {self.directory}, but the chain does not answer.",
            remedy="End that process (a stopped or hanging `trainledger up` or `demo`) and run this command again.",
        )

    def _launch(self) -> None:
        binary = find_anvil()
        self._clear_port()
        dumps = [path for name in ("state.gz", "state.previous.gz") if (path := self.directory / name).exists()]
        for dump in dumps:
            state = unpack_dump(dump)
            if state is not None and self._launch_on(binary, state):
                return
            _log.warning("the dump %s cannot be loaded; trying the one before", dump)
        if dumps:
            raise ChainError(
                f"No saved state in {self.directory} can be loaded (Anvil's words are in anvil.log there).",
                remedy=f"Move {self.directory} away to begin with an empty chain.",
            )
        if not self._launch_on(binary, None):
            raise ChainError(f"Anvil does not start: {self._last_words()}", remedy=f"See {self.directory}/anvil.log.")

    def _clear_port(self) -> None:
        """Chooses a port where none is named; otherwise refuses one that somebody else listens on."""
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_HOST, self.port))
            except OSError:
                raise ChainError(
                    f"Port {self.port} is in use by another program (or another trainledger home).",
                    remedy="Choose another with --chain-port, end that program, "
                    f"or use it as it is with --rpc-url {self.rpc_url}.",
                ) from None
            self.port = int(probe.getsockname()[1])

    def _launch_on(self, binary: Path, state: bytes | None) -> bool:
        """Starts Anvil, on `state` (JSON) where given, and waits until it answers. False where it ends or hangs."""
        loading = self.directory / "loading.json"
        arguments = [
            str(binary), "--host", _HOST, "--port", str(self.port), "--chain-id", str(CHAIN_ID),
            "--block-time", str(self.block_seconds), "--mixed-mining", "--prune-history",
            "--cache-path", str(self.directory / "cache"),
        ]  # fmt: skip
        if state is not None:
            write_atomically(loading, state)
            # Anvil would set its clock to the wall's: a clock that was moved ahead by `advance` would fall back.
            arguments += [
                "--load-state",
                str(loading),
                "--timestamp",
                str(max(last_timestamp(state) + 1, int(time.time()))),
            ]
        with (self.directory / "anvil.log").open("wb") as log:
            # A session of its own: Ctrl-C in the terminal goes to the owner, which saves first.
            self._process = subprocess.Popen(
                [*arguments, "--quiet"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self.pid = self._process.pid
        try:
            if not self._wait_until_answering():
                self._terminate()
                return False
            self._mark()
            write_atomically(self._record, json.dumps({"pid": self.pid, "port": self.port}).encode())
        except BaseException:
            self._terminate()
            raise
        finally:
            loading.unlink(missing_ok=True)
        return True

    def _wait_until_answering(self) -> bool:
        web3 = self._web3(attempts=1, timeout=5)
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end and self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ChainError):
                return int(rpc(web3, "eth_chainId"), 16) == CHAIN_ID
            time.sleep(0.05)
        return False

    def _mark(self) -> None:
        if not self._is_ours(self.port):
            self._rpc("anvil_setBalance", _MARKER, "0x1")  # an account without balance would not be kept
            self._rpc("anvil_setStorageAt", _MARKER, "0x" + "00" * 32, "0x" + self._identity())
            self.save()
        self._saved_block = self._block_number()

    def _last_words(self) -> str:
        lines = (self.directory / "anvil.log").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it ended without a word."

    def _save_when_changed(self) -> None:
        while not self._stopping.wait(_SAVE_POLL_SECONDS):
            try:
                if self._changed():
                    self.save()
            except ChainUnreachable as problem:
                if not self._stopping.is_set():
                    _log.debug("cannot save the chain: %s", problem)
            except Exception as problem:
                # The chain goes on without being saved; the user must know, and the next round tries again.
                _log.warning("the chain could not be saved: %s", problem)

    def _changed(self) -> bool:
        """Whether a block since the last dump holds a transaction."""
        latest = self._block_number()
        if latest < self._saved_block:
            return True
        for number in range(self._saved_block + 1, latest + 1):
            block = self._rpc("eth_getBlockByNumber", hex(number), False)
            if block is not None and block["transactions"]:
                return True
            self._saved_block = number  # nothing in it that would need a dump
        return False

    def _terminate(self) -> None:
        """Ends the node: politely, then not."""
        pid, process = self.pid, self._process
        self.pid = self._process = None
        if pid is None:
            return
        terminate(pid, seconds=_STOP_SECONDS)
        if process is not None:
            process.poll()  # so that it is not taken for a child that still runs

    def _give_up_ownership(self) -> None:
        if self._owner_lock is not None:
            release_lock(self._owner_lock)
            self._owner_lock = None
