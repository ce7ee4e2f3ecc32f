"""What differs between the languages that programs are written in: float operations, and loops over elements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from trainer.engine.exact.fast.nests import Nest, indexes, offset
from trainer.engine.exact.kernels import Op


@dataclass(frozen=True)
class Arithmetic:
    """How a language says the float operations of kernels.

    Attributes:
        pairs: of two floats, with {a} and {b}. root: of the float {a}. from_integer: float of the word {a}.
    """

    pairs: dict[Op, str]
    root: str
    from_integer: str


class Dialect(Protocol):
    """A language, C or CUDA, in which element-wise bodies are written (`elements.py`)."""

    @property
    def arithmetic(self) -> Arithmetic:
        """How kernels say float operations."""

    @property
    def index(self) -> str:
        """The type of an index and of an offset in elements, which are below 2^32."""

    def shared_loop(self, count: int, body: Sequence[str], name: str = "r") -> list[str]:
        """A loop over this thread's part of `count` pieces; `body` sees the piece's number by its name."""

    def rows(self, nest: Nest, inner: Sequence[str], elements: Sequence[str], output: str) -> list[str]:
        """Loops over a nest whose first strides are the dense output's: `inner` sees `p` (output), `p0`… and `j`.

        Args:
            elements: C types of the operands. output: that of the output.
        """


class _C:
    index = "ptrdiff_t"
    arithmetic = Arithmetic(
        pairs={Op.FADD: "{a} + {b}", Op.FSUB: "{a} - {b}", Op.FMUL: "{a} * {b}", Op.FDIV: "{a} / {b}"},
        root="__builtin_sqrtf({a})",
        from_integer="(float)(int32_t)({a} ^ zero)",
    )

    def shared_loop(self, count: int, body: Sequence[str], name: str = "r") -> list[str]:
        return [
            "ptrdiff_t from, to;",
            f"share({count}, t, n, &from, &to);",
            f"for (ptrdiff_t {name} = from; {name} < to; {name}++) {{",
            *("    " + line for line in body),
            "}",
        ]

    def rows(self, nest: Nest, inner: Sequence[str], elements: Sequence[str], output: str) -> list[str]:
        """The last axis is the innermost loop; threads share the others, or the last one where it is alone."""
        if len(nest.extents) == 1:
            names = [f"const {element} *restrict p{n} = a{n};" for n, element in enumerate(elements)]
            return [*names, f"{output} *restrict p = o;", *self.shared_loop(nest.inner, inner, "j")]
        lines, names = indexes(nest.extents[:-1])
        starts = [
            f"const {element} *restrict p{n} = a{n} + ({offset(strides[:-1], names)});"
            for n, (element, strides) in enumerate(zip(elements, nest.strides[1:], strict=True))
        ]
        loop = [f"for (ptrdiff_t j = 0; j < {nest.inner}; j++) {{", *("    " + line for line in inner), "}"]
        out = f"{output} *restrict p = o + r * {nest.inner};"
        return self.shared_loop(nest.outer, [*lines, *starts, out, *loop])


C: Dialect = _C()
