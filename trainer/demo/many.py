"""Many workers, one model: rounds of N slots, a worker killed, two that join, and one who trains alone beside them."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from ledger.amounts import parse_tokens
from ledger.anvil import LocalChain
from ledger.client import LedgerClient
from ledger.errors import ChainUnreachable, SpecificationError
from ledger.spec import TaskFile, load_task_file
from ledger.types import Slot, SlotStatus, TaskParameters
from trainer.demo.commands import Commands
from trainer.demo.many_report import Killed, ManyReport, make_report, print_report
from trainer.demo.runs import open_run
from trainer.demo.stage import REQUESTER, STAKE, Stage, stopping
from trainer.demo.workers import WorkerProcess
from trainer.program.description import ProgramDescription

JOINING = 2
ALONE = "alone"
_POLL_SECONDS = 0.25
_TASK_FILE = Path(__file__).with_name("many.toml")
_COLOURS = ("green", "magenta", "yellow", "cyan", "blue", "bright_green", "bright_magenta", "bright_yellow")
_ROUND = """
[round]
slots = {slots}
merge_reward = "2"

[merge]
kind = "diloco"
# Less than the usual 0.9, which needs more rounds than these to pay.
outer_momentum = 0.5
"""
_STEPS = re.compile(r"^steps_per_round\s*=.*$", re.MULTILINE)


def names_of(workers: int) -> tuple[str, ...]:
    """Accounts of those who train together: the first `workers`, of whom the last is killed, then those who join."""
    return tuple(f"worker-{number}" for number in range(1, workers + JOINING + 1))


def task_texts(text: str, *, workers: int, steps: int) -> dict[str, str]:
    """A task file without [round] as two, by the file's name: that many slots a round, and one worker's as many tokens.

    `steps` are those of one slot in a round.
    """
    return {
        "together.toml": text + _ROUND.format(slots=workers),
        "alone.toml": _STEPS.sub(f"steps_per_round = {steps * workers}", text, count=1),
    }


def seconds_to_pass(parameters: TaskParameters, slots: Sequence[Slot], *, now: int, dead: str | None) -> int | None:
    """Seconds by which a local chain's clock may move on; None where somebody still has something to do.

    That is past the lease of a worker who is dead, once all others have submitted, or past the last challenge window of
    the round. Where a slot can be claimed or is being worked on, no lease must run out by the way.

    Args:
        slots: all slots of the current round. now: chain time. dead: address of a worker who will not come back.
    """
    lost = [slot for slot in slots if slot.status is SlotStatus.LEASED and slot.worker == dead and slot.deadline >= now]
    training = slots[: parameters.slots_per_round]
    awaited = [slot for slot in (training if lost else slots) if slot not in lost]
    if any(slot.status not in (SlotStatus.SUBMITTED, SlotStatus.FINALISED) for slot in awaited):
        return None
    windows = [slot for slot in slots if slot.status is SlotStatus.SUBMITTED]
    end = max((slot.deadline for slot in lost or windows), default=now - 1)
    return end - now + 1 if end >= now else None


class ManyWorkers(Stage):
    """The demonstration of rounds of many slots. Each step looks at what is already there, so a killed run goes on.

    Args:
        workers: slots a round, and workers at the start.
        task_file: model, data and the work of one slot; without sections [round] and [merge].

    Raises:
        SpecificationError: the task file is wrong, or has rounds of several slots already.
    """

    def __init__(self, home: Path, console: Console, workers: int, *, task_file: Path = _TASK_FILE) -> None:
        self.workers = workers
        self.file: TaskFile = load_task_file(task_file)
        if self.file.slots != 1 or self.file.merge is not None:
            raise SpecificationError(
                f"{task_file} has rounds of {self.file.slots} slots, and --workers makes rounds of {workers} of it.",
                field="round.slots",
                remedy="Leave its sections [round] and [merge] out.",
            )
        super().__init__(open_run(home, prefix=f"workers-{workers}-run-"), console)
        self._files: dict[str, Path] = {}
        texts = task_texts(task_file.read_text(encoding="utf-8"), workers=workers, steps=self.file.steps_per_round)
        for name, text in texts.items():
            self._files[name] = self.run.folder / name
            self._files[name].write_text(text, encoding="utf-8")
            load_task_file(self._files[name])

    def play(self) -> ManyReport:
        """Plays it to the end.

        Raises:
            TrainledgerError: a step failed, or the money does not add up to the wei.
        """
        with self.opened() as (chain, commands):
            return self._play_on(chain, commands)

    def _play_on(self, chain: LocalChain, commands: Commands) -> ManyReport:
        names = names_of(self.workers)
        self.title("1  A chain, and the contracts on it")
        client = self.deployed(chain, commands)
        self.title("2  Accounts, ether for gas, tokens, stakes")
        self.accounts(client, commands, (*names, ALONE))
        chain.save()
        self.title(f"3  A requester posts two tasks of one model: {self.workers} slots a round, and one slot")
        together = self.post(commands, self._files["together.toml"])
        alone = self.post(commands, self._files["alone.toml"], name=ALONE)
        chain.save()
        self.title(f"4  {self.workers} workers train one model; one is killed in mid-round, and two more join")
        self._together(chain, client, commands, together)
        chain.save()
        self.title("5  One worker alone, with as many tokens")
        self._alone(chain, client, commands, alone)
        chain.save()
        self.title("6  Everybody takes what it is owed")
        for name in (*names, ALONE, REQUESTER):
            if client.stake_account(self.before(name)["address"]).credit > 0:
                commands.say("withdraw", "--account", name)
        self.title("7  What came of it")
        description = ProgramDescription.from_task_file(self.file.program, vocabulary=256, total_steps=1)
        report = make_report(
            client,
            self.run.read()["before"],
            together=together,
            alone=alone,
            tokens_per_step=description.context * description.batch_size,
            killed=self._killed(),
            stake=parse_tokens(STAKE, what="the stake"),
        )
        print_report(self.console, self, report)
        self.run.note(finished=True)
        return report

    def _killed(self) -> Killed | None:
        noted = self.run.read().get("killed")
        return None if noted is None else Killed(**noted)

    def _worker(self, name: str, number: int, task: int, commands: Commands) -> WorkerProcess:
        words = ["worker", "run", "--task", str(task), "--exit-when-done", "--account", name]
        commands.show(*words)
        process = WorkerProcess(name, _COLOURS[number % len(_COLOURS)], words, commands)
        process.start()
        return process

    def _together(self, chain: LocalChain, client: LedgerClient, commands: Commands, task: int) -> None:
        """The workers of the rounds with many slots, to the task's end."""
        if client.task(task).complete:
            return
        # As many processes as there are workers share this machine: each gets its part of the processors.
        commands = replace(commands, threads=max(1, (os.cpu_count() or 1) // self.workers))
        names = names_of(self.workers)
        victim = names[self.workers - 1]
        running: list[WorkerProcess] = []
        with stopping(running):
            for number, name in enumerate(names[: self.workers]):
                if name != victim or self._killed() is None:
                    running.append(self._worker(name, number, task, commands))

            def join() -> None:
                for number, name in enumerate(names[self.workers :], self.workers):
                    running.append(self._worker(name, number, task, commands))

            def turn() -> None:
                doomed = next((one for one in running if one.name == victim), None)
                if doomed is not None and doomed.in_training and self._kill(client, task, doomed):
                    running.remove(doomed)
                    join()
                self._pass_time(chain, client, task)

            if self._killed() is not None:
                join()
            self._watch(chain, running, turn)

    def _kill(self, client: LedgerClient, task: int, worker: WorkerProcess) -> bool:
        """Kills a worker, and whether that was in mid-round. One that had just submitted is started again."""
        worker.kill()
        state = client.task(task)
        if not state.complete:
            for number in range(state.parameters.slots_per_round):
                slot = client.slot(task, state.current_round, number)
                if slot.status is SlotStatus.LEASED and slot.worker == self.before(worker.name)["address"]:
                    self.run.note(killed={"name": worker.name, "round": slot.round, "slot": slot.slot})
                    self.console.print(
                        f"  {worker.name} is killed (kill -9). Slot {slot.slot} of round {slot.round} stays leased.",
                        style="bold red",
                    )
                    return True
        worker.start()
        return False

    def _alone(self, chain: LocalChain, client: LedgerClient, commands: Commands, task: int) -> None:
        if client.task(task).complete:
            return
        running = [self._worker(ALONE, 0, task, commands)]
        with stopping(running):
            self._watch(chain, running, lambda: self._pass_time(chain, client, task))

    def _watch(self, chain: LocalChain, running: Sequence[WorkerProcess], turn: Callable[[], None]) -> None:
        """Shows what the workers say, and does `turn` again and again, until all have left."""
        while sum(process.watch(self.console) for process in running) > 0:
            # The chain may be down for a moment (somebody may have killed it): start it again and go on.
            with contextlib.suppress(ChainUnreachable):
                turn()
            chain.start()
            time.sleep(_POLL_SECONDS)

    def _pass_time(self, chain: LocalChain, client: LedgerClient, task: int) -> None:
        """Moves the local chain's clock past what would be waited for elsewhere."""
        state = client.task(task)
        if state.complete:
            return
        parameters, killed = state.parameters, self._killed()
        slots = [client.slot(task, state.current_round, slot) for slot in range(parameters.last_slot + 1)]
        dead = None if killed is None else self.before(killed.name)["address"]
        seconds = seconds_to_pass(parameters, slots, now=client.chain_time(), dead=dead)
        if seconds is None:
            return
        chain.advance(seconds)
        lost = any(slot.status is SlotStatus.LEASED for slot in slots)
        what = "the lease of the worker that was killed" if lost else "the challenge windows"
        self.console.print(f"  The local chain's clock moves {seconds} s ahead, past {what}.", style="dim")
