import pytest
import torch
from small_programs import Runs, small

from trainer.engine.generate import generate
from trainer.engine.segment import run_segment
from trainer.engine.state import State, initial_state

PROGRAM = small(schedule={"learning_rate": 1e-2, "total_steps": 400})


@pytest.fixture(scope="module")
def trained(runs: Runs) -> State:
    return run_segment(PROGRAM, runs, initial_state(PROGRAM), steps=400).state


def test_generate_continues_what_it_learnt(trained: State) -> None:
    text = bytes(generate(PROGRAM, trained, b"the quick bro", tokens=60, temperature=0)).decode()
    known = ("the quick brown fox jumps over the lazy dog; pack my box with five dozen liquor jugs. " * 3).split()
    words = text.split()[1:-1]
    assert len(words) >= 5
    assert sum(word in known for word in words) / len(words) > 0.6


def test_generate_same_seed_same_text_other_seed_other_text(trained: State) -> None:
    one = generate(PROGRAM, trained, b"the ", tokens=40, temperature=1.5, seed=3)
    assert one == generate(PROGRAM, trained, b"the ", tokens=40, temperature=1.5, seed=3)
    assert one != generate(PROGRAM, trained, b"the ", tokens=40, temperature=1.5, seed=4)
    assert len(one) == 40


def test_generate_top_one_is_the_likeliest(trained: State) -> None:
    likeliest = generate(PROGRAM, trained, b"pack", tokens=30, temperature=0)
    assert generate(PROGRAM, trained, b"pack", tokens=30, temperature=2.0, top_k=1, seed=8) == likeliest
    assert generate(PROGRAM, trained, b"pack", tokens=30, temperature=1e-6, seed=8) == likeliest


def test_generate_prompt_longer_than_the_context_uses_its_end(trained: State) -> None:
    tail = b"jumps over the lazy dog"
    assert generate(PROGRAM, trained, tail, tokens=5, temperature=0) == generate(
        PROGRAM, trained, tail[-16:], tokens=5, temperature=0
    )


@pytest.mark.parametrize(
    ("prompt", "options"),
    [([], {}), ([256], {}), ([-1], {}), ([1], {"temperature": -0.1}), ([1], {"top_k": 0}), ([1], {"tokens": -1})],
)
def test_generate_settings_out_of_range_refused(trained: State, prompt: list[int], options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"the prompt needs tokens|is out of range"):
        generate(PROGRAM, trained, prompt, **{"tokens": 1, **options})


def test_generate_diverged_model_refused(trained: State) -> None:
    broken = type(trained)((name, tensor.clone()) for name, tensor in trained.items())
    broken["parameter.output.norm.weight"] = torch.full((32,), float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        generate(PROGRAM, broken, b"a", tokens=1)
