"""What must hold of every model and size, and the recurrent cells once more from their definitions, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from trainer.models import LanguageModel, ModelConfig, RecurrentConfig, TransformerConfig, build_model
from trainer.models.heldout import heldout_loss
from trainer.models.initial import initialise
from trainer.models.recurrence import Recurrence

VOCABULARY, CONTEXT = 37, 9  # odd on purpose: nothing may count on powers of two
CONFIGS: list[ModelConfig] = [
    TransformerConfig(layers=3, heads=3, width=21),
    TransformerConfig(layers=1, heads=5, width=15, tied_embeddings=False, bias=True),
    RecurrentConfig(cell="rnn", layers=2, heads=3, width=21),
    RecurrentConfig(cell="gru", layers=1, heads=1, width=13, tied_embeddings=False),
    RecurrentConfig(cell="lstm", layers=2, heads=7, width=21),
]
cells = st.sampled_from(["rnn", "gru", "lstm"])


@pytest.fixture(params=CONFIGS, ids=lambda c: f"{c.kind}-{getattr(c, 'cell', c.layers)}")
def model(request: pytest.FixtureRequest) -> LanguageModel:
    return made(request.param)


def made(config: ModelConfig, *, vocabulary: int = VOCABULARY, context: int = CONTEXT) -> LanguageModel:
    built = build_model(config, vocabulary=vocabulary, context=context)
    initialise(built, seed=11, layers=config.layers)
    return built


def tokens(rows: int, columns: int = CONTEXT, *, seed: int = 1, vocabulary: int = VOCABULARY) -> Tensor:
    return torch.randint(vocabulary, (rows, columns), generator=torch.Generator().manual_seed(seed))


def test_logits_of_a_window_do_not_depend_on_its_neighbours(model: LanguageModel) -> None:
    together = model.logits(tokens(5))
    for row, window in enumerate(tokens(5)):
        torch.testing.assert_close(model.logits(window[None])[0], together[row], rtol=1e-5, atol=1e-6)
    shuffled = model.logits(tokens(5).flip(0))
    torch.testing.assert_close(shuffled.flip(0), together, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("position", range(CONTEXT))
def test_logits_gradient_reaches_the_past_and_never_the_future(model: LanguageModel, position: int) -> None:
    """Exact, unlike comparing outputs: a derivative with respect to a later token's embedding is zero, not small."""
    # Each position gets a token of its own, so that the gradient of its embedding row is that position's.
    inputs = torch.arange(CONTEXT)[None]
    weight = dict(model.named_parameters())["embedding.weight"]
    logits = model.logits(inputs)
    # Read through another token's column: the tied matrix is also the output's, whose gradient is not of the input.
    (gradient,) = torch.autograd.grad(logits[0, position, CONTEXT + 1], weight)
    reached = [bool(gradient[token].abs().sum() > 0) for token in range(CONTEXT)]
    assert reached == [token <= position for token in range(CONTEXT)]


@pytest.mark.parametrize("config", [CONFIGS[0], CONFIGS[2], CONFIGS[4]], ids=lambda c: getattr(c, "cell", "attention"))
def test_tied_weight_gradient_is_the_sum_of_both_uses(config: ModelConfig) -> None:
    tied = made(config)
    untied = made(type(config)(**{**config.__dict__, "tied_embeddings": False}))
    with torch.no_grad():
        values = dict(tied.named_parameters())
        for name, parameter in untied.named_parameters():
            parameter.copy_(values["embedding.weight" if name == "output.projection.weight" else name])
    inputs = tokens(4)
    for each in (tied, untied):
        each(inputs, inputs.roll(-1, dims=1)).backward()
    apart = {name: parameter.grad for name, parameter in untied.named_parameters()}
    for name, parameter in tied.named_parameters():
        expected = apart[name]
        assert expected is not None
        if name == "embedding.weight":
            expected = expected + apart["output.projection.weight"]
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-7)


