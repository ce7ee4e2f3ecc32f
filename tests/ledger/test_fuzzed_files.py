"""Files that people and programs write, with anything at any place: read, or refused by an error of the tree."""

from __future__ import annotations

import copy
import functools
import json
import math
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.amounts import UINT96_MAX, parse_tokens
from ledger.canonical import canonical_json, parse_json_strict
from ledger.deploy import LOCAL_PARAMETERS, Deployment
from ledger.errors import SettingsError, SpecificationError, TrainledgerError, UsageError, WalletError
from ledger.keys import KeyStore, Wallet
from ledger.settings import SETTINGS, load_settings
from ledger.spec import SPECIFICATION_FORMAT, TaskSpecification
from ledger.taskfile import TaskFile, load_task_file
from ledger.toml import parse_toml
from ledger.types import Admission

FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
BIG = "9" * 5000
# Anything that can stand to the right of "=" in TOML, well-formed or nearly.
TOML_VALUES = st.one_of(
    st.sampled_from(
        [
            "true", "0", "-1", "+7", "1_000", "0x1" + "0" * 9000, BIG, "1e400", "1e-400", "1e99999999999999999999",
            "1.5", "-0.0", "inf", "-inf", "nan", '""', "'x'", '"\\u0000"', '"\\u202e"', "1979-05-27", "07:32:00",
            "1979-05-27T07:32:00Z", "[]", "[1, [2]]", "{}", "{a = 1}", "[" * 200 + "]" * 200, "[" * 3000 + "]" * 3000,
            '"~nobody_of_that_name/x"', '"http://[::1"', '"cuda:²"', '"cpu:1"', "",
        ]
    ),
    st.integers().map(str),
    st.decimals(allow_nan=False).map(str),
    st.text(max_size=20).map(json.dumps),
    st.text(max_size=20),
)  # fmt: skip
# From 2^53 on a whole number written without a point reads back as an integer beyond what JSON carries exactly.
NUMBERS = st.floats(-(2.0**52), 2.0**52) | st.sampled_from([math.nan, math.inf, -math.inf, 1e300, 5e-324])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBERS | st.text(max_size=10) | st.just(10**4000 + 1),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
TASK = {
    "task": {"title": '"A"', "description": '""', "rounds": "3", "steps_per_round": "10", "minimum_steps": "5"},
    "reward": {"slot_reward": "6", "bond": '"2.5"', "lease_fee": "0.5", "target_loss": "1", "base_loss": "4.5"},
    "timing": {"lease_seconds": "60", "challenge_window_seconds": "61"},
    "admission": {"kind": '"stake_and_ticket"', "minimum_stake": "1", "ticket_bits": "4"},
    "data": {"x": "1.5"},
    "program": {"y": "[1]"},
}
TASK_FIELDS = [(section, name) for section, fields in TASK.items() for name in fields]


def attempt(call: Callable[[], Any], *kinds: type[TrainledgerError]) -> tuple[Any, Any]:
    """(result, None) or (None, the error, which is of one of these kinds)."""
    try:
        return call(), None
    except kinds as problem:
        return None, problem


def write_task(path: Path, changes: dict[tuple[str, str], str]) -> TaskFile:
    lines = []
    for section, fields in TASK.items():
        lines.append(f"[{section}]")
        lines += [f"{name} = {changes.get((section, name), value)}" for name, value in fields.items()]
    path.write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
    return load_task_file(path)


def test_write_task_unchanged_is_read(tmp_path: Path) -> None:
    file = write_task(tmp_path / "task.toml", {})
    assert (file.slot_reward, file.bond, file.lease_fee) == (6 * 10**18, 25 * 10**17, 5 * 10**17)
    assert (file.admission, file.ticket_target) == (Admission.STAKE_AND_TICKET, 2**252)


@given(place=st.sampled_from(TASK_FIELDS), value=TOML_VALUES)
@FUZZ
def test_load_task_file_any_value_at_any_field(tmp_path: Path, place: tuple[str, str], value: str) -> None:
    file, problem = attempt(lambda: write_task(tmp_path / "task.toml", {place: value}), SpecificationError)
    if problem is not None:
        assert problem.field == "" or problem.field.split(".")[0] in TASK
        return
    assert 0 < file.slot_reward <= UINT96_MAX
    assert 0 <= file.lease_fee <= file.bond <= UINT96_MAX
    assert 1 <= file.minimum_steps <= file.steps_per_round < 2**32
    assert file.lease_seconds <= file.challenge_window < 2**32
    assert file.base_loss is None or (file.target_loss is not None and 0 <= file.target_loss < file.base_loss < 1e6)
    assert file.title.strip()


