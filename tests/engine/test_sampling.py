"""Whole texts through a generation program, on the reference and compiled."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from compiled_programs import compiler
from generating import Bare, Following, drawn_again, generation
from torch import Tensor
from traced import CONTEXT, VOCABULARY, first_state, named, small_model

from trainer.engine.engines import ReferenceRun
from trainer.engine.sampling import sample
from trainer.models import LanguageModel, RecurrentConfig, TransformerConfig
from trainer.native import compiled_program
from trainer.program.exact import BuiltProgram

LOGITS = (1.0, -0.5, 0.25, 2.0, -3.0, 1.5)


def training_state(built: BuiltProgram, model: torch.nn.Module) -> dict[str, Tensor]:
    held = named(built, first_state(built, model))
    return {name: one for name, one in held.items() if not name.startswith("generation.")}


@functools.cache
def bare() -> tuple[LanguageModel, BuiltProgram]:
    model = Bare(LOGITS)
    return model, generation(model, context=4, vocabulary=len(LOGITS))


def text(prompt: Sequence[int] = (0,), *, model: LanguageModel | None = None, **settings: Any) -> list[int]:
    """A text of the bare model, or of another with its sizes."""
    usual, built = bare()
    options = {"tokens": 12, "temperature": 1.0, "vocabulary": len(LOGITS), **settings}
    run = ReferenceRun(built.program, built.constants)
    return sample(built.program, run, training_state(built, model or usual), prompt, **options)


@pytest.mark.parametrize(
    "config", [TransformerConfig(layers=1, heads=2, width=16), RecurrentConfig(cell="gru", layers=1, heads=2, width=16)]
)
def test_sample_compiled_gives_the_text_of_the_reference(
    config: TransformerConfig | RecurrentConfig, tmp_path: Path
) -> None:
    model = small_model(config)
    built = generation(model, context=CONTEXT, vocabulary=VOCABULARY)
    state = training_state(built, model)
    fast = compiled_program(built.program, built.constants, tmp_path, compiler=compiler())
    texts = [
        sample(built.program, run, state, [3, 1, 4], vocabulary=VOCABULARY, tokens=CONTEXT + 3, temperature=1.2, seed=2)
        for run in (ReferenceRun(built.program, built.constants), fast)
    ]
    assert texts[0] == texts[1]
    assert len(texts[0]) == CONTEXT + 3


def test_sample_draws_are_those_of_the_page() -> None:
    expected = [drawn_again(LOGITS, seed=77, position=p, temperature=0.5, top_k=4) for p in range(12)]
    assert text(seed=77, temperature=0.5, top_k=4) == expected


def test_sample_same_seed_same_text_other_seed_other_text() -> None:
    assert text(seed=3) == text(seed=3)
    assert len({tuple(text(seed=seed)) for seed in (3, 4, 2**32 - 1)}) == 3


def test_sample_without_temperature_or_among_one_takes_the_likeliest() -> None:
    assert text(temperature=0.0) == text(top_k=1, temperature=9.0, seed=1) == text(temperature=1e-6) == [3] * 12


def test_sample_among_more_than_there_are_is_among_all() -> None:
    assert text(top_k=2**32 + 1) == text()


def test_sample_follows_the_text_past_the_window_and_from_the_prompt_s_end() -> None:
    model = Following(6)
    built = generation(model, context=4, vocabulary=6)
    run = ReferenceRun(built.program, built.constants)
    for prompt in ([2], [5, 5, 5, 2], [1, 4, 1, 4, 3, 0, 2]):
        added = sample(
            built.program, run, training_state(built, model), prompt, vocabulary=6, tokens=9, temperature=0.0
        )
        assert added == [3, 4, 5, 0, 1, 2, 3, 4, 5]


def test_sample_long_prompt_is_its_end() -> None:
    model = small_model(TransformerConfig(layers=1, heads=2, width=16))
    built = generation(model, context=CONTEXT, vocabulary=VOCABULARY)
    prompt = [(7 * place) % VOCABULARY for place in range(CONTEXT + 5)]
    texts = [
        sample(
            built.program,
            ReferenceRun(built.program, built.constants),
            training_state(built, model),
            part,
            vocabulary=VOCABULARY,
            tokens=3,
        )
        for part in (prompt, prompt[-CONTEXT:])
    ]
    assert texts[0] == texts[1]


def test_sample_leaves_the_state_as_it_was() -> None:
    model, built = bare()
    state = training_state(built, model)
    before = {name: one.clone() for name, one in state.items()}
    run = ReferenceRun(built.program, built.constants)
    sample(built.program, run, state, [0], vocabulary=6, tokens=2)
    assert all(torch.equal(one, state[name]) for name, one in before.items())
    assert [one.shape for one in run.state()] == [one.shape for one in built.program.states]


@pytest.mark.parametrize("prompt", [(), (6,), (0, -1)])
def test_sample_prompt_outside_the_vocabulary_refused(prompt: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="the prompt needs tokens from 0 to 5"):
        text(prompt)


@pytest.mark.parametrize(
    "settings",
    [{"temperature": -0.1}, {"temperature": float("nan")}, {"top_k": 0}, {"tokens": -1}, {"seed": -1}, {"seed": 2**32}],
)
def test_sample_settings_out_of_range_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is out of range"):
        text(**settings)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_sample_diverged_model_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="not finite: its training diverged"):
        text(model=Bare([bad, *LOGITS[1:]]))


def test_sample_state_without_a_tensor_refused() -> None:
    model, built = bare()
    state = training_state(built, model)
    del state["parameter.values"]
    with pytest.raises(ValueError, match=r"the state has no parameter\.values"):
        sample(built.program, ReferenceRun(built.program, built.constants), state, [0], vocabulary=6, tokens=1)
