"""Whole lives of open tasks: posted by the real command, played by the real loops, one turn each, on a real node."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from safetensors.torch import save_file
from small_programs import engine
from stage import TEXT, TOKEN, Stage

from ledger.compile import compile_contracts
from ledger.disputes.client import DisputeClient
from ledger.open.client import OpenClient
from ledger.open.records import OpenSlot
from ledger.open.records import Stage as SlotStage
from ledger.reverts import ErrorDecoder
from ledger.rpc import connect
from ledger.tx import TransactionSender
from trainer.cli.open_parts import OpenParts, open_player, secret_folder
from trainer.engine.state import State
from trainer.open.audit import OpenAuditOptions, OpenAuditor
from trainer.open.kept import KeptStates
from trainer.open.policy import why_waiting
from trainer.open.ports import look
from trainer.open.requester import OpenRequester
from trainer.open.source import OpenSource
from trainer.open.training import Training
from trainer.open.truths import OpenTruths
from trainer.open.witness import SaltedFindings, Witness
from trainer.open.worker import OpenWorker, OpenWorkerOptions
from trainer.worker.stop import Stop
from trainer.worker.workshop import Identity

SLOT_REWARD, FLOOR, SCORE_REWARD, BOND = 10 * TOKEN, TOKEN // 2, TOKEN, 5 * TOKEN
TASK_FILE = """
[task]
title = "A tiny open task"
rounds = {rounds}
steps_per_round = 30

[reward]
slot_reward = "10"
bond = "5"

[open]
slots = {slots}
full_gain = 2.0
floor_reward = "0.5"
score_reward = "1"
fee = "0.5"
commit_seconds = 600
reveal_seconds = 60
held_out_seconds = 60
lease_seconds = 60
challenge_window_seconds = 60
held_out = 0.2

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


class Party(Protocol):
    """Whoever takes turns."""

    def turn(self) -> bool | None: ...


class Said:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, dict[str, object]]] = []

    def say(self, event: str, text: str, **fields: object) -> None:
        self.events.append((event, text, fields))

    def progress(self, progress: object) -> None: ...

    def round_over(self) -> None: ...

    def named(self, event: str) -> list[dict[str, object]]:
        return [fields for name, _, fields in self.events if name == event]


class OpenPlay:
    """An open task on a stage. `said` is what all parties said."""

    def __init__(self, stage: Stage, *, rounds: int = 1, slots: int = 3) -> None:
        self.stage, self.said, self.stop = stage, Said(), Stop()
        (stage.home / "corpus.txt").write_text(TEXT)
        file = stage.home / f"open-{rounds}-{slots}.toml"
        file.write_text(TASK_FILE.format(rounds=rounds, slots=slots))
        self.number = int(stage.ask("open", "create", str(file), "--again", account="requester")["task"])
        self.escrow = rounds * (slots * SLOT_REWARD + SCORE_REWARD)

    def parts(self, name: str) -> OpenParts:
        web3 = connect(self.stage.chain.rpc_url)
        sender = TransactionSender(web3, self.stage.wallet(name), errors=ErrorDecoder(compile_contracts()))
        chain = OpenClient(web3, self.stage.deployment, sender)
        games = DisputeClient(web3, self.stage.deployment, sender, open_tasks=True)
        store, cache = str(self.stage.home / "store"), self.stage.home / "cache" / name
        source = OpenSource(chain, store_of=lambda task: store, cache=cache, engine=engine())
        return OpenParts(chain, games, source, OpenTruths(chain, source))

    def worker(self, name: str, training: Training, *, source: OpenSource | None = None) -> OpenWorker:
        parts, wallet, deployment = self.parts(name), self.stage.wallet(name), self.stage.deployment
        return OpenWorker(
            parts.chain,
            source or parts.source,
            training,
            worker=wallet.address,
            identity=Identity(
                chain_id=deployment.chain_id,
                ledger=deployment.open_ledger,
                deployment_block=deployment.block_hash,
            ),
            options=OpenWorkerOptions(task=self.number, train_seconds=2.0, poll_seconds=0.05),
            kept=KeptStates(self.stage.home / "workers" / name),
            reporter=self.said,
            stop=self.stop,
            clock=time.monotonic,
            player=open_player(parts, owner=wallet.address, reporter=self.said, poll_seconds=0.0),
        )

    def requester(self) -> OpenRequester:
        parts = self.parts("requester")
        return OpenRequester(
            parts.chain,
            parts.source,
            secret_folder(self.stage.home),
            task=self.number,
            poll_seconds=0.05,
            reporter=self.said,
            stop=self.stop,
        )

    def auditor(self, name: str, *, question_seconds: float | None = None) -> OpenAuditor:
        parts, owner = self.parts(name), self.stage.wallet(name).address
        return OpenAuditor(
            parts.chain,
            parts.games,
            parts.source,
            parts.truths,
            owner=owner,
            options=OpenAuditOptions(
                poll_seconds=0.05, task=self.number, question_seconds=question_seconds, exit_when_done=True
            ),
            reporter=self.said,
            stop=self.stop,
            clock=time.monotonic,
            player=open_player(parts, owner=owner, reporter=self.said, poll_seconds=0.0),
            witness=Witness(
                parts.chain,
                parts.source,
                owner=owner,
                findings=SaltedFindings(self.stage.home / "findings" / name),
                reporter=self.said,
                clock=time.monotonic,
            ),
        )

    def chain(self) -> OpenClient:
        return self.parts("deployer").chain

    def base_file(self, path: Path, change: Callable[[State], None] = lambda state: None) -> Path:
        """The current base as a file that can be handed in, changed or not."""
        parts = self.parts("deployer")
        task = parts.chain.task(self.number)
        state = parts.source.base(task, task.current_round)
        copied = {name: tensor.clone() for name, tensor in state.items()}
        change(copied)  # type: ignore[arg-type]
        save_file(copied, path)
        return path

    def take_turns(
        self, parties: Sequence[Party], done: Callable[[], bool], *, step: int = 3, turns: int = 200
    ) -> None:
        """Turns for everybody until something is so; where nobody has anything to do, a block `step` seconds later."""
        for _ in range(turns):
            if done():
                return
            acted = [party.turn() for party in parties]
            if not any(acted):
                self.stage.chain.advance(step)
        raise AssertionError(self.said.events[-8:])

    def play(self, parties: Sequence[Party], *, turns: int = 400) -> None:
        """Turns for everybody in order, with the chain's clock moved on where nobody has anything to do."""
        chain, left = self.chain(), list(parties)
        for _ in range(turns):
            acted = False
            for party in list(left):
                done = party.turn()
                acted = acted or bool(done)
                if done is None:
                    left.remove(party)
            if not left:
                return
            if not acted:
                view = look(chain, self.number, None)
                until = why_waiting(view, "").until or view.now + 60
                self.stage.chain.advance(max(1, until - chain.chain_time() + 1))
        raise AssertionError(self.said.events[-8:])

    def slots(self, round_number: int = 0) -> list[OpenSlot]:
        return list(look(self.chain(), self.number, None, round_number).slots)

    def stages(self, round_number: int = 0) -> list[SlotStage]:
        return [slot.stage for slot in self.slots(round_number)]
