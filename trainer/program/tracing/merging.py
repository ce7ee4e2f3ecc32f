"""Merge programs: the weighted mean of a round's states, and DiLoCo's outer step (docs/rounds.md, "Merge programs")."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import nn

from trainer.engine.exact.functions import Builder
from trainer.engine.exact.kernels import Op
from trainer.program.description import DilocoConfig, MergeConfig
from trainer.program.exact import BuiltProgram, DType, ProgramBuilder, Role, Value
from trainer.program.exact.operations import MAXIMUM_OPERANDS, MAXIMUM_RECORDS
from trainer.program.layout import ANCHOR, ANCHOR_STEP, PARAMETER, STEP, VELOCITY
from trainer.program.tracing.optimizers import Optimizer, moments_of
from trainer.program.tracing.refusals import TracingError
from trainer.program.tracing.terms import Write, as_value, pointwise
from trainer.program.tracing.training import declare, finished

# Elements of all slots that are laid side by side at a time, so that the memory stays near that of a few states.
_BLOCK = 2**24


def trace_merge(model: nn.Module, optimizer: Optimizer, config: MergeConfig, *, fused: bool = True) -> BuiltProgram:
    """The program that makes one state of a round's base and the states of its slots.

    Its state is the training program's (so the optimizer is named). Frozen parameters and `metric.heldout_loss` stay
    the base's; under DiLoCo the moments do, too.

    Args:
        fused: whether neighbouring element-wise operations are joined; the results are the same.

    Raises:
        TracingError: so many slots of so many tensors are more than a program holds.
    """
    build = ProgramBuilder(Role.MERGE, inputs=config.slots)
    declare(build, model, optimizer, config)
    steps = _steps(build, config.slots)
    trained = [name for name, one in model.named_parameters() if one.requires_grad]
    for name in trained:
        if isinstance(config, DilocoConfig):
            _outer_step(build, config, name, steps)
        else:
            for prefix in (PARAMETER, *moments_of(optimizer)):
                _mean(build, config.slots, prefix + name, steps)
    counters = (STEP, ANCHOR_STEP) if isinstance(config, DilocoConfig) else (STEP,)
    for name in counters:
        build.store(name, build.reshape(steps.reached, (1,)))
    built = finished(build, fused)
    records = 1 + sum(map(len, (built.program.states, built.program.constants, built.program.operations)))
    if records > MAXIMUM_RECORDS:
        raise TracingError(
            f"A merge of {config.slots} slots takes {records} records here, and a program has {MAXIMUM_RECORDS}.",
            remedy="Use fewer slots, or a model of fewer parameter tensors.",
        )
    return built


@dataclass(frozen=True)
class _Steps:
    """What the slots have done. `most` and `reached`, the next counter, are int32 []; `shares` float32 [W]."""

    shares: Value
    most: Value
    reached: Value


def _steps(build: ProgramBuilder, slots: int) -> _Steps:
    base = build.load(STEP).squeeze(0)
    counters = _joined(build, [build.load(STEP, state=1 + slot) for slot in range(slots)])

    def weight(b: Builder, counter: int, base: int) -> int:
        done = b.emit(Op.ISUB, counter, base)
        return b.select(b.emit(Op.ILT, b.word(0), done), done, b.word(0))

    weights = _words(build, weight, counters, base)
    each = [weights.select(0, slot) for slot in range(slots)]
    total = _folded(build, each, lambda b, x, y: b.emit(Op.IADD, x, y))
    most = _folded(build, each, _larger)

    def share(b: Builder, weight: int, total: int) -> int:
        return b.div(b.emit(Op.I2F, weight), b.emit(Op.I2F, _larger(b, total, b.word(1))))

    return _Steps(
        shares=as_value(build, pointwise(build, share, weights, total, dtype=DType.FLOAT32)),
        most=most,
        reached=_words(build, lambda b, x, y: b.emit(Op.IADD, x, y), base, most),
    )


def _mean(build: ProgramBuilder, slots: int, name: str, steps: _Steps) -> None:
    """The weighted mean, or the base's tensor where no slot has done a step."""
    base = build.load(name)
    mean = _summed(build, slots, name, steps, lambda b, x, share: b.mul(x, share))

    def kept(b: Builder, mean: int, base: int, most: int) -> int:
        return b.select(most, mean, base)

    build.store(name, as_value(build, pointwise(build, kept, mean, base, steps.most, dtype=DType.FLOAT32)))