@given(name=st.sampled_from(sorted(SETTINGS)), value=TOML_VALUES)
@FUZZ
def test_load_settings_any_value_in_the_file(tmp_path: Path, name: str, value: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f"{name} = {value}", encoding="utf-8", errors="surrogatepass")
    loaded, problem = attempt(lambda: load_settings({}, {"TRAINLEDGER_HOME": str(tmp_path)}, file), SettingsError)
    if problem is not None:
        assert problem.exit_code == 2
        return
    assert 1 <= loaded.chain_port <= 65535
    assert 0.01 <= loaded.poll_seconds <= 3600
    assert loaded.home.is_absolute()
    assert loaded.keystore.is_absolute()


@given(name=st.sampled_from(sorted(SETTINGS)), value=VALUES)
@FUZZ
def test_load_settings_any_value_as_a_flag_or_variable(tmp_path: Path, name: str, value: Any) -> None:
    for flags, variables in (({name: value}, {}), ({}, {SETTINGS[name].environment: str(value)[:50]})):
        environ = {"TRAINLEDGER_HOME": str(tmp_path), **variables}
        loaded, problem = attempt(functools.partial(load_settings, flags, environ), SettingsError)
        if problem is None:
            assert loaded.device.split(":")[0] in ("cpu", "cuda")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a = " + BIG, "a whole number in it has too many digits"),
        ("a = 0x1" + "0" * 400, "a whole number in it has 1601 bits"),
        ("a = 1e401", "the number 1e401 is out of range"),
        ("a = 1e-401", "the number 1e-401 is out of range"),
        ("a = 1e" + BIG, "the number 1e" + "9" * 38 + " is out of range"),
        ("a = " + "[" * 65 + "]" * 65, "it is nested more than 64 deep"),
        ("a = " + "[" * 9000 + "]" * 9000, "it is nested more than 64 deep"),
    ],
)
def test_parse_toml_beyond_all_use_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{problem}$"):
        parse_toml(text)


def test_parse_toml_at_the_bounds_is_read() -> None:
    assert parse_toml("a = 1e400\nb = 1.0e-400\nc = inf") == {
        "a": Decimal("1e400"), "b": Decimal("1e-400"), "c": Decimal("inf")
    }  # fmt: skip
    assert parse_toml("a = " + str(2**1024 - 1)) == {"a": 2**1024 - 1}
    document = parse_toml("a = " + "[" * 63 + "]" * 63)
    for _ in range(62):
        (document,) = document.values() if isinstance(document, dict) else document


def test_parse_tokens_largest_fits_256_bits() -> None:
    assert parse_tokens("9" * 59 + "." + "9" * 18) == 10**77 - 1 < 2**256
    with pytest.raises(UsageError, match="not a number of tokens"):
        parse_tokens("1" + "0" * 59)


@given(document=VALUES)
@FUZZ
def test_canonical_json_any_document_is_written_or_refused(document: Any) -> None:
    try:
        data = canonical_json(document)
    except SpecificationError:
        return
    again = parse_json_strict(data, "It")
    assert canonical_json(again) == data
    assert again == document or isinstance(document, float | list | dict)


@given(field=st.sampled_from(["", "format", "title", "program", "dataset", "initial_state", "rounds"]), value=VALUES)
@FUZZ
def test_specification_any_value_at_any_field(field: str, value: Any) -> None:
    root = "0x" + "1" * 64
    document: dict[str, Any] = {
        "format": SPECIFICATION_FORMAT, "title": "A", "description": "", "program": root, "dataset": root,
        "initial_state": root, "rounds": 1, "steps_per_round": 1,
    }  # fmt: skip
    try:
        data = canonical_json(value if field == "" else document | {field: value})
        specification = TaskSpecification.from_bytes(data)
    except SpecificationError:
        return
    assert specification.to_bytes() == data
    assert (specification.title == value) == (field == "title" or value == "A")


