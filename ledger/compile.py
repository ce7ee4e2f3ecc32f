"""From Solidity sources to artifacts, once per version of the sources.

The compiler settings are those of `contracts/compiler.json`, which forge and Hardhat read too, so all tools make the
same bytes. A native solc of exactly that version is preferred (PATH, then py-solc-x's installed ones); otherwise npm's
`solc` runs under Node through `tools/solc-node.js`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import solcx

from ledger.atomic import exclusive_lock, write_atomically
from ledger.errors import ChainError, ToolMissing

_CACHE_FORMAT = 1
_OUTPUTS = ["abi", "evm.bytecode.object", "evm.deployedBytecode.object", "evm.deployedBytecode.immutableReferences"]


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One compiled contract.

    Attributes:
        abi: entries as solc writes them.
        bytecode: creation code, without constructor arguments.
        runtime_bytecode: deployed code, with zeros where immutables go.
        immutable_references: (start, length) in bytes of every such hole.
        source_hash: SHA-256 in hex over all sources and compiler settings.
    """

    name: str
    abi: list[dict[str, Any]]
    bytecode: bytes
    runtime_bytecode: bytes
    immutable_references: tuple[tuple[int, int], ...]
    source_hash: str

    def masked(self, code: bytes) -> bytes:
        """`code` with zeros where this contract keeps immutables, so that two deployments compare equal."""
        masked = bytearray(code)
        for start, length in self.immutable_references:
            masked[start : start + length] = bytes(len(masked[start : start + length]))
        return bytes(masked)

    def code_hash(self) -> str:
        """SHA-256 in hex of the runtime code with immutables masked: what a deployment record keeps."""
        return hashlib.sha256(self.masked(self.runtime_bytecode)).hexdigest()


def compile_contracts(*, force: bool = False) -> dict[str, Artifact]:
    """All contracts by name, mocks and interfaces included, compiled at most once per version of the sources.

    A package installed from a wheel has no sources; it carries what they were compiled to.

    Args:
        force: compile even where a cached result is there.

    Raises:
        ToolMissing: there is neither a native solc nor Node with npm's `solc`.
        ChainError: the sources do not compile, or neither they nor compiled contracts are there.
    """
    contracts = contracts_directory()
    if contracts is None:
        return _packaged()
    sources = _read_sources(contracts)
    digest = _source_hash(contracts, sources)
    path = contracts.parent / "build" / f"contracts-{digest}.json"
    if not force and (cached := _read_cache(path)) is not None:
        return cached
    with exclusive_lock(path.with_suffix(".lock"), timeout=300):
        if not force and (cached := _read_cache(path)) is not None:
            return cached
        artifacts = _compile(contracts, sources, digest)
        write_atomically(path, _to_json(artifacts))
    return artifacts


def load_artifact(name: str) -> Artifact:
    """One contract.

    Raises:
        ChainError: there is no contract of that name; and what `compile_contracts` raises.
    """
    artifacts = compile_contracts()
    try:
        return artifacts[name]
    except KeyError:
        raise ChainError(f"There is no contract {name!r}; there are {', '.join(sorted(artifacts))}.") from None


def contracts_directory() -> Path | None:
    """Where the Solidity sources are, beside the package; None where it was installed without them."""
    candidate = _package().parent / "contracts"
    return candidate if (candidate / "compiler.json").exists() else None


@cache
def _packaged() -> dict[str, Artifact]:
    packaged = _read_cache(_package() / "_artifacts.json")
    if packaged is None:
        raise ChainError(
            f"This trainledger, in {_package()}, has neither the contracts' sources nor compiled contracts.",
            remedy="Install a wheel that `make wheel` made, or work in a clone of the project.",
        )
    return packaged


def export_artifacts() -> Path:
    """Writes the compiled contracts to where a wheel takes them from, and returns that file."""
    path = _package() / "_artifacts.json"
    write_atomically(path, _to_json(compile_contracts()))
    return path


def _package() -> Path:
    return Path(__file__).resolve().parent


def _read_sources(contracts: Path) -> dict[str, str]:
    """Source texts by unit name. Read once: what is compiled is what was hashed, whoever edits meanwhile."""
    # Forge's own tests import forge's cheat codes and are compiled by forge alone.
    paths = sorted(path for path in contracts.rglob("*.sol") if path.relative_to(contracts).parts[0] != "test")
    return {path.relative_to(contracts.parent).as_posix(): path.read_text() for path in paths}


