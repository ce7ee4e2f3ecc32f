"""Optimizers as templates: written straight into a program, with nothing of torch.optim's Python scalars."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from trainer.engine.exact.functions import Builder
from trainer.engine.exact.kernels import Op
from trainer.engine.schedule import learning_rate
from trainer.program.description import OptimizerConfig, ScheduleConfig
from trainer.program.exact import DType, ProgramBuilder, Value
from trainer.program.layout import MOMENT1, MOMENT2, PARAMETER
from trainer.program.tracing.terms import Literal, Term, as_value, literal, pointwise

_MOST_KNOTS = 2**20
_CLIP_SLACK = 1e-6  # as torch.nn.utils.clip_grad_norm_ has it


@dataclass(frozen=True, kw_only=True)
class SgdConfig:
    """Stochastic gradient descent with momentum, as torch.optim.SGD: decay joins the gradient of matrices.

    `gradient_clip` 0 means no clipping, `momentum` 0 none.
    """

    momentum: float = 0.9
    weight_decay: float = 0.0
    gradient_clip: float = 0.0


Optimizer = OptimizerConfig | SgdConfig


def moments_of(optimizer: Optimizer) -> tuple[str, ...]:
    """Prefixes of the tensors that an optimizer keeps beside each parameter, in state order."""
    return (MOMENT1, MOMENT2) if isinstance(optimizer, OptimizerConfig) else (MOMENT1,)


def update(
    build: ProgramBuilder,
    optimizer: Optimizer,
    schedule: ScheduleConfig,
    step: Value,
    parameters: Mapping[str, Value],
    gradients: Mapping[str, Term],
    *,
    since: Value | None = None,
) -> None:
    """Writes an optimizer step and stores parameters and moments.

    Args:
        step: `counter.step` before the step, int32 [1]; the learning rate is that of this step.
        since: steps since the moments were zero, int32 [1]; None takes `step`.
        parameters: trained parameters' values by name.
        gradients: their gradients, of the same shapes.
    """
    step = build.reshape(step, ())  # so that what is made of it broadcasts to parameters without axes too
    since = step if since is None else build.reshape(since, ())
    rate = rate_at(build, schedule, step)
    scale = clipping(build, list(gradients.values()), optimizer.gradient_clip)
    write = (
        _adamw(build, optimizer, rate, since)
        if isinstance(optimizer, OptimizerConfig)
        else _sgd(build, optimizer, rate)
    )
    for name, parameter in parameters.items():
        write(name, parameter, gradients[name], scale)


_Write = Callable[[str, Value, Term, Term], None]


def _adamw(build: ProgramBuilder, config: OptimizerConfig, rate: Term, since: Value) -> _Write:
    """AdamW (Loshchilov and Hutter 2019) in torch's order of operations."""
    done = pointwise(build, lambda b, t: b.emit(Op.IADD, t, b.word(1)), since, dtype=DType.INT32)
    corrections = [_correction(build, beta, as_value(build, done)) for beta in (config.beta1, config.beta2)]
    size = _float(build, lambda b, r, c: b.div(r, c), rate, corrections[0])
    root = _float(build, lambda b, c: b.emit(Op.FSQRT, c), corrections[1])

    def first(b: Builder, moment: int, gradient: int, scale: int) -> int:
        distance = b.sub(b.mul(gradient, scale), moment)
        return b.add(moment, b.mul(distance, b.number(1 - config.beta1)))

    def second(b: Builder, moment: int, gradient: int, scale: int) -> int:
        scaled = b.mul(gradient, scale)
        kept = b.mul(moment, b.number(config.beta2))
        return b.add(kept, b.mul(b.mul(scaled, scaled), b.number(1 - config.beta2)))

    def moved(b: Builder, parameter: int, one: int, two: int, decay: int, size: int, root: int) -> int:
        spread = b.add(b.div(b.emit(Op.FSQRT, two), root), b.number(config.epsilon))
        return b.sub(b.mul(parameter, decay), b.div(b.mul(size, one), spread))

    def write(name: str, parameter: Value, gradient: Term, scale: Term) -> None:
        shape = parameter.shape
        decay = _decay(build, rate, config.weight_decay if len(shape) >= 2 else 0.0)
        one = _float(build, first, build.load(MOMENT1 + name), gradient, scale, shape=shape)
        two = _float(build, second, build.load(MOMENT2 + name), gradient, scale, shape=shape)
        _store(build, MOMENT1 + name, one)
        _store(build, MOMENT2 + name, two)
        _store(build, PARAMETER + name, _float(build, moved, parameter, one, two, decay, size, root, shape=shape))

    return write


def _decay(build: ProgramBuilder, rate: Term, weight_decay: float) -> Term:
    """1 - rate × decay: what is left of a parameter."""
    return _float(build, lambda b, r: b.sub(b.number(1.0), b.mul(r, b.number(weight_decay))), rate)


