"""The reference interpreter: what a program means, one operation at a time, on any device (docs/programs.md).

Clear before fast: it is what every faster engine has to equal. It holds an output until its last reader, and computes
large element-wise operations and products in blocks, so that its memory stays near `cost.peak_bytes`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from trainer.engine.exact import reference
from trainer.engine.exact.backends import Backend, dot
from trainer.engine.exact.kernels import Kernel, run_kernel, signed
from trainer.program.exact.cost import last_readers, last_readers_for
from trainer.program.exact.operations import (
    GREATEST_EXPONENT,
    LEAST_EXPONENT,
    Batch,
    Cat,
    Constant,
    ConstantTensor,
    DType,
    Load,
    Matmul,
    Max,
    Operand,
    Operation,
    Part,
    Pointwise,
    Program,
    ScatterAdd,
    Shape,
    StateTensor,
    Sum,
    Take,
    View,
)

TORCH_DTYPES = {
    DType.FLOAT32: torch.float32,
    DType.INT64: torch.int64,
    DType.INT32: torch.int32,
    DType.INT8: torch.int8,
    DType.INT16: torch.int16,
}
_MAGNITUDE, _INFINITY = 0x7FFFFFFF, 0x7F800000
_SUM_BITS = 30
# Elements that an element-wise kernel, a row fold or a product works on at a time; of a long kernel fewer, because all
# its registers are held.
_BLOCK = 2**20
_REGISTERS = 2**24

Observer = Callable[[int, Tensor], None]


class Batches(Protocol):
    """Where BATCH gets its tokens."""

    def tokens(self, part: Part, shift: int, samples: int, length: int) -> Tensor:
        """int32 [samples, length]: the tokens `shift` places after each sample's position; 0 where there is none."""
        ...


def run_program(
    program: Program,
    state: Sequence[Tensor],
    constants: Sequence[Tensor],
    batches: Batches | None = None,
    *,
    device: torch.device | str = "cpu",
    backend: Backend | None = None,
    observe: Observer | None = None,
) -> list[Tensor]:
    """Runs a checked program once: the state's tensors, in order, to the next state's, on `device`.

    Args:
        state: of a merge the tensors of all its states, one state after the other, the base first.
        constants: the data of the program's constants, checked by `check_constants`.
        batches: where tokens come from; None for a program without BATCH.
        backend: of the integer products; None takes float64.
        observe: called with each operation's number and output, [shape], as soon as it is there, in order.

    Raises:
        ValueError: the state's or the constants' dtypes or shapes are not the program's, or there are no batches.
    """
    run = _Run(program, state, constants, batches, device, backend)
    for number, output in run.outputs_of(program.operations, last_readers(program)):
        if observe is not None:
            observe(number, output)
        del output  # or it would live on beside its successor
    return [
        held if tensor.source is None else run.outputs[tensor.source].to(TORCH_DTYPES[tensor.dtype])
        for tensor, held in zip(program.states, run.state, strict=False)  # of a merge, the base comes first
    ]


def run_operations(
    program: Program,
    state: Sequence[Tensor],
    constants: Sequence[Tensor],
    batches: Batches | None = None,
    *,
    wanted: Collection[int],
    device: torch.device | str = "cpu",
    backend: Backend | None = None,
) -> dict[int, Tensor]:
    """Outputs of some operations of a checked program, by number, [shape] each, on `device`.

    Runs only what they depend on, and holds nothing else for longer than it is read.

    Args:
        wanted: numbers of operations. The other arguments, and what is raised: as for `run_program`.
    """
    run = _Run(program, state, constants, batches, device, backend)
    for _ in run.outputs_of(program.operations, last_readers_for(program, wanted)):
        pass
    return run.outputs


def _moved(
    declared: Sequence[StateTensor | ConstantTensor], tensors: Sequence[Tensor], device: torch.device | str, what: str
) -> list[Tensor]:
    """The tensors on the device, contiguous, once they are what the program declares."""
    wanted = [(TORCH_DTYPES[one.dtype], one.shape) for one in declared]
    given = [(one.dtype, tuple(one.shape)) for one in tensors]
    if wanted != given:
        raise ValueError(f"the {what} tensors are {given}, and the program has {wanted}")
    return [one.to(device).contiguous() for one in tensors]


