"""Merge programs and DiLoCo's packing against plain PyTorch in float64, and what is refused."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from trainer.engine.engines import ReferenceEngine
from trainer.engine.exact.reference import quantise_rows
from trainer.engine.schedule import learning_rate
from trainer.program.description import DilocoConfig, MeanConfig, MergeConfig, OptimizerConfig, ScheduleConfig
from trainer.program.exact import BuiltProgram, check_program, encode_program, load_program
from trainer.program.layout import (
    ANCHOR,
    ANCHOR_STEP,
    HELDOUT_LOSS,
    MOMENT1,
    MOMENT2,
    PARAMETER,
    STEP,
    VELOCITY,
    StateLayout,
)
from trainer.program.tracing import SgdConfig, TracingError, merging, trace_evaluation, trace_merge, trace_training

ADAMW = OptimizerConfig()
SLOTS = (2, 3, 17, 40)
State = dict[str, Tensor]


class Tiny(nn.Module):
    """A parameter of each rank, and a frozen one."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(4, 5, 3))
        self.weight = nn.Parameter(torch.zeros(3, 7))
        self.bias = nn.Parameter(torch.zeros(7))
        self.scale = nn.Parameter(torch.zeros(()))
        self.fixed = nn.Parameter(torch.zeros(2), requires_grad=False)


TRAINED = ("table", "weight", "bias", "scale")


def drawn(layout: StateLayout, generator: torch.Generator, step: int) -> State:
    state = {
        one.name: torch.randn(one.shape, generator=generator).to(one.dtype)
        if one.dtype == torch.float32
        else torch.zeros(one.shape, dtype=one.dtype)
        for one in layout.tensors
    }
    state[STEP] = torch.tensor([step])
    return state


def merged(built: BuiltProgram, base: State, slots: Sequence[State]) -> State:
    run = ReferenceEngine().open(built)
    run.load([tensor for state in (base, *slots) for tensor in state.values()])
    run.step()
    return dict(zip(base, run.state(), strict=True))


def case(config: MergeConfig, seed: int = 0) -> tuple[BuiltProgram, State, list[State]]:
    """A program, a base at step 1000, and slots that have done 3, 4, … steps."""
    built = trace_merge(Tiny(), ADAMW, config)
    check_program(built.program)
    layout, generator = StateLayout.of(built.program), torch.Generator().manual_seed(seed)
    base = drawn(layout, generator, 1000)
    slots = [drawn(layout, generator, 1003 + slot) for slot in range(config.slots)]
    for one in slots:
        one["parameter.fixed"] = base["parameter.fixed"]
    return built, base, slots


def shares(base: State, slots: Sequence[State]) -> Tensor:
    done = torch.tensor([max(0, int(one[STEP]) - int(base[STEP])) for one in slots], dtype=torch.float64)
    return done / done.sum().clamp(min=1)


def weighted(values: Sequence[Tensor], parts: Tensor) -> Tensor:
    stacked = torch.stack([one.double() for one in values], -1)
    return (stacked * parts).sum(-1)


def assert_close(found: Tensor, wanted: Tensor) -> None:
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), wanted, rtol=2e-6, atol=2e-6)


def same(a: State, b: State) -> bool:
    return all(torch.equal(a[name].reshape(-1).view(torch.int32), b[name].reshape(-1).view(torch.int32)) for name in a)


@pytest.mark.parametrize("slots", SLOTS)
def test_mean_is_the_weighted_mean_of_parameters_and_moments(slots: int) -> None:
    built, base, states = case(MeanConfig(slots=slots))
    after, parts = merged(built, base, states), shares(base, states)
    for name in base:
        if name.partition(".")[2] in TRAINED:
            assert_close(after[name], weighted([one[name] for one in states], parts))
    assert after[STEP].tolist() == [1000 + 2 + slots]
    for name in ("parameter.fixed", HELDOUT_LOSS):
        assert torch.equal(after[name], base[name])


