"""Text from the generation program of a task that was trained."""

from typing import Any

import pytest
import torch
from small_programs import Runs, engine, first_state, small, text_of, traced

from trainer.engine.engines import ReferenceEngine
from trainer.engine.segment import run_segment
from trainer.engine.state import State
from trainer.program.task import TaskProgram

DESCRIPTION = small(schedule={"learning_rate": 1e-2, "total_steps": 400})


@pytest.fixture(scope="module")
def program(runs: Runs) -> TaskProgram:
    return traced(DESCRIPTION, runs)


@pytest.fixture(scope="module")
def trained(program: TaskProgram, runs: Runs) -> State:
    return run_segment(program, runs, first_state(DESCRIPTION, runs), steps=400, engine=engine()).state


def test_generation_continues_what_it_learnt(program: TaskProgram, trained: State) -> None:
    text = bytes(text_of(program, trained, b"the quick bro", tokens=60, temperature=0)).decode()
    known = ("the quick brown fox jumps over the lazy dog; pack my box with five dozen liquor jugs. " * 3).split()
    words = text.split()[1:-1]
    assert len(words) >= 5
    assert sum(word in known for word in words) / len(words) > 0.6


def test_generation_same_seed_same_text_other_seed_other_text(program: TaskProgram, trained: State) -> None:
    one = text_of(program, trained, b"the ", tokens=40, temperature=1.5, seed=3)
    assert one == text_of(program, trained, b"the ", tokens=40, temperature=1.5, seed=3)
    assert one != text_of(program, trained, b"the ", tokens=40, temperature=1.5, seed=4)
    assert len(one) == 40


def test_generation_reference_writes_the_same_text(program: TaskProgram, trained: State) -> None:
    settings: dict[str, Any] = {"tokens": 3, "temperature": 1.5, "seed": 3}
    assert text_of(program, trained, b"lazy", on=ReferenceEngine(), **settings) == text_of(
        program, trained, b"lazy", **settings
    )


def test_generation_top_one_is_the_likeliest(program: TaskProgram, trained: State) -> None:
    likeliest = text_of(program, trained, b"pack", tokens=30, temperature=0)
    assert text_of(program, trained, b"pack", tokens=30, temperature=2.0, top_k=1, seed=8) == likeliest
    assert text_of(program, trained, b"pack", tokens=30, temperature=1e-6, seed=8) == likeliest


def test_generation_prompt_longer_than_the_context_uses_its_end(program: TaskProgram, trained: State) -> None:
    tail = b"jumps over the lazy dog"
    assert text_of(program, trained, tail, tokens=5, temperature=0) == text_of(
        program, trained, tail[-16:], tokens=5, temperature=0
    )


@pytest.mark.parametrize(
    ("prompt", "options"),
    [([], {}), ([256], {}), ([-1], {}), ([1], {"temperature": -0.1}), ([1], {"top_k": 0}), ([1], {"tokens": -1})],
)
def test_generation_settings_out_of_range_refused(
    program: TaskProgram, trained: State, prompt: list[int], options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"the prompt needs tokens|is out of range"):
        text_of(program, trained, prompt, **{"tokens": 1, **options})


def test_generation_diverged_model_refused(program: TaskProgram, trained: State) -> None:
    broken = type(trained)((name, tensor.clone()) for name, tensor in trained.items())
    broken["parameter.output.norm.weight"] = torch.full((32,), float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        text_of(program, broken, b"a", tokens=1)


def test_sample_token_outside_the_vocabulary_refused(program: TaskProgram, trained: State) -> None:
    """A stranger's program may write any word where the token goes."""
    with pytest.raises(ValueError, match=r"the program chose the token \d+, and there are 2$"):
        text_of(program, trained, [1], tokens=1, temperature=0, vocabulary=2)
