"""One chain with all accounts on it, and schedules played on it one after the other."""

from __future__ import annotations

import contextlib
import functools
import random
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from audit_books import check
from clockwork import Clockwork, VirtualTime
from eth_utils.crypto import keccak
from line import Line
from node import Node, QuietChain
from people import Person, Place, SteppedWatch
from schedule import DISPUTED, EVERYBODY, QUIET, STAKE, TOKEN, WORKERS, Schedule, draw_dice, mail_by
from toys import MERGES, Toy

from ledger.client import LedgerClient
from ledger.compile import Artifact
from ledger.deploy import LOCAL_PARAMETERS, Deployment, deploy
from ledger.keys import Wallet
from ledger.reverts import ErrorDecoder
from ledger.rpc import connect
from ledger.tx import TransactionSender

# At most, in a task without cheats.
ROUNDS = {"single": 4, "mean": 3, "diloco": 3}
# Modules of the product that wait, or measure, by the clock of this machine.
WAITING = (
    "ledger.tx",
    "ledger.accounts",
    "ledger.rpc",
    "ledger.disputes.client",
    "trainer.worker.round",
    "trainer.worker.machine",
    "trainer.engine.segment",
)
_LINES = 250


@functools.cache
def toy(kind: str) -> Toy:
    return Toy(kind)


def wallet(name: str) -> Wallet:
    return Wallet.from_private_key(keccak(text=f"faults {name}").hex(), name=name)


@dataclass
class FaultStage:
    """The chain, its contracts, and the token's supply in the beginning."""

    node: Node
    deployment: Deployment
    artifacts: dict[str, Artifact]
    supply: int

    def client(self, name: str) -> LedgerClient:
        web3 = connect(self.node.chain.rpc_url)
        sender = TransactionSender(web3, wallet(name), errors=ErrorDecoder(self.artifacts))
        return LedgerClient(web3, self.deployment, sender, artifacts=self.artifacts)

    def play(self, seed: int, folder: Path) -> Schedule:
        """Plays a schedule and checks how it ended.

        Raises:
            AssertionError: with all that happened.
        """
        clock = Clockwork()
        schedule = self._drawn(seed, folder, clock)
        self.node.begin(clock, random.Random(seed + 1))
        self.node.mail = mail_by(schedule.dice, schedule.rng)
        try:
            with contextlib.ExitStack() as patched:
                for module in WAITING:
                    patched.enter_context(mock.patch(f"{module}.time", VirtualTime(clock)))
                patched.enter_context(mock.patch("trainer.worker.round.LeaseWatch", SteppedWatch))
                SteppedWatch.clock = clock
                schedule.post(schedule.rng.randint(1, 2 if schedule.pace is DISPUTED else ROUNDS[schedule.toy.kind]))
                ended = schedule.play()
            schedule.counts.update(self.node.counts)
            self._judge(schedule, ended)
        except AssertionError as problem:
            raise AssertionError(self._report(schedule, problem)) from problem
        finally:
            clock.close()
            self.node.end()
        return schedule

    def _judge(self, schedule: Schedule, ended: bool) -> None:
        for actor in schedule.clock.actors:
            assert actor.outcome is None, f"{actor.name} ended with {actor.outcome!r}\n{_traceback(actor.outcome)}"
        assert ended, f"it does not end: {[one.line.name for one in schedule.people if one.running]} still run"
        check(schedule, self.supply)

    def _drawn(self, seed: int, folder: Path, clock: Clockwork) -> Schedule:
        rng = random.Random(seed)
        kind = rng.choice(list(MERGES))
        cheats = rng.random() < 0.1
        place = Place(self.node, self.deployment, self.artifacts, folder, clock)
        schedule = Schedule(
            seed=seed,
            toy=toy(kind),
            place=place,
            requester=self.client("requester"),
            people=[],
            pace=DISPUTED if cheats else QUIET,
            rng=rng,
            dice=draw_dice(rng),
            counts=Counter(),
            trace=[],
        )
        kinds = ["worker"] * rng.randint(2, 2 if cheats else WORKERS)
        if cheats:
            kinds += ["cheat", "auditor"]
        schedule.closes = rng.random() < 0.12
        for number, each in enumerate(kinds):
            name = each if each != "worker" else f"worker {number}"
            line = Line(name, clock, random.Random(seed * 100 + number), schedule.dice, schedule.counts, schedule.say)
            schedule.people.append(Person(each, wallet(name), place, line, schedule.pace.poll))
        return schedule

    def _report(self, schedule: Schedule, problem: AssertionError) -> str:
        lines = schedule.trace if len(schedule.trace) <= _LINES else ["…", *schedule.trace[-_LINES:]]
        again = f"pytest 'tests/faults/test_schedules.py::test_schedule[{schedule.seed}]'"
        return "\n".join([f"{problem}", *lines, f"{problem}", f"This one alone: {again}"])


def _traceback(error: BaseException | None) -> str:
    return "".join(traceback.format_exception(error)) if error is not None else ""


@contextlib.contextmanager
def open_fault_stage(home: Path, artifacts: dict[str, Artifact]) -> Iterator[FaultStage]:
    """A chain with the contracts, and everybody's money on it."""
    with QuietChain(home, 0, block_seconds=86400) as chain:
        node = Node(chain)
        for name in ("requester", *EVERYBODY):
            chain.set_balance(wallet(name).address, 1000 * TOKEN)
        web3 = connect(chain.rpc_url)
        sender = TransactionSender(web3, wallet("requester"), errors=ErrorDecoder(artifacts))
        deployment = deploy(web3, sender, parameters=LOCAL_PARAMETERS)
        stage = FaultStage(node, deployment, artifacts, LOCAL_PARAMETERS.token_supply)
        for name in EVERYBODY:
            stage.client("requester").transfer_token(wallet(name).address, STAKE)
            stage.client(name).stake(STAKE)
        node.settle()
        yield stage
