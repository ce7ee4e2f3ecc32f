"""A program's memory and the state in it, on the device where a compiled program runs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trainer.engine.exact.fast.plan import Base, Place, Plan
from trainer.engine.exact.interpreter import TORCH_DTYPES, Batches
from trainer.engine.exact.reference import canonical_nan
from trainer.program.exact.operations import Batch, Program, Shape, StateTensor

_ALIGNMENT = 64


class HeldState:
    """Memory for everything that a plan places, taken once, and the state in it.

    What runs a program makes the next state from the one that is held, and then calls `swap`.

    Args:
        constants: the data of the program's constants, checked by `check_constants`.
        scratch: bytes.

    Raises:
        ValueError: constants of other dtypes or shapes.
    """

    def __init__(
        self,
        program: Program,
        constants: Sequence[Tensor],
        plan: Plan,
        *,
        scratch: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self._program, self._plan, self._device = program, plan, torch.device(device)
        self._unread: dict[int, Tensor] = {}
        self._others: list[Tensor | None] = []
        sizes = {**plan.sizes, Base.SCRATCH: scratch}
        self._memory = {base: _aligned(sizes[base], device) for base in Base}
        self._batches = [
            (self._at(place, torch.int32, one.shape), one.attributes)
            for place, one in zip(plan.outputs, program.operations, strict=True)
            if isinstance(one.attributes, Batch)
        ]
        declared = [(TORCH_DTYPES[one.dtype], one.shape) for one in program.constants]
        _demand("constant", constants, declared)
        for place, one in zip(plan.constants, constants, strict=True):
            self._at(place, one.dtype, tuple(one.shape)).copy_(_canonical(one))

    def load(self, state: Sequence[Tensor]) -> None:
        """Takes a state, the program's tensors in their order; every NaN becomes the one NaN where it is read.

        A merge takes all its states, the base first. Those beside the base are read where they lie, if that can be, and
        must not change before the run. A tensor that is the base's own object takes no memory.

        Raises:
            ValueError: dtypes or shapes are not the program's.
        """
        _demand("state", state, [(TORCH_DTYPES[one.dtype], one.shape) for one in self._program.taken])
        count = len(self._program.states)
        self._others = [
            None if given is state[number % count] else self._readable(given)
            for number, given in enumerate(state[count:])
        ]
        state = state[:count]
        for base in (Base.STATE, Base.NEXT):  # an unchanged tensor is never written again
            for held, one in zip(self._tensors(base), state, strict=True):
                held.copy_(_canonical(one))
        # What no operation writes keeps its bits, and only LOAD reads a NaN as the one NaN.
        self._unread = {
            number: given.to(self._device, copy=True)
            for number, (one, given) in enumerate(zip(self._program.states, state, strict=True))
            if _keeps_bits(one, given)
        }

    def take_tokens(self, batches: Batches | None) -> None:
        """Puts a run's tokens where its BATCHes give them.

        Raises:
            ValueError: the program reads tokens, and no batches or other ones were given.
        """
        for held, batch in self._batches:
            held.copy_(_tokens(batches, batch, tuple(held.shape)))

    def addresses(self) -> list[int]:
        """Where each memory begins now, in the order of `Base`; of a merge also the other states' tensors.

        Raises:
            ValueError: a merge has no states: it takes them anew for each run.
        """
        held = [self._memory[base].data_ptr() for base in Base]
        if not self._program.inputs:
            return held
        if not self._others:
            raise ValueError("a merge takes its states before each run, and has none")
        places = self._plan.states
        return held + [
            held[Base.STATE] + places[number % len(places)].offset if other is None else other.data_ptr()
            for number, other in enumerate(self._others)
        ]

    def swap(self) -> None:
        """The next state, which a run has written, becomes the one that is held; a merge's others go."""
        self._others = []
        memory = self._memory
        memory[Base.STATE], memory[Base.NEXT] = memory[Base.NEXT], memory[Base.STATE]

    def state(self) -> list[Tensor]:
        """A copy of the state, on the CPU; an unchanged tensor is as it came, whatever NaNs it has."""
        return [_copied(self._unread.get(number, held)) for number, held in enumerate(self._tensors(Base.STATE))]

    def tensor(self, number: int) -> Tensor:
        """A copy of one tensor of the state, on the CPU."""
        return _copied(self.held(number))

    def held(self, number: int) -> Tensor:
        """A tensor of the state that is held, itself: to be read before the next step, and written by `put` only."""
        return self._unread[number] if number in self._unread else self._tensor(Base.STATE, number)

    def put(self, number: int, given: Tensor) -> None:
        """Takes one tensor of the state, as `load` takes all.

        Raises:
            ValueError: its dtype or shape is not the program's.
        """
        one = self._program.states[number]
        _demand("state", [given], [(TORCH_DTYPES[one.dtype], one.shape)])
        for base in (Base.STATE, Base.NEXT) if one.source is None else (Base.STATE,):
            self._tensor(base, number).copy_(_canonical(given))
        self._unread.pop(number, None)
        if _keeps_bits(one, given):
            self._unread[number] = given.to(self._device, copy=True)

    def output(self, number: int) -> Tensor:
        """An operation's output in the last run, on the CPU, of a source written with `keep`.

        The state's own tensors, which LOAD gives, have moved on by then and are given as they were before the run.
        """
        one, place = self._program.operations[number], self._plan.outputs[number]
        # The two memories have changed places since.
        base = {Base.STATE: Base.NEXT, Base.NEXT: Base.STATE}.get(Base(place.base), place.base)
        return self._at(Place(base, place.offset, place.size), TORCH_DTYPES[one.dtype], one.shape).to("cpu", copy=True)

    def _readable(self, given: Tensor) -> Tensor:
        """A tensor as a run may read it: itself, or a copy on the device, aligned, with the one NaN."""
        plain = given.device == self._device and given.is_contiguous() and given.data_ptr() % _ALIGNMENT == 0
        if plain and not (given.is_floating_point() and bool(given.isnan().any())):
            return given
        memory = _aligned(given.numel() * given.itemsize, self._device)[: given.numel() * given.itemsize]
        copied = memory.view(given.dtype).view(given.shape)
        return copied.copy_(_canonical(given))

    def _tensors(self, base: Base) -> list[Tensor]:
        return [self._tensor(base, number) for number in range(len(self._program.states))]

    def _tensor(self, base: Base, number: int) -> Tensor:
        place, one = self._plan.states[number], self._program.states[number]
        return self._at(Place(base, place.offset, place.size), TORCH_DTYPES[one.dtype], one.shape)

    def _at(self, place: Place, dtype: torch.dtype, shape: Shape) -> Tensor:
        return self._memory[Base(place.base)][place.offset : place.offset + place.size].view(dtype).view(shape)


