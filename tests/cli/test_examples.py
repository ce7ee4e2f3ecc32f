from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch
from command_line import PROJECT

from ledger.deploy import LOCAL_PARAMETERS
from ledger.errors import SpecificationError
from ledger.openfile import load_open_file
from ledger.spec import load_task_file
from ledger.types import Admission
from trainer.data.config import DataConfig
from trainer.data.dataset import dataset_of
from trainer.data.tokenizer import ByteTokenizer
from trainer.engine.state import initial_state
from trainer.open.scoring import with_loss
from trainer.open.training import adapted
from trainer.program.description import ProgramDescription
from trainer.program.tracing.tasks import trace_task

EXAMPLES = PROJECT / "examples"
OPEN = EXAMPLES / "open.toml"
FILES = sorted(file for file in EXAMPLES.glob("*.toml") if file != OPEN)


def test_examples_are_the_documented_ones() -> None:
    assert [file.stem for file in FILES] == ["audited", "diloco", "quick", "recurrent", "smollm2", "transformer"]


def test_open_example_is_valid_for_both_halves_and_the_local_chain() -> None:
    task = load_open_file(OPEN)
    data = DataConfig.from_mapping(task.data)
    ProgramDescription.from_task_file(
        task.program, vocabulary=data.vocabulary, total_steps=task.rounds * task.steps_per_round, merge=None
    )
    assert task.bond >= LOCAL_PARAMETERS.minimum_bond
    periods = (task.commit_seconds, task.reveal_seconds, task.held_out_seconds, task.lease_seconds)
    assert min(periods) >= LOCAL_PARAMETERS.minimum_lease
    assert task.challenge_window >= LOCAL_PARAMETERS.minimum_window
    assert max(task.bond, task.minimum_stake, task.total_reward) < 1000 * 10**18
    with pytest.raises(SpecificationError, match="an open task"):
        load_task_file(OPEN)


def test_script_of_the_open_example_trains_its_model() -> None:
    task = load_open_file(OPEN)
    description = ProgramDescription.from_task_file(task.program, vocabulary=256, total_steps=120, merge=None)
    script = ModuleType("open_script")
    exec((EXAMPLES / "open_script.py").read_text(), script.__dict__)
    assert description.model == script.MODEL
    assert (script.CONTEXT, task.program["context"]) == (64, 64)
    dataset = dataset_of(ByteTokenizer(), np.arange(9000, dtype="<u2") % 251, np.zeros(2, dtype="<u2"))
    program = trace_task(description, windows=1)
    base = with_loss(initial_state(description, program.layout), 0)
    made = adapted(script.train(dict(base), dataset, 1.0), base, program.layout, what="open_script.py")
    changed = [name for name in base if not torch.equal(made[name], base[name])]
    assert changed
    assert all(name.startswith("parameter.") for name in changed)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.stem))
def test_example_is_valid_for_both_halves_and_the_local_chain(file: object) -> None:
    task = load_task_file(PROJECT / str(file))
    data = DataConfig.from_mapping(task.data)
    program = ProgramDescription.from_task_file(
        task.program, vocabulary=data.vocabulary, total_steps=task.rounds * task.steps_per_round, merge=task.merge
    )
    assert program.slots == task.slots
    assert program.schedule.total_steps == task.rounds * task.steps_per_round
    assert task.bond >= LOCAL_PARAMETERS.minimum_bond
    assert task.lease_seconds >= LOCAL_PARAMETERS.minimum_lease
    assert task.challenge_window >= LOCAL_PARAMETERS.minimum_window
    # A worker that `account fund` made (1,000 tokens) can take it, and a requester pay for it.
    assert max(task.bond, task.minimum_stake) < 1000 * 10**18
    assert task.total_reward < 1000 * 10**18


def test_examples_show_all_models_admissions_and_targets() -> None:
    tasks = {file.stem: load_task_file(file) for file in FILES}
    assert {str(task.program["model"]["kind"]) for task in tasks.values()} == {"transformer", "recurrent", "smollm2"}
    assert tasks["recurrent"].admission is Admission.STAKE
    assert tasks["recurrent"].target_loss is None
    assert tasks["transformer"].target_loss == 1.7
    diloco = tasks["diloco"]
    assert (diloco.slots, diloco.quorum, diloco.merge and diloco.merge["kind"]) == (4, 3, "diloco")