def _outer_step(build: ProgramBuilder, config: DilocoConfig, name: str, steps: _Steps) -> None:
    """SGD with Nesterov momentum on the weighted mean of what the slots have moved."""
    anchor, velocity = build.load(ANCHOR + name), build.load(VELOCITY + name)

    def moved(b: Builder, x: int, share: int, anchor: int) -> int:
        return b.mul(b.sub(anchor, x), share)

    difference = _summed(build, config.slots, PARAMETER + name, steps, moved, anchor)

    def gathered(b: Builder, velocity: int, difference: int) -> int:
        return b.add(b.mul(b.number(config.outer_momentum), velocity), difference)

    def stepped(b: Builder, anchor: int, velocity: int, difference: int) -> int:
        ahead = b.add(difference, b.mul(b.number(config.outer_momentum), gathered(b, velocity, difference)))
        return b.sub(anchor, b.mul(b.number(config.outer_learning_rate), ahead))

    written = partial(pointwise, build, dtype=DType.FLOAT32)
    build.store(VELOCITY + name, as_value(build, written(gathered, velocity, difference)))
    reached = as_value(build, written(stepped, anchor, velocity, difference))
    build.store(ANCHOR + name, reached)
    build.store(PARAMETER + name, reached)


def _summed(build: ProgramBuilder, slots: int, name: str, steps: _Steps, term: Write, *more: Value) -> Value:
    """The exact SUM over slots of a term of the slot's element, its share, and elements of tensors of its shape.

    The slots' elements are laid side by side, a part of the tensor at a time.
    """
    taken = [build.load(name, state=1 + slot) for slot in range(slots)]
    shape, elements = taken[0].shape, taken[0].elements
    parts = min(MAXIMUM_OPERANDS, elements, -(-elements * slots // _BLOCK))
    flat = [build.reshape(one, (elements,)) for one in (*taken, *more)]
    sums = []
    for part in range(parts):
        start, stop = elements * part // parts, elements * (part + 1) // parts
        cut = [one.slice(0, start, stop).unsqueeze(-1) for one in flat]
        beside = _joined(build, cut[:slots])
        terms = pointwise(build, term, beside, steps.shares, *cut[slots:], dtype=DType.FLOAT32)
        sums.append(build.sum_last(as_value(build, terms)))
    return build.reshape(build.cat(sums, 0) if parts > 1 else sums[0], shape)


def _joined(build: ProgramBuilder, values: Sequence[Value]) -> Value:
    """CAT along the last axis, of as many as there are."""
    values = list(values)
    while len(values) > 1:
        values = [build.cat(some, -1) if len(some) > 1 else some[0] for some in _grouped(values)]
    return values[0]


def _folded(build: ProgramBuilder, words: Sequence[Value], fold: Callable[[Builder, int, int], int]) -> Value:
    """Words [] folded two by two into one."""

    def all_of(b: Builder, first: int, *rest: int) -> int:
        for one in rest:
            first = fold(b, first, one)
        return first

    words = list(words)
    while len(words) > 1:
        words = [_words(build, all_of, *some) for some in _grouped(words)]
    return words[0]


def _grouped(values: Sequence[Value]) -> list[Sequence[Value]]:
    return [values[at : at + MAXIMUM_OPERANDS] for at in range(0, len(values), MAXIMUM_OPERANDS)]


def _words(build: ProgramBuilder, write: Write, *values: Value) -> Value:
    return as_value(build, pointwise(build, write, *values, dtype=DType.INT32))


def _larger(b: Builder, x: int, y: int) -> int:
    return b.select(b.emit(Op.ILT, x, y), y, x)
