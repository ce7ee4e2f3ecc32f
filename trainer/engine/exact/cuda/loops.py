"""CUDA's loops: the threads of a whole launch share the elements of an output, one after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.engine.exact.fast.dialects import Arithmetic, Dialect
from trainer.engine.exact.fast.nests import Nest, indexes, offset
from trainer.engine.exact.kernels import Op

THREADS = 256  # of a block; TL_BLOCK of folds.cuh
WARP = 32
MOST_BLOCKS = 2**20  # times THREADS fits 32 bits
_FILLING = 2048  # blocks that keep any GPU busy; beyond them a thread takes four elements
_FEW = 2**31  # a loop's number and its step fit 32 bits


@dataclass(frozen=True)
class Piece:
    """One kernel of an operation.

    Attributes:
        text: between its braces. It sees `at`: the output's address, each operand's first element, the scratch.
        blocks, threads: how many are launched; a kernel gives the same bits for any number of blocks.
        first: a number given to the launch.
    """

    text: str
    blocks: int
    threads: int = THREADS
    first: int = 0


def piece(lines: Sequence[str], blocks: int, threads: int = THREADS, first: int = 0) -> Piece:
    """A piece of lines; blocks are kept between 1 and the most that there can be."""
    return Piece("\n".join("    " + line for line in lines), max(1, min(blocks, MOST_BLOCKS)), threads, first)


def blocks_for(elements: int) -> int:
    """Blocks for a loop over elements."""
    return min(-(-elements // THREADS), max(_FILLING, -(-elements // (4 * THREADS))))


def loop(start: str, count: int, step: str, body: Sequence[str], name: str = "r") -> list[str]:
    """A loop over numbers below `count`, which is below 2^32, as 32-bit words."""
    inner = ["    " + line for line in body]
    if count < _FEW:
        return [f"for (uint32_t {name} = {start}; {name} < {count}u; {name} += {step}) {{", *inner, "}"]
    return [
        f"for (uint64_t wide = {start}; wide < {count}ull; wide += {step}) {{",
        f"    const uint32_t {name} = (uint32_t)wide;",
        *inner,
        "}",
    ]


class _Cuda:
    index = "uint32_t"
    arithmetic = Arithmetic(
        pairs={
            Op.FADD: "__fadd_rn({a}, {b})",
            Op.FSUB: "__fsub_rn({a}, {b})",
            Op.FMUL: "__fmul_rn({a}, {b})",
            Op.FDIV: "__fdiv_rn({a}, {b})",
        },
        root="__fsqrt_rn({a})",
        from_integer="__int2float_rn((int32_t)({a}))",
    )

    def shared_loop(self, count: int, body: Sequence[str], name: str = "r") -> list[str]:
        return loop("tl_thread()", count, "tl_threads()", body, name)

    def rows(self, nest: Nest, inner: Sequence[str], elements: Sequence[str], output: str) -> list[str]:
        """All axes in one loop, so that neighbours in memory are neighbours among threads."""
        lines, names = indexes(nest.extents, integer=self.index)
        starts = [
            f"const {element} *p{n} = a{n} + ({offset(strides[:-1], names[:-1])});"
            for n, (element, strides) in enumerate(zip(elements, nest.strides[1:], strict=True))
        ]
        last = [f"const uint32_t j = {names[-1]};", f"{output} *p = o + (r - j);"]
        return self.shared_loop(nest.inner * nest.outer, [*lines, *last, *starts, *inner])


CUDA: Dialect = _Cuda()
