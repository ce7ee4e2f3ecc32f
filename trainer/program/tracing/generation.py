"""The program that adds one token to a text: forward pass, then a draw that can be disputed (docs/generation.md)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from trainer.engine.exact.functions import Builder
from trainer.engine.exact.kernels import Op
from trainer.engine.exact.noise import gumbel, threefry
from trainer.program.description import MergeConfig, Precision
from trainer.program.exact import BuiltProgram, DType, ProgramBuilder, Quantised, Role, Value
from trainer.program.exact.operations import Matmul
from trainer.program.layout import DIVERGED, LENGTH, POSITION, SEED, TEMPERATURE, TOKENS, TOP_K
from trainer.program.tracing.capture import Logits, capture_logits
from trainer.program.tracing.lowering import Lowering
from trainer.program.tracing.optimizers import Optimizer
from trainer.program.tracing.refusals import TracingError
from trainer.program.tracing.terms import Write, as_value, literal, pointwise
from trainer.program.tracing.training import declare, finished, in_mode

_INFINITY = 0x7F800000
_MINUS_INFINITY = 0xFF800000
_GREATEST_FINITE = 0x7F7FFFFF
_SIGN = 0x80000000
_MOST_TOKENS = 2**24  # float32 counts one by one up to here, and the choice counts in it
_COLDEST = 2.0**-126
_SCALARS = (LENGTH, SEED, POSITION, TOP_K, DIVERGED)


def trace_generation(
    model: nn.Module,
    logits_of: Logits,
    optimizer: Optimizer,
    *,
    context: int,
    vocabulary: int,
    merge: MergeConfig | None = None,
    precision: Precision | None = None,
    fused: bool = True,
) -> BuiltProgram:
    """The program that appends one token to a text, to be run again for each further one.

    Its state is the training program's (so the optimizer is named), which stays unchanged, then the tensors of
    docs/generation.md: the last tokens of the text, and what decides the draw.

    Args:
        logits_of: called with the model and inputs [1, context] int64; gives logits [1, context, vocabulary].
        context: places of the window, T. vocabulary: token values, V.
        merge: of a task with several slots a round: DiLoCo's state has more tensors.
        precision: bits of matrix products; 13 everywhere if not given.
        fused: whether neighbouring element-wise operations are joined; the results are the same.

    Raises:
        TracingError: something that cannot be in an exact program, and what to use instead.
    """
    if not 1 <= vocabulary <= _MOST_TOKENS:
        raise TracingError(f"A vocabulary of {vocabulary} tokens: a draw is among 1 to {_MOST_TOKENS}.")
    build = ProgramBuilder(Role.GENERATE)
    parameters = declare(build, model, optimizer, merge)
    text = _declare_text(build, context)
    length = _words(build, lambda b, n: _between(b, n, 1, context), text[LENGTH])
    places = build.constant(torch.arange(context, dtype=torch.int32))
    window = _words(
        build, lambda b, i, n, t: b.select(b.emit(Op.ILT, i, n), t, b.word(0)), places, length, build.load(TOKENS)
    )
    with in_mode(model, training=False):
        example = torch.zeros(1, context, dtype=torch.int64)
        captured = capture_logits(model, logits_of, example, vocabulary=vocabulary)
    lowering = Lowering(build, captured, precision or Precision())
    logits = as_value(build, lowering.lower([*parameters.values(), window.unsqueeze(0)])[0])
    last = _words(build, lambda b, n: b.emit(Op.ISUB, n, b.word(1)), length)
    token = _chosen(build, _row(build, logits.squeeze(0), last), text)
    _store_text(build, token, window=window, places=places, length=length, position=text[POSITION])
    return finished(build, fused)


def _declare_text(build: ProgramBuilder, context: int) -> dict[str, Value]:
    """Declares what follows the training state, in order. Gives the single numbers, without axes."""
    build.state(TOKENS, DType.INT64, (context,))
    for name in (LENGTH, SEED, POSITION):
        build.state(name, DType.INT64, (1,))
    build.state(TEMPERATURE, DType.FLOAT32, (1,))
    for name in (TOP_K, DIVERGED):
        build.state(name, DType.INT64, (1,))
    return {name: build.load(name).squeeze(0) for name in (*_SCALARS, TEMPERATURE)}


def _store_text(
    build: ProgramBuilder, token: Value, *, window: Value, places: Value, length: Value, position: Value
) -> None:
    """The window with the token after its last one, moved one place to the left first if it is full."""
    context = window.shape[0]

    def source(b: Builder, i: int, n: int) -> int:
        return b.emit(Op.IADD, i, b.emit(Op.IEQ, n, b.word(context)))

    def placed(b: Builder, i: int, n: int, old: int, new: int) -> int:
        full = b.emit(Op.IEQ, n, b.word(context))
        return b.select(b.emit(Op.IEQ, i, b.emit(Op.ISUB, n, full)), new, old)

    # Past the window's end TAKE gives 0.
    kept = build.gather_last(window, _words(build, source, places, length))
    build.store(TOKENS, _words(build, placed, places, length, kept, token))
    grown = _words(build, lambda b, n: _between(b, b.emit(Op.IADD, n, b.word(1)), 1, context), length)
    build.store(LENGTH, build.reshape(grown, (1,)))
    counted = _words(build, lambda b, n: b.emit(Op.IADD, n, b.word(1)), position)
    build.store(POSITION, build.reshape(counted, (1,)))


def _row(build: ProgramBuilder, logits: Value, place: Value) -> Value:
    """The logits at one place: [T, V] and int32 [] to [V].

    Where they are a product, only this row of it is computed. Rows are quantised each on its own, so the bits are those
    of the whole product's row.
    """
    made = build.operation_of(logits)
    whole = made.elements == logits.elements and made.shape[-2:] == logits.shape
    if not (whole and logits.is_contiguous() and isinstance(made.attributes, Matmul)):
        return build.take(logits, place)
    # Axes before the last two have one element each.
    left, right, left_scale, right_scale = (_matrix(one) for one in build.operands_of(logits))
    at, length = place.unsqueeze(0), made.attributes.length
    row = Quantised(build.take(_runs(left.select(-1, 0), length), at), build.take(left_scale.select(-1, 0), at))
    columns = Quantised(_runs(right.select(-2, 0), length), right_scale.select(-2, 0))
    return build.product(row, columns).squeeze(0)


def _matrix(view: Value) -> Value:
    return view if len(view.shape) == 2 else _matrix(view.select(0, 0))


def _runs(starts: Value, length: int) -> Value:
    """Runs of consecutive elements: [...] first ones to [..., length]."""
    return replace(starts, shape=(*starts.shape, length), strides=(*starts.strides, 0 if length == 1 else 1))


def _chosen(build: ProgramBuilder, logits: Value, text: dict[str, Value]) -> Value:
    """The token drawn by logits [V], int32 []; stores whether the logits have a softmax."""
    numbers = build.constant(torch.arange(logits.elements, dtype=torch.int32))
    usable = _floats(build, lambda b, x: b.select(b.emit(Op.FEQ, x, x), x, b.word(_MINUS_INFINITY)), logits)
    _store_diverged(build, build.max_last(logits), text[DIVERGED])
    keys = _words(build, _order_key, usable)
    least = _threshold(build, keys, text[TOP_K])
    noise = _floats(build, _noise, text[SEED], text[POSITION], numbers)
    scores = _floats(build, _score, usable, build.max_last(usable), text[TEMPERATURE], keys, least, noise)

    def mark(b: Builder, score: int, best: int, number: int) -> int:
        lowered = b.emit(Op.I2F, b.emit(Op.ISUB, b.word(0), number))
        return b.select(b.emit(Op.FEQ, score, best), lowered, b.word(_MINUS_INFINITY))

    # The first of the greatest: the greatest of the negated numbers.
    first = build.max_last(_floats(build, mark, scores, build.max_last(scores), numbers))
    return _words(build, lambda b, x: b.emit(Op.ISUB, b.word(0), b.emit(Op.F2I, x)), first)


def _store_diverged(build: ProgramBuilder, greatest: Value, before: Value) -> None:
    """1 from the first time on that the greatest logit, a NaN if there is one, is not finite."""

    def write(b: Builder, x: int, old: int) -> int:
        finite = b.emit(Op.ILT, b.magnitude(x), b.word(_INFINITY))
        return b.select(old, b.word(1), b.emit(Op.XOR, finite, b.word(1)))

    build.store(DIVERGED, build.reshape(_words(build, write, greatest, before), (1,)))


def _order_key(b: Builder, x: int) -> int:
    """The key of a float's bits (arithmetic.md, "Order")."""
    return b.emit(Op.XOR, x, b.emit(Op.AND, b.emit(Op.SAR, x, b.word(31)), b.word(~_SIGN)))


