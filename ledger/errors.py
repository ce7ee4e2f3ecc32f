"""Every error a user can meet, in one tree.

::

    TrainledgerError                 anything below; the command line prints it as one sentence
    ├── UsageError           exit 2  a flag, setting or file that the user wrote is wrong
    │   ├── SettingsError
    │   ├── WalletError              a key is missing, locked or malformed
    │   └── SpecificationError       a task file or a description has a wrong field or value
    ├── ChainError           exit 3  the chain cannot be used as asked
    │   ├── ChainUnreachable
    │   ├── WrongChain
    │   ├── StaleDeployment
    │   ├── InsufficientFunds
    │   ├── TransactionFailed        mined and reverted, or never mined
    │   └── ContractReverted         a call would revert; carries the decoded custom error
    ├── DataError            exit 4  stored bytes are missing or are not what their root says
    │   ├── BlobMissing
    │   ├── BlobCorrupt
    │   └── VerificationFailed       a replay gave another state root
    ├── ResourceError        exit 5  disk full, out of memory
    ├── ToolMissing          exit 6  a program that trainledger needs is not installed
    ├── LeaseLost            exit 7  the slot that a worker trains is no longer its own
    └── MachineFault         exit 8  this machine computes something else than exact arithmetic gives

Each class keeps what it is about in typed fields, and its text says what was wrong, with the value, and what to do.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar


class TrainledgerError(Exception):
    """Base of all errors that are the user's or the world's, not a bug. `exit_code` is the process's exit status."""

    exit_code: ClassVar[int] = 1

    def __init__(self, problem: str, *, remedy: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem} {self.remedy}".strip()

    def as_json(self) -> dict[str, Any]:
        """Fields for `--json` output: error class, problem, remedy and exit code."""
        return {
            "error": type(self).__name__,
            "problem": self.problem,
            "remedy": self.remedy,
            "exit_code": self.exit_code,
        }


class UsageError(TrainledgerError):
    """A flag, setting or file that the user wrote is wrong."""

    exit_code = 2


class SettingsError(UsageError):
    """A setting is unknown, missing or has a value of the wrong kind."""


class WalletError(UsageError):
    """A key is missing, cannot be unlocked or is malformed."""


class SpecificationError(UsageError):
    """A task file, specification or program description has a wrong field or value.

    Attributes:
        field: dotted name of the field, "" where the file as a whole is wrong.
    """

    def __init__(self, problem: str, *, field: str = "", remedy: str = "") -> None:
        super().__init__(problem, remedy=remedy)
        self.field = field


class ChainError(TrainledgerError):
    """The chain cannot be used as asked."""

    exit_code = 3


class ChainUnreachable(ChainError):
    """No answer from the RPC endpoint. `url` is masked: no credentials."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(
            f"No answer from the chain at {url}: {reason}.",
            remedy="Start one with `trainledger up`, or name a running one with --rpc-url.",
        )
        self.url = url
        self.reason = reason


class WrongChain(ChainError):
    """The RPC endpoint serves another chain than the one asked for."""

    def __init__(self, expected: int, actual: int, url: str) -> None:
        super().__init__(
            f"The chain at {url} has id {actual}, but the deployment is on chain {expected}.",
            remedy="Name the right chain with --rpc-url, or the right deployment with --deployment.",
        )
        self.expected = expected
        self.actual = actual
        self.url = url


class StaleDeployment(ChainError):
    """A deployment record does not match what is on the chain (for example after a fresh local chain)."""


class InsufficientFunds(ChainError):
    """An account lacks ether for gas or tokens.

    Attributes:
        account: address; asset: "ether" or the token's symbol; available, needed: wei.
    """

    def __init__(self, account: str, asset: str, available: int, needed: int, *, remedy: str = "") -> None:
        from ledger.amounts import format_tokens  # here: amounts needs this module's errors

        text = f"Account {account} has {format_tokens(available)} {asset} and needs {format_tokens(needed)}."
        super().__init__(text, remedy=remedy)
        self.account = account
        self.asset = asset
        self.available = available
        self.needed = needed


class TransactionFailed(ChainError):
    """A transaction was mined and reverted, or was not mined in time. `transaction` is its hash."""

    def __init__(self, transaction: str, problem: str, *, remedy: str = "") -> None:
        super().__init__(problem, remedy=remedy)
        self.transaction = transaction


class ContractReverted(ChainError):
    """A contract refuses a call.

    Attributes:
        contract: contract name; method: function name; error: custom error's name ("Error" for a reason string,
            "Panic" for a panic, "Unknown" for a selector in no ABI); arguments: decoded values by name.

    Args:
        amounts: names of the arguments that are wei; the text shows them in tokens.
    """

    def __init__(
        self,
        contract: str,
        method: str,
        error: str,
        arguments: Mapping[str, Any],
        *,
        amounts: Collection[str] = (),
        remedy: str = "",
    ) -> None:
        from ledger.amounts import format_tokens  # here: amounts needs this module's errors

        values = ", ".join(
            f"{name}={format_tokens(value)} tokens" if name in amounts else f"{name}={value}"
            for name, value in arguments.items()
        )
        super().__init__(f"{contract}.{method} refused: {error}({values}).", remedy=remedy)
        self.contract = contract
        self.method = method
        self.error = error
        self.arguments = dict(arguments)


class DataError(TrainledgerError):
    """Stored bytes are missing or are not what their root says."""

    exit_code = 4


class BlobMissing(DataError):
    """No store that was asked has the blob. `path` is relative to the store; `store` is a masked URL."""

    def __init__(self, path: str, store: str, *, remedy: str = "") -> None:
        super().__init__(
            f"{path} is not in the store {store}.",
            remedy=remedy or "Name the store that has it with --store, or ask whoever published it.",
        )
        self.path = path
        self.store = store


class BlobCorrupt(DataError):
    """Bytes do not hash to the root they are stored under, or cannot be parsed."""

    def __init__(self, path: str, problem: str, *, remedy: str = "") -> None:
        super().__init__(
            f"{path} is corrupt: {problem}.", remedy=remedy or "Delete it and fetch it again from another store."
        )
        self.path = path


class VerificationFailed(DataError):
    """A replay gave another state root than was submitted.

    Attributes: task, round_number: what was replayed; expected: submitted root; actual: replayed root.

    Args:
        place: of several slots of a round, which it was, such as "slot 2 of round 3".
    """

    def __init__(self, task: int, round_number: int, expected: str, actual: str, *, place: str = "") -> None:
        place = place or f"round {round_number}"
        super().__init__(
            f"{place[0].upper()}{place[1:]} of task {task} does not replay: {expected} was submitted, replay gives "
            f"{actual}.",
            remedy="Do not build on this checkpoint.",
        )
        self.task = task
        self.round_number = round_number
        self.expected = expected
        self.actual = actual


class ResourceError(TrainledgerError):
    """The machine ran out of disk or memory."""

    exit_code = 5


class MachineFault(TrainledgerError):
    """This machine computed something else than exact arithmetic gives."""

    exit_code = 8


class ToolMissing(TrainledgerError):
    """A program that trainledger needs is not installed."""

    exit_code = 6


class LeaseLost(TrainledgerError):
    """The slot that a worker trains is no longer its own."""

    exit_code = 7
