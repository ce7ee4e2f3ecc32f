"""Runs a command and turns whatever goes wrong into one sentence on stderr and an exit code."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import select
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from typer._click.exceptions import NoArgsIsHelpError
from typer.core import TyperGroup
from typer.exceptions import Abort, TyperException

from ledger.errors import ResourceError, TrainledgerError, UsageError

__all__ = ["GuardedGroup", "guarded"]

EXIT_INTERRUPTED = 130
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
# How PyTorch's allocators and the loader of libraries say that memory ran out: in errors that are also used for bugs.
_OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "cannot allocate memory", "failed to map segment")


class GuardedGroup(TyperGroup):
    """The root group: `main` never lets an exception out, whoever calls it (the console script or typer's runner)."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        arguments = list(sys.argv[1:] if args is None else args)
        program = prog_name or self.name or "trainledger"

        def run() -> Any:
            return super(GuardedGroup, self).main(
                args=arguments, prog_name=program, standalone_mode=False, windows_expand_args=False, **extra
            )

        if not standalone_mode:
            return run()
        before = arguments[: arguments.index("--")] if "--" in arguments else arguments
        sys.exit(guarded(run, as_json="--json" in before, verbose="--verbose" in before or "-v" in before))


def guarded(run: Callable[[], Any], *, as_json: bool, verbose: bool) -> int:
    """Calls `run` and returns the process's exit status, having printed what went wrong, if anything, to stderr."""
    try:
        result = run()
        sys.stdout.flush()  # here, where a full disk can still be told
    except BaseException as error:
        broken = error.__context__ if isinstance(error, SystemExit) else error  # typer turns one into the other
        if isinstance(broken, BrokenPipeError) and _reader_gone():
            # The reader of our output went away (`… | head`): nothing to say, and nobody to say it to.
            _discard_output()
            return 0
        if isinstance(error, SystemExit):
            raise
        if isinstance(error, NoArgsIsHelpError):
            print(error.format_message(), file=sys.stderr)
            return UsageError.exit_code
        if isinstance(error, OSError) and error.errno in _DISK_FULL:
            _discard_output()  # else the interpreter would try, and fail, to write the rest at its end
        known = _translate(error)
        if known is None:
            _print_bug(error, as_json=as_json, verbose=verbose)
            return 1
        if verbose:
            traceback.print_exception(error, file=sys.stderr)
        _print_error(known, as_json=as_json)
        return known.exit_code
    if result == EXIT_INTERRUPTED:  # typer's answer to Ctrl-C
        _print_error(_INTERRUPTED, as_json=as_json)
    return result if type(result) is int else 0


def _reader_gone() -> bool:
    """Whether it is standard output that broke, and not some other pipe or connection, which would be a failure."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), select.POLLOUT)
        return any(events & select.POLLERR for _, events in poll.poll(0))
    except (OSError, ValueError):  # a test's standard output is no file
        return False


def _discard_output() -> None:
    """Sends what is still buffered for standard output nowhere."""
    with contextlib.suppress(io.UnsupportedOperation):  # a test's standard output is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Interrupted(TrainledgerError):
    """The user pressed Ctrl-C."""

    exit_code = EXIT_INTERRUPTED


_INTERRUPTED = _Interrupted(
    "Interrupted.", remedy="Run the same command again: it goes on from where this one stopped."
)


def _translate(error: BaseException) -> TrainledgerError | None:
    """The error as one of the tree, or None for a bug."""
    if isinstance(error, TrainledgerError):
        return error
    if isinstance(error, KeyboardInterrupt | Abort):
        return _INTERRUPTED
    if isinstance(error, TyperException):
        return _usage_error(error)
    if _is_out_of_memory(error):
        return ResourceError(
            "The machine ran out of memory.", remedy="Close other programs, or use a smaller model or batch."
        )
    if isinstance(error, OSError):
        return _os_error(error)
    return None


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    text = str(error).lower() if isinstance(error, RuntimeError | ImportError) else ""
    return isinstance(error, MemoryError) or any(sign in text for sign in _OUT_OF_MEMORY)


def _usage_error(error: TyperException) -> UsageError:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "trainledger"
    message = " ".join(error.format_message().split()).rstrip(".")
    return UsageError(f"{message}.", remedy=f"`{path} --help` shows what it takes.")


def _os_error(error: OSError) -> TrainledgerError | None:
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in _DISK_FULL:
        return ResourceError(f"The disk is full{where}.", remedy="Free some space and run the same command again.")
    if isinstance(
        error, PermissionError | FileNotFoundError | IsADirectoryError | NotADirectoryError | FileExistsError
    ):
        return UsageError(f"{error.strerror or error}{where}.", remedy="Check the path and its permissions.")
    return None


def _print_error(error: TrainledgerError, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(error.as_json(), ensure_ascii=False), file=sys.stderr)
        return
    print(f"Error: {error.problem}", file=sys.stderr)
    if error.remedy:
        remedy = error.remedy.removeprefix("Try ")  # "Try: again later", not "Try: Try again later"
        print(f"Try: {remedy}", file=sys.stderr)


def _print_bug(error: BaseException, *, as_json: bool, verbose: bool) -> None:
    if verbose:
        traceback.print_exception(error, file=sys.stderr)
    problem = f"Unexpected {type(error).__name__}: {' '.join(str(error).split()) or 'no message'}."
    remedy = "This is a bug; run the command again with --verbose and report what it prints."
    unexpected = TrainledgerError(problem, remedy=remedy)
    _print_error(unexpected, as_json=as_json)
