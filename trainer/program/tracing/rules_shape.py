"""Operators that only move elements: views, copies, joins, and tensors of one value."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.fx import Node

from trainer.engine.exact.functions import Builder
from trainer.engine.exact.kernels import Op
from trainer.program.exact import DType, Value
from trainer.program.tracing import elementwise
from trainer.program.tracing.lowering import Lowering, Refused, dtype_of, is_float, is_truth, rule, shape_of
from trainer.program.tracing.terms import Literal, Term, as_value, literal, pointwise

_aten = torch.ops.aten


@rule(
    _aten.view.default,
    _aten._unsafe_view.default,
    _aten.reshape.default,
    _aten.permute.default,
    _aten.transpose.int,
    _aten.t.default,
    _aten.expand.default,
    _aten.select.int,
    _aten.slice.Tensor,
    _aten.squeeze.default,
    _aten.squeeze.dim,
    _aten.squeeze.dims,
    _aten.unsqueeze.default,
    _aten.diagonal.default,
    _aten.split.Tensor,
    _aten.split_with_sizes.default,
    _aten.unbind.int,
    _aten.unfold.default,
)
def _view(context: Lowering, node: Node, x: Term, *args: Any, **kwargs: Any) -> Any:
    """PyTorch itself says what a view does to shape, offset and strides: it is asked on a tensor without memory."""
    if isinstance(x, Literal):
        seen = node.target(torch.empty(x.shape, device="meta"), *args, **kwargs)  # type: ignore[operator]
        return _each(seen, lambda part: replace(x, shape=tuple(part.shape)))
    try:
        seen = node.target(_ghost(x), *args, **kwargs)  # type: ignore[operator]  # an operator, by the table
    except RuntimeError:  # strides that a view cannot merge: written out first
        x = context.build.view(x)
        seen = node.target(_ghost(x), *args, **kwargs)  # type: ignore[operator]
    return _each(seen, lambda part: _seen_of(x, part))


@rule(_aten.as_strided.default)
def _as_strided(
    context: Lowering, node: Node, x: Term, shape: Sequence[int], strides: Sequence[int], offset: int | None = None
) -> Term:
    """Strides over memory: only where PyTorch's memory holds the elements in order, as a VIEW writes them."""
    held = node.args[0].meta["val"]  # type: ignore[union-attr]  # a node, as `x` is a tensor
    if not held.is_contiguous() or held.storage_offset() != 0 or min(strides, default=0) < 0:
        raise Refused("reads memory that is not in order", "Use view, permute, expand and slices.")
    if isinstance(x, Literal):
        return replace(x, shape=tuple(shape))
    value = x if x.is_contiguous() else context.build.view(x)
    return _seen_of(value, _ghost(value).as_strided(shape, strides, value.offset + (offset or 0)))


def _ghost(x: Value) -> torch.Tensor:
    """A tensor without memory of a value's strides; axes of extent 1 have those of a merged neighbour."""
    strides, step = list(x.strides), 1
    for axis in range(len(strides) - 1, -1, -1):
        if x.shape[axis] == 1:
            strides[axis] = step
        step = strides[axis] * x.shape[axis]
    return torch.empty(0, device="meta").as_strided(x.shape, strides, x.offset)


def _each(seen: Any, make: Any) -> Any:
    return make(seen) if isinstance(seen, torch.Tensor) else [make(part) for part in seen]


def _seen_of(x: Value, part: torch.Tensor) -> Value:
    if part.numel() == 0:
        raise Refused("gives a tensor without elements")
    shape = tuple(part.shape)
    strides = tuple(0 if extent == 1 else step for extent, step in zip(shape, part.stride(), strict=True))
    return Value(x.source, x.dtype, shape, int(part.storage_offset()), strides)


@rule(
    _aten.clone.default,
    _aten.alias.default,
    _aten.detach.default,
    _aten.contiguous.default,
    _aten.lift_fresh_copy.default,
)
def _same(context: Lowering, node: Node, x: Term, **kwargs: Any) -> Term:
    return x


@rule(operator.getitem)
def _item(context: Lowering, node: Node, parts: Sequence[Any], index: int) -> Any:
    if parts[index] is None:
        raise Refused("needs the positions of extrema", "Only their values (amax, amin) are supported.")
    return parts[index]


@rule(_aten._to_copy.default)
def _to_copy(context: Lowering, node: Node, x: Term, **kwargs: Any) -> Term:
    def write(build: Builder, register: int) -> int:
        if is_truth(node) and not is_truth(node.args[0]):
            return elementwise.truth(build, x.dtype is DType.FLOAT32, register)
        if x.dtype is wanted:
            return register
        if wanted is DType.FLOAT32:
            return build.emit(Op.I2F, register)
        return build.emit(Op.F2I, elementwise.truncated(build, register))

    wanted = dtype_of(node)
    if x.dtype is wanted and (not is_truth(node) or is_truth(node.args[0])):
        return x
    return pointwise(context.build, write, x, dtype=wanted)


@rule(
    _aten.full_like.default,
    _aten.fill.Scalar,
    _aten.new_full.default,
)
def _filled(context: Lowering, node: Node, x: Term, *args: Any, **kwargs: Any) -> Term:
    return literal(args[-1], dtype_of(node), shape_of(node))


@rule(_aten.zeros_like.default, _aten.new_zeros.default)
def _zeros(context: Lowering, node: Node, x: Term, *args: Any, **kwargs: Any) -> Term:
    return literal(0, dtype_of(node), shape_of(node))


