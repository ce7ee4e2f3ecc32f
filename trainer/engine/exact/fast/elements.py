"""Bodies that C and CUDA have in common: what an element of an output is, without how threads share them.

Each function gives the lines between a function's braces. They see `at` (the output's address, then each operand's
first element), and name them `o`, `a0`, `a1`….
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.engine.exact.fast.dialects import Dialect
from trainer.engine.exact.fast.kernel_text import ELEMENTS, kernel_text, stored
from trainer.engine.exact.fast.nests import Nest, Strides, collapse, dense, indexes, offset, product
from trainer.engine.exact.kernels import Kernel, signed
from trainer.program.exact.operations import Cat, DType, Operand, Operation, Take

_BATCH_AXES = 4


def output(element: str) -> str:
    """`o`, of a C type."""
    return f"{element} *restrict o = ({element} *)at[0];"


def operand(number: int, element: str) -> str:
    """`a0`, `a1`…, of a C type."""
    return f"const {element} *restrict a{number} = (const {element} *)at[{number + 1}];"


def strides_of(operands: Sequence[Operand]) -> list[Strides]:
    """Each operand's strides."""
    return [one.strides for one in operands]


def converted(elements: int, source: str, target: str, dialect: Dialect) -> list[str]:
    """Elements of one integer type as another."""
    return [
        output(target),
        operand(0, source),
        *dialect.shared_loop(elements, [f"o[r] = ({target})a0[r];"]),
    ]


def pointwise(one: Operation, kernel: Kernel, dtypes: Sequence[DType], dialect: Dialect) -> list[str]:
    """POINTWISE; dtypes are the operands'."""
    elements = [ELEMENTS[dtype] for dtype in dtypes]
    nest = collapse(one.shape, [dense(one.shape), *strides_of(one.operands)])
    inputs = [f"p{n}[j * {strides[-1]}]" for n, strides in enumerate(nest.strides[1:])]
    lines, result = kernel_text(kernel, inputs, dtypes, dialect.arithmetic)
    inner = [*lines, f"p[j] = {stored(result, one.dtype)};"]
    heads = [output(ELEMENTS[one.dtype]), *(operand(n, element) for n, element in enumerate(elements))]
    return [*heads, *dialect.rows(nest, inner, elements, ELEMENTS[one.dtype])]


def view(one: Operation, nest: Nest, dialect: Dialect) -> list[str]:
    """VIEW over its collapsed nest of output and operand."""
    element = ELEMENTS[one.dtype]
    copied = dialect.rows(nest, [f"p[j] = p0[j * {nest.strides[1][-1]}];"], [element], element)
    return [output(element), operand(0, element), *copied]


def take(one: Operation, attributes: Take, dialect: Dialect) -> list[str]:
    """TAKE."""
    element = ELEMENTS[one.dtype]
    nest = collapse(one.shape, [dense(one.shape), *strides_of(one.operands)])
    found = f"p0[j * {nest.strides[1][-1]} + v * (ptrdiff_t){attributes.row_stride}]"
    inner = [
        f"int32_t v = (int32_t)p1[j * {nest.strides[2][-1]}];",
        f"p[j] = v >= 0 && (int64_t)v < {attributes.rows} ? {found} : 0;",
    ]
    heads = [output(element), operand(0, element), operand(1, "uint32_t")]
    return [*heads, *dialect.rows(nest, inner, [element, "uint32_t"], element)]


def cat(one: Operation, attributes: Cat, dialect: Dialect) -> list[str]:
    """CAT: a loop for each input, and one for the padding."""
    element = ELEMENTS[one.dtype]
    lines = [output(element)]
    whole = dense(one.shape)
    at, axis = 0, attributes.axis
    padded = one.shape[axis] - sum(attributes.extents)
    for n, extent in enumerate([*attributes.extents, padded] if padded else attributes.extents):
        shape = (*one.shape[:axis], extent, *one.shape[axis + 1 :])
        given = n < len(one.operands)
        nest = collapse(shape, [whole, one.operands[n].strides if given else (0,) * len(shape)])
        heads, names = indexes(nest.extents, integer=dialect.index)
        value = f"a{n}[{offset(nest.strides[1], names)}]" if given else literal(attributes.padding, one.dtype)
        target = f"o[{at * whole[axis]} + {offset(nest.strides[0], names)}]"
        loop = dialect.shared_loop(product(nest.extents), [*heads, f"{target} = {value};"])
        lines += ["{", *([operand(n, element)] if given else []), *loop, "}"]
        at += extent
    return lines


def literal(word: int, dtype: DType) -> str:
    """A word as an element of a tensor."""
    return f"0x{word:08x}u" if ELEMENTS[dtype] == "uint32_t" else f"({ELEMENTS[dtype]})({signed(word)})"


@dataclass(frozen=True)
class Runs:
    """The runs of 32-bit words that an operation folds.

    Attributes:
        count: number of outputs, or of runs. starts: lines that find `a0`, `a1`… of output `r`.
    """

    count: int
    starts: tuple[str, ...]


def runs_of(shape: tuple[int, ...], strides: Sequence[Strides], dialect: Dialect) -> Runs:
    """The runs of operands under a shape."""
    nest = collapse(shape, strides)
    lines, names = indexes(nest.extents, integer=dialect.index)
    starts = (
        f"const uint32_t *a{n} = (const uint32_t *)at[{n + 1}] + ({offset(steps, names)});"
        for n, steps in enumerate(nest.strides)
    )
    return Runs(product(nest.extents), (*lines, *starts))


def fold(one: Operation, result: str, dialect: Dialect) -> list[str]:
    """A thread folds a run: `result` is C for the output element, of `a0`, `a1`…."""
    runs = runs_of(one.shape, strides_of(one.operands), dialect)
    return [output("uint32_t"), *dialect.shared_loop(runs.count, [*runs.starts, f"o[r] = {result};"])]


def product_fields(one: Operation, length: int, dtypes: Sequence[DType]) -> list[str]:
    """The first fields of `struct product` (blocks.h, product.cuh) for a MATMUL, from its batches to element sizes."""
    batch = one.shape[:-2]
    strides = strides_of(one.operands)
    nest = collapse(batch, [steps[:-2] for steps in strides])
    extents = (*(1,) * (_BATCH_AXES - len(nest.extents)), *nest.extents)

    def padded(steps: Strides) -> str:
        return "{" + ", ".join(map(str, ((0,) * (_BATCH_AXES - len(steps)) + steps))) + "}"

    (a, b, scale_a, scale_b), (in_a, in_b, in_scale_a, in_scale_b) = strides, nest.strides
    return [
        f"{product(batch)}, {padded(extents)}, {one.shape[-2]}, {one.shape[-1]}, {length}",
        f"{padded(in_a)}, {a[-2]}, {padded(in_b)}, {b[-1]}",
        f"{padded(in_scale_a)}, {scale_a[-2]}, {padded(in_scale_b)}, {scale_b[-1]}",
        f"{dtypes[0].size}, {dtypes[1].size}",
    ]
