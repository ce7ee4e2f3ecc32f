"""What DiLoCo adds to a task's state and to its training and evaluation programs (docs/rounds.md, "DiLoCo")."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from trainer.engine.exact.functions import Builder
from trainer.engine.exact.kernels import Op
from trainer.program.exact import DType, ProgramBuilder, Value
from trainer.program.layout import ANCHOR, ANCHOR_STEP, PARAMETER, VELOCITY
from trainer.program.tracing.terms import as_value, literal, pointwise

PACKED_BITS = 8


def declare_outer(build: ProgramBuilder, trained: Mapping[str, tuple[int, ...]]) -> None:
    """Declares the counter, the anchors and the velocities of the trained parameters, whose shapes these are."""
    build.state(ANCHOR_STEP, DType.INT64, (1,))
    for prefix in (ANCHOR, VELOCITY):
        for name, shape in trained.items():
            build.state(prefix + name, DType.FLOAT32, shape)


def steps_since_anchor(build: ProgramBuilder, step: Value) -> Value:
    """Steps done since the round began, before this one: int32 [1] of `counter.step`, int32 [1]."""
    anchor = build.load(ANCHOR_STEP)
    return as_value(build, pointwise(build, lambda b, t, a: b.emit(Op.ISUB, t, a), step, anchor, dtype=DType.INT32))


def pack(
    build: ProgramBuilder, parameters: Mapping[str, Value], trained: Iterable[str], moments: Iterable[str]
) -> dict[str, Value]:
    """Stores trained parameters as their anchors and differences of 8 bits, and zeros as their moments.

    Rows of the last axis have a scale each; a tensor of fewer than two axes is one row.

    Args:
        parameters: values by name; moments: prefixes of the optimizer's tensors.

    Returns:
        The parameters with what is stored in place of the trained ones.
    """
    found = dict(parameters)
    for name in trained:
        parameter = parameters[name]
        anchor = build.load(ANCHOR + name)
        difference = pointwise(build, lambda b, p, a: b.sub(p, a), parameter, anchor, dtype=DType.FLOAT32)
        row = (parameter.shape or (1,))[-1]
        packed = build.quantise(build.reshape(as_value(build, difference), (-1, row)), PACKED_BITS)
        flat = build.reshape(anchor, packed.values.shape)
        scales = packed.scales.unsqueeze(-1)
        made = as_value(build, pointwise(build, _unpacked, flat, packed.values, scales, dtype=DType.FLOAT32))
        found[name] = build.reshape(made, parameter.shape)
        build.store(PARAMETER + name, found[name])
        for prefix in moments:
            zeros = as_value(build, replace(literal(0.0, DType.FLOAT32), shape=parameter.shape))
            build.store(prefix + name, zeros)
    return found


def _unpacked(b: Builder, anchor: int, code: int, scale: int) -> int:
    return b.add(anchor, b.mul(b.emit(Op.I2F, code), scale))