def _source_hash(contracts: Path, sources: Mapping[str, str]) -> str:
    digest = hashlib.sha256(b"%d" % _CACHE_FORMAT)
    library = contracts.parent / "node_modules/@openzeppelin/contracts/package.json"
    others = {path.name: path.read_text() for path in (contracts / "compiler.json", library) if path.exists()}
    for name, text in {**sources, **others}.items():
        for part in (name.encode(), text.encode()):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def _read_cache(path: Path) -> dict[str, Artifact] | None:
    try:
        entries = json.loads(path.read_text())
        return {
            name: Artifact(
                name=name,
                abi=entry["abi"],
                bytecode=bytes.fromhex(entry["bytecode"]),
                runtime_bytecode=bytes.fromhex(entry["runtime_bytecode"]),
                immutable_references=tuple((start, length) for start, length in entry["immutable_references"]),
                source_hash=entry["source_hash"],
            )
            for name, entry in entries.items()
        }
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None  # not there, or of another format: compiled anew


def _to_json(artifacts: Mapping[str, Artifact]) -> bytes:
    def plain(value: object) -> str:
        if isinstance(value, bytes):
            return value.hex()
        raise TypeError(type(value))

    return json.dumps({name: asdict(artifact) for name, artifact in artifacts.items()}, default=plain).encode()


def _compile(contracts: Path, sources: Mapping[str, str], digest: str) -> dict[str, Artifact]:
    root = contracts.parent
    configuration = json.loads((contracts / "compiler.json").read_text())
    settings = dict(configuration["settings"])
    settings["outputSelection"] = {"*": {"*": _OUTPUTS}}
    settings["remappings"] = ["@openzeppelin/contracts/=node_modules/@openzeppelin/contracts/"]
    request = {
        "language": "Solidity",
        "sources": {name: {"content": text} for name, text in sources.items()},
        "settings": settings,
    }
    compiler = _find_compiler(configuration["version"], root)
    try:
        output = solcx.compile_standard(request, base_path=root, allow_paths=root, solc_binary=compiler)
    except solcx.exceptions.SolcError as problem:
        raise ChainError(f"The contracts do not compile: {str(problem.message).strip()}") from problem
    artifacts: dict[str, Artifact] = {}
    for unit, entries in output["contracts"].items():
        if not unit.startswith(contracts.name + "/"):
            continue
        for name, entry in entries.items():
            artifacts[name] = _artifact(name, entry, digest)
    return artifacts


def _artifact(name: str, entry: Mapping[str, Any], digest: str) -> Artifact:
    runtime = entry["evm"]["deployedBytecode"]
    holes = [hole for places in runtime.get("immutableReferences", {}).values() for hole in places]
    return Artifact(
        name=name,
        abi=entry["abi"],
        bytecode=bytes.fromhex(entry["evm"]["bytecode"]["object"]),
        runtime_bytecode=bytes.fromhex(runtime["object"]),
        immutable_references=tuple(sorted((hole["start"], hole["length"]) for hole in holes)),
        source_hash=digest,
    )


def _find_compiler(version: str, root: Path) -> Path:
    native = shutil.which("solc")
    if native and _version_of(native) == version:
        return Path(native)
    for installed in solcx.get_installed_solc_versions():
        if str(installed) == version:
            return Path(solcx.install.get_executable(installed))
    script = root / "tools/solc-node.js"
    if not script.exists():
        raise ToolMissing(f"The Solidity compiler {version} is not installed.", remedy="Put `solc` on PATH.")
    if shutil.which("node") is None:
        raise ToolMissing(
            "Node.js is not installed; the Solidity compiler runs in it.",
            remedy=f"Install Node 20 or later, or put solc {version} on PATH.",
        )
    if not (root / "node_modules/solc").exists():
        raise ToolMissing("The npm packages are not installed.", remedy=f"Run `npm ci` in {root}.")
    return script


@cache
def _version_of(binary: str) -> str:
    try:
        return str(solcx.wrapper.get_solc_version(binary))
    except (OSError, subprocess.SubprocessError, solcx.exceptions.SolcError):
        return ""
