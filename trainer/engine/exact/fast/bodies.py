"""The C body of each operation: a function of shapes, strides and kernels, without a name from the program.

A body is the text between a function's braces. It sees `t` and `n` (this thread and how many there are), `at` (the
output's address, then each operand's first element) and `scratch` (this thread's own memory). Equal bodies are one
function.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.engine.exact.fast import elements
from trainer.engine.exact.fast.dialects import C
from trainer.engine.exact.fast.elements import operand, output, product_fields, runs_of, strides_of
from trainer.engine.exact.fast.kernel_text import ELEMENTS
from trainer.engine.exact.fast.nests import Nest, collapse, dense, indexes, offset, product
from trainer.program.exact.operations import (
    Cat,
    DType,
    Matmul,
    Max,
    Operation,
    Pointwise,
    ScatterAdd,
    Sum,
    Take,
    View,
)

_BLOCK = 16  # of a transposition
_PANEL, _TILE = 64, 6  # of product.c


@dataclass(frozen=True)
class Body:
    """A function's text, about how many simple instructions it runs, and the scratch that a thread needs, in bytes."""

    text: str
    work: int
    scratch: int = 0


def body_of(one: Operation, dtypes: Sequence[DType]) -> Body:
    """The body of an operation that computes; LOAD, CONST and BATCH do not.

    Args:
        dtypes: of its operands.
    """
    match one.attributes:
        case View():
            return _view(one)
        case Pointwise(kernel):
            lines = elements.pointwise(one, kernel, dtypes, C)
            return _body(lines, one.elements * (len(kernel.instructions) + 1))
        case Matmul(length):
            return _matmul(one, length, dtypes)
        case Sum(length):
            return _fold(one, f"sum_run(a0, {length}, *a1)", length)
        case Max(length, magnitudes):
            return _fold(one, f"{'greatest_magnitude' if magnitudes else 'greatest_value'}(a0, {length})", length)
        case Take():
            return _body(elements.take(one, one.attributes, C), one.elements * 4)
        case ScatterAdd(length):
            return _scatter_add(one, length)
        case Cat():
            return _body(elements.cat(one, one.attributes, C), one.elements * 6)
    raise ValueError(f"{one.code.name} computes nothing")


def narrowing(count: int) -> Body:
    """The low 32 bits of int64."""
    return _converted(count, "int64_t", "uint32_t")


def widening(count: int) -> Body:
    """int64 of int32."""
    return _converted(count, "int32_t", "int64_t")


def copying(count: int) -> Body:
    """32-bit words."""
    return _converted(count, "uint32_t", "uint32_t")


def _converted(count: int, source: str, target: str) -> Body:
    return _body(elements.converted(count, source, target, C), count)


def _body(lines: Sequence[str], work: int, scratch: int = 0) -> Body:
    return Body("\n".join("    " + line for line in lines), work, scratch)


def _view(one: Operation) -> Body:
    nest = collapse(one.shape, [dense(one.shape), one.operands[0].strides])
    source = nest.strides[1]
    if source[-1] > 1 and 1 in source[:-1] and ELEMENTS[one.dtype] == "uint32_t":
        lines = [output("uint32_t"), operand(0, "uint32_t"), *_transposed(nest, source.index(1))]
    else:
        lines = elements.view(one, nest, C)
    return _body(lines, one.elements * 2)


def _transposed(nest: Nest, axis: int) -> list[str]:
    """Blocks of 16 by 16 words: the source is contiguous along the axis, the output along the last one."""
    target, source = nest.strides
    high, wide = nest.extents[axis], nest.inner
    blocks = -(-high // _BLOCK)
    others = [n for n in range(len(nest.extents) - 1) if n != axis]
    extents = [*(nest.extents[n] for n in others), blocks]
    lines, names = indexes(extents)
    to = offset((*(target[n] for n in others), target[axis] * _BLOCK), names)
    start = offset((*(source[n] for n in others), _BLOCK), names)
    block = names[-1]
    return C.shared_loop(
        product(extents),
        [
            *lines,
            f"uint32_t *to = o + ({to});",
            f"const uint32_t *start = a0 + ({start});",
            f"ptrdiff_t rows = {high} - {block} * {_BLOCK} < {_BLOCK} ? {high} - {block} * {_BLOCK} : {_BLOCK}, j = 0;",
            f"if (rows == {_BLOCK})",
            f"    for (; j + {_BLOCK} <= {wide}; j += {_BLOCK})",
            f"        transpose16(to + j, {target[axis]}, start + j * {source[-1]}, {source[-1]});",
            f"for (; j < {wide}; j++)",
            "    for (ptrdiff_t i = 0; i < rows; i++)",
            f"        to[i * {target[axis]} + j] = start[i + j * {source[-1]}];",
        ],
    )


def _fold(one: Operation, result: str, length: int) -> Body:
    return _body(elements.fold(one, result, C), one.elements * (length * 2 + 8))


def _scatter_add(one: Operation, length: int) -> Body:
    rows = one.shape[0]
    runs = runs_of(one.shape[1:], [strides[1:] for strides in strides_of(one.operands)], C)
    loop = [
        *runs.starts,
        "int64_t *totals = (int64_t *)scratch;",
        f"uint8_t *kinds = (uint8_t *)(totals + {rows});",
        f"memset(scratch, 0, (size_t){rows} * 9);",
        "int32_t e = sum_exponent(*a2);",
        "float up = power_of_two(30 - e), down = power_of_two(e - 30);",
        f"for (ptrdiff_t k = 0; k < {length}; k++) {{",
        "    int32_t v = (int32_t)a1[k];",
        f"    if (v < 0 || (int64_t)v >= {rows}) continue;",
        "    totals[v] += sum_term(a0[k], up);",
        "    kinds[v] |= (uint8_t)special_kind(a0[k]);",
        "}",
        f"for (ptrdiff_t v = 0; v < {rows}; v++) o[v * {runs.count} + r] = summed(totals[v], down, kinds[v]);",
    ]
    work = runs.count * (length + rows) * 8
    return _body([output("uint32_t"), *C.shared_loop(runs.count, loop)], work, scratch=rows * 9)


def _matmul(one: Operation, length: int, dtypes: Sequence[DType]) -> Body:
    fits = (2**31 - 1) // (dtypes[0].largest * dtypes[1].largest) // 2 * 2
    lines = [
        "static const struct product p = {",
        *(f"    {field}," for field in (*product_fields(one, length, dtypes), fits)),
        "};",
        "tl_product(t, n, &p, (float *)at[0], at[1], at[2], (const float *)at[3], (const float *)at[4], scratch);",
    ]
    pairs = (length + 1) // 2
    return _body(lines, one.elements * length // 2, scratch=4 * pairs * (_PANEL + _TILE))
