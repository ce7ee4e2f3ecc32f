from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from ledger.errors import SpecificationError
from ledger.spec import TaskSpecification, load_task_file
from ledger.types import Admission, TaskParameters

SPECIFICATION = TaskSpecification(
    title="Größe",
    description="",
    program=b"\x01" * 32,
    dataset=b"\x02" * 32,
    initial_state=b"\x03" * 32,
    rounds=4,
    steps_per_round=25,
)
TEXT = """
[task]
title = "A task"
rounds = 4
steps_per_round = 25
[reward]
slot_reward = "10.5"
bond = 2.1
lease_fee = 1
target_loss = 2.5
[timing]
lease_seconds = 60
challenge_window_seconds = 90
[data]
source = "python-standard-library"
heldout_fraction = 0.1
[program]
seed = 7
[program.model]
kind = "transformer"
"""


def parameters(**changes: Any) -> TaskParameters:
    values: dict[str, Any] = {
        "specification_hash": SPECIFICATION.hash(),
        "program_root": SPECIFICATION.program,
        "dataset_root": SPECIFICATION.dataset,
        "initial_state_root": SPECIFICATION.initial_state,
        "state_tensors": 3,
        "rounds": 4,
        "steps_per_round": 25,
        "minimum_steps": 25,
        "slot_reward": 1,
        "bond": 1,
        "lease_fee": 0,
        "lease_seconds": 60,
        "challenge_window": 90,
    }
    return TaskParameters(**(values | changes))


def changed(**fields: Any) -> bytes:
    document = json.loads(SPECIFICATION.to_bytes()) | fields
    return json.dumps(
        {name: value for name, value in document.items() if value is not ...},
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
    ).encode()


def write(path: Path, text: str) -> Path:
    file = path / "task.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_to_bytes_is_the_documented_json() -> None:
    expected = (
        f'{{"dataset":"0x{"02" * 32}","description":"","format":"trainledger/task/2","initial_state":"0x{"03" * 32}",'
        f'"program":"0x{"01" * 32}","rounds":4,"slots_per_round":1,"steps_per_round":25,"title":"Größe"}}'
    ).encode()
    assert SPECIFICATION.to_bytes() == expected
    assert SPECIFICATION.hash() == hashlib.sha256(b"trainledger/specification/1\0" + expected).digest()


def test_from_bytes_round_trips() -> None:
    assert TaskSpecification.from_bytes(SPECIFICATION.to_bytes()) == SPECIFICATION


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"extra": 1}, "extra"),
        ({"title": ...}, "title"),
        ({"format": "trainledger/task/1"}, "format"),
        ({"slots_per_round": 0}, "slots_per_round"),
        ({"slots_per_round": ...}, "slots_per_round"),
        ({"program": "0x12"}, "program"),
        ({"dataset": "0x" + "00" * 32}, "dataset"),
        ({"rounds": 0}, "rounds"),
        ({"rounds": 2**32}, "rounds"),
        ({"rounds": "4"}, "rounds"),
        ({"rounds": True}, "rounds"),
        ({"steps_per_round": 1.5}, "steps_per_round"),
        ({"title": ""}, "title"),
        ({"title": "x" * 201}, "title"),
        ({"title": "\x1b[2J"}, "title"),
        ({"description": None}, "description"),
    ],
)
def test_from_bytes_wrong_field_is_named(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecificationError) as caught:
        TaskSpecification.from_bytes(changed(**fields))
    assert caught.value.field == field


def test_from_bytes_not_canonical_is_refused() -> None:
    with pytest.raises(SpecificationError, match="not in canonical form"):
        TaskSpecification.from_bytes(SPECIFICATION.to_bytes() + b"\n")


def test_from_bytes_not_an_object_is_refused() -> None:
    with pytest.raises(SpecificationError, match="not a JSON object"):
        TaskSpecification.from_bytes(b"[]")


