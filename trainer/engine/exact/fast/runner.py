"""Runs a compiled program: memory given once, then one call a run."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from trainer.engine.exact.fast.plan import Base, Place
from trainer.engine.exact.fast.source import Source
from trainer.engine.exact.interpreter import TORCH_DTYPES, Batches
from trainer.engine.exact.reference import canonical_nan
from trainer.program.exact.operations import Batch, Program, Shape, StateTensor

MOST_THREADS = 64
_ALIGNMENT = 64


class CompiledProgram:
    """A program, its memory and its state, to be run again and again. Not for two threads of Python at a time.

    Gives the bits of `interpreter.run_program`, on any number of threads.
    """

    def __init__(
        self, program: Program, constants: Sequence[Tensor], source: Source, library: ctypes.CDLL, *, threads: int = 1
    ) -> None:
        """Takes memory for everything.

        Args:
            constants: the data of the program's constants, checked by `check_constants`.
            source: what `write_source` made of this program, and library: what a compiler made of that.
            threads: 1 to 64.

        Raises:
            ValueError: a number of threads outside that, or constants of other dtypes or shapes.
        """
        if not 1 <= threads <= MOST_THREADS:
            raise ValueError(f"a program runs on 1 to {MOST_THREADS} threads, not {threads}")
        self._program, self._plan, self._threads, self._scratch = program, source.plan, threads, source.scratch
        self._unread: dict[int, Tensor] = {}
        sizes = {**source.plan.sizes, Base.SCRATCH: source.scratch * threads}
        self._memory = {base: _aligned(sizes[base]) for base in Base}
        self._run = library.tl_run
        self._run.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_int, ctypes.c_size_t]
        self._run.restype = ctypes.c_int
        self._batches = [
            (self._at(place, torch.int32, one.shape), one.attributes)
            for place, one in zip(source.plan.outputs, program.operations, strict=True)
            if isinstance(one.attributes, Batch)
        ]
        declared = [(TORCH_DTYPES[one.dtype], one.shape) for one in program.constants]
        _demand("constant", constants, declared)
        for place, one in zip(source.plan.constants, constants, strict=True):
            self._at(place, one.dtype, tuple(one.shape)).copy_(_canonical(one))

    def load(self, state: Sequence[Tensor]) -> None:
        """Takes a state, the program's tensors in their order; every NaN becomes the one NaN where it is read.

        Raises:
            ValueError: dtypes or shapes are not the program's.
        """
        _demand("state", state, [(TORCH_DTYPES[one.dtype], one.shape) for one in self._program.states])
        for base in (Base.STATE, Base.NEXT):  # an unchanged tensor is never written again
            for held, one in zip(self._tensors(base), state, strict=True):
                held.copy_(_canonical(one))
        # What no operation writes keeps its bits, and only LOAD reads a NaN as the one NaN.
        self._unread = {
            number: given.clone()
            for number, (one, given) in enumerate(zip(self._program.states, state, strict=True))
            if _keeps_bits(one, given)
        }

    def step(self, batches: Batches | None = None) -> None:
        """Runs the program once on the state that is held, which becomes the next one.

        Raises:
            ValueError: the program reads tokens, and no batches or other ones were given.
            OSError: the system gives no more threads; the state is as it was.
        """
        for held, batch in self._batches:
            held.copy_(_tokens(batches, batch, tuple(held.shape)))
        addresses = (ctypes.c_void_p * len(Base))(*(self._memory[base].data_ptr() for base in Base))
        if self._run(addresses, self._threads, self._scratch):
            raise OSError(f"no {self._threads} threads could be started")
        memory = self._memory
        memory[Base.STATE], memory[Base.NEXT] = memory[Base.NEXT], memory[Base.STATE]

    def state(self) -> list[Tensor]:
        """A copy of the state that is held; an unchanged tensor is as it came, whatever NaNs it has."""
        return [self._unread.get(number, held).clone() for number, held in enumerate(self._tensors(Base.STATE))]

    def tensor(self, number: int) -> Tensor:
        """A copy of one tensor of the state that is held."""
        return self._unread[number].clone() if number in self._unread else self._tensor(Base.STATE, number).clone()

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
            self._unread[number] = given.clone()

    def run(self, state: Sequence[Tensor], batches: Batches | None = None) -> list[Tensor]:
        """What `run_program` gives: the state's tensors to the next state's.

        Raises:
            ValueError, OSError: as `load` and `step`.
        """
        self.load(state)
        self.step(batches)
        return self.state()

    def output(self, number: int) -> Tensor:
        """An operation's output in the last run, of a source written with `keep`.

        The state's own tensors, which LOAD gives, have moved on by then and are given as they were before the run.
        """
        one, place = self._program.operations[number], self._plan.outputs[number]
        # The two memories have changed places since.
        base = {Base.STATE: Base.NEXT, Base.NEXT: Base.STATE}.get(place.base, place.base)
        return self._at(Place(base, place.offset, place.size), TORCH_DTYPES[one.dtype], one.shape).clone()

    def _tensors(self, base: Base) -> list[Tensor]:
        return [self._tensor(base, number) for number in range(len(self._program.states))]

    def _tensor(self, base: Base, number: int) -> Tensor:
        place, one = self._plan.states[number], self._program.states[number]
        return self._at(Place(base, place.offset, place.size), TORCH_DTYPES[one.dtype], one.shape)

    def _at(self, place: Place, dtype: torch.dtype, shape: Shape) -> Tensor:
        return self._memory[place.base][place.offset : place.offset + place.size].view(dtype).view(shape)


def _aligned(size: int) -> Tensor:
    """Zeroed bytes whose address divides by that of a vector."""
    memory = torch.zeros(size + _ALIGNMENT, dtype=torch.uint8)
    return memory[-memory.data_ptr() % _ALIGNMENT :][: max(size, 1)]


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
