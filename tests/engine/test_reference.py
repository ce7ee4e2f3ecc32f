"""Training once more in plain float64: forward pass by hand, AdamW, schedule and clipping from their definitions.

Exact programs round the operands of each product to 13 bits of the largest element of a row, an error of up to 2**-13
(1.2e-4) of that element and, over the rows and layers of these models, of 0.04 to 0.1 % of a gradient's norm
(docs/tracing.md). So tensors are compared by their norms, against how far they moved.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from small_programs import Runs, engine, first_state, small, text_of, traced
from torch import Tensor
from torch.nn import functional

from ledger.errors import SettingsError
from trainer.engine.devices import check_device
from trainer.engine.segment import run_segment
from trainer.engine.state import State, check_state, initial_state, loss_tensor, model_of, state_of, step_of
from trainer.models import TransformerConfig
from trainer.program.description import ProgramDescription
from trainer.program.layout import STEP

Named = dict[str, Tensor]


def forward(program: ProgramDescription, weights: Named, inputs: Tensor) -> Tensor:
    """A pre-norm transformer's logits, written out."""
    model = program.model
    assert isinstance(model, TransformerConfig)
    width, depth, length = model.width, model.width // model.heads, inputs.shape[1]

    def norm(hidden: Tensor, name: str) -> Tensor:
        centred = hidden - hidden.mean(-1, keepdim=True)
        scaled = centred / torch.sqrt(centred.pow(2).mean(-1, keepdim=True) + 1e-5)
        return scaled * weights[f"{name}.weight"] + weights.get(f"{name}.bias", torch.zeros(()))

    def linear(hidden: Tensor, name: str) -> Tensor:
        return hidden @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", torch.zeros(()))

    hidden = weights["embedding.weight"][inputs] + weights["positions.weight"][:length]
    for number in range(model.layers):
        block = f"blocks.{number}"
        parts = linear(norm(hidden, f"{block}.attention_norm"), f"{block}.attention.queries_keys_values")
        mixed = []
        for head in range(model.heads):
            q, k, v = (parts[..., width * at + depth * head : width * at + depth * (head + 1)] for at in range(3))
            scores = q @ k.transpose(1, 2) / math.sqrt(depth)
            future = torch.ones(length, length).triu(1).bool()
            mixed.append(scores.masked_fill(future, -math.inf).softmax(-1) @ v)
        hidden = hidden + linear(torch.cat(mixed, -1), f"{block}.attention.output")
        wide = linear(norm(hidden, f"{block}.feed_forward_norm"), f"{block}.feed_forward.widen")
        bent = wide * 0.5 * (1 + torch.erf(wide / math.sqrt(2)))
        hidden = hidden + linear(bent, f"{block}.feed_forward.output")
    last = weights["embedding.weight" if model.tied_embeddings else "output.projection.weight"]
    return norm(hidden, "output.norm") @ last.T


def sample(program: ProgramDescription, runs: Runs, step: int, slot: int) -> tuple[Tensor, Tensor]:
    """The batch of formats §5."""
    rows = []
    for number in range(program.batch_size):
        message = b"trainledger/batch/1\0" + program.seed.to_bytes(8, "big") + slot.to_bytes(4, "big")
        message += step.to_bytes(8, "big") + number.to_bytes(4, "big")
        start = int.from_bytes(hashlib.sha256(message).digest()[:8], "big") % (len(runs.train) - program.context)
        rows.append(torch.tensor(runs.train[start : start + program.context + 1].astype("int64")))
    block = torch.stack(rows)
    return block[:, :-1], block[:, 1:]


def rate_of(program: ProgramDescription, step: int) -> float:
    schedule = program.schedule
    if step < schedule.warmup_steps:
        return schedule.learning_rate * (step + 1) / (schedule.warmup_steps + 1)
    if step >= schedule.total_steps:
        return schedule.minimum_learning_rate
    done = (step - schedule.warmup_steps) / (schedule.total_steps - schedule.warmup_steps)
    low, high = schedule.minimum_learning_rate, schedule.learning_rate
    return low + (high - low) * (1 + math.cos(math.pi * done)) / 2