def test_specification_root_of_wrong_size_is_refused() -> None:
    with pytest.raises(SpecificationError, match="program is not a root"):
        dataclasses.replace(SPECIFICATION, program=b"\x01" * 31)


def test_check_against_the_same_succeeds() -> None:
    SPECIFICATION.check_against(parameters())


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"specification_hash": b"\x09" * 32}, "specification hash"),
        ({"program_root": b"\x09" * 32}, "program"),
        ({"dataset_root": b"\x09" * 32}, "dataset"),
        ({"initial_state_root": b"\x09" * 32}, "initial_state"),
        ({"rounds": 5}, "rounds"),
        ({"steps_per_round": 26}, "steps_per_round"),
    ],
)
def test_check_against_difference_names_field_and_values(change: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecificationError) as caught:
        SPECIFICATION.check_against(parameters(**change))
    assert caught.value.field == field
    (value,) = change.values()
    assert ("0x" + value.hex() if isinstance(value, bytes) else str(value)) in caught.value.problem


def test_load_task_file_reads_everything(tmp_path: Path) -> None:
    file = load_task_file(write(tmp_path, TEXT))
    assert (file.title, file.description, file.rounds, file.minimum_steps) == ("A task", "", 4, 25)
    assert (file.slot_reward, file.bond, file.lease_fee) == (105 * 10**17, 21 * 10**17, 10**18)
    assert file.total_reward == 42 * 10**18
    assert (file.target_loss, file.base_loss) == (2.5, None)
    assert (file.lease_seconds, file.challenge_window) == (60, 90)
    assert (file.admission, file.minimum_stake, file.ticket_target) == (Admission.OPEN, 0, 0)
    assert file.data == {"source": "python-standard-library", "heldout_fraction": 0.1}
    assert type(file.data["heldout_fraction"]) is float
    assert file.program == {"seed": 7, "model": {"kind": "transformer"}}


def test_load_task_file_admission_by_both(tmp_path: Path) -> None:
    text = TEXT + '[admission]\nkind = "stake_and_ticket"\nminimum_stake = 5\nticket_bits = 12\n'
    file = load_task_file(write(tmp_path, text))
    assert file.admission is Admission.STAKE_AND_TICKET
    assert (file.minimum_stake, file.ticket_target) == (5 * 10**18, 2**244)


@pytest.mark.parametrize(
    ("old", "new", "field", "shown"),
    [
        ('title = "A task"', "", "task.title", "lacks"),
        ('title = "A task"', "title = 5", "task.title", "5"),
        ("rounds = 4", "rounds = 0", "task.rounds", "0"),
        ("rounds = 4", 'rounds = "4"', "task.rounds", "'4'"),
        ("rounds = 4", "rounds = true", "task.rounds", "True"),
        ("rounds = 4", "rounds = 4\nminimum_steps = 26", "task.minimum_steps", "26"),
        ('slot_reward = "10.5"', "slot_reward = 0", "reward.slot_reward", "0"),
        ('slot_reward = "10.5"', 'slot_reward = "ten"', "reward.slot_reward", "ten"),
        ('slot_reward = "10.5"', "slot_reward = true", "reward.slot_reward", "True"),
        ('slot_reward = "10.5"', "slot_reward = 79228162515", "reward.slot_reward", "79228162515"),
        ("bond = 2.1", "bond = nan", "reward.bond", "NaN"),
        ("bond = 2.1", "bond = -2", "reward.bond", "-2"),
        ("lease_fee = 1", "lease_fee = 3", "reward.lease_fee", "3"),
        ("target_loss = 2.5", "target_loss = inf", "reward.target_loss", "Infinity"),
        ("target_loss = 2.5", 'target_loss = "low"', "reward.target_loss", "'low'"),
        ("target_loss = 2.5", "base_loss = 2.5", "reward.base_loss", "no reward.target_loss"),
        ("target_loss = 2.5", "target_loss = 2.5\nbase_loss = 2.5", "reward.base_loss", "2.5"),
        ("challenge_window_seconds = 90", "challenge_window_seconds = 59", "timing.challenge_window_seconds", "59"),
        ("lease_seconds = 60", "lease_seconds = 31536001", "timing.lease_seconds", "31536001"),
        ("challenge_window_seconds = 90", "challenge_window_seconds = 31536001", "timing.challenge_window_seconds", ""),
        ("[data]", '[admission]\nkind = "closed"\n[data]', "admission.kind", "'closed'"),
        ("[data]", '[admission]\nkind = "stake"\n[data]', "admission.minimum_stake", "above 0"),
        ("[data]", "[admission]\nminimum_stake = 1\n[data]", "admission.minimum_stake", "takes no"),
        ("[data]", "[admission]\nticket_bits = 9\n[data]", "admission.ticket_bits", "takes no"),
        ("[data]", '[admission]\nkind = "ticket"\n[data]', "admission.ticket_bits", "needs"),
        ("[data]", '[admission]\nkind = "ticket"\nticket_bits = 65\n[data]', "admission.ticket_bits", "65"),
        ("heldout_fraction = 0.1", "heldout_fraction = nan", "data.heldout_fraction", "NaN"),
        ("[timing]", "[timings]", "timings", "unknown"),
        ("[task]", "[[task]]", "task", "not a section"),
    ],
)
def test_load_task_file_wrong_field_is_named(tmp_path: Path, old: str, new: str, field: str, shown: str) -> None:
    assert old in TEXT
    with pytest.raises(SpecificationError) as caught:
        load_task_file(write(tmp_path, TEXT.replace(old, new)))
    assert caught.value.field == field
    assert shown in caught.value.problem
    assert field in caught.value.problem