def _threshold(build: ProgramBuilder, keys: Value, top: Value) -> Value:
    """The key that the `top` greatest of keys [V] reach, int32 []; the least one where `top` is below 1 or above V.

    It is found two bits at a time, from the highest: how many keys reach each of three candidates.
    """
    every = keys.elements
    wanted = _floats(
        build,
        lambda b, k: b.emit(Op.I2F, b.select(b.emit(Op.ILT, k, b.word(1)), b.word(every), _at_most(b, k, every))),
        top,
    )
    steps = build.constant(torch.tensor([[1], [2], [3]], dtype=torch.int32))
    exponent = as_value(build, literal(1, DType.INT32))
    found = as_value(build, literal(0, DType.INT32))
    for shift in range(30, -1, -2):

        def reached(b: Builder, key: int, step: int, prefix: int, shift: int = shift) -> int:
            candidate = _with_bits(b, prefix, step, shift)
            below = b.emit(Op.ILT, key, b.emit(Op.XOR, candidate, b.word(_SIGN)))
            return b.emit(Op.I2F, b.emit(Op.XOR, below, b.word(1)))

        def extended(b: Builder, k: int, one: int, two: int, three: int, prefix: int, shift: int = shift) -> int:
            enough = [b.emit(Op.FLE, k, count) for count in (one, two, three)]
            return _with_bits(b, prefix, b.emit(Op.IADD, b.emit(Op.IADD, *enough[:2]), enough[2]), shift)

        counts = build.sum_last(_floats(build, reached, keys, steps, found), exponent.expand((3,)))
        found = _words(build, extended, wanted, *(counts.select(0, c) for c in range(3)), found)
    return _words(build, lambda b, x: b.emit(Op.XOR, x, b.word(_SIGN)), found)


