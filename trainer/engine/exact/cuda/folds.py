"""SUM, MAX and SCATTER_ADD on CUDA: integers that many threads fold in any order (native/folds.cuh)."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.engine.exact.cuda.loops import CUDA, MOST_BLOCKS, THREADS, WARP, Piece, blocks_for, loop, piece
from trainer.engine.exact.fast import elements
from trainer.engine.exact.fast.elements import Runs, output, runs_of, strides_of
from trainer.program.exact.operations import Operation

_ALONE, _WARPS = 16, 2048  # runs up to these are folded by one thread, and by one warp
_LONG, _PART = 32_768, 8_192  # runs from there on, where they are few, are cut into parts
_FEW_RUNS = 256
_TILE = 32
_SCATTER_BYTES = 2**28  # of totals at a time


@dataclass(frozen=True)
class Fold:
    """How SUM or MAX folds, as C.

    Attributes:
        whole: the output element, folded by one thread. start: lines before a run's parts.
        part: what is known of elements from `{first}` to `{last}`, by `{lanes}` threads of which this is `lane`.
        warp, block: what all threads of one know, with {one}. result: the output element of `one`.
        room: the C type that warps leave for each other.
        total: bytes of a run in the scratch. meet: lines that add `one` to run r's there. ended: the element of run r.
    """

    whole: str
    start: tuple[str, ...]
    part: str
    warp: str
    block: str
    result: str
    room: str
    total: int
    meet: tuple[str, ...]
    ended: str


def sum_of(length: int) -> Fold:
    """SUM: integers in 64 bits, and a byte that knows infinities and NaNs."""
    return Fold(
        whole=f"sum_run(a0, {length}, *a1)",
        start=("const int32_t e = sum_exponent(*a1);", "const float up = power_of_two(30 - e);"),
        part="tl_sum_part(a0, {first}, {last}, lane, {lanes}, up)",
        warp="tl_warp_sum({one})",
        block="tl_block_sum({one}, room)",
        result="summed(one.total, power_of_two(e - 30), one.kinds)",
        room="struct tl_sum",
        total=9,
        meet=("tl_add((int64_t *)totals + r, one.total);", "tl_mark((uint8_t *)totals + {runs} * 8, r, one.kinds);"),
        ended="summed(((int64_t *)totals)[r], power_of_two(e - 30), ((uint8_t *)totals)[{runs} * 8 + r])",
    )


def max_of(length: int, *, magnitudes: bool) -> Fold:
    """MAX: keys as unsigned words."""
    flag = int(magnitudes)
    return Fold(
        whole=f"{'greatest_magnitude' if magnitudes else 'greatest_value'}(a0, {length})",
        start=(),
        part=f"tl_greatest_part(a0, {{first}}, {{last}}, lane, {{lanes}}, {flag})",
        warp="tl_warp_greatest({one})",
        block="tl_block_greatest({one}, room)",
        result=f"tl_greatest_word(one, {flag})",
        room="uint32_t",
        total=4,
        meet=("atomicMax((uint32_t *)totals + r, one);",),
        ended=f"tl_greatest_word(((uint32_t *)totals)[r], {flag})",
    )


def fold_pieces(one: Operation, fold: Fold, length: int) -> tuple[list[Piece], int]:
    """The kernels of a SUM or MAX, and the scratch that they need, in bytes."""
    if length <= _ALONE:
        return [piece(elements.fold(one, fold.whole, CUDA), blocks_for(one.elements))], 0
    runs = runs_of(one.shape, strides_of(one.operands), CUDA)
    if length <= _WARPS:
        return [_by_warps(fold, runs, length)], 0
    if length < _LONG or runs.count >= _FEW_RUNS:
        return [_by_blocks(fold, runs, length)], 0
    return _in_parts(fold, runs, length, scratch_at=len(one.operands) + 1)


def _by_warps(fold: Fold, runs: Runs, length: int) -> Piece:
    all_of_it = fold.part.format(first=0, last=f"{length}u", lanes="TL_WARP")
    body = [
        *runs.starts,
        *fold.start,
        f"const auto one = {fold.warp.format(one=all_of_it)};",
        f"if (lane == 0) o[r] = {fold.result};",
    ]
    warps = loop("tl_thread() / TL_WARP", runs.count, "tl_threads() / TL_WARP", body)
    lines = [output("uint32_t"), "const uint32_t lane = threadIdx.x % TL_WARP;", *warps]
    return piece(lines, -(-runs.count * WARP // THREADS))


def _by_blocks(fold: Fold, runs: Runs, length: int) -> Piece:
    all_of_it = fold.part.format(first=0, last=f"{length}u", lanes="TL_BLOCK")
    body = [
        *runs.starts,
        *fold.start,
        f"const auto one = {fold.block.format(one=all_of_it)};",
        f"if (lane == 0) o[r] = {fold.result};",
    ]
    lines = [output("uint32_t"), *_room(fold), *loop("blockIdx.x", runs.count, "gridDim.x", body)]
    return piece(lines, runs.count)


def _room(fold: Fold) -> list[str]:
    return [
        "const uint32_t lane = threadIdx.x;",
        f"__shared__ {fold.room} room[TL_BLOCK / TL_WARP];",
    ]


def _in_parts(fold: Fold, runs: Runs, length: int, *, scratch_at: int) -> tuple[list[Piece], int]:
    size = max(_PART, -(-length * runs.count // MOST_BLOCKS))
    parts = -(-length // size)
    scratch = f"char *totals = at[{scratch_at}];"
    last = f"({length}u - from < {size}u ? {length}u : from + {size}u)"
    body = [
        f"const uint32_t r = item / {parts}u, from = item % {parts}u * {size}u;",
        *runs.starts,
        *fold.start,
        f"const auto one = {fold.block.format(one=fold.part.format(first='from', last=last, lanes='TL_BLOCK'))};",
        *("if (lane == 0) " + line.format(runs=runs.count) for line in fold.meet),
    ]
    adding = [*_room(fold), scratch, *loop("blockIdx.x", runs.count * parts, "gridDim.x", body, "item")]
    ended = [*runs.starts, *fold.start, f"o[r] = {fold.ended.format(runs=runs.count)};"]
    ending = [output("uint32_t"), scratch, *CUDA.shared_loop(runs.count, ended)]
    room = -(-runs.count * fold.total // 8) * 8
    pieces = [zeroing(room, scratch_at), piece(adding, runs.count * parts), piece(ending, blocks_for(runs.count))]
    return pieces, room


def zeroing(size: int, scratch_at: int) -> Piece:
    """Zeros in the first bytes of the scratch, a multiple of 8."""
    words = size // 8
    lines = [f"uint64_t *o = (uint64_t *)at[{scratch_at}];", *CUDA.shared_loop(words, ["o[r] = 0;"])]
    return piece(lines, blocks_for(words))


def scatter_pieces(one: Operation, length: int) -> tuple[list[Piece], int]:
    """The kernels of a SCATTER_ADD, and the scratch that they need, in bytes: totals for so many runs at a time."""
    rows = one.shape[0]
    runs = runs_of(one.shape[1:], [strides[1:] for strides in strides_of(one.operands)], CUDA)
    width = max(1, min(runs.count, _SCATTER_BYTES // (9 * rows)))
    size = -(-rows * width * 9 // 8) * 8
    pieces = []
    for first in range(0, runs.count, width):
        pieces.append(zeroing(size, 4))
        pieces.append(_scattering(runs, length, rows, width, first))
        pieces.append(_scattered(runs, rows, width, first))
    return pieces, size


def _scratch_lines(rows: int, width: int) -> list[str]:
    return [
        "int64_t *totals = (int64_t *)at[4];",
        f"uint8_t *kinds = (uint8_t *)(totals + {rows * width}ull);",
        "const uint32_t first = (uint32_t)given.first;",
    ]


def _scattering(runs: Runs, length: int, rows: int, width: int, first: int) -> Piece:
    """Tiles of runs by elements pass through shared memory: they are read along runs, and added along rows."""
    across, along = -(-width // _TILE), -(-length // _TILE)
    side = f"for (uint32_t s = threadIdx.x / {_TILE}; s < {_TILE}; s += blockDim.x / {_TILE}) {{"
    reading = [
        f"const uint32_t run = tile % {across}u * {_TILE} + s, k = tile / {across}u * {_TILE} + x, r = first + run;",
        f"if (run < {width}u && r < {runs.count}u && k < {length}u) {{",
        *("    " + line for line in runs.starts),
        "    values[s][x] = a0[k], places[s][x] = a1[k];",
        "    if (x == 0) powers[s] = power_of_two(30 - sum_exponent(*a2));",
        "}",
    ]
    adding = [
        f"const uint32_t run = tile % {across}u * {_TILE} + x, k = tile / {across}u * {_TILE} + s, r = first + run;",
        f"if (run < {width}u && r < {runs.count}u && k < {length}u) {{",
        "    const int32_t v = (int32_t)places[x][s];",
        f"    if (v >= 0 && (int64_t)v < {rows}) {{",
        f"        const uint64_t place = (uint64_t)v * {width}u + run;",
        "        tl_add(totals + place, sum_term(values[x][s], powers[x]));",
        "        tl_mark(kinds, place, special_kind(values[x][s]));",
        "    }",
        "}",
    ]
    body = [side, *("    " + line for line in reading), "}", "__syncthreads();"]
    body += [side, *("    " + line for line in adding), "}", "__syncthreads();"]
    lines = [
        *_scratch_lines(rows, width),
        f"__shared__ uint32_t values[{_TILE}][{_TILE + 1}], places[{_TILE}][{_TILE + 1}];",
        f"__shared__ float powers[{_TILE}];",
        f"const uint32_t x = threadIdx.x % {_TILE};",
        *loop("blockIdx.x", across * along, "gridDim.x", body, "tile"),
    ]
    return piece(lines, across * along, first=first)


def _scattered(runs: Runs, rows: int, width: int, first: int) -> Piece:
    ended = [
        f"const uint32_t v = flat / {width}u, r = first + flat % {width}u;",
        f"if (r < {runs.count}u) {{",
        *("    " + line for line in runs.starts),
        f"    o[(uint64_t)v * {runs.count}u + r] =",
        "        summed(totals[flat], power_of_two(sum_exponent(*a2) - 30), kinds[flat]);",
        "}",
    ]
    lines = [output("uint32_t"), *_scratch_lines(rows, width), *CUDA.shared_loop(rows * width, ended, "flat")]
    return piece(lines, blocks_for(rows * width), first=first)