def train(
    program: ProgramDescription, runs: Runs, state: State, steps: int, slot: int = 0
) -> tuple[Named, list[float]]:
    """Every tensor after the steps, in float64, and the losses."""
    values = {name: tensor.double() for name, tensor in state.items()}
    named = [name.removeprefix("parameter.") for name in state if name.startswith("parameter.")]
    config, losses = program.optimizer, []
    for step in range(step_of(state), step_of(state) + steps):
        inputs, targets = sample(program, runs, step, slot)
        weights = {name: values[f"parameter.{name}"].clone().requires_grad_() for name in named}
        logs = forward(program, weights, inputs).log_softmax(-1)
        loss = -logs.gather(-1, targets[..., None]).mean()
        losses.append(loss.item())
        gradients = dict(zip(named, torch.autograd.grad(loss, list(weights.values())), strict=True))
        length = math.sqrt(sum(float(g.pow(2).sum()) for g in gradients.values()))
        if 0 < config.gradient_clip < length:
            gradients = {name: g * config.gradient_clip / (length + 1e-6) for name, g in gradients.items()}
        rate, count = rate_of(program, step), step + 1
        for name, gradient in gradients.items():
            first, second = values[f"moment1.{name}"], values[f"moment2.{name}"]
            first = config.beta1 * first + (1 - config.beta1) * gradient
            second = config.beta2 * second + (1 - config.beta2) * gradient**2
            decay = config.weight_decay if gradient.dim() >= 2 else 0.0
            weight = values[f"parameter.{name}"] * (1 - rate * decay)
            unbiased = first / (1 - config.beta1**count), second / (1 - config.beta2**count)
            weight = weight - rate * unbiased[0] / (unbiased[1].sqrt() + config.epsilon)
            values |= {f"parameter.{name}": weight, f"moment1.{name}": first, f"moment2.{name}": second}
    return values, losses


# Measured, after six steps in which errors add up: at most 0.25 % of how far the tensors of a kind moved in all, 0.7 %
# of how far a single one did, and 0.01 % of a loss. The bits are the same on every machine, so there is no noise.
TOGETHER, EACH, LOSS = 4e-3, 1e-2, 2e-4


def compare(first: State, found: State, expected: Named) -> None:
    """Parameters and both moments moved as they should."""
    for kind in ("parameter.", "moment1.", "moment2."):
        apart, moved = [], []
        for name in (name for name in first if name.startswith(kind)):
            apart.append((found[name].double() - expected[name]).norm())
            moved.append((expected[name] - first[name].double()).norm())
            assert apart[-1] <= EACH * moved[-1], name
        assert torch.stack(apart).norm() <= TOGETHER * torch.stack(moved).norm(), kind


