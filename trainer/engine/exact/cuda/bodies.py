"""The kernels of each operation on CUDA: texts of shapes, strides and kernels, without a name from the program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ledger.errors import SpecificationError
from trainer.engine.exact.cuda.folds import fold_pieces, max_of, scatter_pieces, sum_of, zeroing
from trainer.engine.exact.cuda.loops import CUDA, WARP, Piece, blocks_for, loop, piece
from trainer.engine.exact.fast import elements
from trainer.engine.exact.fast.elements import operand, output, product_fields
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

_TILE = 32  # of a transposition
_LOAD = 8  # elements that product.cuh reads at once
_ROW, _SIDE = 48, 32  # bytes of a row in its shared memory; rows and columns of a warp
_SLICE = 2**17  # products of int8 that fit 32 bits
_BUSY = 264  # tiles that keep a large GPU busy
_LEAST_SLICE = 256
_MOST_LENGTH = 2**31


@dataclass(frozen=True)
class Body:
    """The kernels of an operation, one after another, and the scratch that they share, in bytes."""

    pieces: tuple[Piece, ...]
    scratch: int = 0


def body_of(one: Operation, dtypes: Sequence[DType]) -> Body:
    """The kernels of an operation that computes; LOAD, CONST and BATCH do not.

    Args:
        dtypes: of its operands.

    Raises:
        SpecificationError: a fold too long for these kernels.
    """
    if one.fold > _MOST_LENGTH:
        raise SpecificationError(f"The program folds {one.fold} elements at once; {_MOST_LENGTH} is the most on CUDA.")
    match one.attributes:
        case View():
            return _view(one)
        case Pointwise(kernel):
            return _element_wise(one, elements.pointwise(one, kernel, dtypes, CUDA))
        case Matmul(length):
            return _matmul(one, length, dtypes)
        case Sum(length):
            return _folded(*fold_pieces(one, sum_of(length), length))
        case Max(length, magnitudes):
            return _folded(*fold_pieces(one, max_of(length, magnitudes=magnitudes), length))
        case Take():
            return _element_wise(one, elements.take(one, one.attributes, CUDA))
        case ScatterAdd(length):
            return _folded(*scatter_pieces(one, length))
        case Cat():
            return _element_wise(one, elements.cat(one, one.attributes, CUDA))
    raise ValueError(f"{one.code.name} computes nothing")


def converting(count: int, source: str, target: str) -> Body:
    """Integers of one C type as another."""
    return Body((piece(elements.converted(count, source, target, CUDA), blocks_for(count)),))


def _folded(pieces: list[Piece], scratch: int) -> Body:
    return Body(tuple(pieces), scratch)


def _element_wise(one: Operation, lines: Sequence[str]) -> Body:
    return Body((piece(lines, blocks_for(one.elements)),))


def _view(one: Operation) -> Body:
    nest = collapse(one.shape, [dense(one.shape), one.operands[0].strides])
    source = nest.strides[1]
    if source[-1] > 1 and 1 in source[:-1]:
        return Body((_transposed(nest, source.index(1), ELEMENTS[one.dtype]),))
    return _element_wise(one, elements.view(one, nest, CUDA))


def _transposed(nest: Nest, axis: int, element: str) -> Piece:
    """Tiles of 32 by 32 pass through shared memory, read along `axis` of the output and written along its last one."""
    target, source = nest.strides
    high, wide = nest.extents[axis], nest.inner
    others = [n for n in range(len(nest.extents) - 1) if n != axis]
    extents = [*(nest.extents[n] for n in others), -(-high // _TILE), -(-wide // _TILE)]
    lines, names = indexes(extents, integer=CUDA.index)
    to = offset(tuple(target[n] for n in others), names[:-2])
    start = offset(tuple(source[n] for n in others), names[:-2])
    side = f"for (uint32_t s = threadIdx.x / {_TILE}; s < {_TILE}; s += blockDim.x / {_TILE}) {{"
    body = [
        *lines,
        f"const uint32_t row = {names[-2]} * {_TILE}, column = {names[-1]} * {_TILE};",
        side,
        f"    if (row + x < {high}u && column + s < {wide}u)",
        f"        tile[s][x] = a0[{start} + row + x + (column + s) * {source[-1]}u];",
        "}",
        "__syncthreads();",
        side,
        f"    if (row + s < {high}u && column + x < {wide}u)",
        f"        o[{to} + (row + s) * {target[axis]}u + column + x] = tile[x][s];",
        "}",
        "__syncthreads();",
    ]
    tiles = product(extents)
    heads = [
        output(element),
        operand(0, element),
        f"__shared__ {element} tile[{_TILE}][{_TILE + 1}];",
        f"const uint32_t x = threadIdx.x % {_TILE};",
    ]
    return piece([*heads, *loop("blockIdx.x", tiles, "gridDim.x", body)], tiles)


def _matmul(one: Operation, length: int, dtypes: Sequence[DType]) -> Body:
    batches, rows, columns = product(one.shape[:-2]), one.shape[-2], one.shape[-1]
    shared = not any((*one.operands[1].strides[:-2], *one.operands[3].strides[:-2]))
    high, batches = (rows * batches, 1) if shared else (rows, batches)
    planes = [dtype.size for dtype in dtypes[:2]]  # int8 is one of int8, int16 is two
    down, across = _warps(batches, high, columns)
    tiles = batches * -(-high // (_SIDE * down)) * -(-columns // (_SIDE * across))
    size = _slice(tiles, length)
    parts = -(-length // size)
    room = 2 * _ROW * _SIDE * (planes[0] * down + planes[1] * across)
    kinds = (*planes, *(_whole(one, n) for n in (0, 1)), down, across)
    heads = ["static const struct product p = {", *(f"    {f}," for f in product_fields(one, length, dtypes))]
    heads += [f"    {size},", "};", "int64_t *totals = (int64_t *)at[5];"]
    given = "(const float *)at[3], (const float *)at[4]"
    lines = [
        *heads,
        f"__shared__ __align__(16) char room[{room}];",
        f"for (uint64_t tile = blockIdx.x; tile < {tiles * parts}ull; tile += gridDim.x)",
        f"    tl_tile<{', '.join(map(str, kinds))}>(&p, {int(shared)}, {parts}, tile, (uint32_t *)at[0], at[1], at[2],",
        f"        {given}, totals, room);",
    ]
    tiled = piece(lines, tiles * parts, WARP * down * across)
    if parts == 1:
        return Body((tiled,))
    ended = [f"tl_total(&p, r, (uint32_t *)at[0], {given}, totals);"]
    ending = piece([*heads, *CUDA.shared_loop(one.elements, ended)], blocks_for(one.elements))
    return Body((zeroing(one.elements * 8, 5), tiled, ending), one.elements * 8)


def _warps(batches: int, rows: int, columns: int) -> tuple[int, int]:
    """How many warps of a block lie below and beside each other in its tile."""
    if rows <= _SIDE and columns <= _SIDE:
        return 1, 1
    tiles = batches * -(-rows // (4 * _SIDE)) * -(-columns // (2 * _SIDE))
    return (2, 2) if rows <= 2 * _SIDE or tiles < _BUSY else (4, 2)


def _slice(tiles: int, length: int) -> int:
    """K of a part: few tiles are cut along K, so that there is work for all processors."""
    parts = max(1, min(_BUSY // tiles, length // _LEAST_SLICE))
    size = -(-length // parts)
    return min(_SLICE, -(-size // _SIDE) * _SIDE)


def _whole(one: Operation, number: int) -> int:
    """Whether all rows of an operand begin where eight elements can be read at once."""
    given = one.operands[number]
    return int(all(steps % _LOAD == 0 for steps in (given.offset, *given.strides)))
