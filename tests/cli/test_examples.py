from __future__ import annotations

import pytest
from command_line import PROJECT

from ledger.deploy import LOCAL_PARAMETERS
from ledger.spec import load_task_file
from ledger.types import Admission
from trainer.data.config import DataConfig
from trainer.program.description import ProgramDescription

FILES = sorted((PROJECT / "examples").glob("*.toml"))


def test_examples_are_the_documented_ones() -> None:
    assert [file.stem for file in FILES] == ["audited", "diloco", "quick", "recurrent", "smollm2", "transformer"]


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
