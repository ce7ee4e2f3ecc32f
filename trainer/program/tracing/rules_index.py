"""Operators that read or write at places named by integers: embeddings, gathers, scatters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from trainer.engine.exact.functions import Builder
from trainer.engine.exact.kernels import Op
from trainer.program.exact import DType, Value
from trainer.program.tracing.lowering import Lowering, Refused, dtype_of, is_truth, rule, shape_of
from trainer.program.tracing.terms import Literal, Term, as_value, literal, pointwise

_aten = torch.ops.aten


@rule(_aten.embedding.default)
def _embedding(context: Lowering, node: Node, table: Term, index: Term, *_: Any) -> Term:
    return context.build.take(as_value(context.build, table), as_value(context.build, index))


@rule(_aten.embedding_dense_backward.default)
def _embedding_gradient(
    context: Lowering, node: Node, gradient: Term, index: Term, rows: int, padding: int, by_frequency: bool
) -> Term:
    if by_frequency:
        raise Refused("scales gradients by frequency", "Leave scale_grad_by_freq off.")
    places = as_value(context.build, index)
    if padding >= 0:  # SCATTER_ADD leaves out places that are outside
        places = as_value(context.build, pointwise(context.build, _leave_out(padding), places, dtype=DType.INT32))
    return _added(context, as_value(context.build, gradient), places, rows)


def _leave_out(padding: int) -> Any:
    def write(build: Builder, place: int) -> int:
        return build.select(build.emit(Op.IEQ, place, build.word(padding)), build.word(-1), place)

    return write


def _added(context: Lowering, value: Value, places: Value, rows: int) -> Value:
    """Rows [places…, …] added at the places: [rows, …]. The fold reads the value token-last."""
    build, count = context.build, places.elements
    rest = value.shape[len(places.shape) :]
    flat = build.reshape(value, (count, math.prod(rest))).transpose()
    total = build.scatter_add(flat, build.reshape(places, (count,)), rows)
    return build.reshape(total, (rows, *rest))


@rule(_aten.index.Tensor)
def _index(context: Lowering, node: Node, table: Term, indices: Sequence[Term | None]) -> Term:
    if any(is_truth(one) for one in node.args[1]):  # type: ignore[union-attr]  # a list, by the operator
        raise Refused("selects by truth values", "Shapes cannot depend on values: use torch.where.")
    return _selected(context, table, *_only(indices))


def _selected(context: Lowering, table: Term, axis: int, index: Term) -> Value:
    """Elements at the places of an index tensor, whose axes take the place of the indexed axis."""
    rest = [other for other in range(len(table.shape)) if other != axis]
    ordered = as_value(context.build, table).permute([axis, *rest])
    taken = context.build.take(ordered, _wrapped(context, index, table.shape[axis]))
    # The index's axes stand first and belong where the indexed axis was.
    added = len(index.shape)
    return taken.permute([*range(added, added + axis), *range(added), *range(added + axis, len(taken.shape))])


@rule(_aten.index_select.default)
def _index_select(context: Lowering, node: Node, table: Term, dim: int, index: Term) -> Term:
    return _selected(context, table, dim % len(table.shape), index)


@rule(_aten.index_put.default, _aten._unsafe_index_put.default)
def _index_put(
    context: Lowering, node: Node, table: Term, indices: Sequence[Term | None], value: Term, accumulate: bool = False
) -> Term:
    if not accumulate:
        raise Refused("writes without adding, so the order would matter", "Use torch.where or accumulate=True.")
    axis, index = _only(indices)
    if axis != 0:
        raise Refused("adds along another axis than the first", "Move the axis to the front first.")
    build, rows = context.build, table.shape[0]
    spread = as_value(build, value).expand((*index.shape, *table.shape[1:]))
    total = _added(context, spread, _wrapped(context, index, rows), rows)
    if isinstance(table, Literal) and table.word == 0:
        return total
    return pointwise(build, Builder.add, table, total, dtype=DType.FLOAT32)


def _only(indices: Sequence[Term | None]) -> tuple[int, Term]:
    """The one axis that is indexed, and its index."""
    given = [(axis, index) for axis, index in enumerate(indices) if index is not None]
    if len(given) != 1:
        raise Refused("indexes several axes at once", "Flatten the axes and compute one index.")
    return given[0]


def _wrapped(context: Lowering, index: Term, extent: int) -> Value:
    """Negative indices count from the end."""

    def write(build: Builder, place: int) -> int:
        raised = build.emit(Op.IADD, place, build.word(extent))
        return build.select(build.emit(Op.ILT, place, build.word(0)), raised, place)

    return as_value(context.build, pointwise(context.build, write, index, dtype=DType.INT32))


@rule(_aten.gather.default)
def _gather(context: Lowering, node: Node, table: Term, dim: int, index: Term, **kwargs: Any) -> Term:
    if not table.shape:
        return table
    build, axis = context.build, dim % len(table.shape)
    last = [other for other in range(len(table.shape)) if other != axis] + [axis]
    ordered = as_value(build, table).permute(last)
    for place, extent in enumerate(as_value(build, index).permute(last).shape[:-1]):
        ordered = ordered.slice(place, 0, extent)
    places = as_value(build, index).permute(last)
    wide = ordered.unsqueeze(-2).expand((*places.shape, ordered.shape[-1]))
    back = sorted(range(len(last)), key=lambda place: last[place])
    return build.gather_last(wide, places).permute(back)


@rule(_aten.scatter.value, _aten.scatter.src)
def _scatter(context: Lowering, node: Node, x: Term, dim: int, index: Term, value: Any) -> Term:
    """One place a row: an element is the value where its own position is the index."""
    axis, shape = dim % len(x.shape), shape_of(node)
    expected = (*shape[:axis], 1, *shape[axis + 1 :])
    if index.shape != expected:
        raise Refused(
            f"writes at {list(index.shape)} places of {list(shape)}",
            f"Only one place along axis {axis} is supported: an index of shape {list(expected)}.",
        )
    wanted = dtype_of(node)
    source = value if isinstance(value, Term) else literal(value, wanted)
    if isinstance(source, Value):
        source = source.slice(axis, 0, 1) if source.shape else source
    positions = context.build.constant(torch.arange(shape[axis], dtype=torch.int32))
    positions = context.build.reshape(positions, [shape[axis] if a == axis else 1 for a in range(len(shape))])

    def write(build: Builder, old: int, place: int, position: int, new: int) -> int:
        return build.select(build.emit(Op.IEQ, place, position), new, old)

    return pointwise(context.build, write, x, index, positions, source, dtype=wanted, shape=shape)