def _aligned(size: int, device: torch.device | str) -> Tensor:
    """Zeroed bytes whose address divides by that of a vector."""
    memory = torch.zeros(size + _ALIGNMENT, dtype=torch.uint8, device=device)
    return memory[-memory.data_ptr() % _ALIGNMENT :][: max(size, 1)]


def _copied(held: Tensor) -> Tensor:
    return held.to("cpu", copy=True)


def _keeps_bits(one: StateTensor, given: Tensor) -> bool:
    """Whether a tensor's bits may differ from what LOAD makes of them, and are to be given back as they came."""
    return one.source is None and given.dtype == torch.float32 and bool(given.isnan().any())


def _canonical(x: Tensor) -> Tensor:
    return canonical_nan(x) if x.dtype == torch.float32 else x


def _demand(what: str, given: Sequence[Tensor], declared: Sequence[tuple[torch.dtype, Shape]]) -> None:
    found = [(one.dtype, tuple(one.shape)) for one in given]
    if found != list(declared):
        raise ValueError(f"the {what} tensors are {found}, and the program has {list(declared)}")


def _tokens(batches: Batches | None, batch: Batch, shape: Shape) -> Tensor:
    if batches is None:
        raise ValueError("the program reads tokens, and no batches were given")
    samples, length = shape
    tokens = batches.tokens(batch.part, batch.shift, samples, length)
    if tokens.dtype != torch.int32 or tuple(tokens.shape) != shape:
        raise ValueError(f"a batch of {tokens.dtype} {list(tokens.shape)}, where int32 {list(shape)} is asked")
    return tokens
