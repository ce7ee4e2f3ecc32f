"""The C body of each operation: a function of shapes, strides and kernels, without a name from the program.

A body is the text between a function's braces. It sees `t` and `n` (this thread and how many there are), `at` (the
output's address, then each operand's first element) and `scratch` (this thread's own memory). Equal bodies are one
function.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.engine.exact.fast.kernel_text import ELEMENTS, kernel_text, stored
from trainer.engine.exact.fast.nests import Nest, Strides, collapse, dense, indexes, offset, product, shared_loop
from trainer.engine.exact.kernels import Kernel, signed
from trainer.program.exact.operations import (
    Cat,
    DType,
    Matmul,
    Max,
    Operand,
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
            return _pointwise(one, kernel, dtypes)
        case Matmul(length):
            return _matmul(one, length, dtypes)
        case Sum(length):
            return _fold(one, f"sum_run(a0, {length}, *a1)", length)
        case Max(length, magnitudes):
            return _fold(one, f"{'greatest_magnitude' if magnitudes else 'greatest_value'}(a0, {length})", length)
        case Take():
            return _take(one, one.attributes)
        case ScatterAdd(length):
            return _scatter_add(one, length)
        case Cat():
            return _cat(one, one.attributes)
    raise ValueError(f"{one.code.name} computes nothing")


def narrowing(elements: int) -> Body:
    """The low 32 bits of int64."""
    return _converted(elements, "int64_t", "uint32_t")


def widening(elements: int) -> Body:
    """int64 of int32."""
    return _converted(elements, "int32_t", "int64_t")


def copying(elements: int) -> Body:
    """32-bit words."""
    return _converted(elements, "uint32_t", "uint32_t")


def _converted(elements: int, source: str, target: str) -> Body:
    lines = [_output(target), _input(0, source), *shared_loop(elements, [f"o[r] = ({target})a0[r];"])]
    return _body(lines, elements)


def _body(lines: Sequence[str], work: int, scratch: int = 0) -> Body:
    return Body("\n".join("    " + line for line in lines), work, scratch)


def _output(element: str) -> str:
    return f"{element} *restrict o = ({element} *)at[0];"


def _input(number: int, element: str) -> str:
    return f"const {element} *restrict a{number} = (const {element} *)at[{number + 1}];"


def _strides(operands: Sequence[Operand]) -> list[Strides]:
    return [operand.strides for operand in operands]


def _rows(nest: Nest, inner: Sequence[str], elements: Sequence[str]) -> list[str]:
    """Loops over a nest whose first strides are the dense output's: `inner` sees `p` (output), `p0`… and `j`."""
    if len(nest.extents) == 1:
        names = [f"const {element} *restrict p{n} = a{n};" for n, element in enumerate(elements)]
        return [*names, "__typeof__(o) restrict p = o;", *shared_loop(nest.inner, inner, "j")]
    lines, names = indexes(nest.extents[:-1])
    starts = [
        f"const {element} *restrict p{n} = a{n} + ({offset(strides[:-1], names)});"
        for n, (element, strides) in enumerate(zip(elements, nest.strides[1:], strict=True))
    ]
    loop = [f"for (ptrdiff_t j = 0; j < {nest.inner}; j++) {{", *("    " + line for line in inner), "}"]
    out = f"__typeof__(o) restrict p = o + r * {nest.inner};"
    return shared_loop(nest.outer, [*lines, *starts, out, *loop])


def _pointwise(one: Operation, kernel: Kernel, dtypes: Sequence[DType]) -> Body:
    elements = [ELEMENTS[dtype] for dtype in dtypes]
    nest = collapse(one.shape, [dense(one.shape), *_strides(one.operands)])
    inputs = [f"p{n}[j * {strides[-1]}]" for n, strides in enumerate(nest.strides[1:])]
    lines, result = kernel_text(kernel, inputs, dtypes)
    inner = [*lines, f"p[j] = {stored(result, one.dtype)};"]
    heads = [_output(ELEMENTS[one.dtype]), *(_input(n, element) for n, element in enumerate(elements))]
    return _body([*heads, *_rows(nest, inner, elements)], one.elements * (len(kernel.instructions) + 1))


