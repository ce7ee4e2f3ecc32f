"""A task's programs: the rules of what belongs together (docs/programs.md, "A task's programs")."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from ledger.errors import SpecificationError
from trainer.engine.exact.kernels import Instruction, Kernel, Op
from trainer.materials import fetch_program, publish_program
from trainer.program.description import ProgramDescription
from trainer.program.estimate import estimate
from trainer.program.exact import BuiltProgram, DType, Part, ProgramBuilder, Role, Value, check_program, program_root
from trainer.program.exact.operations import ConstantTensor
from trainer.program.layout import HELDOUT_LOSS, STEP
from trainer.program.task import (
    MAXIMUM_CONSTANT_BYTES,
    MAXIMUM_MANIFEST_BYTES,
    Manifest,
    TaskProgram,
    batches_of,
    constants_of,
)
from trainer.program.tracing.tasks import trace_task
from trainer.store import BlobStore

Layout = Sequence[tuple[str, DType, tuple[int, ...]]]
LAYOUT = ((HELDOUT_LOSS, DType.FLOAT32, (1,)), (STEP, DType.INT64, (1,)), ("parameter.w", DType.FLOAT32, (2, 3)))
TEXT = (
    ("generation.tokens", DType.INT64, (4,)),
    ("generation.length", DType.INT64, (1,)),
    ("generation.seed", DType.INT64, (1,)),
    ("generation.position", DType.INT64, (1,)),
    ("generation.temperature", DType.FLOAT32, (1,)),
    ("generation.top_k", DType.INT64, (1,)),
    ("generation.diverged", DType.INT64, (1,)),
)
Rest = Callable[[ProgramBuilder], None]  # what a program does


def kernel(*instructions: Instruction, inputs: int = 1) -> Kernel:
    return Kernel(inputs, instructions)


def plus(word: int) -> Kernel:
    return kernel(Instruction(Op.INPUT), Instruction(Op.CONST, word=word), Instruction(Op.IADD, 0, 1))


ONE_MORE = plus(1)
HALF = kernel(Instruction(Op.INPUT), Instruction(Op.CONST, word=0x3F000000), Instruction(Op.FMUL, 0, 1))


def built(role: Role, layout: Layout = LAYOUT, rest: Rest | None = None) -> BuiltProgram:
    """A checked program over a layout; `rest` writes what it does. A merge is one of two slots."""
    build = ProgramBuilder(role, inputs=2 if role is Role.MERGE else 0)
    for name, dtype, shape in layout:
        build.state(name, dtype, shape)
    if rest is not None:
        rest(build)
    made = build.finish()
    check_program(made.program)
    return made


def count(build: ProgramBuilder) -> None:
    build.store(STEP, build.pointwise(ONE_MORE, build.load(STEP), dtype=DType.INT32))


def halve(name: str) -> Rest:
    return lambda build: build.store(name, build.pointwise(HALF, build.load(name), dtype=DType.FLOAT32))


def train(build: ProgramBuilder) -> None:
    count(build)
    halve("parameter.w")(build)


TRAINING = built(Role.TRAIN, rest=train)
EVALUATION = built(Role.EVALUATE, rest=halve(HELDOUT_LOSS))
MERGE = built(Role.MERGE, rest=count)


def task(
    training: BuiltProgram = TRAINING,
    evaluation: BuiltProgram = EVALUATION,
    generation: BuiltProgram | None = None,
    merge: BuiltProgram | None = None,
) -> TaskProgram:
    return TaskProgram(
        seed=1, training=training, evaluation=evaluation, generation=generation, merge=merge, description={"a": 1}
    )


def refusal(**programs: BuiltProgram) -> SpecificationError:
    with pytest.raises(SpecificationError) as caught:
        task(**programs)
    return caught.value


def test_task_program_of_programs_that_fit() -> None:
    tokens = TEXT[0][0]
    text = built(Role.GENERATE, (*LAYOUT, *TEXT), lambda b: b.store(tokens, b.load(tokens)))
    for generation in (None, text, built(Role.GENERATE, (*LAYOUT, *TEXT))):
        made = task(generation=generation)
        assert made.programs == tuple(one for one in (TRAINING, EVALUATION, generation) if one is not None)
        assert made.layout.names == tuple(name for name, _, _ in LAYOUT)
        assert made.manifest == Manifest(
            seed=1,
            training=program_root(TRAINING.program),
            evaluation=program_root(EVALUATION.program),
            generation=None if generation is None else program_root(generation.program),
            description={"a": 1},
        )
        assert made.root == made.manifest.root
        assert made.slots == 1


def test_task_program_with_a_merge(tmp_path: Path) -> None:
    made = task(merge=MERGE)
    assert made.programs == (TRAINING, EVALUATION, MERGE)
    assert made.slots == 2
    assert made.manifest.merge == program_root(MERGE.program)
    store = BlobStore(str(tmp_path / "store"))
    publish_program(made, store)
    fetched = fetch_program(made.root, store)
    assert (fetched.root, fetched.slots, fetched.programs) == (made.root, 2, made.programs)


def test_task_program_evaluation_of_a_task_with_a_merge_may_pack() -> None:
    packing = built(Role.EVALUATE, rest=halve("parameter.w"))
    assert task(evaluation=packing, merge=MERGE).evaluation is packing
    assert refusal(evaluation=packing).problem == "The evaluation program changes parameter.w."


@pytest.mark.parametrize("rest", [count, lambda build: build.store(STEP, build.load(STEP))])
def test_task_program_evaluation_that_changes_the_counter_refused(rest: Rest) -> None:
    error = refusal(evaluation=built(Role.EVALUATE, rest=rest), merge=MERGE)
    assert (error.problem, error.field) == ("The evaluation program changes counter.step.", "evaluation")
    assert error.remedy == "Only training and merges count steps."


def test_task_program_merge_that_does_not_fit_refused() -> None:
    wider = (*LAYOUT[:2], ("parameter.w", DType.FLOAT32, (3, 3)))
    for merge, says in (
        (built(Role.MERGE, rest=halve("parameter.w")), "The merge program leaves counter.step unchanged."),
        (built(Role.MERGE, wider, count), "The merge program is over other states than the training program."),
        (built(Role.MERGE, LAYOUT[:2], count), "The merge program is over other states than the training program."),
        (built(Role.MERGE, (*LAYOUT, *TEXT), count), "The merge program is over other states than the training"),
        (built(Role.TRAIN, rest=count), "The merge program has the role train."),
    ):
        error = refusal(merge=merge)
        assert (error.problem.startswith(says), error.field) == (True, "merge")


def test_task_program_evaluation_that_measures_nothing_fits() -> None:
    assert task(evaluation=built(Role.EVALUATE)).programs == (TRAINING, built(Role.EVALUATE))


@pytest.mark.parametrize(
    ("place", "role", "says"),
    [
        ("training", Role.EVALUATE, "The training program has the role evaluate."),
        ("training", Role.MERGE, "The training program has the role merge."),
        ("evaluation", Role.TRAIN, "The evaluation program has the role train."),
        ("evaluation", Role.GENERATE, "The evaluation program has the role generate."),
        ("generation", Role.EVALUATE, "The generation program has the role evaluate."),
    ],
)
def test_task_program_program_in_the_wrong_place_refused(place: str, role: Role, says: str) -> None:
    error = refusal(**{place: built(role, rest=train if place == "training" else None)})
    assert (error.problem, error.field) == (says, place)


@pytest.mark.parametrize(
    ("layout", "shown"),
    [
        ((), "begin with counter.other"),
        ((LAYOUT[0],), "begin with metric.heldout_loss float32 [1], counter.other"),
        ((LAYOUT[1], LAYOUT[0]), "begin with counter.step int64 [1], metric.heldout_loss float32 [1], and not with"),
        ((LAYOUT[0], (STEP, DType.INT64, (2,))), "counter.step int64 [2], and not with"),
        ((LAYOUT[0], (STEP, DType.FLOAT32, (1,))), "counter.step float32 [1], and not with"),
        (((HELDOUT_LOSS, DType.FLOAT32, ()), LAYOUT[1]), "metric.heldout_loss float32 [], counter.step"),
        (((HELDOUT_LOSS, DType.INT64, (1,)), LAYOUT[1]), "metric.heldout_loss int64 [1], counter.step"),
        ((("metric.loss", DType.FLOAT32, (1,)), LAYOUT[1]), "metric.loss float32 [1], counter.step"),
    ],
)
def test_task_program_states_that_begin_otherwise_refused(layout: Layout, shown: str) -> None:
    error = refusal(training=built(Role.TRAIN, (*layout, ("counter.other", DType.INT64, (1,)))))
    assert error.field == "training"
    assert shown in error.problem
    assert error.problem.endswith("and not with metric.heldout_loss float32 [1], counter.step int64 [1].")


def store_step(make: Callable[[ProgramBuilder], Value]) -> Rest:
    return lambda build: build.store(STEP, make(build))


MISCOUNTS: dict[str, Rest | None] = {
    "leaves it": None,
    "copies it": store_step(lambda b: b.load(STEP)),
    "adds two": store_step(lambda b: b.pointwise(plus(2), b.load(STEP), dtype=DType.INT32)),
    "takes one off": store_step(lambda b: b.pointwise(plus(0xFFFFFFFF), b.load(STEP), dtype=DType.INT32)),
    "writes a constant": store_step(lambda b: b.constant(torch.ones(1, dtype=torch.int32))),
    "counts a constant on": store_step(
        lambda b: b.pointwise(ONE_MORE, b.constant(torch.ones(1, dtype=torch.int32)), dtype=DType.INT32)
    ),
    "counts another tensor on": store_step(lambda b: b.pointwise(ONE_MORE, b.load("counter.other"), dtype=DType.INT32)),
    "counts twice": store_step(
        lambda b: b.pointwise(ONE_MORE, b.pointwise(ONE_MORE, b.load(STEP), dtype=DType.INT32), dtype=DType.INT32)
    ),
}


@pytest.mark.parametrize("name", MISCOUNTS)
def test_task_program_that_does_not_count_its_steps_refused(name: str) -> None:
    layout = (*LAYOUT, ("counter.other", DType.INT64, (1,)))
    evaluation = built(Role.EVALUATE, layout)
    error = refusal(training=built(Role.TRAIN, layout, MISCOUNTS[name]), evaluation=evaluation)
    assert (error.problem, error.field) == ("The training program does not add one to counter.step.", "training")
    assert task(built(Role.TRAIN, layout, count), evaluation).layout.names[-1] == "counter.other"


@pytest.mark.parametrize("place", ["evaluation", "generation"])
@pytest.mark.parametrize(
    "layout",
    [
        LAYOUT[:2],
        (LAYOUT[0], LAYOUT[2], LAYOUT[1]),
        (*LAYOUT[:2], ("parameter.v", DType.FLOAT32, (2, 3))),
        (*LAYOUT[:2], ("parameter.w", DType.INT64, (2, 3))),
        (*LAYOUT[:2], ("parameter.w", DType.FLOAT32, (3, 2))),
        (*LAYOUT[:2], *TEXT, LAYOUT[2]),
    ],
)
def test_task_program_companion_over_other_states_refused(place: str, layout: Layout) -> None:
    role = Role.EVALUATE if place == "evaluation" else Role.GENERATE
    error = refusal(**{place: built(role, layout)})
    assert (error.problem, error.field) == (
        f"The {place} program is over other states than the training program.",
        place,
    )


def test_task_program_evaluation_with_states_of_its_own_refused() -> None:
    assert "over other states" in refusal(evaluation=built(Role.EVALUATE, (*LAYOUT, *TEXT))).problem


@pytest.mark.parametrize("place", ["evaluation", "generation"])
@pytest.mark.parametrize("name", [HELDOUT_LOSS, STEP, "parameter.w"])
def test_task_program_companion_that_changes_the_model_refused(place: str, name: str) -> None:
    if (place, name) == ("evaluation", HELDOUT_LOSS):
        return  # the one thing that it is for
    role = Role.EVALUATE if place == "evaluation" else Role.GENERATE
    # Storing what was loaded is a change too: a NaN may become another one.
    for rest in (count if name == STEP else halve(name), lambda b: b.store(name, b.load(name))):
        error = refusal(**{place: built(role, LAYOUT if place == "evaluation" else (*LAYOUT, *TEXT), rest)})
        assert (error.problem, error.field) == (f"The {place} program changes {name}.", place)
        assert error.remedy == "Only training may change the model."


@pytest.mark.parametrize(
    "text",
    [
        (),
        TEXT[1:],
        TEXT[:-1],
        (*TEXT, ("generation.more", DType.INT64, (1,))),
        (TEXT[1], TEXT[0], *TEXT[2:]),
        ((TEXT[0][0], DType.FLOAT32, (4,)), *TEXT[1:]),
        ((TEXT[0][0], DType.INT64, (2, 2)), *TEXT[1:]),
        ((TEXT[0][0], DType.INT64, ()), *TEXT[1:]),
        (*TEXT[:4], ("generation.temperature", DType.INT64, (1,)), *TEXT[5:]),
    ],
)
def test_task_program_generation_of_no_text_refused(text: Layout) -> None:
    error = refusal(generation=built(Role.GENERATE, (*LAYOUT, *text)))
    assert error.field == "generation"
    assert "and not those of a text" in error.problem


def test_batches_of_and_tokens_per_step() -> None:
    def reads(build: ProgramBuilder) -> None:
        train(build)
        tokens = [build.batch(4, 5), build.batch(4, 5, shift=1), build.batch(3, 2, part=Part.HELDOUT)]
        for number, one in enumerate(tokens):
            build.store(f"counter.{number}", one)

    shapes = ((4, 5), (4, 5), (3, 2))
    layout = (*LAYOUT, *((f"counter.{number}", DType.INT64, shape) for number, shape in enumerate(shapes)))
    training = built(Role.TRAIN, layout, reads)
    assert sorted(batches_of(training.program)) == [
        (Part.TRAIN, 4, 5, 0),
        (Part.TRAIN, 4, 5, 1),
        (Part.HELDOUT, 3, 2, 0),
    ]
    assert task(training, built(Role.EVALUATE, layout)).tokens_per_step == 20
    assert task().tokens_per_step == 0
    assert estimate(task()).flops_per_step == 6 + 1  # six products, and the counter


def test_constants_of_more_bytes_than_the_limit_refused() -> None:
    root = b"\x11" * 32
    declared = (ConstantTensor(DType.FLOAT32, (3, 5), root), ConstantTensor(DType.INT32, (2,), root))
    program = dataclasses.replace(TRAINING.program, constants=declared)
    assert constants_of(program, 68) == constants_of(program) == declared
    with pytest.raises(SpecificationError, match="constants have 68 bytes; at most 67 are read"):
        constants_of(program, 67)
    # A declaration costs nothing, so its size is looked at before anything is fetched.
    huge = (ConstantTensor(DType.FLOAT32, (2**26, 2), root),)
    with pytest.raises(SpecificationError, match=f"have {2**29} bytes; at most {MAXIMUM_CONSTANT_BYTES} are read"):
        constants_of(dataclasses.replace(program, constants=huge))


@pytest.mark.parametrize("value", ["x" * MAXIMUM_MANIFEST_BYTES, 2.0**53, float("nan"), 2**53, "\ud800"])
def test_publish_program_manifest_that_nobody_could_read_refused(tmp_path: Path, value: Any) -> None:
    store = BlobStore(str(tmp_path / "store"))
    with pytest.raises(SpecificationError):
        publish_program(dataclasses.replace(task(), description={"a": value}), store)
    assert not list(tmp_path.rglob("*.*"))
    publish_program(task(), store)
    fetched = fetch_program(task().root, store)
    assert (fetched.manifest, fetched.layout) == (task().manifest, task().layout)


def test_trace_task_fits_its_description() -> None:
    table = {"model": {"kind": "transformer", "layers": 1, "heads": 2, "width": 8}, "context": 4, "batch_size": 2}
    description = ProgramDescription.from_task_file(table, vocabulary=17, total_steps=10)
    made = trace_task(description, windows=3)
    assert made.seed == description.seed
    assert made.tokens_per_step == 8
    assert ProgramDescription.from_mapping(made.description) == description
    assert Manifest.from_bytes(made.manifest.to_bytes()) == made.manifest
    assert [(one[0], one[1]) for one in batches_of(made.evaluation.program)] == [(Part.HELDOUT, 3)] * 2
    assert trace_task(description, windows=2).root != made.root
    other = trace_task(dataclasses.replace(description, seed=2), windows=3)
    assert other.manifest.training == made.manifest.training  # the seed is the task's, not the program's
    assert other.root != made.root