def places(document: dict[str, Any], before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, value in document.items():
        yield (*before, name)
        if isinstance(value, dict):
            yield from places(value, (*before, name))


def changed(document: dict[str, Any], place: tuple[str, ...], value: Any) -> dict[str, Any]:
    new = copy.deepcopy(document)
    inner = new
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    return new


JUNK: list[Any] = [None, True, 0, -1, 3, 1.5, 2**20, 2**70, "", "x", "0x", "00", "é", "ff" * 40, [], [1], {}, {"a": 1}]


def test_unlock_any_value_at_any_place_blames_the_file(tmp_path: Path) -> None:
    store = KeyStore(tmp_path, scrypt_cost=2)
    address = store.new("alice", "pw").address
    path = tmp_path / "alice.json"
    good = json.loads(path.read_text())
    seen = 0
    for place in places(good):
        for junk in JUNK:
            path.write_text(json.dumps(changed(good, place, junk)))
            wallet, problem = attempt(lambda: store.unlock("alice", "pw"), WalletError)
            if problem is not None:
                assert "memory" not in str(problem)
                seen += 1
            else:
                assert wallet.address == address
    assert seen > 200


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        (("kdfparams", "n"), 3, "its n is not a power of two"),
        (("kdfparams", "n"), 2**22, "its n is not a whole number from 1 to 2097152"),
        (("kdfparams", "r"), 0, "its r is not a whole number from 1 to 64"),
        (("kdfparams", "dklen"), 2**40, "its dklen is not a whole number from 1 to 1024"),
        (("kdfparams", "salt"), "zz", "its salt is not hexadecimal"),
        (("cipherparams", "iv"), "ff" * 15, "its iv has not 16 bytes"),
        (("cipherparams",), None, "it lacks cipherparams or kdfparams"),
        (("kdfparams",), {"n": 2**20, "r": 64, "p": 64, "dklen": 32, "salt": "00"}, "would take hours"),
        (("mac",), "0", "its mac is not hexadecimal"),
    ],
)
def test_unlock_impossible_key_file_says_what_is_wrong(tmp_path: Path, place: Any, value: Any, problem: str) -> None:
    store = KeyStore(tmp_path, scrypt_cost=2)
    store.new("alice", "pw")
    path = tmp_path / "alice.json"
    good = json.loads(path.read_text())
    path.write_text(json.dumps(changed(good, ("crypto", *place), value)))
    with pytest.raises(WalletError, match=problem) as caught:
        store.unlock("alice", "pw")
    assert caught.value.problem.startswith(f"{path} is not an encrypted key: ")
    path.write_text("[" * 100_000)
    with pytest.raises(WalletError, match="is not an encrypted key"):
        store.list()


@given(text=st.text(max_size=70) | st.integers(0, 2**256 - 1).map(lambda number: f"{number:064x}"))
@FUZZ
def test_from_private_key_any_text(text: str) -> None:
    wallet, problem = attempt(lambda: Wallet.from_private_key(text), WalletError)
    if problem is not None:
        assert len(text) < 8 or text not in str(problem)
    else:
        assert bytes(wallet._key.key).hex() == text.strip().removeprefix("0x").lower()


@pytest.fixture
def record(tmp_path: Path) -> tuple[dict[str, Any], Callable[[Any], Deployment]]:
    """A good record's document, and a reader of changed ones."""
    roles = ("token", "vault", "ledger", "game", "referee", "committee", "book")
    roles += ("open_ledger", "open_game", "availability")
    address = {name: "0x" + digit * 40 for name, digit in zip(roles, "1234897056", strict=True)}
    names = (
        "TrainingToken",
        "StakeVault",
        "TrainingLedger",
        "DisputeGame",
        "StepReferee",
        "AuditCommittee",
        "RoundBook",
        "OpenLedger",
        "AvailabilityCommittee",
    )
    good = Deployment(
        chain_id=5, **address, block_number=7, block_hash="0x" + "55" * 32, deployer="0x" + "6" * 40,
        artifact_hashes=dict.fromkeys(names, "77" * 32), parameters=LOCAL_PARAMETERS, version="1",
    )  # fmt: skip

    def load(document: Any) -> Deployment:
        (tmp_path / "deployment.json").write_text(json.dumps(document))
        return Deployment.load(tmp_path)

    document = json.loads(good.to_json())
    assert load(document) == good
    return document, load


def test_load_record_any_value_at_any_place(record: tuple[dict[str, Any], Callable[[Any], Deployment]]) -> None:
    document, load = record
    for place in places(document):
        for junk in [*JUNK, math.nan]:
            new = changed(document, place, junk)
            loaded, problem = attempt(functools.partial(load, new), SettingsError)
            if problem is not None:
                assert "deployment.json" in problem.problem
                assert problem.remedy
                continue
            assert json.loads(loaded.to_json())[place[0]] == new[place[0]]
            assert type(junk) is (str if place[0] in ("version", "block_hash", "artifact_hashes") else int)


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        (("chain_id",), "5", "chain_id is '5', which is not a whole number"),
        (("block_number",), -1, "block_number is -1, which is not a whole number"),
        (("parameters", "minimum_bond"), 1.5, "minimum_bond is 1.5, which is not a whole number"),
        (("parameters",), [], "parameters or artifact_hashes is not an object"),
        (("vault",), "0x12", "vault is '0x12', which is not an address"),
        (("artifact_hashes",), {"TrainingToken": "1"}, "artifact_hashes lacks StakeVault"),
    ],
)
def test_load_record_edited_by_hand_names_the_field(
    record: tuple[dict[str, Any], Callable[[Any], Deployment]], place: Any, value: Any, problem: str
) -> None:
    document, load = record
    with pytest.raises(SettingsError) as caught:
        load(changed(document, place, value))
    assert caught.value.problem.endswith(f"is damaged: {problem}.")


@given(text=st.text(max_size=40))
@FUZZ
def test_parse_tokens_any_text(text: str) -> None:
    wei, problem = attempt(lambda: parse_tokens(text), UsageError)
    if problem is not None:
        assert problem.exit_code == 2
    else:
        assert Fraction(text.strip()) * 10**18 == wei
