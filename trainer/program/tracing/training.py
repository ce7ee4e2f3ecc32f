"""Whole programs from a model, a loss and an optimizer: one training step, and the held-out loss."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from trainer.engine.exact.kernels import Op
from trainer.models import build_model
from trainer.program.description import DilocoConfig, MergeConfig, Precision, ProgramDescription, ScheduleConfig
from trainer.program.exact import BuiltProgram, DType, Part, ProgramBuilder, Role, Value
from trainer.program.layout import HELDOUT_LOSS, PARAMETER, STEP
from trainer.program.tracing import rules_fold, rules_index, rules_shape
from trainer.program.tracing.capture import Captured, Loss, capture
from trainer.program.tracing.diloco import declare_outer, pack, steps_since_anchor
from trainer.program.tracing.fusing import fuse
from trainer.program.tracing.lowering import Lowering
from trainer.program.tracing.optimizers import Optimizer, moments_of, update
from trainer.program.tracing.refusals import TracingError
from trainer.program.tracing.terms import Term, as_value, literal, pointwise

RULE_MODULES = (rules_fold, rules_index, rules_shape)
"""Imported for what they enter into `lowering.RULES`."""


def trace_training(
    model: nn.Module,
    loss: Loss,
    optimizer: Optimizer,
    schedule: ScheduleConfig,
    *,
    batch_size: int,
    context: int,
    shards: int = 1,
    merge: MergeConfig | None = None,
    precision: Precision | None = None,
    fused: bool = True,
) -> BuiltProgram:
    """The program of one optimizer step.

    Its state is that of formats.md §2. It leaves the loss of the step's batch in `metric.heldout_loss`, where the
    evaluation program at a segment's end puts the held-out one, and counts `counter.step` on.

    Args:
        loss: the mean over the batch; called with the model, inputs and targets, each [B / shards, T] int64.
        shards: equal parts of the batch, whose gradients are summed exactly: any number of ranks that divides it
            computes the same bits.
        merge: of a task with several slots a round: DiLoCo's state has more tensors.
        precision: bits of matrix products; 13 everywhere if not given.
        fused: whether neighbouring element-wise operations are joined; the results are the same.

    Raises:
        TracingError: something that cannot be in an exact program, and what to use instead.
    """
    if shards < 1 or batch_size % shards:
        raise TracingError(f"A batch of {batch_size} windows has no {shards} equal shards.")
    build = ProgramBuilder(Role.TRAIN)
    parameters = declare(build, model, optimizer, merge)
    tokens = [build.batch(batch_size, context, shift=shift) for shift in (0, 1)]
    with in_mode(model, training=True):
        captured = _captured(model, loss, batch_size // shards, context, gradients=True)
    results = _over_rows(build, captured, precision, parameters, tokens, [batch_size // shards] * shards)
    means = [_mean(build, parts) for parts in zip(*results, strict=True)]
    step = build.load(STEP)
    trained = {name: parameters[name] for name, one in model.named_parameters() if one.requires_grad}
    gradients = dict(zip(parameters, means[1:], strict=True))
    since = steps_since_anchor(build, step) if isinstance(merge, DilocoConfig) else None
    update(build, optimizer, schedule, step, trained, {name: gradients[name] for name in trained}, since=since)
    build.store(HELDOUT_LOSS, build.reshape(as_value(build, means[0]), (1,)))
    counted = pointwise(build, lambda b, t: b.emit(Op.IADD, t, b.word(1)), step, dtype=DType.INT32)
    build.store(STEP, as_value(build, counted))
    return finished(build, fused)


def trace_evaluation(
    model: nn.Module,
    loss: Loss,
    optimizer: Optimizer,
    *,
    windows: int,
    evaluation_batch: int,
    context: int,
    merge: MergeConfig | None = None,
    precision: Precision | None = None,
    fused: bool = True,
) -> BuiltProgram:
    """The program that measures the held-out loss: the mean over all windows, `evaluation_batch` at a time.

    The state is the training program's (so the optimizer is named); all but `metric.heldout_loss` stays unchanged.
    Under DiLoCo it first packs the parameters for sending, and measures what they are then (docs/rounds.md).

    Raises:
        TracingError: something that cannot be in an exact program, and what to use instead.
    """
    build = ProgramBuilder(Role.EVALUATE)
    parameters = declare(build, model, optimizer, merge)
    if isinstance(merge, DilocoConfig):
        trained = [name for name, one in model.named_parameters() if one.requires_grad]
        parameters = pack(build, parameters, trained, moments_of(optimizer))
    tokens = [build.batch(windows, context, shift=shift, part=Part.HELDOUT) for shift in (0, 1)]
    whole, rest = divmod(windows, evaluation_batch)
    totals: list[Term] = []
    with in_mode(model, training=False):
        for size, sizes, start in (
            (evaluation_batch, [evaluation_batch] * whole, 0),
            (rest, [rest], windows - rest),
        ):
            if size and sizes:
                captured = _captured(model, loss, size, context, gradients=False)
                part = [one.slice(0, start, start + size * len(sizes)) for one in tokens]
                for (mean,) in _over_rows(build, captured, precision, parameters, part, sizes):
                    weight = literal(float(size), DType.FLOAT32)
                    totals.append(pointwise(build, lambda b, x, n: b.mul(x, n), mean, weight, dtype=DType.FLOAT32))
    measured = _quotient(build, _total(build, totals), windows)
    build.store(HELDOUT_LOSS, build.reshape(as_value(build, measured), (1,)))
    return finished(build, fused)


def trace_description(
    description: ProgramDescription,
    *,
    windows: int,
    model: nn.Module | None = None,
    loss: Loss | None = None,
    precision: Precision | None = None,
) -> tuple[BuiltProgram, BuiltProgram]:
    """The training and the evaluation program of a model as a description has it.

    Args:
        windows: held-out windows that the data set has, at most; the description may ask for fewer.
        model, loss: of a public model; one of the project's own is built where none is given.
        precision: in place of the description's.
    """
    model = model or build_model(description.model, vocabulary=description.vocabulary, context=description.context)
    loss = loss or own_loss
    precision = precision or description.precision
    training = trace_training(
        model,
        loss,
        description.optimizer,
        description.schedule,
        batch_size=description.batch_size,
        context=description.context,
        shards=description.shards,
        merge=description.merge,
        precision=precision,
    )
    evaluation = trace_evaluation(
        model,
        loss,
        description.optimizer,
        windows=min(windows, description.evaluation_windows),
        evaluation_batch=description.evaluation_batch,
        context=description.context,
        merge=description.merge,
        precision=precision,
    )
    return training, evaluation


def own_loss(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """The loss of the project's own models, which they give when called."""
    loss: Tensor = model(inputs, targets)
    return loss


