"""The compilers' settings stand in contracts/compiler.json; forge's configuration has to repeat them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
SOLC = PROJECT / "tools" / "solc-node.js"


@pytest.fixture(scope="module")
def compiler() -> dict:
    return json.loads((PROJECT / "contracts" / "compiler.json").read_text())


def run_solc(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SOLC), *arguments], input=stdin, capture_output=True, text=True, cwd=PROJECT, timeout=120
    )


def imports_of(source: Path) -> set[Path]:
    """The files that a Solidity file imports by a relative path."""
    names = re.findall(r'\bfrom "(\.[^"]+)";', source.read_text())
    return {(source.parent / name).resolve() for name in names}


def test_forge_tests_reach_no_deployed_contract() -> None:
    # Forge would compile it a second time, without the optimizer, and take that one for the contract of its name.
    contracts = PROJECT / "contracts"
    seen: set[Path] = set()
    waiting = set((contracts / "test").rglob("*.sol"))
    while waiting:
        seen.add(source := waiting.pop())
        waiting |= imports_of(source) - seen
    assert contracts / "interfaces" / "ITrainingLedger.sol" in seen
    assert seen & set(contracts.glob("*.sol")) == set()


def test_foundry_toml_repeats_compiler_json(compiler: dict) -> None:
    profile = tomllib.loads((PROJECT / "foundry.toml").read_text())["profile"]["default"]
    settings = compiler["settings"]
    assert profile["optimizer"] == settings["optimizer"]["enabled"]
    assert profile["optimizer_runs"] == settings["optimizer"]["runs"]
    assert profile["via_ir"] == settings["viaIR"]
    assert profile["evm_version"] == settings["evmVersion"]
    assert profile["bytecode_hash"] == settings["metadata"]["bytecodeHash"]
    assert profile["cbor_metadata"] == settings["metadata"]["appendCBOR"]


def test_package_json_pins_the_compiler(compiler: dict) -> None:
    package = json.loads((PROJECT / "package.json").read_text())
    assert package["dependencies"]["solc"] == compiler["version"]


def test_solc_node_tells_its_version_as_native_solc_does(compiler: dict) -> None:
    result = run_solc("--version")
    assert result.returncode == 0
    assert f"Version: {compiler['version']}+commit." in result.stdout
    assert result.stdout.rstrip().endswith(".Linux.g++")


def test_solc_node_reads_urls_and_imports(compiler: dict, tmp_path: Path) -> None:
    (tmp_path / "Part.sol").write_text(
        "// SPDX-License-Identifier: MIT\npragma solidity ^0.8.28;\nuint256 constant N = 7;\n"
    )
    source = (
        "// SPDX-License-Identifier: MIT\npragma solidity ^0.8.28;\n"
        'import {N} from "./Part.sol";\n'
        'import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";\n'
        "contract Whole { function f() external pure returns (uint256) { return Math.max(N, 1); } }\n"
    )
    (tmp_path / "Whole.sol").write_text(source)
    request = {
        "language": "Solidity",
        "sources": {"Whole.sol": {"urls": ["Whole.sol"]}},
        "settings": {"outputSelection": {"*": {"Whole": ["evm.bytecode.object"]}}},
    }
    result = run_solc("--standard-json", "--base-path", str(tmp_path), stdin=json.dumps(request))
    output = json.loads(result.stdout)
    assert [e for e in output.get("errors", []) if e["severity"] == "error"] == []
    assert len(output["contracts"]["Whole.sol"]["Whole"]["evm"]["bytecode"]["object"]) > 100


def test_solc_node_reads_nothing_outside_its_folders(tmp_path: Path) -> None:
    secret = tmp_path / "outside.sol"
    secret.write_text("contract Outside {}")
    inside = tmp_path / "inside"
    inside.mkdir()
    for url in (str(secret), os.path.relpath(secret, inside)):
        request = {"language": "Solidity", "sources": {"a.sol": {"urls": [url]}}, "settings": {}}
        result = run_solc("--standard-json", "--base-path", str(inside), stdin=json.dumps(request))
        assert result.returncode == 1
        assert "source a.sol: none of" in result.stderr


@pytest.mark.parametrize("arguments", [(), ("--bin",), ("--standard-json", "--base-path")])
def test_solc_node_unknown_arguments_fail(arguments: tuple[str, ...]) -> None:
    result = run_solc(*arguments)
    assert result.returncode == 1
    assert result.stderr.startswith("solc-node: ")
