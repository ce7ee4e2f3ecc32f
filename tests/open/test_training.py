from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_programs import Runs, engine, first_state, small, traced

from ledger.errors import UsageError
from trainer.commit.states import state_root
from trainer.data.dataset import dataset_of
from trainer.data.tokenizer import ByteTokenizer
from trainer.engine.segment import run_segment
from trainer.engine.state import State, step_of
from trainer.open.source import OpenMaterials
from trainer.open.training import FileTraining, Job, RecipeTraining, ScriptTraining, adapted, slot_of_worker
from trainer.program.layout import HELDOUT_LOSS

WORKER = "0x" + "ab" * 20
DESCRIPTION = small(model={"layers": 1, "width": 16})
DATA = Runs(np.arange(4000, dtype="<u2") % 97, np.arange(400, dtype="<u2") % 97)


@pytest.fixture(scope="module")
def base() -> State:
    return first_state(DESCRIPTION, DATA, measure=True)


@pytest.fixture(scope="module")
def materials() -> OpenMaterials:
    class Specification:
        steps_per_round = 5

    dataset = dataset_of(ByteTokenizer(), DATA.train, DATA.heldout)
    return OpenMaterials(
        parameters=None,  # type: ignore[arg-type]  # training asks for neither these nor the store
        specification=Specification(),  # type: ignore[arg-type]
        program=traced(DESCRIPTION, DATA),
        dataset=dataset,
        store=None,  # type: ignore[arg-type]
    )


def job(materials: OpenMaterials, base: State) -> Job:
    return Job(
        materials=materials,
        base=base,
        begun=None,
        worker=WORKER,
        seconds=1.0,
        keep=lambda state: None,
        on_step=lambda report: None,
        should_stop=lambda: False,
    )


def name_of(base: State) -> str:
    return next(name for name in base if name.startswith("parameter."))


def test_recipe_is_the_tasks_program_on_the_workers_own_batches(materials: OpenMaterials, base: State) -> None:
    made = RecipeTraining(engine(), snapshot_seconds=10.0).train(job(materials, base))
    assert made is not None
    slot = slot_of_worker(WORKER)
    wanted = run_segment(materials.program, materials.dataset, base, steps=5, slot=slot, engine=engine()).state
    assert state_root(made.values()) == state_root(wanted.values())
    other = replace(job(materials, base), worker="0x" + "cd" * 20)
    others = RecipeTraining(engine(), snapshot_seconds=10.0).train(other)
    assert others is not None
    assert state_root(others.values()) != state_root(made.values())


def test_recipe_that_was_killed_goes_on_where_it_was(materials: OpenMaterials, base: State) -> None:
    kept: list[State] = []
    recipe = RecipeTraining(engine(), snapshot_seconds=0.0)
    whole = recipe.train(job(materials, base))
    assert recipe.train(replace(job(materials, base), keep=kept.append)) is not None
    assert 0 < step_of(kept[-1]) - step_of(base) < 5  # as a kill would leave it
    resumed = recipe.train(replace(job(materials, base), begun=kept[-1]))
    assert whole is not None
    assert resumed is not None
    assert state_root(resumed.values()) == state_root(whole.values())


def test_script_gives_any_precision_and_what_it_leaves_out_stays(
    materials: OpenMaterials, base: State, tmp_path: Path
) -> None:
    name = name_of(base)
    path = tmp_path / "script.py"
    path.write_text(
        "def train(state, data, seconds):\n"
        f"    state['{name}'].zero_()\n"  # its own copy
        "    assert len(data.train) == 4000 and seconds == 1.0\n"
        f"    return {{'{name}': state['{name}'].bfloat16() + 0.5, '{HELDOUT_LOSS}': state['{HELDOUT_LOSS}'] * 0}}\n"
    )
    made = ScriptTraining(path).train(job(materials, base))
    assert made is not None
    assert list(made) == list(base)
    assert made[name].dtype is torch.float32
    assert bool((made[name] == 0.5).all())
    assert all(torch.equal(made[other], base[other]) for other in base if other != name)
    assert not bool((base[name] == 0).all())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x = 1\n", "has no function train"),
        ("import no_such_module_here\n", "cannot be imported"),
        ("def train(a, b, c):\n    raise RuntimeError('out of luck')\n", "out of luck"),
        ("def train(a, b, c):\n    return None\n", "NoneType"),
    ],
)
def test_script_that_is_none(materials: OpenMaterials, base: State, tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "script.py"
    path.write_text(text)
    with pytest.raises(UsageError, match=problem):
        ScriptTraining(path).train(job(materials, base))


def test_state_file_is_read_and_checked(materials: OpenMaterials, base: State, tmp_path: Path) -> None:
    path, name = tmp_path / "state.safetensors", name_of(base)
    save_file({name: base[name].double() + 1}, path)
    made = FileTraining(path).train(job(materials, base))
    assert made is not None
    assert torch.equal(made[name], base[name] + 1)
    path.write_bytes(b"no tensors")
    with pytest.raises(UsageError, match="cannot be read"):
        FileTraining(path).train(job(materials, base))
    with pytest.raises(UsageError, match="is no file"):
        FileTraining(tmp_path / "none")


def test_what_does_not_fit_is_refused_by_name(materials: OpenMaterials, base: State) -> None:
    name = name_of(base)
    for given, problem in (
        ({}, "gave no tensors"),
        ({"parameter.none": torch.zeros(1)}, "parameter.none"),
        ({name: torch.zeros(3)}, "the shape"),
        ({name: base[name].to(torch.int64)}, "int64"),
        ({"counter.step": torch.zeros(1)}, "counter.step"),
        ({name: torch.full_like(base[name], float("nan"))}, "a NaN"),
        ({name: torch.full(base[name].shape, 1e300, dtype=torch.float64)}, "an infinity"),
        ([base[name]], "list"),
    ):
        with pytest.raises(UsageError, match=problem):
            adapted(given, base, materials.layout, what="script.py")


def test_nothing_changed_is_the_base(materials: OpenMaterials, base: State) -> None:
    made = adapted(OrderedDict(base), base, materials.layout, what="script.py")
    assert state_root(made.values()) == state_root(base.values())