@settings(max_examples=25, deadline=None)
@given(
    cell=st.none() | cells,
    layers=st.integers(1, 3),
    heads=st.integers(1, 5),
    depth=st.integers(1, 5),
    vocabulary=st.integers(2, 70),
    context=st.integers(1, 13),
    rows=st.integers(1, 3),
    tied=st.booleans(),
)
def test_logits_shape_and_parameter_count_follow_from_the_sizes(
    cell: str | None, layers: int, heads: int, depth: int, vocabulary: int, context: int, rows: int, tied: bool
) -> None:
    width = heads * depth
    config: ModelConfig
    if cell is None:
        config = TransformerConfig(layers=layers, heads=heads, width=width, tied_embeddings=tied, bias=not tied)
        norm, bias = (1, 0) if tied else (2, 1)
        block = 12 * width**2 + 2 * norm * width + bias * (3 + 1 + 4 + 1) * width
        count = (vocabulary + context) * width + layers * block + norm * width
    else:
        config = RecurrentConfig(cell=cell, layers=layers, heads=heads, width=width, tied_embeddings=tied)
        gates = {"rnn": 1, "gru": 3, "lstm": 4}[cell]
        recurrence = layers * gates * (2 * width**2 + 2 * width)
        count = vocabulary * width + recurrence + 4 * width**2 + 4 * width + 4 * width
    count += 0 if tied else vocabulary * width
    model = made(config, vocabulary=vocabulary, context=context)
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    for length in {1, (context + 1) // 2, context}:
        logits = model.logits(tokens(rows, length, vocabulary=vocabulary))
        assert logits.shape == (rows, length, vocabulary)
        assert logits.dtype == torch.float32
        assert bool(logits.isfinite().all())


def cell_in_float64(cell: str, weights: dict[str, Tensor], inputs: Tensor, layers: int) -> Tensor:
    """rnn, gru and lstm as their papers have them, one step after the other. [B, T, W] to [B, T, W]."""
    width, hidden = inputs.shape[-1], inputs
    for layer in range(layers):
        w_in, w_state = weights[f"weight_ih_l{layer}"], weights[f"weight_hh_l{layer}"]
        b_in, b_state = weights[f"bias_ih_l{layer}"], weights[f"bias_hh_l{layer}"]
        state = memory = torch.zeros(inputs.shape[0], width, dtype=torch.float64)
        outputs = []
        for step in range(inputs.shape[1]):
            new, old = hidden[:, step] @ w_in.T + b_in, state @ w_state.T + b_state
            if cell == "rnn":
                state = torch.tanh(new + old)
            elif cell == "gru":
                reset, update, _ = (
                    torch.sigmoid(a + b) for a, b in zip(new.chunk(3, -1), old.chunk(3, -1), strict=True)
                )
                candidate = torch.tanh(new.chunk(3, -1)[2] + reset * old.chunk(3, -1)[2])
                state = (1 - update) * candidate + update * state
            else:
                enter, forget, change, leave = (new + old).chunk(4, -1)
                memory = torch.sigmoid(forget) * memory + torch.sigmoid(enter) * torch.tanh(change)
                state = torch.sigmoid(leave) * torch.tanh(memory)
            outputs.append(state)
        hidden = torch.stack(outputs, dim=1)
    return hidden


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_recurrence_equals_its_definition(cell: str, layers: int) -> None:
    recurrence = Recurrence(cell=cell, layers=layers, width=10)
    initialise(recurrence, seed=5, layers=layers)
    inputs = torch.randn(3, 12, 10, generator=torch.Generator().manual_seed(8))
    weights = {name.removeprefix("cells."): p.detach().double() for name, p in recurrence.named_parameters()}
    expected = cell_in_float64(cell, weights, inputs.double(), layers)
    torch.testing.assert_close(recurrence(inputs).double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_recurrent_model_equals_its_definition(cell: str) -> None:
    """Recurrence, one attention layer behind a norm and added, a last norm, tied logits."""
    model = made(RecurrentConfig(cell=cell, layers=2, heads=3, width=12))
    p = {name: value.detach().double() for name, value in model.named_parameters()}
    inputs = tokens(2)
    weights = {name.removeprefix("recurrence.cells."): value for name, value in p.items() if "cells" in name}
    hidden = cell_in_float64(cell, weights, p["embedding.weight"][inputs], 2)
    normed = functional.layer_norm(hidden, (12,), p["norm.weight"], p["norm.bias"])
    parts = normed @ p["attention.queries_keys_values.weight"].T + p["attention.queries_keys_values.bias"]
    mixed = []
    for head in range(3):
        q, k, v = (parts[..., 12 * part + 4 * head : 12 * part + 4 * head + 4] for part in range(3))
        scores = (q @ k.transpose(1, 2) / 2).masked_fill(torch.ones(CONTEXT, CONTEXT).triu(1).bool(), -math.inf)
        mixed.append(scores.softmax(-1) @ v)
    hidden = hidden + torch.cat(mixed, -1) @ p["attention.output.weight"].T + p["attention.output.bias"]
    last = functional.layer_norm(hidden, (12,), p["output.norm.weight"], p["output.norm.bias"])
    torch.testing.assert_close(model.logits(inputs).double(), last @ p["embedding.weight"].T, rtol=1e-4, atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(windows=st.integers(1, 9), batch=st.integers(1, 12), kind=st.sampled_from(range(len(CONFIGS))))
def test_heldout_loss_equals_a_plain_loop(windows: int, batch: int, kind: int) -> None:
    model, text = made(CONFIGS[kind]), tokens(windows, CONTEXT + 1, seed=windows)
    total = 0.0
    with torch.no_grad():
        for window in text:
            logs = model.logits(window[None, :-1])[0].double().log_softmax(-1)
            total -= sum(logs[place, int(token)].item() for place, token in enumerate(window[1:]))
    assert heldout_loss(model, text, batch=batch) == pytest.approx(total / (windows * CONTEXT), rel=2e-6)


def test_heldout_loss_leaves_no_gradients_and_takes_any_integer_dtype(model: LanguageModel) -> None:
    text = tokens(3, CONTEXT + 1)
    expected = heldout_loss(model, text, batch=2)
    assert heldout_loss(model, text.to(torch.int32), batch=2) == expected
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.training


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**53 - 1), cell=cells, layers=st.integers(1, 3))
def test_initialise_recurrent_cells_stay_within_their_bound(seed: int, cell: str, layers: int) -> None:
    model = build_model(RecurrentConfig(cell=cell, layers=layers, heads=1, width=9), vocabulary=5, context=4)
    initialise(model, seed=seed, layers=layers)
    for name, parameter in model.named_parameters():
        if name.startswith("recurrence."):
            bound = 1 / math.sqrt(parameter.shape[-1])
            assert float(parameter.detach().abs().max()) <= bound
            assert float(parameter.detach().std()) > 0
        elif parameter.dim() == 1:
            assert set(parameter.tolist()) == {1.0 if "norm" in name and name.endswith("weight") else 0.0}


def test_initialise_gives_every_parameter_its_own_numbers() -> None:
    model = made(TransformerConfig(layers=2, heads=2, width=8))
    matrices = [parameter for _, parameter in model.named_parameters() if parameter.dim() == 2]
    beginnings = {tuple((p / p.std()).flatten()[:4].tolist()) for p in matrices}
    assert len(beginnings) == len(matrices) == 2 + 2 * 4