def declare(
    build: ProgramBuilder, model: nn.Module, optimizer: Optimizer, merge: MergeConfig | None = None
) -> dict[str, Value]:
    """Declares the training state in the order of formats.md §2. Gives the parameters, of a merge the base's.

    Frozen parameters have no moments, and nothing of DiLoCo's.

    Raises:
        TracingError: a parameter that is not float32.
    """
    build.state(HELDOUT_LOSS, DType.FLOAT32, (1,))
    build.state(STEP, DType.INT64, (1,))
    named = dict(model.named_parameters())
    for name, parameter in named.items():
        if parameter.dtype != torch.float32:
            raise TracingError(
                f"The parameter {name} is {str(parameter.dtype).removeprefix('torch.')}.",
                module=name.rpartition(".")[0],
                remedy="States hold float32: call model.float() first.",
            )
        build.state(PARAMETER + name, DType.FLOAT32, tuple(parameter.shape))
    trained = {name: tuple(parameter.shape) for name, parameter in named.items() if parameter.requires_grad}
    for prefix in moments_of(optimizer):
        for name, shape in trained.items():
            build.state(prefix + name, DType.FLOAT32, shape)
    if isinstance(merge, DilocoConfig):
        declare_outer(build, trained)
    return {name: build.load(PARAMETER + name) for name in named}


def _captured(model: nn.Module, loss: Loss, rows: int, context: int, *, gradients: bool) -> Captured:
    # Two tensors, so that inputs and targets are two placeholders.
    inputs, targets = (torch.zeros(rows, context, dtype=torch.int64) for _ in range(2))
    return capture(model, loss, inputs, targets, gradients=gradients)


def _over_rows(
    build: ProgramBuilder,
    captured: Captured,
    precision: Precision | None,
    parameters: dict[str, Value],
    tokens: Sequence[Value],
    sizes: Sequence[int],
) -> list[list[Term]]:
    """The graph's outputs for consecutive rows of the tokens, as many as each size says."""
    lowering = Lowering(build, captured, precision or Precision())
    results, at = [], 0
    for size in sizes:
        rows = [one.slice(0, at, at + size) for one in tokens]
        results.append(lowering.lower([*parameters.values(), *rows]))
        at += size
    return results


def _mean(build: ProgramBuilder, parts: Sequence[Term]) -> Term:
    return parts[0] if len(parts) == 1 else _quotient(build, _total(build, parts), len(parts))


def _total(build: ProgramBuilder, parts: Sequence[Term]) -> Term:
    """The exact SUM of tensors of one shape."""
    if len(parts) == 1:
        return parts[0]
    return build.sum_last(build.cat([as_value(build, part).unsqueeze(-1) for part in parts], -1))


def _quotient(build: ProgramBuilder, total: Term, count: int) -> Term:
    divisor = literal(float(count), DType.FLOAT32)
    return pointwise(build, lambda b, x, n: b.div(x, n), total, divisor, dtype=DType.FLOAT32)


def finished(build: ProgramBuilder, fused: bool) -> BuiltProgram:
    """The program that was written, fused if asked."""
    built = build.finish()
    return BuiltProgram(fuse(built.program), built.constants) if fused else built


@contextlib.contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """The model in training or evaluation mode, each module as it was afterwards."""
    before = {module: module.training for module in model.modules()}
    model.train(training)
    try:
        yield
    finally:
        for module, mode in before.items():
            module.training = mode