def _with_bits(b: Builder, prefix: int, bits: int, shift: int) -> int:
    return b.emit(Op.IADD, prefix, b.emit(Op.SHL, bits, b.word(shift)))


def _noise(b: Builder, seed: int, position: int, number: int) -> int:
    """Gumbel noise of one token at one position."""
    return gumbel(b, threefry(b, (seed, b.word(0)), (number, position))[0])


def _score(b: Builder, x: int, greatest: int, temperature: int, key: int, least: int, noise: int) -> int:
    """What the greatest of is chosen: the logit itself where it is cold, else its distance from the greatest, scaled.

    Never a NaN: the temperature is finite where it divides, and what is not kept never gets to the sum.
    """
    warm = b.emit(Op.FLE, b.number(_COLDEST), temperature)
    limit = b.word(_GREATEST_FINITE)
    finite = b.select(b.less(limit, temperature), limit, temperature)
    # Taken off first, so that a small temperature overflows downwards only; equal infinities have no difference.
    distance = b.select(b.emit(Op.FEQ, x, greatest), b.word(0), b.sub(x, greatest))
    drawn = b.add(b.div(distance, finite), noise)
    dropped = b.emit(Op.OR, b.emit(Op.ILT, key, least), b.emit(Op.IEQ, x, b.word(_MINUS_INFINITY)))
    return b.select(warm, b.select(dropped, b.word(_MINUS_INFINITY), drawn), x)


def _between(b: Builder, x: int, least: int, greatest: int) -> int:
    low = b.word(least)
    return _at_most(b, b.select(b.emit(Op.ILT, x, low), low, x), greatest)


def _at_most(b: Builder, x: int, greatest: int) -> int:
    limit = b.word(greatest)
    return b.select(b.emit(Op.ILT, limit, x), limit, x)


def _words(build: ProgramBuilder, write: Write, *values: Value) -> Value:
    return as_value(build, pointwise(build, write, *values, dtype=DType.INT32))


def _floats(build: ProgramBuilder, write: Write, *values: Value) -> Value:
    return as_value(build, pointwise(build, write, *values, dtype=DType.FLOAT32))