def _correction(build: ProgramBuilder, beta: float, steps: Value) -> Term:
    """1 - beta^t for t = 1, 2, …: a table up to where it rounds to 1."""
    last = 1 if beta <= 0 else max(1, math.ceil(math.log(2.0**-26) / math.log(beta)))
    return by_step(build, steps, lambda t: 1.0 - beta**t, last)


def _sgd(build: ProgramBuilder, config: SgdConfig, rate: Term) -> _Write:
    def moment(b: Builder, old: int, gradient: int, scale: int, parameter: int, decay: int) -> int:
        slope = b.add(b.mul(gradient, scale), b.mul(parameter, decay))
        return b.add(b.mul(old, b.number(config.momentum)), slope)

    def moved(b: Builder, parameter: int, velocity: int, size: int) -> int:
        return b.sub(parameter, b.mul(size, velocity))

    def write(name: str, parameter: Value, gradient: Term, scale: Term) -> None:
        shape = parameter.shape
        decay = literal(config.weight_decay if len(shape) >= 2 else 0.0, DType.FLOAT32)
        velocity = _float(build, moment, build.load(MOMENT1 + name), gradient, scale, parameter, decay, shape=shape)
        _store(build, MOMENT1 + name, velocity)
        _store(build, PARAMETER + name, _float(build, moved, parameter, velocity, rate, shape=shape))

    return write


def rate_at(build: ProgramBuilder, schedule: ScheduleConfig, step: Value) -> Term:
    """The learning rate of the step that starts with `counter.step` = step, of step's shape."""
    return by_step(build, step, lambda t: learning_rate(schedule, t), max(schedule.total_steps, schedule.warmup_steps))


def by_step(build: ProgramBuilder, step: Value, value: Callable[[int], float], last: int) -> Term:
    """value(step) for steps 0 … last, value(last) beyond: a committed table, so no library's cosine matters.

    Tables of more than 2^20 entries keep every 2^s-th value and go straight between them.
    """
    shift = 0
    while (last >> shift) > _MOST_KNOTS:
        shift += 1
    knots = [value(min(knot << shift, last)) for knot in range((last >> shift) + 2)]
    table = build.constant(torch.tensor(knots, dtype=torch.float64).to(torch.float32))

    def place(b: Builder, t: int) -> int:
        return b.emit(Op.SAR, _at_most(b, t, last), b.word(shift))

    index = as_value(build, pointwise(build, place, step, dtype=DType.INT32))
    low = build.take(table, index)
    if shift == 0:
        return low
    after = pointwise(build, lambda b, t: b.emit(Op.IADD, t, b.word(1)), index, dtype=DType.INT32)

    def between(b: Builder, below: int, above: int, t: int) -> int:
        rest = b.emit(Op.I2F, b.emit(Op.AND, _at_most(b, t, last), b.word((1 << shift) - 1)))
        return b.add(below, b.mul(b.sub(above, below), b.mul(rest, b.number(2.0**-shift))))

    return _float(build, between, low, build.take(table, as_value(build, after)), step)


def _at_most(b: Builder, t: int, last: int) -> int:
    limit = b.word(last)
    return b.select(b.emit(Op.ILT, limit, t), limit, t)


def clipping(build: ProgramBuilder, gradients: Sequence[Term], limit: float) -> Term:
    """What to multiply gradients with so that their common norm is at most `limit`; 1 where that is 0.

    The norm's square is an exact SUM of exact SUMs; the factor is torch's, limit / (norm + 1e-6), at most 1.
    """
    if limit <= 0:
        return literal(1.0, DType.FLOAT32)
    squares = [build.reshape(_squares(build, gradient), (1,)) for gradient in gradients if not _is_zero(gradient)]
    if not squares:
        return literal(1.0, DType.FLOAT32)
    total = build.sum_last(build.cat(squares, 0))

    def factor(b: Builder, square: int) -> int:
        wanted = b.div(b.number(limit), b.add(b.emit(Op.FSQRT, square), b.number(_CLIP_SLACK)))
        return b.select(b.less(b.number(1.0), wanted), b.number(1.0), wanted)

    return _float(build, factor, total)


def _is_zero(term: Term) -> bool:
    return isinstance(term, Literal) and term.word == 0


def _squares(build: ProgramBuilder, gradient: Term) -> Value:
    """The sum of squares of a tensor: along rows, then over them."""
    total = as_value(build, _float(build, lambda b, g: b.mul(g, g), gradient))
    if total.shape:
        total = build.sum_last(total)
    return build.sum_last(build.reshape(total, (total.elements,))) if total.shape else total


def _float(build: ProgramBuilder, write: Callable[..., int], *terms: Term, shape: Sequence[int] | None = None) -> Term:
    return pointwise(build, write, *terms, dtype=DType.FLOAT32, shape=shape)


def _store(build: ProgramBuilder, name: str, term: Term) -> None:
    build.store(name, as_value(build, term))
