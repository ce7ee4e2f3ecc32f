"""A stage for whole plays: a real chain, real contracts, and the real command line in processes of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eth_utils.crypto import keccak
from small_programs import LIBRARIES
from typer.testing import CliRunner, Result

from ledger.anvil import LocalChain
from ledger.client import LedgerClient
from ledger.compile import compile_contracts
from ledger.deploy import LOCAL_PARAMETERS, Deployment, deploy, publish
from ledger.keys import KeyStore, Wallet
from ledger.reverts import ErrorDecoder
from ledger.rpc import connect
from ledger.tx import TransactionSender
from ledger.types import SlotStatus
from trainer.cli.main import app

ETHER = TOKEN = 10**18
TEXT = "".join(f"line {n}: the {'quick' if n % 3 else 'lazy'} fox jumps over {n % 7} dogs.\n" for n in range(1500))
# A schedule of its own, or every length of task would be another program to compile.
TASK_FILE = """
[task]
title = "A tiny task"
rounds = {rounds}
steps_per_round = {steps}

[reward]
slot_reward = "10"
bond = "5"
lease_fee = "1"
target_loss = {target}

[timing]
lease_seconds = {lease}
challenge_window_seconds = {window}
{admission}
[data]
source = "corpus.txt"
tokenizer = "byte"

[program]
context = 16
batch_size = 4
evaluation_windows = 8
evaluation_batch = 8
seed = 3

[program.model]
kind = "transformer"
layers = 1
heads = 2
width = 16

[program.schedule]
learning_rate = 0.01
total_steps = 120
"""


@dataclass
class Process:
    """A running command whose lines of JSON are read from a file."""

    popen: subprocess.Popen[bytes]
    out: Path
    err: Path

    def lines(self) -> list[dict[str, Any]]:
        # The last line may be cut short by a kill.
        whole = self.out.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def events(self) -> list[str]:
        return [str(line["event"]) for line in self.lines()]

    def wait_for(self, event: str, *, seconds: float = 60.0, **fields: object) -> dict[str, Any]:
        """The first line with that event and these fields."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for line in self.lines():
                if line["event"] == event and all(line.get(name) == value for name, value in fields.items()):
                    return line
            assert self.popen.poll() is None, f"it ended first: {self.out.read_text()[-2000:]}{self.err.read_text()}"
            time.sleep(0.02)
        raise AssertionError(f"no {event} {fields} in {seconds} s: {self.out.read_text()[-3000:]}")

    def said(self, event: str) -> dict[str, Any]:
        """The last line with that event."""
        return next(line for line in reversed(self.lines()) if line["event"] == event)

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()

    def ended(self, *, seconds: float = 90.0) -> int:
        return self.popen.wait(timeout=seconds)