def _view(one: Operation) -> Body:
    element = ELEMENTS[one.dtype]
    nest = collapse(one.shape, [dense(one.shape), one.operands[0].strides])
    source = nest.strides[1]
    heads = [_output(element), _input(0, element)]
    if source[-1] > 1 and 1 in source[:-1] and element == "uint32_t":
        return _body([*heads, *_transposed(nest, source.index(1))], one.elements * 2)
    return _body([*heads, *_rows(nest, [f"p[j] = p0[j * {source[-1]}];"], [element])], one.elements * 2)


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
    return shared_loop(
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
    nest = collapse(one.shape, _strides(one.operands))
    lines, names = indexes(nest.extents)
    starts = [
        f"const uint32_t *a{n} = (const uint32_t *)at[{n + 1}] + ({offset(strides, names)});"
        for n, strides in enumerate(nest.strides)
    ]
    loop = shared_loop(product(nest.extents), [*lines, *starts, f"o[r] = {result};"])
    return _body([_output("uint32_t"), *loop], one.elements * (length * 2 + 8))


def _take(one: Operation, take: Take) -> Body:
    element = ELEMENTS[one.dtype]
    nest = collapse(one.shape, [dense(one.shape), *_strides(one.operands)])
    found = f"p0[j * {nest.strides[1][-1]} + v * (ptrdiff_t){take.row_stride}]"
    inner = [
        f"int32_t v = (int32_t)p1[j * {nest.strides[2][-1]}];",
        f"p[j] = v >= 0 && (int64_t)v < {take.rows} ? {found} : 0;",
    ]
    heads = [_output(element), _input(0, element), _input(1, "uint32_t")]
    return _body([*heads, *_rows(nest, inner, [element, "uint32_t"])], one.elements * 4)


def _scatter_add(one: Operation, length: int) -> Body:
    rows, rest = one.shape[0], one.shape[1:]
    nest = collapse(rest, [operand.strides[1:] for operand in one.operands])
    lines, names = indexes(nest.extents)
    count = product(rest)
    loop = [
        *lines,
        *(
            f"const uint32_t *a{n} = (const uint32_t *)at[{n + 1}] + ({offset(strides, names)});"
            for n, strides in enumerate(nest.strides)
        ),
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
        f"for (ptrdiff_t v = 0; v < {rows}; v++) o[v * {count} + r] = summed(totals[v], down, kinds[v]);",
    ]
    work = count * (length + rows) * 8
    return _body([_output("uint32_t"), *shared_loop(count, loop)], work, scratch=rows * 9)


def _cat(one: Operation, cat: Cat) -> Body:
    element = ELEMENTS[one.dtype]
    lines = [_output(element)]
    whole = dense(one.shape)
    at = 0
    padded = one.shape[cat.axis] - sum(cat.extents)
    for n, extent in enumerate([*cat.extents, padded] if padded else cat.extents):
        shape = (*one.shape[: cat.axis], extent, *one.shape[cat.axis + 1 :])
        strides = one.operands[n].strides if n < len(one.operands) else (0,) * len(shape)
        nest = collapse(shape, [whole, strides])
        heads, names = indexes(nest.extents)
        value = f"a{n}[{offset(nest.strides[1], names)}]" if n < len(one.operands) else _literal(cat.padding, one.dtype)
        lines += ["{", *([_input(n, element)] if n < len(one.operands) else [])]
        target = f"o[{at * whole[cat.axis]} + {offset(nest.strides[0], names)}]"
        lines += [*shared_loop(product(nest.extents), [*heads, f"{target} = {value};"]), "}"]
        at += extent
    return _body(lines, one.elements * 6)


def _literal(word: int, dtype: DType) -> str:
    return f"0x{word:08x}u" if ELEMENTS[dtype] == "uint32_t" else f"({ELEMENTS[dtype]})({signed(word)})"


def _matmul(one: Operation, length: int, dtypes: Sequence[DType]) -> Body:
    batch = one.shape[:-2]
    strides = [operand.strides for operand in one.operands]
    nest = collapse(batch, [steps[:-2] for steps in strides])
    extents = (*(1,) * (4 - len(nest.extents)), *nest.extents)

    def padded(steps: Strides) -> str:
        return "{" + ", ".join(map(str, ((0,) * (4 - len(steps)) + steps))) + "}"

    (a, b, scale_a, scale_b), (in_a, in_b, in_scale_a, in_scale_b) = strides, nest.strides
    fits = (2**31 - 1) // (dtypes[0].largest * dtypes[1].largest) // 2 * 2
    fields = [
        f"{product(batch)}, {padded(extents)}, {one.shape[-2]}, {one.shape[-1]}, {length}",
        f"{padded(in_a)}, {a[-2]}, {padded(in_b)}, {b[-1]}",
        f"{padded(in_scale_a)}, {scale_a[-2]}, {padded(in_scale_b)}, {scale_b[-1]}",
        f"{dtypes[0].size}, {dtypes[1].size}, {fits}",
    ]
    lines = [
        "static const struct product p = {",
        *(f"    {field}," for field in fields),
        "};",
        "tl_product(t, n, &p, (float *)at[0], at[1], at[2], (const float *)at[3], (const float *)at[4], scratch);",
    ]
    pairs = (length + 1) // 2
    return _body(lines, one.elements * length // 2, scratch=4 * pairs * (_PANEL + _TILE))
