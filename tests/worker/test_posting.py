from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small_programs import engine
from worker_bench import write_task_file

from ledger.errors import SpecificationError
from ledger.performance import float_bits
from ledger.spec import TaskFile, load_task_file
from ledger.types import Task
from trainer.checkpoints import load_state
from trainer.engine.segment import run_merge
from trainer.materials import fetch_description, fetch_materials, fetch_program
from trainer.posting import check_limits, prepare_posting, publish_posting
from trainer.program.description import ProgramDescription
from trainer.store import BlobStore


def task_file(folder: Path, **changes: Any) -> TaskFile:
    return load_task_file(write_task_file(folder, **changes))


@pytest.mark.parametrize("kind", ["transformer", "recurrent"])
def test_prepare_posting_commits_to_what_it_publishes(tmp_path: Path, kind: str) -> None:
    posting = prepare_posting(task_file(tmp_path, losses="target_loss = 2.0", kind=kind))
    store = BlobStore(str(tmp_path / "store"))
    publish_posting(posting, store)
    publish_posting(posting, store)  # a command that was killed is run again
    task = Task(number=1, parameters=posting.parameters, requester="0x", current_round=0, closed=False)
    materials = fetch_materials(fetch_description(task, store), store, tmp_path / "cache")
    assert materials.program.root == posting.parameters.program_root
    assert materials.program.description["schedule"]["total_steps"] == 10
    assert posting.parameters.total_reward == 5 * 10**18
    assert posting.parameters.base_loss == float_bits(posting.base_loss)
    assert 4.0 < posting.base_loss < 8.0  # a model that knows nothing: about log 256


@pytest.mark.parametrize("kind", ["mean", "diloco"])
def test_prepare_posting_of_rounds_with_several_slots(tmp_path: Path, kind: str) -> None:
    file = write_task_file(tmp_path)
    file.write_text(file.read_text() + f'\n[round]\nslots = 3\nmerge_reward = "1"\n[merge]\nkind = "{kind}"\n')
    posting = prepare_posting(load_task_file(file), engine=engine())
    assert posting.program.slots == posting.specification.slots_per_round == posting.parameters.slots_per_round == 3
    parameters = posting.parameters
    assert (parameters.quorum, parameters.round_seconds, parameters.merge_reward) == (3, 20, 10**18)
    assert parameters.total_reward == 2 * (3 * parameters.slot_reward + 10**18)
    assert posting.parameters.state_tensors == len(posting.program.layout)
    store = BlobStore(str(tmp_path / "store"))
    publish_posting(posting, store)
    fetched = fetch_program(posting.program.root, store)
    assert ProgramDescription.from_mapping(fetched.description).slots == 3
    initial = load_state(store, posting.specification.initial_state, fetched.layout)
    merged = run_merge(fetched, posting.dataset, initial, [None] * 3, engine=engine())
    assert merged.heldout_loss == posting.base_loss


def test_prepare_posting_is_the_same_every_time(tmp_path: Path) -> None:
    first, second = (prepare_posting(task_file(tmp_path)) for _ in range(2))
    assert first.parameters == second.parameters
    assert (first.parameters.base_loss, first.parameters.target_loss) == (0, 0)


def test_prepare_posting_commits_to_the_same_on_every_engine_and_in_a_fresh_process(tmp_path: Path) -> None:
    file = task_file(tmp_path, losses="target_loss = 2.0")
    expected = prepare_posting(file).parameters
    for threads in (1, 2):
        assert prepare_posting(file, engine=engine(threads)).parameters == expected
    script = (
        "import sys; from pathlib import Path; from ledger.spec import load_task_file\n"
        "from trainer.posting import prepare_posting\n"
        "posting = prepare_posting(load_task_file(Path(sys.argv[1])))\n"
        "print(posting.specification.hash().hex(), posting.parameters.base_loss)"
    )
    # A hash seed of its own: nothing may depend on the order of a set.
    child = subprocess.run(
        [sys.executable, "-c", script, str(file.path)],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert child.stdout.split() == [expected.specification_hash.hex(), str(expected.base_loss)]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"losses": "target_loss = 9.5"}, "reward.target_loss"),
        ({"rounds": 2**23}, "task.rounds"),
    ],
)
def test_prepare_posting_refuses_what_could_never_work(tmp_path: Path, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecificationError) as caught:
        prepare_posting(task_file(tmp_path, **changes))
    assert caught.value.field == field


def test_prepare_posting_takes_the_requesters_base_loss(tmp_path: Path) -> None:
    posting = prepare_posting(task_file(tmp_path, losses="target_loss = 2.0\nbase_loss = 3.5"))
    assert posting.parameters.base_loss == float_bits(3.5)


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        ({"minimum_bond": 10**18 + 1}, "reward.bond"),
        ({"minimum_window": 21}, "timing.challenge_window_seconds"),
        ({"minimum_lease": 11}, "timing.lease_seconds"),
    ],
)
def test_check_limits_names_the_field(tmp_path: Path, limits: dict[str, int], field: str) -> None:
    file = task_file(tmp_path)
    least = {"minimum_bond": 10**18, "minimum_window": 20, "minimum_lease": 10}
    check_limits(file, **least)
    with pytest.raises(SpecificationError) as caught:
        check_limits(file, **(least | limits))
    assert caught.value.field == field