@pytest.mark.parametrize("slots", SLOTS)
def test_diloco_is_nesterov_on_the_mean_difference(slots: int) -> None:
    config = DilocoConfig(slots=slots, outer_learning_rate=0.7, outer_momentum=0.9)
    built, base, states = case(config)
    after, parts = merged(built, base, states), shares(base, states)
    for name in TRAINED:
        anchor, velocity = base[ANCHOR + name].double(), base[VELOCITY + name].double()
        difference = weighted([anchor - one[PARAMETER + name].double() for one in states], parts)
        # torch.optim.SGD(lr, momentum, nesterov=True), whose buffer is the velocity.
        parameter = nn.Parameter(anchor.clone())
        optimizer = torch.optim.SGD([parameter], lr=0.7, momentum=0.9, nesterov=True)
        optimizer.state[parameter]["momentum_buffer"] = velocity.clone()
        parameter.grad = difference
        optimizer.step()
        assert_close(after[VELOCITY + name], 0.9 * velocity + difference)
        assert_close(after[ANCHOR + name], parameter.detach())
        assert torch.equal(after[PARAMETER + name], after[ANCHOR + name])
        for prefix in (MOMENT1, MOMENT2):
            assert torch.equal(after[prefix + name], base[prefix + name])
    assert after[STEP].tolist() == after[ANCHOR_STEP].tolist() == [1000 + 2 + slots]


