"""The demonstration itself: chain, deployment, accounts, task, a cheat and an auditor, two workers, pay, the end."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from ledger.anvil import LocalChain
from ledger.canonical import root_hex
from ledger.client import LedgerClient
from ledger.disputes.client import DisputeClient
from ledger.errors import ChainUnreachable, SpecificationError
from ledger.spec import load_task_file
from ledger.types import Slot, SlotStatus
from trainer.demo.commands import Commands
from trainer.demo.report import CHEAT, Report, caught_in, dispute_of, make_report, print_report
from trainer.demo.runs import open_run
from trainer.demo.stage import Stage, stopping
from trainer.demo.workers import WorkerProcess

WORKERS = ("worker-1", "worker-2")
AUDITOR = "auditor"
_STAKED = (*WORKERS, CHEAT, AUDITOR)
_POLL_SECONDS = 0.5
_TASK_FILE = Path(__file__).with_name("task.toml")


class Demonstration(Stage):
    """One run of the demonstration. Each step looks at what is already there, so a killed run goes on.

    Raises:
        SpecificationError: the task file is wrong, or has fewer rounds than there are workers.
    """

    def __init__(self, home: Path, console: Console, *, task_file: Path = _TASK_FILE) -> None:
        self.task_file = task_file
        rounds = load_task_file(task_file).rounds
        if rounds < len(WORKERS):
            raise SpecificationError(
                f"task.rounds is {rounds}, and the demonstration has {len(WORKERS)} workers to pay.",
                field="task.rounds",
                remedy=f"Give it {len(WORKERS)} rounds at least.",
            )
        super().__init__(open_run(home), console)

    def play(self) -> Report:
        """Plays it to the end.

        Raises:
            TrainledgerError: a step failed, or the money does not add up to the wei.
        """
        with self.opened() as (chain, commands):
            return self._play_on(chain, commands)

    def _play_on(self, chain: LocalChain, commands: Commands) -> Report:
        self.title("1  A chain, and the contracts on it")
        client = self.deployed(chain, commands)
        self.title("2  Accounts, ether for gas, tokens, stakes")
        self.accounts(client, commands, _STAKED)
        chain.save()
        self.title("3  A requester posts a training task, and escrows its whole reward")
        task = self.post(commands, self.task_file)
        chain.save()
        self.title("4  A third worker takes the first round, and cheats in one element of one tensor in one step")
        cheat = WorkerProcess(
            CHEAT,
            "red",
            ["run", "--task", str(task), "--account", CHEAT],
            commands,
            module="trainer.demo.cheat",
        )
        with stopping([cheat]):
            self._cheat(chain, client, cheat, task)
            chain.save()
            self.title(
                "5  An auditor replays every submission; it finds the cheat, and two honest workers train the task"
            )
            workers = self._train(chain, client, commands, task, cheat)
        self.title("   How the dispute went")
        dispute = dispute_of(client, task, self.before(CHEAT)["address"])
        commands.say("dispute", "show", str(dispute.number))
        self.title("6  The workers are paid, and the auditor has its share of the cheat's bond")
        self._withdraw(client, commands)
        self.title("7  What came of it")
        caught = caught_in(client, dispute, balance_before=int(self.before(AUDITOR)["balance"]))
        report = make_report(client, commands, task, self.run.read()["before"], workers, caught)
        print_report(self.console, commands, report)
        self.run.note(finished=True)
        return report

    def _cheat(self, chain: LocalChain, client: LedgerClient, cheat: WorkerProcess, task: int) -> None:
        """Lets the cheat submit the first round; nobody else is there yet."""
        while self._cheat_works(client, task):
            if not cheat.started:
                cheat.start()
            cheat.watch(self.console)
            chain.start()
            time.sleep(_POLL_SECONDS)

    def _cheat_works(self, client: LedgerClient, task: int) -> bool:
        with contextlib.suppress(ChainUnreachable):
            slot = client.slot(task, 0)
            return slot.attempt == 0 and slot.status in (SlotStatus.OPEN, SlotStatus.LEASED)
        return True

    def _train(
        self, chain: LocalChain, client: DisputeClient, commands: Commands, task: int, cheat: WorkerProcess
    ) -> list[WorkerProcess]:
        """Everybody at once: the cheat defends its lie, the auditor plays against it, the workers redo the round."""
        words = ["worker", "run", "--task", str(task), "--exit-when-done", "--account"]
        workers = [
            WorkerProcess(name, colour, [*words, name], commands)
            for name, colour in zip(WORKERS, ("green", "magenta"), strict=True)
        ]
        watching = ["audit", str(task), "--exit-when-done", "--account", AUDITOR]
        auditor = WorkerProcess(AUDITOR, "yellow", watching, commands)
        commands.show(*watching)
        for name in WORKERS:
            commands.show(*words, name)
        everybody = [cheat, auditor, *workers]
        with stopping(everybody):
            for process in everybody:
                if not process.started:
                    process.start()
            while sum(process.watch(self.console) for process in everybody) > 0:
                # The chain may be down for a moment (somebody may have killed it): start it again and go on.
                with contextlib.suppress(ChainUnreachable):
                    self._pass_time(chain, client, auditor, task)
                chain.start()
                time.sleep(_POLL_SECONDS)
        return workers

    def _pass_time(self, chain: LocalChain, client: LedgerClient, auditor: WorkerProcess, task: int) -> None:
        """Moves the local chain's clock past what would be waited for elsewhere, once everybody has had their say."""
        state = client.task(task)
        if state.complete:
            return
        slot: Slot = client.slot(task, state.current_round)
        left = slot.deadline - client.chain_time()
        if slot.status is SlotStatus.SUBMITTED:
            done = not slot.open_games and (slot.round, root_hex(slot.state_root)) in auditor.found_right
            what = "Audited. The local chain's clock moves {} s ahead, past the challenge window."
        else:
            done = slot.status is SlotStatus.OPEN
            what = "The clock moves {} s ahead: the auditor won the round, and leaves it to others."
        if done and left >= 0:
            chain.advance(left + 1)
            self.console.print("  " + what.format(left + 1), style="dim")

    def _withdraw(self, client: LedgerClient, commands: Commands) -> None:
        before: dict[str, Any] = self.run.read()["before"]
        for name in (*WORKERS, AUDITOR):
            if client.stake_account(before[name]["address"]).credit > 0:
                commands.say("withdraw", "--account", name)