@rule(_aten.ones_like.default, _aten.new_ones.default)
def _ones(context: Lowering, node: Node, x: Term, *args: Any, **kwargs: Any) -> Term:
    return literal(1, dtype_of(node), shape_of(node))


@rule(_aten.add.Tensor, _aten.add.Scalar)
def _add(context: Lowering, node: Node, a: Any, b: Any, alpha: float = 1) -> Term:
    return _sum_of_two(context, node, a, b, alpha, Op.FADD, Op.IADD)


@rule(_aten.sub.Tensor, _aten.sub.Scalar)
def _subtract(context: Lowering, node: Node, a: Any, b: Any, alpha: float = 1) -> Term:
    return _sum_of_two(context, node, a, b, alpha, Op.FSUB, Op.ISUB)


def _sum_of_two(context: Lowering, node: Node, a: Any, b: Any, alpha: float, floats: Op, words: Op) -> Term:
    def write(build: Builder, floating: bool, x: int, y: int) -> int:
        if alpha != 1:
            factor = build.number(alpha) if floating else build.word(int(alpha))
            y = build.emit(Op.FMUL if floating else Op.IMUL, y, factor)
        return build.emit(floats if floating else words, x, y)

    return context.kernel(node, write, a, b)


@rule(_aten.where.self, _aten.where.ScalarSelf, _aten.where.ScalarOther, _aten.where.Scalar)
def _where(context: Lowering, node: Node, condition: Term, yes: Any, no: Any) -> Term:
    wanted = dtype_of(node)
    terms = [one if isinstance(one, Term) else literal(one, wanted) for one in (yes, no)]

    def write(build: Builder, chosen: int, *registers: int) -> int:
        a, b = (
            build.emit(Op.I2F, register) if is_float(literal(0, wanted)) and not is_float(term) else register
            for register, term in zip(registers, terms, strict=True)
        )
        return build.select(chosen, a, b)

    return pointwise(context.build, write, condition, *terms, dtype=wanted, shape=shape_of(node))


@rule(_aten.bitwise_not.default)
def _bitwise_not(context: Lowering, node: Node, x: Term) -> Term:
    ones = 1 if is_truth(node) else 0xFFFFFFFF
    return context.kernel(node, lambda build, floating, r: build.emit(Op.XOR, r, build.word(ones)), x)


@rule(_aten.clamp.default, _aten.clamp.Tensor)
def _clamp(context: Lowering, node: Node, x: Term, least: Any = None, greatest: Any = None) -> Term:
    bounds = [one for one in (least, greatest) if one is not None]

    def write(build: Builder, floating: bool, register: int, *given: int) -> int:
        rest = list(given)
        low = rest.pop(0) if least is not None else None
        return elementwise.clamp(build, floating, register, low, rest[0] if rest else None)

    return context.kernel(node, write, x, *bounds)


@rule(_aten.pow.Tensor_Scalar)
def _power(context: Lowering, node: Node, x: Term, exponent: float) -> Term:
    write = elementwise.power(float(exponent))
    if write is None or (exponent < 0 and x.dtype is DType.INT32):
        raise Refused(f"has the exponent {exponent}", "Whole exponents to 64, 0.5 and -0.5 are supported.")
    takes = elementwise.In.EITHER if float(exponent).is_integer() else elementwise.In.FLOAT
    return context.kernel(node, write, x, takes=takes)


@rule(_aten.cat.default)
def _cat(context: Lowering, node: Node, terms: Sequence[Term], dim: int = 0) -> Term:
    wanted = dtype_of(node)
    if any(term.dtype is not wanted for term in terms):
        raise Refused("joins tensors of different dtypes", "Convert them to one dtype first.")
    return terms[0] if len(terms) == 1 else context.build.cat([as_value(context.build, term) for term in terms], dim)


@rule(_aten.constant_pad_nd.default)
def _pad(context: Lowering, node: Node, x: Term, pads: Sequence[int], value: float = 0) -> Term:
    build, result = context.build, as_value(context.build, x)
    fill = as_value(build, literal(value, result.dtype))
    for place in range(len(pads) // 2):
        axis = len(result.shape) - 1 - place
        before, after = pads[2 * place], pads[2 * place + 1]
        result = result.slice(axis, max(0, -before), result.shape[axis] - max(0, -after))
        if before > 0 or after > 0:
            result = build.pad(result, axis, max(0, before), max(0, after), fill)
    return result


@rule(_aten.slice_scatter.default)
def _slice_scatter(
    context: Lowering,
    node: Node,
    x: Term,
    source: Term,
    dim: int = 0,
    start: Any = None,
    end: Any = None,
    step: int = 1,
) -> Term:
    extent = x.shape[dim]
    first, last, _ = slice(start, end).indices(extent)
    if step != 1:
        raise Refused(f"writes every {step}th element", "Write whole slices.")
    return _replaced(context, as_value(context.build, x), as_value(context.build, source), dim, first, last)


@rule(_aten.select_scatter.default)
def _select_scatter(context: Lowering, node: Node, x: Term, source: Term, dim: int, index: int) -> Term:
    value, index = as_value(context.build, x), index % x.shape[dim]
    part = as_value(context.build, source).unsqueeze(dim % len(value.shape))
    return _replaced(context, value, part, dim, index, index + 1)


def _replaced(context: Lowering, x: Value, part: Value, dim: int, first: int, last: int) -> Term:
    parts = [part]
    if first > 0:
        parts = [x.slice(dim, 0, first), *parts]
    if last < x.shape[dim]:
        parts = [*parts, x.slice(dim, last, x.shape[dim])]
    return part if len(parts) == 1 else context.build.cat(parts, dim)
