"""Gas of every call and size of every contract, as committed in snapshots/.

    python tools/snapshots.py            # measure and write
    python tools/snapshots.py --check    # measure and compare; exit 1 where a number moved

Gas is that of whole transactions (base fee, calldata, cold storage), from contracts/test/GasSnapshot.t.sol. Sizes are
bytes of runtime code, from forge's artifacts.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
SNAPSHOTS = PROJECT / "snapshots"
CONTRACTS = (
    "AuditCommittee",
    "AvailabilityCommittee",
    "DisputeGame",
    "OpenLedger",
    "RoundBook",
    "StepReferee",
    "StakeVault",
    "TrainingLedger",
    "TrainingToken",
)
LARGEST_RUNTIME = 24_576  # EIP-170


def find_forge() -> str:
    """Forge on PATH, or the one that npm installed."""
    local = PROJECT / "node_modules" / ".bin" / "forge"
    forge = shutil.which("forge") or (str(local) if local.exists() else None)
    if forge is None:
        sys.exit("forge is not installed: run `npm ci` in the project's root.")
    return forge


def run_forge(forge: str, *arguments: str, **environment: str) -> None:
    """Runs forge; prints its output and exits where it fails."""
    result = subprocess.run(
        [forge, *arguments], cwd=PROJECT, env={**os.environ, **environment}, capture_output=True, text=True
    )
    if result.returncode != 0:
        sys.exit(f"forge {' '.join(arguments)} failed:\n{result.stdout}{result.stderr}")


def measure_gas(forge: str) -> dict[str, int]:
    """Gas by call name. Forge writes into snapshots/gas.json itself, so what is committed is put back afterwards."""
    path = SNAPSHOTS / "gas.json"
    committed = path.read_bytes() if path.exists() else None
    path.unlink(missing_ok=True)
    try:
        run_forge(
            forge,
            # One suite after the other: each merges its numbers into the file, and two at once lose some.
            *("test", "--isolate", "--threads", "1", "--match-contract", "GasSnapshotTest"),
            FORGE_SNAPSHOT_EMIT="true",
            FORGE_SNAPSHOT_CHECK="false",
        )
        measured = {name: int(value) for name, value in json.loads(path.read_text()).items()}
    finally:
        if committed is not None:
            path.write_bytes(committed)
    return dict(sorted(measured.items()))


def measure_sizes(forge: str) -> dict[str, int]:
    """Runtime bytes by contract name, of those that are deployed."""
    run_forge(forge, "build")
    sizes = {}
    for name in CONTRACTS:
        artifact = json.loads((PROJECT / "out" / f"{name}.sol" / f"{name}.json").read_text())
        sizes[name] = len(artifact["deployedBytecode"]["object"].removeprefix("0x")) // 2
    return sizes


def differences(name: str, measured: dict[str, int]) -> list[str]:
    """One line for each number that is not the committed one."""
    path = SNAPSHOTS / f"{name}.json"
    committed = json.loads(path.read_text()) if path.exists() else {}
    return [
        f"snapshots/{name}.json, {key}: committed {committed.get(key)}, measured {measured.get(key)}"
        for key in sorted({*committed, *measured})
        if committed.get(key) != measured.get(key)
    ]


def write(name: str, measured: dict[str, int]) -> None:
    """Replaces the committed file in one step."""
    SNAPSHOTS.mkdir(exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=SNAPSHOTS, suffix=".part", delete=False) as part:
        part.write(json.dumps(measured, indent=2) + "\n")
    os.chmod(part.name, 0o644)
    os.replace(part.name, SNAPSHOTS / f"{name}.json")


def main() -> int:
    """Returns 1 where `--check` finds a difference or a contract is too large to be deployed."""
    parser = argparse.ArgumentParser(description="Measure gas and sizes of the contracts.")
    parser.add_argument("--check", action="store_true", help="compare with snapshots/ instead of writing it")
    check: bool = parser.parse_args().check
    forge = find_forge()
    measured = {"sizes": measure_sizes(forge), "gas": measure_gas(forge)}
    problems = [
        f"{name} has {size} bytes of code, over the {LARGEST_RUNTIME} that can be deployed"
        for name, size in measured["sizes"].items()
        if size > LARGEST_RUNTIME
    ]
    for name, values in measured.items():
        if check:
            problems += differences(name, values)
        else:
            write(name, values)
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems and check:
        print("If this is meant, run `python tools/snapshots.py` and commit snapshots/.", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