# A large epsilon keeps the step from turning rounding in tiny gradients into whole steps of the sign; a large decay
# shows.
OPTIMIZER = {"epsilon": 1e-4, "weight_decay": 3.0, "beta1": 0.8, "beta2": 0.95}
PROGRAMS: dict[str, dict[str, Any]] = {
    "clipped": {"optimizer": {**OPTIMIZER, "gradient_clip": 0.2}},
    "never clipped": {"optimizer": {**OPTIMIZER, "gradient_clip": 0.0}},
    "biases and two matrices": {"optimizer": OPTIMIZER, "model": {"bias": True, "tied_embeddings": False, "heads": 4}},
    "past its schedule": {"optimizer": OPTIMIZER, "schedule": {"total_steps": 3, "warmup_steps": 2}},
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_run_segment_equals_training_in_float64(runs: Runs, name: str) -> None:
    description = small(**PROGRAMS[name])
    first = first_state(description, runs)
    result = run_segment(traced(description, runs), runs, first, steps=6, engine=engine(), report_every=1)
    expected, losses = train(description, runs, first, 6)
    assert [loss for _, loss in result.train_losses] == pytest.approx(losses, rel=LOSS)
    compare(first, result.state, expected)
    assert losses[-1] < losses[0] - 0.05


def test_run_segment_later_rounds_go_on_with_moments_step_and_slot(runs: Runs) -> None:
    description = small(optimizer=OPTIMIZER, schedule={"learning_rate": 5e-3, "warmup_steps": 4, "total_steps": 9})
    program = traced(description, runs)
    middle = run_segment(program, runs, first_state(description, runs), steps=5, engine=engine(), slot=3).state
    after = run_segment(program, runs, middle, steps=5, engine=engine(), slot=3, report_every=1)
    expected, losses = train(description, runs, middle, 5, slot=3)
    assert [step for step, _ in after.train_losses] == [6, 7, 8, 9, 10]
    assert [loss for _, loss in after.train_losses] == pytest.approx(losses, rel=LOSS)
    compare(middle, after.state, expected)


def test_run_segment_follows_the_schedules_rates(runs: Runs) -> None:
    """Without a gradient to speak of, and with a decay of 1, a matrix shrinks by the learning rate."""
    schedule = {"learning_rate": 8e-3, "minimum_learning_rate": 1e-3, "warmup_steps": 3, "total_steps": 7}
    description = small(optimizer={"epsilon": 1.0, "weight_decay": 1.0, "gradient_clip": 1e-6}, schedule=schedule)
    states = [first_state(description, runs)]
    result = run_segment(
        traced(description, runs), runs, states[0], steps=9, engine=engine(), snapshot=states.append, snapshot_seconds=0
    )
    matrices = [one["parameter.embedding.weight"].double() for one in (*states, result.state)]
    rates = [1 - float((a * b).sum() / (a * a).sum()) for a, b in itertools.pairwise(matrices)]
    # float32 rounds each of 8,192 elements by up to 6e-8 of it, either way.
    assert rates == pytest.approx([rate_of(description, step) for step in range(9)], abs=1e-7)
    assert rates[:4] == pytest.approx([2e-3, 4e-3, 6e-3, 8e-3], abs=1e-7)
    assert rates[7:] == pytest.approx([1e-3, 1e-3], abs=1e-7)


def test_run_segment_decays_matrices_alone(runs: Runs) -> None:
    """Without a gradient to speak of, what is left of a step is its decay."""
    optimizer = {"epsilon": 1.0, "weight_decay": 10.0, "gradient_clip": 1e-6}
    schedule = {"learning_rate": 0.01, "minimum_learning_rate": 0.01, "warmup_steps": 0}
    description = small(model={"bias": True}, optimizer=optimizer, schedule=schedule)
    program, first = traced(description, runs), first_state(description, runs)
    after = run_segment(program, runs, first, steps=1, engine=engine()).state
    for spec in program.layout.parameters:
        kept = 0.9 if len(spec.shape) >= 2 else 1.0
        torch.testing.assert_close(after[spec.name], first[spec.name] * kept, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("device", ["cuda:97", "cuda:4096"])
def test_check_device_that_is_not_there_refused(device: str) -> None:
    with pytest.raises(SettingsError, match=rf"The device {device} cannot be used: PyTorch sees \d+ GPUs") as caught:
        check_device(device)
    assert "TRAINLEDGER_DEVICE" in caught.value.remedy


def test_check_device_counts_gpus_from_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for device in ("cpu", "cuda", "cuda:0", "cuda:1"):
        check_device(device)
    with pytest.raises(SettingsError, match="The device cuda:2 cannot be used: PyTorch sees 2 GPUs"):
        check_device("cuda:2")


def test_state_of_gives_back_what_model_of_took(runs: Runs) -> None:
    for kind in ("transformer", "recurrent"):
        description = small(kind)
        program = traced(description, runs)
        state = run_segment(program, runs, first_state(description, runs), steps=2, engine=engine()).state
        again = state_of(model_of(description, state), program.layout)
        assert list(again) == list(state)
        for name, tensor in state.items():
            if name.startswith("parameter."):
                assert torch.equal(again[name], tensor), name
                assert again[name].data_ptr() != tensor.data_ptr(), name
            elif not name.startswith("metric."):
                assert torch.equal(again[name], torch.zeros_like(tensor)), name
        assert math.isnan(float(again["metric.heldout_loss"]))


@pytest.mark.parametrize("bits", [0x7FC00000, 0x7F800001, 0xFFC00000])
def test_loss_tensor_knows_one_nan_only(bits: int) -> None:
    strange = torch.tensor([bits - 2**32 if bits >= 2**31 else bits], dtype=torch.int32).view(torch.float32).item()
    assert loss_tensor(strange).view(torch.int32).item() == 0x7FC00000
    assert loss_tensor(math.inf).tolist() == [math.inf]


def test_check_state_names_the_first_thing_that_is_wrong(runs: Runs) -> None:
    layout, state = traced(small(), runs).layout, first_state(small(), runs)
    name = "moment2.output.norm.weight"
    for changed, says in (
        ({name: torch.zeros(33)}, rf"{name} is torch.float32 \(33,\), the program has torch.float32 \(32,\)"),
        ({name: torch.zeros(32, dtype=torch.float64)}, rf"{name} is torch.float64"),
        (
            {STEP: torch.tensor([0], dtype=torch.int32)},
            r"counter.step is torch.int32 \(1,\), the program has",
        ),
        ({"surplus": torch.zeros(1)}, r"missing \[\], unknown \['surplus'\]"),
    ):
        with pytest.raises(ValueError, match=says):
            check_state(type(state)({**state, **changed}), layout)
    moved = type(state)(reversed(state.items()))
    with pytest.raises(ValueError, match="do not follow the layout"):
        check_state(moved, layout)


def test_generation_takes_the_likeliest_token_of_the_plain_forward_pass(runs: Runs) -> None:
    description = small()
    program = traced(description, runs)
    state = run_segment(program, runs, first_state(description, runs), steps=30, engine=engine()).state
    weights = {name.removeprefix("parameter."): t.double() for name, t in state.items() if name.startswith("parameter")}
    history = list(b"the quick")
    for _ in range(20):
        logits = forward(description, weights, torch.tensor([history[-description.context :]]))
        history.append(int(logits[0, -1].argmax()))
    assert text_of(program, state, b"the quick", tokens=20, temperature=0) == history[9:]
    assert text_of(program, state, b"the quick", tokens=20, temperature=1e-320, seed=4) == history[9:]


@pytest.mark.parametrize("temperature", [math.nan, -1e-300])
def test_generation_temperature_that_is_none_refused(runs: Runs, temperature: float) -> None:
    with pytest.raises(ValueError, match=f"temperature={temperature}, top_k=None is out of range"):
        text_of(traced(small(), runs), first_state(small(), runs), b"a", tokens=1, temperature=temperature)


def test_generation_samples_with_the_softmax_probabilities(runs: Runs) -> None:
    """Three tokens, 600 times: within four deviations of what softmax says."""
    description = replace(small(), vocabulary=3)
    program = traced(description, runs)
    state = initial_state(description, program.layout)
    state["parameter.embedding.weight"] = torch.zeros(3, 32)
    state["parameter.embedding.weight"][:, 0] = torch.tensor([0.0, 0.5, 1.0])
    logits = model_of(description, state).logits(torch.tensor([[1]]))[0, 0].double()
    drawn = [text_of(program, state, [1], tokens=1, temperature=0.5, seed=seed, vocabulary=3)[0] for seed in range(600)]
    for token, chance in enumerate(functional.softmax(logits / 0.5, dim=0).tolist()):
        deviation = math.sqrt(600 * chance * (1 - chance))
        assert abs(drawn.count(token) - 600 * chance) < 4 * deviation + 1
