"""What `make setup` relies on, for machines other than the one it was written on."""

import json
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_npm_lock_names_the_packages_of_every_platform() -> None:
    # `npm ci` refuses a lock that lacks an optional package, even one for another platform; `npm install` leaves
    # out those that it cannot see.
    packages = json.loads((ROOT / "package-lock.json").read_text())["packages"]
    optional = {
        name: version for one in packages.values() for name, version in one.get("optionalDependencies", {}).items()
    }
    assert len([name for name in optional if name.startswith("@foundry-rs/")]) == 10
    missing = [name for name in optional if not any(path.endswith(f"node_modules/{name}") for path in packages)]
    assert missing == []


def test_npm_lock_names_no_registry() -> None:
    packages = json.loads((ROOT / "package-lock.json").read_text())["packages"]
    assert [path for path, one in packages.items() if "resolved" in one] == []


def test_npm_lock_matches_the_manifest() -> None:
    manifest = json.loads((ROOT / "package.json").read_text())
    root = json.loads((ROOT / "package-lock.json").read_text())["packages"][""]
    for section in ("dependencies", "devDependencies"):
        assert root[section] == manifest[section]
        for name, version in manifest[section].items():
            assert version[0].isdigit(), f"{name} is not pinned: {version}"


def test_python_lock_pins_every_direct_dependency() -> None:
    import tomllib

    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "requirements.lock").read_text().splitlines()
        if "==" in line
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    names = {line.split(">")[0].split("=")[0].split("[")[0].strip().lower() for line in wanted}
    assert names <= pinned


def test_forge_ends_with_the_status_of_what_it_did(tmp_path: Path) -> None:
    # The npm package's own start script does not: with it, `make test` could not fail by a contract's test.
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "Bad.sol").write_text("contract   Bad {}")
    forge = ROOT / "node_modules" / ".bin" / "forge"
    said = subprocess.run([forge, "fmt", "--check", "--root", tmp_path], capture_output=True, text=True, timeout=60)
    assert said.returncode != 0, said.stdout + said.stderr
