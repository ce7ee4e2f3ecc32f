"""The Anvil binary, its processes and its dumps."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import platform
import shutil
import signal
import subprocess
import time
import zlib
from itertools import pairwise
from pathlib import Path

from ledger.errors import ToolMissing


def find_anvil() -> Path:
    """The Anvil binary: the one on PATH, else the one of the npm package in the project or the current folder.

    The npm package's start script is passed over for the binary it would start: a signal must reach Anvil itself.

    Raises:
        ToolMissing: there is none.
    """
    found = shutil.which("anvil")
    if found and Path(found).resolve().suffix not in (".mjs", ".js"):
        return Path(found)
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine().lower(), platform.machine().lower())
    package = f"node_modules/@foundry-rs/anvil-{platform.system().lower()}-{machine}/bin/anvil"
    for root in (Path(__file__).resolve().parent.parent, Path.cwd()):
        if os.access(root / package, os.X_OK):
            return root / package
    raise ToolMissing(
        "Anvil, the local chain, is not installed.",
        remedy="Run `npm ci` in the project's folder, or install Foundry so that `anvil` is on PATH; "
        "or use a running chain with --rpc-url.",
    )


def unpack_dump(dump: Path) -> bytes | None:
    """The JSON text in a dump, or None where it is damaged (gzip carries a checksum)."""
    try:
        text = gzip.decompress(dump.read_bytes())
        state = json.loads(text)
    except (OSError, EOFError, ValueError, zlib.error):
        return None
    return text if isinstance(state, dict) and state.get("blocks") and "accounts" in state else None


def last_timestamp(state: bytes) -> int:
    """The newest block's time in a dump, Unix seconds."""
    return int(json.loads(state)["block"]["timestamp"], 16)


def is_anvil(pid: int) -> bool:
    """Whether the process `pid` lives and is an Anvil: the record may name a number that was given out anew."""
    stat = Path(f"/proc/{pid}/stat")
    if stat.parent.parent.joinpath("self").exists():  # Linux; a minimal container has no ps
        try:
            name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            return False
        return "anvil" in name and rest.split()[0] != "Z"
    command = ["ps", "-o", "stat=,comm=", "-p", str(pid)]
    listing = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    return len(listing) >= 2 and not listing[0].startswith("Z") and "anvil" in listing[1]


def running_nodes(cache: Path) -> list[tuple[int, int]]:
    """(pid, port) of every Anvil that was started with this cache folder, recorded or not."""
    found = []
    for pid, words in _command_lines():
        options = dict(pairwise(words))
        if options.get("--cache-path") == str(cache) and options.get("--port", "").isdigit() and is_anvil(pid):
            found.append((pid, int(options["--port"])))
    return found


def _command_lines() -> list[tuple[int, list[str]]]:
    if Path("/proc/self/cmdline").exists():
        lines = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with contextlib.suppress(OSError):  # it ended meanwhile, or is not ours to look at
                    words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
                    lines.append((int(folder.name), words))
        return lines
    listing = subprocess.run(["ps", "-ww", "-axo", "pid=,args="], capture_output=True, text=True, check=False).stdout
    return [(int(line.split()[0]), line.split()[1:]) for line in listing.splitlines() if line.strip()]


def terminate(pid: int, *, seconds: float) -> None:
    """Ends an Anvil that may not be this process's child: politely, then not."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        end = time.monotonic() + seconds
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sign)
        while time.monotonic() < end:
            with contextlib.suppress(ChildProcessError):  # a child of ours stays a zombie until it is waited for
                os.waitpid(pid, os.WNOHANG)
            if not is_anvil(pid):
                return
            time.sleep(0.02)