def test_load_task_file_unknown_field_suggests_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(SpecificationError) as caught:
        load_task_file(write(tmp_path, TEXT.replace("rounds = 4", "round = 4")))
    assert caught.value.field == "task.round"
    assert caught.value.remedy == "Did you mean task.rounds?"


@pytest.mark.parametrize("section", ["task", "reward", "timing", "data", "program"])
def test_load_task_file_missing_section_is_named(tmp_path: Path, section: str) -> None:
    lines = TEXT.splitlines()
    start = lines.index(f"[{section}]")
    end = next(
        (i for i in range(start + 1, len(lines)) if lines[i].startswith("[") and "." not in lines[i]), len(lines)
    )
    with pytest.raises(SpecificationError) as caught:
        load_task_file(write(tmp_path, "\n".join(lines[:start] + lines[end:])))
    assert caught.value.field == section


def test_load_task_file_missing_or_broken_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(SpecificationError, match=r"no\.toml does not exist"):
        load_task_file(tmp_path / "no.toml")
    with pytest.raises(SpecificationError, match=r"not valid TOML: .*Correct it there"):
        load_task_file(write(tmp_path, "a = = b"))
    with pytest.raises(SpecificationError, match=r"cannot be read: .*Name a TOML file"):
        load_task_file(tmp_path)


def test_load_task_file_takes_periods_up_to_the_contracts_limit(tmp_path: Path) -> None:
    rules = (Path(__file__).parents[2] / "contracts" / "libraries" / "TaskRules.sol").read_text(encoding="utf-8")
    assert "MAXIMUM_PERIOD = 365 days;" in rules
    longest = str(365 * 24 * 3600)
    file = load_task_file(
        write(
            tmp_path,
            TEXT.replace("seconds = 60", f"seconds = {longest}").replace("seconds = 90", f"seconds = {longest}"),
        )
    )
    assert (file.lease_seconds, file.challenge_window) == (int(longest), int(longest))


ROUND = '[round]\nslots = 4\nmerge_reward = "1.5"\n'
MERGE = '[merge]\nkind = "diloco"\nouter_momentum = 0.5\n'


