"""What every demonstration begins with: a chain with the contracts, accounts with stakes, tasks posted once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from ledger.anvil import LocalChain
from ledger.cli.common import CommandContext
from ledger.cli.local import adopt_or_deploy
from ledger.client import LedgerClient
from ledger.disputes.client import DisputeClient
from ledger.settings import load_settings
from trainer.demo.commands import Commands
from trainer.demo.runs import Run, short_path
from trainer.demo.workers import WorkerProcess

REQUESTER = "requester"
STAKE = "100"


class Stage:
    """Where a demonstration plays. Each step looks at what is already there, so a killed run goes on.

    Args:
        run: whose folder is the home of all commands. console: where they are shown.
    """

    def __init__(self, run: Run, console: Console) -> None:
        self.run = run
        self.console = console

    @contextlib.contextmanager
    def opened(self) -> Iterator[tuple[LocalChain, Commands]]:
        """The run's chain, and commands against it, for as long as the block runs."""
        if self.run.resumed:
            self.console.print(f"Going on with the demonstration in {short_path(self.run.folder)}.", markup=False)
        with LocalChain(self.run.folder, int(self.run.read().get("port", 0))) as chain:
            self.run.note(port=chain.port)
            yield chain, Commands(self.run, chain.rpc_url, self.console)

    def title(self, text: str) -> None:
        """Prints the title of a part."""
        self.console.print(f"\n[bold]{text}[/]")

    def before(self, name: str) -> dict[str, str]:
        """Address and balance (wei) of an account before the first task was posted."""
        found: dict[str, str] = self.run.read()["before"][name]
        return found

    def deployed(self, chain: LocalChain, commands: Commands) -> DisputeClient:
        """Deploys the contracts unless they are there."""
        commands.show("up")
        settings = load_settings({"home": self.run.folder, "rpc_url": chain.rpc_url}, {})
        context = CommandContext(settings=settings, command="trainledger demo")
        deployment, folder = adopt_or_deploy(context, chain)
        self.console.print(
            f"  The local chain runs at {chain.rpc_url}. Contracts (record in {short_path(folder)}):", markup=False
        )
        for name in ("ledger", "vault", "token", "game"):
            self.console.print(f"  {name:<7} {getattr(deployment, name)}", markup=False)
        return DisputeClient(context.web3, deployment)

    def accounts(self, client: LedgerClient, commands: Commands, staked: Sequence[str]) -> None:
        """Makes and funds the requester and those who stake."""
        known = {account["name"] for account in commands.ask("account", "list")}
        for name in (REQUESTER, *staked):
            if name not in known:
                commands.say("account", "new", name)
        addresses = {account["name"]: account["address"] for account in commands.ask("account", "list")}
        for name in (REQUESTER, *staked):
            if client.token_balance(addresses[name]) + client.stake_account(addresses[name]).staked == 0:
                commands.say("account", "fund", name)
        for name in staked:
            if client.stake_account(addresses[name]).staked == 0:
                commands.say("account", "stake", STAKE, "--account", name)
        if "before" not in self.run.read():
            before = {
                name: {"address": addresses[name], "balance": str(client.token_balance(addresses[name]))}
                for name in (REQUESTER, *staked)
            }
            self.run.note(before=before)

    def post(self, commands: Commands, task_file: Path, *, name: str = "task") -> int:
        """Posts a task unless it is there, and returns its number. `name` is what the run notes it under."""
        tasks = self.run.read().get("tasks", {})
        noted = tasks.get(name)
        posted = {int(task["task"]) for task in commands.ask("task", "list")}
        others = {number for other, number in tasks.items() if other != name}
        if noted is None and posted - others:  # killed between posting and noting it
            noted = max(posted - others)
        if noted is None or noted not in posted:
            commands.say("task", "create", short_path(task_file), "--account", REQUESTER)
            noted = max(int(task["task"]) for task in commands.ask("task", "list"))
        else:
            commands.say("task", "show", str(noted))
        self.run.note(tasks=tasks | {name: noted})
        return int(noted)


@contextlib.contextmanager
def stopping(workers: Sequence[WorkerProcess]) -> Iterator[None]:
    """Ends all workers, those that joined meanwhile too, however the block ends."""
    try:
        yield
    finally:
        for worker in workers:
            worker.stop()
