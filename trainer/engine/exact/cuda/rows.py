"""The kernel of a group: each row is folded and mapped by one warp or one block, which goes over it once a phase.

A phase computes what the folds of that phase need, element by element; between phases its folds are rounded, and what
has one element a row is computed from them. What was made in an earlier phase is read again where it was written for
others, and computed again where it was not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.engine.exact.cuda.groups import Group
from trainer.engine.exact.cuda.loops import CUDA, THREADS, WARP, Piece, loop, piece
from trainer.engine.exact.fast.kernel_text import ELEMENTS, kernel_text, stored
from trainer.engine.exact.fast.nests import collapse, indexes, offset
from trainer.program.exact.operations import Max, Operand, Pointwise, Program, Shape, Sum

_BY_WARPS = 2048  # rows up to this length are one warp's
_Key = tuple[Operand, Shape, bool]


@dataclass(frozen=True)
class Rows:
    """The kernel of a group, and what it is given.

    Attributes:
        piece: the kernel. written: operations whose outputs it is given, then read: operands, by operation and number.
    """

    piece: Piece
    written: tuple[int, ...]
    read: tuple[tuple[int, int], ...]


def rows_of(program: Program, group: Group, hidden: set[int]) -> Rows:
    """The kernel of a group whose `hidden` members are not in memory."""
    return _Writer(program, group, hidden).rows()


class _Writer:
    """Writes one kernel. `m7` is an element of member 7 (numbered in the group), `v3` and `p3` are of operand 3."""

    def __init__(self, program: Program, group: Group, hidden: set[int]) -> None:
        self._operations, self._group = program.operations, group
        self._name = {number: place for place, number in enumerate(group.members)}
        self._written = [number for number in group.members if number not in hidden]
        self._warps = group.length <= _BY_WARPS
        # Equal operands are read once.
        self._read: dict[_Key, tuple[int, int, int]] = {}
        for number in group.members:
            for which, operand in enumerate(self._operations[number].operands):
                if operand.source not in self._name:
                    self._read.setdefault(self._key(number, which), (len(self._read), number, which))
        self._phase: dict[int, int] = {}
        for number in group.members:
            self._phase[number] = self._phase_of(number)

    def rows(self) -> Rows:
        step = ("tl_thread() / TL_WARP", "tl_threads() / TL_WARP") if self._warps else ("blockIdx.x", "gridDim.x")
        phases = max(self._phase.values()) + 1
        body = self._starts()
        for phase in range(phases):
            body += self._single(phase)
            body += self._phase_lines(phase)
        body += self._single(phases)
        lines = [*self._heads(), *loop(step[0], self._group.rows, step[1], body)]
        blocks = -(-self._group.rows * WARP // THREADS) if self._warps else self._group.rows
        read = tuple((number, which) for _, number, which in self._read.values())
        return Rows(piece(lines, blocks), tuple(self._written), read)

    def _key(self, number: int, which: int) -> _Key:
        one = self._operations[number]
        return one.operands[which], one.shape, self._group.reads_rows(number, which)

    def _phase_of(self, number: int) -> int:
        """The phase of a fold, or the first one in which something else can be made."""
        phase = 0
        for operand in self._operations[number].operands:
            if operand.source in self._name:
                # A fold is known in the phase after its own.
                phase = max(phase, self._phase[operand.source] + (operand.source in self._group.folds))
        return phase

    def _heads(self) -> list[str]:
        lane = "threadIdx.x % TL_WARP" if self._warps else "threadIdx.x"
        lines = [f"const uint32_t lane = {lane};"]
        if not self._warps and self._group.folds:
            lines.append("__shared__ struct tl_sum sum_room[TL_BLOCK / TL_WARP];")
            lines.append("__shared__ uint32_t room[TL_BLOCK / TL_WARP];")
        for place, number in enumerate(self._written):
            element = ELEMENTS[self._operations[number].dtype]
            lines.append(f"{element} *o{self._name[number]} = ({element} *)at[{place}];")
        return lines

    def _starts(self) -> list[str]:
        """Of each operand the first element of row `r`: `p3` for rows, `v3` for one element a row."""
        lines = []
        for place, number, which in self._read.values():
            one = self._operations[number]
            operand = one.operands[which]
            element = ELEMENTS[self._operations[operand.source].dtype]
            whole = number in self._group.whole
            shape, strides = (one.shape[:-1], operand.strides[:-1]) if whole else (one.shape, operand.strides)
            nest = collapse(shape, [strides])
            found, names = indexes(nest.extents, integer=CUDA.index)
            pointed = f"(const {element} *)at[{len(self._written) + place}] + ({offset(nest.strides[0], names)})"
            if self._group.reads_rows(number, which):
                lines += [f"const {element} *p{place};", "{", *found, f"p{place} = {pointed};", "}"]
            else:
                lines += [f"{element} v{place};", "{", *found, f"v{place} = *({pointed});", "}"]
        return lines

    def _operand(self, number: int, which: int) -> str:
        """An element of an operand as it lies in memory."""
        one = self._operations[number]
        operand = one.operands[which]
        if operand.source in self._name:
            return f"m{self._name[operand.source]}"
        place = self._read[self._key(number, which)][0]
        if number in self._group.whole:
            return f"p{place}[j * {operand.strides[-1]}u]"
        return f"p{place}[j]" if self._group.reads_rows(number, which) else f"v{place}"

    def _phase_lines(self, phase: int) -> list[str]:
        folds = [number for number in self._group.folds if self._phase[number] == phase]
        made = [n for n in self._group.whole if self._phase[n] == phase and n in self._written]
        needed = self._needed([*made, *(self._operations[fold].operands[0].source for fold in folds)], phase)
        inner = []
        for number in needed:
            inner += self._element(number, phase, made)
        lines = []
        for fold in folds:
            lines += self._fold_start(fold)
            inner += self._fold_step(fold)
        if inner:
            lanes = "TL_WARP" if self._warps else "TL_BLOCK"
            lines += loop("lane", self._group.length, lanes, inner, "j")
        for fold in folds:
            lines += self._fold_end(fold)
        return lines

    def _needed(self, wanted: Sequence[int], phase: int) -> list[int]:
        """Whole members to have at hand, in order: what is wanted, and what that is computed from."""
        needed: set[int] = set()
        rest = [number for number in wanted if number in self._group.whole]
        while rest:
            number = rest.pop()
            if number in needed:
                continue
            needed.add(number)
            if not self._lies_there(number, phase):
                sources = (operand.source for operand in self._operations[number].operands)
                rest += [source for source in sources if source in self._group.whole]
        return sorted(needed)

    def _lies_there(self, number: int, phase: int) -> bool:
        """Whether a whole member was written in an earlier phase: by this very thread, so no barrier is needed."""
        return number in self._written and self._phase[number] < phase

    def _element(self, number: int, phase: int, made: Sequence[int]) -> list[str]:
        name, one = self._name[number], self._operations[number]
        element, place = ELEMENTS[one.dtype], f"o{self._name[number]}[(uint64_t)r * {self._group.length}u + j]"
        if self._lies_there(number, phase):
            return [f"const {element} m{name} = {place};"]
        lines = self._computed(number)
        return [*lines, f"{place} = m{name};"] if number in made else lines

    def _computed(self, number: int) -> list[str]:
        """`m7` of a POINTWISE."""
        one, name = self._operations[number], self._name[number]
        assert isinstance(one.attributes, Pointwise)
        inputs = [self._operand(number, which) for which in range(len(one.operands))]
        dtypes = [self._operations[operand.source].dtype for operand in one.operands]
        lines, result = kernel_text(one.attributes.kernel, inputs, dtypes, CUDA.arithmetic)
        return [f"{ELEMENTS[one.dtype]} m{name};", "{", *lines, f"m{name} = {stored(result, one.dtype)};", "}"]

    def _single(self, phase: int) -> list[str]:
        """What has one element a row and is known when a phase begins."""
        lines = []
        for number in self._group.single:
            if self._phase[number] == phase:
                lines += [*self._computed(number), *self._kept(number)]
        return lines

    def _kept(self, number: int) -> list[str]:
        name = self._name[number]
        return [f"if (lane == 0) o{name}[r] = m{name};"] if number in self._written else []

    def _fold_start(self, fold: int) -> list[str]:
        name = self._name[fold]
        if isinstance(self._operations[fold].attributes, Max):
            return [f"uint32_t f{name} = 0;"]
        return [
            f"struct tl_sum f{name} = {{0, 0}};",
            f"const int32_t e{name} = sum_exponent({self._operand(fold, 1)});",
            f"const float u{name} = power_of_two(30 - e{name});",
        ]

    def _fold_step(self, fold: int) -> list[str]:
        name, attributes, word = self._name[fold], self._operations[fold].attributes, self._operand(fold, 0)
        if isinstance(attributes, Max):
            return [f"f{name} = tl_greater(f{name}, tl_key({word}, {int(attributes.magnitudes)}));"]
        return [f"tl_add_term(&f{name}, {word}, u{name});"]

    def _fold_end(self, fold: int) -> list[str]:
        name, attributes = self._name[fold], self._operations[fold].attributes
        kind = "sum" if isinstance(attributes, Sum) else "greatest"
        room = "sum_room" if isinstance(attributes, Sum) else "room"
        whole = f"tl_warp_{kind}(f{name})" if self._warps else f"tl_all_{kind}(f{name}, {room})"
        ended = f"summed(f{name}.total, power_of_two(e{name} - 30), f{name}.kinds)"
        if isinstance(attributes, Max):
            ended = f"tl_greatest_word(f{name}, {int(attributes.magnitudes)})"
        return [f"f{name} = {whole};", f"const uint32_t m{name} = {ended};", *self._kept(fold)]