class _Run:
    """One run: the tensors, and how each operation makes its output of them."""

    def __init__(
        self,
        program: Program,
        state: Sequence[Tensor],
        constants: Sequence[Tensor],
        batches: Batches | None,
        device: torch.device | str,
        backend: Backend | None,
    ) -> None:
        self.device = torch.device(device)
        self.state = _moved(program.taken, state, device, "state")
        self.constants = _moved(program.constants, constants, device, "constant")
        self.outputs: dict[int, Tensor] = {}
        self._backend = backend
        self._batches = batches

    def outputs_of(self, operations: Sequence[Operation], last: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
        """Computes operations in order, and gives each one's number and output as soon as it is there.

        Args:
            last: for each operation the last one that reads it, after which its output goes; their number for outputs
                that stay in `outputs`, below 0 for operations that are left out.
        """
        freed: list[list[int]] = [[] for _ in range(len(operations) + 1)]
        for number, reader in enumerate(last):
            if reader >= 0:
                freed[reader].append(number)
        for number, one in enumerate(operations):
            if last[number] < 0:
                continue
            output = self.outputs[number] = self.output(one)
            yield number, output
            del output  # or it would live on in this frame beside its successor
            for old in freed[number]:
                del self.outputs[old]

    def output(self, one: Operation) -> Tensor:
        """An operation's output, of its shape and dtype, contiguous in memory of its own."""
        output = self._computed(one)
        # Operands are read by their place in memory: an alias of something else would be read from its beginning.
        return output if output.is_contiguous() and output.storage_offset() == 0 else _copied(output)

    def _computed(self, one: Operation) -> Tensor:
        match one.attributes:
            case Load(index):
                return _read(self.state[index])
            case Constant(index):
                return _read(self.constants[index])
            case Batch(part, shift):
                return self._batch(part, shift, one)
            case View():
                return _copied(self.view(one.operands[0], one.shape))
            case Pointwise(kernel):
                return self._pointwise(kernel, one)
            case Matmul(length):
                return self._matmul(length, one)
            case Sum(length):
                exponent = self.view(one.operands[1], (*one.shape, 1), (0,))
                return _in_blocks(_sum, [self._runs(one, 0, length), exponent], one.shape, torch.float32)
            case Max(length, magnitudes):
                fold = _greatest if magnitudes else _maximum
                return _in_blocks(fold, [self._runs(one, 0, length)], one.shape, torch.float32)
            case Take():
                return self._take(one.attributes, one)
            case ScatterAdd(length):
                return self._scatter_add(length, one)
            case Cat():
                return self._cat(one.attributes, one)

    def view(self, operand: Operand, shape: Sequence[int], more: Sequence[int] = ()) -> Tensor:
        """An operand's elements under the output's shape; `more` are strides of axes that follow the output's."""
        return self.outputs[operand.source].as_strided(tuple(shape), (*operand.strides, *more), operand.offset)

    def _runs(self, one: Operation, place: int, length: int) -> Tensor:
        """The runs that a fold reads: [output's shape, K]."""
        return self.view(one.operands[place], (*one.shape, length), (1,))

    def _batch(self, part: Part, shift: int, one: Operation) -> Tensor:
        if self._batches is None:
            raise ValueError("the program reads tokens, and no batches were given")
        samples, length = one.shape
        tokens = self._batches.tokens(part, shift, samples, length)
        if tokens.dtype != torch.int32 or tuple(tokens.shape) != one.shape:
            raise ValueError(f"a batch of {tokens.dtype} {list(tokens.shape)}, where int32 {list(one.shape)} is asked")
        return tokens.to(self.device)

    def _pointwise(self, kernel: Kernel, one: Operation) -> Tensor:
        def compute(*inputs: Tensor) -> Tensor:
            return _written(run_kernel(kernel, [_words(x) for x in inputs]), one.dtype)

        if not one.operands:
            return compute().to(self.device).expand(one.shape)
        inputs = [self.view(operand, one.shape) for operand in one.operands]
        block = min(_BLOCK, _REGISTERS // len(kernel.instructions))
        return _in_blocks(compute, inputs, one.shape, TORCH_DTYPES[one.dtype], block)

    def _matmul(self, length: int, one: Operation) -> Tensor:
        left, right, scale_left, scale_right = one.operands
        bits = (self._bits(left), self._bits(right))
        a, scale_a = self._left(left, one.shape, length), self._left(scale_left, one.shape, 1)
        b, scale_b = self._right(right, one.shape, length), self._right(scale_right, one.shape, 1)
        batch = one.shape[:-2]
        if not any((*right.strides[:-2], *scale_right.strides[:-2])):
            # One matrix for all batches (a layer's weight): their rows are rows of one product.
            a, scale_a = a.reshape(-1, length), scale_a.reshape(-1, 1)
            first = (0,) * len(batch)
            return self._product(a, b[first], scale_a, scale_b[first], bits).reshape(one.shape)
        output = torch.empty(one.shape, dtype=torch.float32, device=self.device)
        for index in itertools.product(*map(range, batch)):
            output[index] = self._product(a[index], b[index], scale_a[index], scale_b[index], bits)
        return output

    def _product(self, a: Tensor, b: Tensor, scale_a: Tensor, scale_b: Tensor, bits: tuple[int, int]) -> Tensor:
        """Rows a [M, K] times rows b [N, K] with scales [M, 1] and [N, 1], a block of rows at a time: [M, N]."""
        output = torch.empty(a.shape[0], b.shape[0], dtype=torch.float32, device=self.device)
        columns = b.to(torch.int16)
        step = max(1, _BLOCK // len(b))
        for at in range(0, len(a), step):
            part = slice(at, at + step)
            accumulated = dot(a[part].to(torch.int16), columns, bits=bits, backend=self._backend)
            output[part] = reference.canonical_nan((accumulated.to(torch.float32) * scale_a[part]) * scale_b.mT)
        return output

    def _left(self, operand: Operand, shape: Shape, length: int) -> Tensor:
        """Rows of a MATMUL's first matrix, or their scales: [batch, M, length]."""
        source, strides = self.outputs[operand.source], (*operand.strides[:-1], 1)
        return source.as_strided((*shape[:-1], length), strides, operand.offset)

    def _right(self, operand: Operand, shape: Shape, length: int) -> Tensor:
        """Rows of a MATMUL's second matrix, or their scales: [batch, N, length]."""
        source, strides = self.outputs[operand.source], (*operand.strides[:-2], operand.strides[-1], 1)
        return source.as_strided((*shape[:-2], shape[-1], length), strides, operand.offset)

    def _bits(self, operand: Operand) -> int:
        return 8 if self.outputs[operand.source].dtype == torch.int8 else 13

    def _take(self, take: Take, one: Operation) -> Tensor:
        table, index = one.operands
        places = self.view(index, one.shape).to(torch.int64)
        inside = (places >= 0) & (places < take.rows)
        at = torch.where(inside, places, 0) * take.row_stride + _positions(table, one.shape, self.device)
        return torch.where(inside, self.outputs[table.source].reshape(-1)[at], 0)

    def _scatter_add(self, length: int, one: Operation) -> Tensor:
        rows, rest = one.shape[0], one.shape[1:]
        x, index = (
            self.outputs[operand.source].as_strided((*rest, length), (*operand.strides[1:], 1), operand.offset)
            for operand in one.operands[:2]
        )
        exponent = one.operands[2]
        exponents = self.outputs[exponent.source].as_strided((*rest, 1), (*exponent.strides[1:], 0), exponent.offset)
        places = index.to(torch.int64)
        # What goes nowhere is added to a row of its own, which is dropped.
        places = torch.where((places >= 0) & (places < rows), places, rows)
        return _scattered(x, places, rows, exponents).movedim(-1, 0)

    def _cat(self, cat: Cat, one: Operation) -> Tensor:
        output = _written(torch.full(one.shape, signed(cat.padding), dtype=torch.int32, device=self.device), one.dtype)
        at = 0
        for operand, extent in zip(one.operands, cat.extents, strict=True):
            part = output.narrow(cat.axis, at, extent)
            part.copy_(self.view(operand, part.shape))
            at += extent
        return output


def _copied(x: Tensor) -> Tensor:
    return x.clone(memory_format=torch.contiguous_format)


def _read(held: Tensor) -> Tensor:
    """What LOAD and CONST give: floats with the one NaN, the low 32 bits of counters, words."""
    if held.dtype == torch.float32:
        return reference.canonical_nan(held)
    low = held.to(torch.int64) & 0xFFFFFFFF
    return ((low ^ 0x80000000) - 0x80000000).to(torch.int32)


def _words(x: Tensor) -> Tensor:
    """32-bit words of elements: bits of floats, sign-extended integers."""
    return x.view(torch.int32) if x.dtype == torch.float32 else x.to(torch.int32)


def _written(words: Tensor, dtype: DType) -> Tensor:
    """Words as elements of an output: the one NaN, and quantised values saturated."""
    if dtype is DType.FLOAT32:
        return reference.float_of(words)
    if dtype is DType.INT32:
        return words
    return words.clamp(-dtype.largest, dtype.largest).to(TORCH_DTYPES[dtype])


def _in_blocks(
    compute: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    shape: Sequence[int],
    dtype: torch.dtype,
    block: int = _BLOCK,
) -> Tensor:
    """`compute` over inputs whose leading axes are the output's, at most `block` elements of them at a time.

    Inputs may have one axis more than the output, the folded one; then `compute` keeps it with extent 1.
    """
    folds = inputs[0].dim() - len(shape)
    output = torch.empty((*shape, *(1,) * folds), dtype=dtype, device=inputs[0].device)
    pieces = [(output, list(inputs))]
    while pieces:
        target, parts = pieces.pop()
        axis = next((axis for axis, extent in enumerate(target.shape) if extent > 1), None)
        if axis is None or max(part.numel() for part in parts) <= block:
            target.copy_(compute(*parts))
            continue
        half = target.shape[axis] // 2
        for start, extent in ((0, half), (half, target.shape[axis] - half)):
            pieces.append((target.narrow(axis, start, extent), [part.narrow(axis, start, extent) for part in parts]))
    return output.reshape(tuple(shape))


def _sum(x: Tensor, exponent: Tensor) -> Tensor:
    return reference.sum_rows(x, exponent.clamp(LEAST_EXPONENT, GREATEST_EXPONENT))


def _maximum(x: Tensor) -> Tensor:
    return reference.max_rows(x)


def _greatest(x: Tensor) -> Tensor:
    return (reference.bits_of(x) & _MAGNITUDE).amax(-1, keepdim=True).view(torch.float32)


def _positions(operand: Operand, shape: Sequence[int], device: torch.device) -> Tensor:
    """The source's element that an operand names for each index of the output, int64."""
    at = torch.full((), operand.offset, dtype=torch.int64, device=device)
    for axis, (extent, stride) in enumerate(zip(shape, operand.strides, strict=True)):
        steps = torch.arange(extent, device=device) * stride
        at = at + steps.reshape(-1, *(1,) * (len(shape) - axis - 1))
    return at


def _scattered(x: Tensor, places: Tensor, rows: int, exponent: Tensor) -> Tensor:
    """SUM by place: x, places [..., K], exponent [..., 1] to [..., rows]; places of `rows` are dropped."""
    exponent = exponent.clamp(LEAST_EXPONENT, GREATEST_EXPONENT)
    bits = reference.bits_of(x)
    magnitude = bits & _MAGNITUDE
    finite = torch.where(magnitude >= _INFINITY, 0.0, x)
    limit = 2.0**_SUM_BITS
    q = torch.round(finite * reference.power_of_two(_SUM_BITS - exponent)).clamp(-limit, limit).to(torch.int64)

    def gathered(integers: Tensor) -> Tensor:
        totals = torch.zeros(*x.shape[:-1], rows + 1, dtype=torch.int64, device=x.device)
        return totals.scatter_add_(-1, places, integers)[..., :rows]

    total = gathered(q).to(torch.float32) * reference.power_of_two(exponent - _SUM_BITS)
    if bool((magnitude >= _INFINITY).any()):
        has_nan, above, below = (
            gathered(flag.to(torch.int64)) > 0
            for flag in (magnitude > _INFINITY, bits == _INFINITY, (magnitude == _INFINITY) & (bits < 0))
        )
        total = torch.where(above, torch.inf, total)
        total = torch.where(below, -torch.inf, total)
        total = torch.where(has_nan | (above & below), torch.nan, total)
    return reference.canonical_nan(total)