@dataclass
class Stage:
    """One home and one chain. Accounts are keys in the environment: no keystores to decrypt."""

    home: Path
    chain: LocalChain
    deployment: Deployment
    processes: list[Process] = field(default_factory=list)

    def wallet(self, name: str) -> Wallet:
        return Wallet.from_private_key(_key(name), name=name)

    def client(self, name: str) -> LedgerClient:
        web3 = connect(self.chain.rpc_url)
        sender = TransactionSender(web3, self.wallet(name), errors=ErrorDecoder(compile_contracts()))
        return LedgerClient(web3, self.deployment, sender)

    def fund(self, name: str, *, tokens: int = 1000, stake: int = 0) -> str:
        address = self.wallet(name).address
        self.chain.set_balance(address, 100 * ETHER)
        self.client("deployer").transfer_token(address, tokens * TOKEN)
        if stake:
            self.client(name).stake(stake * TOKEN)
        return address

    def keystore(self, *names: str, password: str) -> None:
        """Accounts as encrypted keys, cheap to unlock."""
        store = KeyStore(self.home / "keys", scrypt_cost=2**10)
        for name in names:
            store.import_key(name, _key(name), password)

    def environment(self, account: str | None, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TRAINLEDGER_")}
        known = {
            "TRAINLEDGER_HOME": str(self.home),
            "TRAINLEDGER_RPC_URL": self.chain.rpc_url,
            "TRAINLEDGER_POLL_SECONDS": "0.1",
            "TRAINLEDGER_SNAPSHOT_SECONDS": "0.1",
            # Programs so small gain nothing from threads, and several workers share the machine.
            "TRAINLEDGER_THREADS": "1",
            # A name says all that is in a library, so one that another test had compiled is the same.
            "TRAINLEDGER_LIBRARIES": str(LIBRARIES),
            "PYTHONUNBUFFERED": "1",
        }
        return kept | known | ({"TRAINLEDGER_PRIVATE_KEY": _key(account)} if account else {}) | more

    def run(self, *words: str, account: str | None = None, **more: str) -> Result:
        """A command that ends by itself; in this process, which has imported torch already."""
        given = self.environment(account, **more)
        unset = {name: None for name in os.environ if name not in given}
        return CliRunner().invoke(app, list(words), env={**unset, **given})

    def ask(self, *words: str, account: str | None = None) -> Any:
        done = self.run(*words, "--json", account=account)
        assert done.exit_code == 0, done.stderr
        return json.loads(done.stdout)

    def worker(self, account: str, *words: str, **more: str) -> Process:
        return self.command(account, "worker", "run", *words, **more)

    def command(self, account: str | None, *words: str, launcher: Sequence[str] = (), **more: str) -> Process:
        """A command that runs on, beside the test, in a process group of its own, as a shell starts it.

        `launcher`: Python's words that start it instead of Python.
        """
        number = len(self.processes)
        out, err = self.home / f"{number}-{account}.out", self.home / f"{number}-{account}.err"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            popen = subprocess.Popen(
                [sys.executable, *launcher, "-m", "trainer.cli", *words, "--json"],
                env=self.environment(account, **more),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                cwd=self.home,
                process_group=0,
            )
        process = Process(popen, out, err)
        self.processes.append(process)
        return process

    def task_file(
        self,
        *,
        rounds: int = 2,
        steps: int = 30,
        lease: int = 60,
        window: int = 60,
        target: float = 2.0,
        admission: str = "",
        more: str = "",
    ) -> Path:
        (self.home / "corpus.txt").write_text(TEXT)
        path = self.home / f"task-{rounds}-{steps}-{lease}.toml"
        text = TASK_FILE.format(
            rounds=rounds, steps=steps, lease=lease, window=window, target=target, admission=admission
        )
        path.write_text(text + more)
        return path

    def post(self, **sizes: Any) -> int:
        return int(self.ask("task", "create", str(self.task_file(**sizes)), account="requester")["task"])

    def play_out(self, task: int, *, seconds: float = 120.0, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Moves the chain's clock past every challenge window until the task is complete."""
        client, end = self.client("deployer"), time.monotonic() + seconds
        while True:
            state = client.task(task)
            if state.complete:
                return
            slots = [client.slot(task, state.current_round, at) for at in range(state.parameters.last_slot + 1)]
            ends = [slot.deadline for slot in slots if slot.status is not SlotStatus.LEASED]
            left = max(ends, default=0) - client.chain_time()
            # The last slot of a round is submitted after all the others.
            if slots[-1].status is SlotStatus.SUBMITTED and left >= 0:
                self.chain.advance(left + 1)
            meanwhile()
            assert time.monotonic() < end, [process.out.read_text()[-1500:] for process in self.processes]
            time.sleep(0.1)

    def close(self) -> None:
        for process in self.processes:
            if process.popen.poll() is None:
                process.kill()


def kill_anvil(chain: LocalChain) -> None:
    """kill -9 for the node itself; what was mined after the last save is lost."""
    record = json.loads((chain.directory / "node.json").read_text())
    os.kill(int(record["pid"]), signal.SIGKILL)


@contextlib.contextmanager
def open_stage(home: Path) -> Iterator[Stage]:
    """A deployed chain, a requester with 1,000 tokens, and two staked workers."""
    home.mkdir(parents=True, exist_ok=True)
    with LocalChain(home, 0) as chain:
        deployer = Wallet.from_private_key(_key("deployer"), name="deployer")
        chain.set_balance(deployer.address, 1000 * ETHER)
        web3 = connect(chain.rpc_url)
        sender = TransactionSender(web3, deployer, errors=ErrorDecoder(compile_contracts()))
        deployment = deploy(web3, sender, parameters=LOCAL_PARAMETERS)
        publish(deployment, home / "deployments" / str(deployment.chain_id))
        stage = Stage(home, chain, deployment)
        stage.fund("requester")
        for name in ("alice", "bob"):
            stage.fund(name, stake=100)
        try:
            yield stage
        finally:
            stage.close()


def _key(name: str) -> str:
    return "0x" + keccak(text=f"stage {name}").hex()
