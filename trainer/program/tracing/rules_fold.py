"""Operators that fold: matrix products, sums, means, variances, extrema."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import Node

from trainer.engine.exact.functions import Builder
from trainer.engine.exact.kernels import Op
from trainer.program.exact import DType, Value
from trainer.program.tracing import elementwise
from trainer.program.tracing.lowering import Lowering, Refused, dtype_of, is_truth, rule
from trainer.program.tracing.terms import Term, as_value, literal, pointwise, to_float

_aten = torch.ops.aten
# With 13 bits a row of more elements can lose as much as its largest one: all others may be below half a unit. The
# gradient of a large vocabulary's logits does: a mark at the right token, and thousands of small chances.
_LONG_FOLD = 2**13
_EXACT_COUNT = 2**24  # float32 counts one by one up to here


@rule(_aten.mm.default, _aten.bmm.default)
def _product(context: Lowering, node: Node, a: Term, b: Term) -> Term:
    """a [..., M, K] times b [..., K, N]: rows of a with columns of b."""
    build, bits = context.build, context.bits_of(node)
    values = [as_value(build, a), as_value(build, b).transpose()]
    rows = [build.quantise(value, width) for value, width in zip(values, bits, strict=True)]
    result: Term = build.product(*rows)
    if values[0].shape[-1] <= _LONG_FOLD or context.is_weight_product(node):
        return result
    for place, argument in enumerate(node.args[:2]):
        if not (isinstance(argument, Node) and context.is_parameter(argument)):
            rest = list(rows)
            rest[place] = build.quantise(build.remainder(values[place], rows[place]), bits[place])
            result = pointwise(build, Builder.add, result, build.product(*rest), dtype=DType.FLOAT32)
    return result


@rule(_aten.sum.dim_IntList, _aten.sum.default)
def _sum(context: Lowering, node: Node, x: Term, dims: Any = None, keepdim: bool = False, **kwargs: Any) -> Term:
    if dtype_of(node) is DType.FLOAT32:
        return _fold(context, to_float(context.build, x), dims, keepdim, context.build.sum_last)
    if not is_truth(node.args[0]) or x.elements > _EXACT_COUNT:
        raise Refused("adds integers", "Convert them to float32 first; counts of up to 2^24 truth values are exact.")
    count = _fold(context, to_float(context.build, x), dims, keepdim, context.build.sum_last)
    return pointwise(context.build, lambda build, r: build.emit(Op.F2I, r), count, dtype=DType.INT32)


@rule(_aten.mean.dim, _aten.mean.default)
def _mean(context: Lowering, node: Node, x: Term, dims: Any = None, keepdim: bool = False, **kwargs: Any) -> Term:
    return _divided(context, _fold(context, x, dims, keepdim, context.build.sum_last), _count(x, dims))


@rule(_aten.var.correction)
def _variance(
    context: Lowering, node: Node, x: Term, dims: Any = None, *, correction: Any = None, keepdim: bool = False
) -> Term:
    return _moments(context, x, dims, correction, keepdim)[0]


@rule(_aten.var_mean.correction)
def _variance_and_mean(
    context: Lowering, node: Node, x: Term, dims: Any = None, *, correction: Any = None, keepdim: bool = False
) -> list[Term]:
    return _moments(context, x, dims, correction, keepdim)


def _moments(context: Lowering, x: Term, dims: Any, correction: Any, keepdim: bool) -> list[Term]:
    """Variance and mean: the mean first, then the mean of the squared distances from it."""
    fold, count = context.build.sum_last, _count(x, dims)
    mean = _divided(context, _fold(context, x, dims, True, fold), count)

    def write(build: Builder, value: int, middle: int) -> int:
        distance = build.sub(value, middle)
        return build.mul(distance, distance)

    squares = pointwise(context.build, write, x, mean, dtype=DType.FLOAT32)
    degrees = count - (1 if correction is None else correction)
    variance = _divided(context, _fold(context, squares, dims, keepdim, fold), max(0, degrees))
    return [variance, mean if keepdim else _without(context, mean, _axes(x, dims))]


def _divided(context: Lowering, total: Term, count: float) -> Term:
    divisor = literal(float(count), DType.FLOAT32)
    return pointwise(context.build, lambda build, a, b: build.div(a, b), total, divisor, dtype=DType.FLOAT32)


@rule(_aten.amax.default)
def _amax(context: Lowering, node: Node, x: Term, dims: Any = None, keepdim: bool = False) -> Term:
    return _greatest(context, node, x, dims, keepdim)


@rule(_aten.amin.default)
def _amin(context: Lowering, node: Node, x: Term, dims: Any = None, keepdim: bool = False) -> Term:
    return _least(context, node, x, dims, keepdim)


@rule(_aten.max.dim)
def _max_dim(context: Lowering, node: Node, x: Term, dim: int, keepdim: bool = False) -> list[Term | None]:
    return [_greatest(context, node, x, [dim], keepdim), None]


@rule(_aten.min.dim)
def _min_dim(context: Lowering, node: Node, x: Term, dim: int, keepdim: bool = False) -> list[Term | None]:
    return [_least(context, node, x, [dim], keepdim), None]


def _greatest(context: Lowering, node: Node, x: Term, dims: Any, keepdim: bool) -> Term:
    if x.dtype is not DType.FLOAT32:
        raise Refused("finds extrema of integers", "Convert them to float32 first.")
    return _fold(context, x, dims, keepdim, context.build.max_last)


def _least(context: Lowering, node: Node, x: Term, dims: Any, keepdim: bool) -> Term:
    """The greatest of the negated, negated."""
    turned = pointwise(context.build, Builder.negate, x, dtype=DType.FLOAT32) if x.dtype is DType.FLOAT32 else x
    found = _greatest(context, node, turned, dims, keepdim)
    return pointwise(context.build, Builder.negate, found, dtype=DType.FLOAT32)


@rule(_aten.any.dim, _aten.any.dims, _aten.any.default)
def _any(context: Lowering, node: Node, x: Term, dims: Any = None, keepdim: bool = False) -> Term:
    scores = _scores_of_guard(node)
    if scores is None:
        return _truths(context, x, dims, keepdim, turned=False)
    # Attention's guard against rows that are masked everywhere. Softmax has their maxima already.
    greatest = _fold(context, context.term_of(scores), dims, keepdim, context.build.max_last)
    infinity = literal(-math.inf, DType.FLOAT32)
    return pointwise(
        context.build,
        lambda build, a, b: elementwise.negation(build, build.emit(Op.FEQ, a, b)),
        greatest,
        infinity,
        dtype=DType.INT32,
    )


def _scores_of_guard(node: Node) -> Node | None:
    """x of any(not (x == -inf)), which is maximum(x) != -inf for every x, NaN included."""
    turned = node.args[0]
    if not isinstance(turned, Node) or turned.target != _aten.logical_not.default:
        return None
    compared = turned.args[0]
    if not isinstance(compared, Node) or compared.target != _aten.eq.Scalar or compared.args[1] != -math.inf:
        return None
    scores = compared.args[0]
    return scores if isinstance(scores, Node) and scores.meta["val"].dtype == torch.float32 else None


@rule(_aten.all.dim, _aten.all.dims, _aten.all.default)
def _all(context: Lowering, node: Node, x: Term, dims: Any = None, keepdim: bool = False) -> Term:
    return _truths(context, x, dims, keepdim, turned=True)


def _truths(context: Lowering, x: Term, dims: Any, keepdim: bool, *, turned: bool) -> Term:
    """any, or (turned) all: none of the negated."""

    def flag(build: Builder, register: int) -> int:
        truth = elementwise.truth(build, x.dtype is DType.FLOAT32, register)
        return build.emit(Op.I2F, elementwise.negation(build, truth) if turned else truth)

    def read(build: Builder, register: int) -> int:
        truth = build.emit(Op.F2I, register)
        return elementwise.negation(build, truth) if turned else truth

    flags = pointwise(context.build, flag, x, dtype=DType.FLOAT32)
    return pointwise(
        context.build, read, _fold(context, flags, dims, keepdim, context.build.max_last), dtype=DType.INT32
    )


def _axes(x: Term, dims: int | Sequence[int] | None) -> list[int]:
    """Axes that are folded, in order; none named means all."""
    named = [dims] if isinstance(dims, int) else list(dims or [])
    return sorted({axis % len(x.shape) for axis in named}) if named and x.shape else list(range(len(x.shape)))


def _count(x: Term, dims: Any) -> int:
    return math.prod(x.shape[axis] for axis in _axes(x, dims))


def _fold(context: Lowering, x: Term, dims: Any, keepdim: bool, fold: Callable[[Value], Value]) -> Term:
    """Folds axes: brought to the end, merged into one, folded; with `keepdim` put back as 1."""
    build, value = context.build, as_value(context.build, x)
    axes = _axes(x, dims)
    rest = [axis for axis in range(len(x.shape)) if axis not in axes]
    length = math.prod(x.shape[axis] for axis in axes)
    shape = tuple(x.shape[axis] for axis in rest)
    merged = build.reshape(value.permute([*rest, *axes]), (*shape, length))
    result = merged.squeeze(-1) if length == 1 else fold(merged)
    for axis in axes if keepdim else ():
        result = result.unsqueeze(axis)
    return result


def _without(context: Lowering, x: Term, axes: Sequence[int]) -> Term:
    return context.build.reshape(
        as_value(context.build, x), [extent for axis, extent in enumerate(x.shape) if axis not in axes]
    )
