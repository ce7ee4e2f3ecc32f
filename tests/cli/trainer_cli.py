"""The trainer's commands over an in-memory ledger and a real store: the real command line, but no chain."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_programs import users_engine
from typer.testing import CliRunner, Result
from worker_bench import IDENTITY, TinyTask, note_general_speed, publish_tiny_task
from worker_fakes import ALICE, TOKEN, FakeChain, FakeLedger

from ledger.cli.common import CommandContext
from ledger.types import SlotStatus, TaskParameters
from trainer.checkpoints import save_state
from trainer.cli.main import app
from trainer.commit.states import loss_proof
from trainer.engine.state import State, heldout_loss_bits


class FakeClient(FakeChain):
    """A `FakeChain` with what only commands ask for. Time moves while a submission waits, at each look at the clock."""

    deployment = SimpleNamespace(
        chain_id=IDENTITY.chain_id, ledger=IDENTITY.ledger, block_hash=IDENTITY.deployment_block
    )
    token_symbol = "TLT"
    balance = 1000 * TOKEN
    least = (TOKEN, 20, 10)  # bond, window, lease

    def chain_time(self) -> int:
        if any(slot.status is SlotStatus.SUBMITTED for slot in self.ledger.books.slots.values()):
            self.ledger.advance(30)
        return super().chain_time()

    def minimum_bond(self) -> int:
        return self.least[0]

    def minimum_window(self) -> int:
        return self.least[1]

    def minimum_lease(self) -> int:
        return self.least[2]

    def token_balance(self, owner: str) -> int:
        return self.balance

    def find_task(self, specification_hash: bytes, requester: str) -> int | None:
        found = [n for n, t in self.ledger.books.tasks.items() if t.parameters.specification_hash == specification_hash]
        return max(found, default=None)

    def post_task(self, parameters: TaskParameters, url: str) -> int:
        return self.ledger.post(parameters, url)

    def games(self, **about: object) -> list[object]:
        """Nobody disputes anything here; `tests/dispute` has all that."""
        return []


@dataclass
class TrainerCommands:
    """Commands in a home of their own. `signed` lists for each client that was made whether it was to sign."""

    home: Path
    store: Path
    ledger: FakeLedger
    tiny: TinyTask
    client: FakeClient
    signed: list[bool] = field(default_factory=list)

    def run(self, *words: str, **more: str) -> Result:
        known = {
            "TRAINLEDGER_HOME": str(self.home),
            "TRAINLEDGER_STORE": str(self.store),
            "TRAINLEDGER_POLL_SECONDS": "0.01",
            "TRAINLEDGER_SNAPSHOT_SECONDS": "100",
            "TRAINLEDGER_THREADS": "1",
        }
        return CliRunner().invoke(app, list(words), env={**known, **more}, prog_name="trainledger")

    def ask(self, *words: str, **more: str) -> Any:
        """The one JSON document of a command that must succeed and say nothing else."""
        done = self.run(*words, "--json", **more)
        assert (done.exit_code, done.stderr) == (0, "")
        return json.loads(done.stdout)

    def fail(self, code: int, *words: str, **more: str) -> dict[str, Any]:
        """The error's JSON; as text it must be the same sentence."""
        plain = self.run(*words, **more)
        assert plain.exit_code == code, plain.output
        done = self.run(*words, "--json", **more)
        assert done.exit_code == code, done.output
        error: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])
        assert list(error) == ["error", "problem", "remedy", "exit_code"]
        assert f"Error: {error['problem']}" in plain.stderr.splitlines()
        assert "Traceback" not in plain.stderr
        return error

    def events(self, *words: str, code: int = 0, **more: str) -> list[dict[str, Any]]:
        """What `worker run --json` said, one object a line."""
        done = self.run("worker", "run", "--json", *words, **more)
        assert done.exit_code == code, done.output
        return [json.loads(line) for line in done.stdout.splitlines()]

    def play(self, states: list[State], *, loss: int | None = None, final: bool = True) -> None:
        """Enters states after the first as rounds, without any worker; the last one stays open if not `final`."""
        for number, state in enumerate(states[1:]):
            root = save_state(self.tiny.store, state, self.tiny.program.layout)
            task, base = self.client.task(1), self.client.base_root(1, number)
            self.client.claim(task, number, base_root=base, attempt=0, worker=ALICE)
            bits = heldout_loss_bits(state) if loss is None else loss
            proof = loss_proof(state.values())
            self.client.submit(
                1, number, attempt=0, base_root=base, state_root=root, steps=4, loss_bits=bits, proof=proof
            )
            if final or number < len(states) - 2:
                self.ledger.advance(101)
                self.client.finalise(1, number, attempt=0, state_root=root)


def make_commands(folder: Path, monkeypatch: pytest.MonkeyPatch, *, steps: int = 4) -> TrainerCommands:
    """A published and posted task of two rounds, and a worker with a stake."""
    ledger, tiny = FakeLedger(), publish_tiny_task(folder / "store", rounds=2, steps=steps)
    ledger.post(tiny.parameters, str(folder / "store"))
    ledger.stake(ALICE, 20 * TOKEN)
    note_general_speed(folder / "home", ALICE, users_engine())
    made = TrainerCommands(folder / "home", folder / "store", ledger, tiny, FakeClient(ledger, ALICE))

    def client(context: CommandContext, *, signing: bool = False) -> FakeClient:
        made.signed.append(signing)
        return made.client

    monkeypatch.setattr(CommandContext, "client", client)
    monkeypatch.setattr(CommandContext, "disputes", client)
    monkeypatch.setattr(CommandContext, "committee", client)
    return made