@pytest.mark.parametrize("config", [MeanConfig(slots=17), DilocoConfig(slots=17)])
def test_merge_does_not_depend_on_order_or_on_parts(config: MergeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    built, base, states = case(config)
    after = merged(built, base, states)
    order = torch.randperm(17, generator=torch.Generator().manual_seed(5)).tolist()
    assert same(merged(built, base, [states[slot] for slot in order]), after)
    for block in (40, 170, 10_000):
        monkeypatch.setattr(merging, "_BLOCK", block)
        cut = trace_merge(Tiny(), ADAMW, config)
        check_program(cut.program)
        assert (len(cut.program.operations) > len(built.program.operations)) == (block < 1000)
        assert same(merged(cut, base, states), after)
    plain = trace_merge(Tiny(), ADAMW, config, fused=False)
    assert same(merged(plain, base, states), after)


@pytest.mark.parametrize("slots", SLOTS)
def test_missing_slots_have_no_weight(slots: int) -> None:
    for config in (MeanConfig(slots=slots), DilocoConfig(slots=slots)):
        built, base, states = case(config)
        only = [states[0], *[base] * (slots - 1)]
        after = merged(built, base, only)
        assert after[STEP].tolist() == [1003]
        behind = [states[0], *({**one, STEP: torch.tensor([999])} for one in states[1:])]
        if isinstance(config, MeanConfig):
            for name in TRAINED:
                assert_close(after[PARAMETER + name], states[0][PARAMETER + name].double())
        assert same(merged(built, base, behind), after)


@pytest.mark.parametrize("slots", SLOTS)
def test_all_slots_missing(slots: int) -> None:
    built, base, _ = case(MeanConfig(slots=slots))
    assert same(merged(built, base, [base] * slots), base)
    built, base, _ = case(DilocoConfig(slots=slots))
    after = merged(built, base, [base] * slots)
    for name in TRAINED:  # the momentum alone
        velocity = base[VELOCITY + name].double()
        assert_close(after[VELOCITY + name], 0.9 * velocity)
        assert_close(after[PARAMETER + name], base[ANCHOR + name].double() - 0.7 * 0.81 * velocity)
    assert after[STEP].tolist() == after[ANCHOR_STEP].tolist() == [1000]


def test_a_slot_that_is_not_finite_spoils_only_the_elements_that_are_not() -> None:
    for config in (MeanConfig(slots=3), DilocoConfig(slots=3)):
        built, base, states = case(config)
        plain = merged(built, base, states)
        bad = {name: tensor.clone() for name, tensor in states[1].items()}
        bad["parameter.bias"][:3] = torch.tensor([math.nan, math.inf, -math.inf])
        after = merged(built, base, [states[0], bad, states[2]])
        sign = 1 if isinstance(config, MeanConfig) else -1
        bias = after["parameter.bias"]
        assert bias[:1].view(torch.int32).item() == 0x7FC00000
        # Under DiLoCo an element that ran away upwards gives a difference of -inf, and the step goes after it.
        assert bias[1:3].tolist() == [math.inf, -math.inf]
        assert torch.equal(bias[3:], plain["parameter.bias"][3:])
        assert torch.equal(after["parameter.weight"], plain["parameter.weight"])
        if sign < 0:
            assert after["velocity.bias"][1:3].tolist() == [-math.inf, math.inf]


def test_counters_are_words_and_go_round() -> None:
    built, base, states = case(MeanConfig(slots=2))
    base[STEP] = torch.tensor([2**31 - 2])
    states[0][STEP], states[1][STEP] = torch.tensor([-(2**31) + 1]), torch.tensor([2**31 - 1])
    after = merged(built, base, states)
    assert after[STEP].tolist() == [-(2**31) + 1]
    for name in TRAINED:
        name = PARAMETER + name
        assert_close(after[name], weighted([one[name] for one in states], torch.tensor([0.75, 0.25]).double()))


@pytest.mark.parametrize("config", [MeanConfig(slots=255), DilocoConfig(slots=255)])
def test_widest_merge_is_within_the_loader_s_limits(config: MergeConfig) -> None:
    built, base, states = case(config)
    assert load_program(encode_program(built.program)) == built.program
    after, parts = merged(built, base, states), shares(base, states)
    if isinstance(config, MeanConfig):
        assert_close(after["moment2.table"], weighted([one["moment2.table"] for one in states], parts))
    for optimizer in (ADAMW, SgdConfig()):
        check_program(trace_merge(Tiny(), optimizer, config).program)


@pytest.mark.full
def test_merge_of_more_tensors_than_a_program_holds_refused() -> None:
    deep = nn.ModuleList([nn.Linear(1, 1) for _ in range(50)])
    with pytest.raises(TracingError, match=r"A merge of 255 slots takes \d+ records here, and a program has 65536"):
        trace_merge(deep, ADAMW, MeanConfig(slots=255))
    trace_merge(deep, ADAMW, DilocoConfig(slots=255))


def loss(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    assert isinstance(model, Tiny)
    hidden = model.table[inputs] @ model.weight + model.bias * model.scale + model.fixed.sum()
    return hidden.square().mean()


def evaluation() -> BuiltProgram:
    merge = DilocoConfig(slots=2)
    return trace_evaluation(Tiny(), loss, ADAMW, windows=4, evaluation_batch=3, context=2, merge=merge)


class Zeros:
    """Token 0 everywhere."""

    def tokens(self, part: object, shift: int, samples: int, length: int) -> Tensor:
        return torch.zeros(samples, length, dtype=torch.int32)


def measured(state: State) -> State:
    run = ReferenceEngine().open(evaluation())
    run.load(list(state.values()))
    run.step(Zeros())
    return dict(zip(state, run.state(), strict=True))


def before_packing(anchors: float) -> State:
    layout = StateLayout.of(evaluation().program)
    state = drawn(layout, torch.Generator().manual_seed(3), 7)
    for name in TRAINED:
        state[ANCHOR + name] *= anchors
        state[PARAMETER + name] = state[ANCHOR + name] + state[PARAMETER + name] * 1e-3
    return state


@pytest.mark.parametrize("anchors", [0.0, 1e-3, 1.0, 1e3])
def test_evaluation_packs_differences_into_codes_and_scales(anchors: float) -> None:
    state = before_packing(anchors)
    after = measured(state)
    for name in TRAINED:
        parameter, anchor = state[PARAMETER + name], state[ANCHOR + name]
        rows = (parameter - anchor).reshape(-1, (parameter.shape or (1,))[-1])
        codes, scales = quantise_rows(rows, 8)
        assert int(codes.abs().max()) <= 127
        assert torch.equal(after[PARAMETER + name], anchor + (codes.float() * scales).view(anchor.shape))
        for prefix in (MOMENT1, MOMENT2):
            assert not after[prefix + name].any()
        for prefix in (ANCHOR, VELOCITY):
            assert torch.equal(after[prefix + name], state[prefix + name])
    assert after[STEP].tolist() == [7]
    with torch.no_grad():
        model = Tiny()
        for name, parameter in model.named_parameters():
            parameter.copy_(after[PARAMETER + name])
        zeros = torch.zeros(4, 2, dtype=torch.int64)
        assert after[HELDOUT_LOSS].item() == pytest.approx(loss(model, zeros, zeros).item(), rel=1e-2)


def test_packing_twice_is_packing_once_where_sums_are_exact() -> None:
    state = before_packing(1.0)
    for name in TRAINED:  # multiples of 2^-16 below 2^4 take 20 bits, and the differences' scales are no smaller
        state[ANCHOR + name] = torch.round(state[ANCHOR + name] * 2**16) / 2**16
        sizes = torch.linspace(0.5, 1.0, state[ANCHOR + name].numel()).view(state[ANCHOR + name].shape)
        state[PARAMETER + name] = state[ANCHOR + name] + sizes
    once = measured(state)
    assert same(measured(once), once)


def test_packing_twice_may_differ_where_a_sum_is_rounded() -> None:
    """The difference that is left may be just below a power of two, and its row gets a finer scale."""
    state = before_packing(1.0)
    state["anchor.bias"], state["parameter.bias"] = torch.full((7,), 2.0**-24), torch.full((7,), 1.004)
    once = measured(state)
    assert once["parameter.bias"].tolist() == [1.0] * 7
    assert measured(once)["parameter.bias"].tolist() == [127 / 128 + 2.0**-24] * 7


def test_evaluation_of_a_row_that_is_not_finite_is_nan() -> None:
    state = before_packing(1.0)
    state["parameter.weight"][1, 2] = math.inf
    after = measured(state)["parameter.weight"]
    assert after.isnan().any(-1).tolist() == [False, True, False]
    assert after[1].isnan().all()


def test_training_corrects_moments_by_steps_since_the_anchor() -> None:
    """A round's first step is that of an optimizer that begins, at the learning rate of the whole run."""
    schedule = ScheduleConfig(learning_rate=1e-2, total_steps=100, warmup_steps=0)
    options = {"batch_size": 2, "context": 2}
    diloco = trace_training(Tiny(), loss, ADAMW, schedule, merge=DilocoConfig(slots=2), **options)
    state = drawn(StateLayout.of(diloco.program), torch.Generator().manual_seed(9), 50)
    for name in TRAINED:
        for prefix in (MOMENT1, MOMENT2):
            state[prefix + name].zero_()
    state[ANCHOR_STEP] = torch.tensor([50])
    run = ReferenceEngine().open(diloco)
    run.load(list(state.values()))
    for _ in range(2):
        run.step(Zeros())
    after = dict(zip(state, run.state(), strict=True))
    assert after[STEP].tolist() == [52]
    plain = trace_training(Tiny(), loss, ADAMW, ScheduleConfig(learning_rate=1e-2, total_steps=100), **options)
    wrong = ReferenceEngine().open(plain)
    names = StateLayout.of(plain.program).names
    wrong.load([state[name] for name in names])
    wrong.step(Zeros())
    assert not torch.equal(wrong.tensor(names.index("parameter.weight")), after["parameter.weight"])
    model = Tiny()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(state[PARAMETER + name])
    groups = [{"params": [model.table, model.weight], "weight_decay": 0.1}, {"params": [model.bias, model.scale]}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.0)
    zeros = torch.zeros(2, 2, dtype=torch.int64)
    for step in (50, 51):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(schedule, step)
        optimizer.zero_grad()
        loss(model, zeros, zeros).backward()
        nn.utils.clip_grad_norm_([one for one in model.parameters() if one.requires_grad], 1.0)
        optimizer.step()
    for name, parameter in model.named_parameters():
        assert torch.allclose(after[PARAMETER + name], parameter, rtol=1e-3, atol=1e-4), name
    for prefix in (ANCHOR, VELOCITY):
        for name in TRAINED:
            assert torch.equal(after[prefix + name], state[prefix + name])
