"""`trainledger selftest`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ledger.cli.common import CommandApp, CommandContext
from ledger.errors import MachineFault

if TYPE_CHECKING:
    from trainer.engine.exact.selftest import SelfTest

__all__ = ["check_machine", "register"]


def register(app: CommandApp) -> None:
    """Adds the command."""
    app.command("selftest")(selftest)


def selftest(context: CommandContext) -> None:
    """Try known answers, to see whether this machine computes exactly.

    Every operation of exact arithmetic is run on values that reach all exponents and all special values, and its
    bits are compared with the known ones. Ways to multiply matrices that fail are not used; the fastest that is right
    is named. Uses the device of the settings; needs neither chain nor account. The exit code is 8 if the machine is
    wrong.

    The same test on a machine with nothing but torch and numpy: `python -m trainer.engine.exact.selftest cuda`.

    Example: `trainledger selftest --json`
    """
    from rich.console import Console

    from ledger.cli.output import table
    from trainer.engine.exact.selftest import as_json, run_selftest

    test = run_selftest(context.settings.device)

    def show(console: Console) -> None:
        console.print(f"{test.device}: {test.processor}, PyTorch {test.torch}")
        console.print(table(["operation", "bits"], [(one.name, one.fault or "right") for one in test.checks]))
        if test.passed:
            console.print(f"Exact products: {', '.join(test.backends)}; the fastest here is {test.fastest}.")

    context.emit(as_json(test), show)
    _demand(test)


def check_machine(device: str) -> None:
    """Refuses a machine that fails the self-test: work done there would be wrong, and cost its bond.

    The processor is tried beside a GPU, because one run of each round is repeated there.

    Raises:
        MachineFault: it fails.
    """
    from trainer.engine.exact.selftest import run_selftest

    for one in dict.fromkeys((device, "cpu")):
        _demand(run_selftest(one, compare_speeds=False))


def _demand(test: SelfTest) -> None:
    if not test.passed:
        wrong = [one.name for one in test.checks if one.fault]
        raise MachineFault(
            f"This machine does not compute exactly: {', '.join(wrong)}.",
            remedy="Do not stake on it; report what `trainledger selftest --json` prints.",
        )