def test_load_task_file_with_one_slot_has_no_merge(tmp_path: Path) -> None:
    for text in (TEXT, TEXT + "[round]\nslots = 1\n"):
        file = load_task_file(write(tmp_path, text))
        assert (file.slots, file.quorum, file.round_seconds, file.merge_reward, file.merge) == (1, 0, 0, 0, None)
        assert file.total_reward == 4 * file.slot_reward


def test_load_task_file_round_and_its_defaults(tmp_path: Path) -> None:
    file = load_task_file(write(tmp_path, TEXT + ROUND + MERGE))
    assert (file.slots, file.quorum, file.round_seconds, file.merge_reward) == (4, 4, 120, 15 * 10**17)
    assert file.merge == {"kind": "diloco", "slots": 4, "outer_momentum": 0.5}
    assert file.total_reward == 4 * (4 * 105 * 10**17 + 15 * 10**17)
    more = ROUND + "quorum = 2\ndeadline_seconds = 60\n"
    file = load_task_file(write(tmp_path, TEXT + more + MERGE))
    assert (file.quorum, file.round_seconds) == (2, 60)
    year = 365 * 24 * 3600
    long = TEXT.replace("= 60", f"= {year}").replace("= 90", f"= {year}")
    assert load_task_file(write(tmp_path, long + ROUND + MERGE)).round_seconds == year


@pytest.mark.parametrize(
    ("more", "field", "problem"),
    [
        ("[round]\nslots = 256\n", "round.slots", "round.slots is 256, which is not a whole number from 1 to 255"),
        ("[round]\nslots = 0\n", "round.slots", "round.slots is 0, which is not"),
        (ROUND, "merge", r"round.slots is 4, and the section \[merge\] is missing"),
        (ROUND + "quorum = 5\n" + MERGE, "round.quorum", "round.quorum is 5, above round.slots, 4"),
        (ROUND + "quorum = 0\n" + MERGE, "round.quorum", "round.quorum is 0, which is not"),
        (
            ROUND + "deadline_seconds = 59\n" + MERGE,
            "round.deadline_seconds",
            "round.deadline_seconds is 59, below timing.lease_seconds, 60",
        ),
        (ROUND.replace("1.5", "0") + MERGE, "round.merge_reward", "round.merge_reward is 0; it must be more than 0"),
        ("[round]\nslots = 4\n" + MERGE, "round.merge_reward", "lacks round.merge_reward, and round.slots is 4"),
        (ROUND + MERGE + "slots = 4\n", "merge.slots", "merge.slots cannot be set: it is round.slots"),
        ("[round]\nquorum = 1\n", "round.quorum", "round.quorum is given, but a round has one slot"),
        ("[round]\ndeadline_seconds = 90\n", "round.deadline_seconds", "is given, but a round has one slot"),
        ('[round]\nmerge_reward = "1"\n', "round.merge_reward", "is given, but a round has one slot"),
        (MERGE, "merge", r"section \[merge\] is given, but a round has one slot"),
        (ROUND + "slot = 3\n" + MERGE, "round.slot", "unknown field round.slot"),
        ("[merg]\n", "merg", "unknown field merg"),
    ],
)
def test_load_task_file_wrong_round_is_named(tmp_path: Path, more: str, field: str, problem: str) -> None:
    with pytest.raises(SpecificationError, match=problem) as caught:
        load_task_file(write(tmp_path, TEXT + more))
    assert caught.value.field == field


def test_check_against_compares_the_slots() -> None:
    several = dataclasses.replace(SPECIFICATION, slots_per_round=4)
    fields = {"specification_hash": several.hash(), "merge_reward": 1, "quorum": 4, "round_seconds": 60}
    several.check_against(parameters(slots_per_round=4, **fields))
    with pytest.raises(SpecificationError, match="says slots_per_round = 4, but the task on chain has 3"):
        several.check_against(parameters(slots_per_round=3, **fields))


def test_load_task_file_merge_must_be_a_section(tmp_path: Path) -> None:
    with pytest.raises(SpecificationError, match="merge is 3, which is not a section"):
        load_task_file(write(tmp_path, "merge = 3\n" + TEXT))
