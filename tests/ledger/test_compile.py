from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ledger import compile as compiling
from ledger.compile import Artifact, compile_contracts, load_artifact
from ledger.errors import ChainError, ToolMissing

PROJECT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small project with one contract and the real tools."""
    contracts = tmp_path / "contracts"
    contracts.mkdir()
    shutil.copy(PROJECT / "contracts/compiler.json", contracts)
    (contracts / "One.sol").write_text(
        "// SPDX-License-Identifier: MIT\npragma solidity ^0.8.28;\n"
        "contract One { uint256 public immutable A; constructor(uint256 a) { A = a; } }\n"
    )
    (tmp_path / "tools").mkdir()
    shutil.copy(PROJECT / "tools/solc-node.js", tmp_path / "tools")
    (tmp_path / "node_modules").symlink_to(PROJECT / "node_modules")
    monkeypatch.setattr(compiling, "__file__", str(tmp_path / "ledger/compile.py"))
    return tmp_path


def test_compile_contracts_has_all_that_is_deployed(artifacts: dict[str, Artifact]) -> None:
    names = ["TrainingToken", "StakeVault", "TrainingLedger", "DisputeGame", "StepReferee", "AuditCommittee"]
    for name in (*names, "RoundBook", "OpenLedger", "AvailabilityCommittee"):
        artifact = artifacts[name]
        assert 0 < len(artifact.runtime_bytecode) <= 24_576, name  # EIP-170
        assert len(artifact.bytecode) <= 49_152, name  # EIP-3860
        assert artifact.abi
    assert {entry["name"] for entry in artifacts["ITrainingLedger"].abi if entry["type"] == "error"} >= {"SlotTaken"}
    assert artifacts["TrainingLedger"].immutable_references


def test_compile_contracts_is_cached_by_the_sources(project: Path) -> None:
    first = compile_contracts()
    (cache,) = (project / "build").glob("contracts-*.json")
    written = cache.stat().st_mtime_ns
    assert compile_contracts() == first
    assert cache.stat().st_mtime_ns == written
    source = project / "contracts/One.sol"
    source.write_text(source.read_text().replace("{ A = a; }", "{ A = a + 1; } function b() external pure {}"))
    second = compile_contracts()
    assert second["One"].source_hash != first["One"].source_hash
    assert second["One"].runtime_bytecode != first["One"].runtime_bytecode


def test_compile_contracts_damaged_cache_is_compiled_anew(project: Path) -> None:
    first = compile_contracts()
    (cache,) = (project / "build").glob("contracts-*.json")
    cache.write_text(cache.read_text()[:-20])
    assert compile_contracts() == first
    json.loads(cache.read_text())


def test_compile_contracts_error_shows_the_place(project: Path) -> None:
    (project / "contracts/Two.sol").write_text("pragma solidity ^0.8.28; contract Two { uint256 x = nothing; }")
    with pytest.raises(ChainError, match=r"(?s)do not compile: .*Undeclared identifier.*contracts/Two\.sol"):
        compile_contracts()


def test_compile_contracts_without_node_says_so(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(project))
    monkeypatch.setattr("solcx.get_installed_solc_versions", list)
    with pytest.raises(ToolMissing, match=r"Node\.js is not installed.*Node 20"):
        compile_contracts()


def test_compile_contracts_without_packages_says_npm_ci(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("solcx.get_installed_solc_versions", list)
    monkeypatch.setattr("ledger.compile._version_of", lambda binary: "")
    (project / "node_modules").unlink()
    with pytest.raises(ToolMissing, match="npm ci"):
        compile_contracts()


def test_load_artifact_unknown_name_lists_the_known(project: Path) -> None:
    with pytest.raises(ChainError, match=r"no contract 'Nothing'; there are One"):
        load_artifact("Nothing")


def test_masked_blanks_immutables_alone(artifacts: dict[str, Artifact]) -> None:
    artifact = artifacts["StakeVault"]
    deployed = bytearray(artifact.runtime_bytecode)
    for start, length in artifact.immutable_references:
        deployed[start : start + length] = b"\xaa" * length
    assert artifact.masked(bytes(deployed)) == artifact.runtime_bytecode
    deployed[0] ^= 1
    assert artifact.masked(bytes(deployed)) != artifact.runtime_bytecode
