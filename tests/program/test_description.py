import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.errors import SpecificationError
from trainer.models import build_model
from trainer.program import description
from trainer.program.description import (
    MAXIMUM_BYTES,
    MAXIMUM_PARAMETERS,
    DilocoConfig,
    MeanConfig,
    OptimizerConfig,
    ProgramDescription,
    ScheduleConfig,
    rough_parameters,
)
from trainer.program.tracing.tasks import trace_task

NANOGPT = {
    "model": {"kind": "transformer", "layers": 4, "heads": 4, "width": 128},
    "context": 64,
    "batch_size": 12,
    "optimizer": {"beta2": 0.99, "weight_decay": 0.1, "gradient_clip": 1.0},
    "schedule": {"learning_rate": 1e-3, "minimum_learning_rate": 1e-4, "warmup_steps": 100, "total_steps": 2000},
}
RECURRENT = {"model": {"kind": "recurrent", "cell": "gru", "layers": 2, "heads": 2, "width": 64}}


def program_of(task_file: dict[str, Any]) -> ProgramDescription:
    return ProgramDescription.from_task_file(task_file, vocabulary=256, total_steps=500)


def complete(**changes: Any) -> dict[str, Any]:
    """A whole description with fields changed by dotted name; None removes one."""
    mapping = program_of(NANOGPT).to_mapping()
    for name, value in changes.items():
        *sections, field = name.split("__")
        place = mapping
        for section in sections:
            place = place[section]
        if value is None:
            del place[field]
        else:
            place[field] = value
    return mapping


def refused(mapping: dict[str, Any]) -> SpecificationError:
    with pytest.raises(SpecificationError) as caught:
        ProgramDescription.from_mapping(mapping)
    return caught.value


def test_from_task_file_expresses_nanogpt_small_cpu_setting() -> None:
    program = program_of(NANOGPT)
    assert program.optimizer == OptimizerConfig(
        beta1=0.9, beta2=0.99, epsilon=1e-8, weight_decay=0.1, gradient_clip=1.0
    )
    assert program.schedule == ScheduleConfig(
        learning_rate=1e-3, minimum_learning_rate=1e-4, warmup_steps=100, total_steps=2000
    )
    assert (program.context, program.batch_size, program.model.layers) == (64, 12, 4)


@pytest.mark.parametrize("task_file", [NANOGPT, RECURRENT])
def test_to_bytes_reads_back_equal(task_file: dict[str, Any]) -> None:
    program = program_of(task_file)
    data = program.to_bytes()
    assert ProgramDescription.from_bytes(data) == program
    assert ProgramDescription.from_bytes(data).to_bytes() == data
    assert ProgramDescription.from_mapping(json.loads(data)) == program
    assert json.loads(data)["format"] == "trainledger/description/1"


def test_to_bytes_changes_with_every_field() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"seed": 2},
        {"shards": 3},
        {"context": 32},
        {"evaluation_windows": 7},
        {"model__bias": True},
        {"model__tied_embeddings": False},
        {"optimizer__beta1": 0.8},
        {"schedule__warmup_steps": 3},
    ]
    written = {ProgramDescription.from_mapping(complete(**change)).to_bytes() for change in changes}
    assert len(written) == len(changes)


def test_from_bytes_not_canonical_refused() -> None:
    data = program_of(NANOGPT).to_bytes()
    for other in (json.dumps(json.loads(data)).encode(), data + b"\n", data.replace(b"0.001", b"1e-3")):
        with pytest.raises(SpecificationError, match="canonical form"):
            ProgramDescription.from_bytes(other)


def test_from_bytes_broken_json_refused() -> None:
    data = program_of(NANOGPT).to_bytes()
    for other in (b"", b"[]", b"\xff", data[:-1], data.replace(b'"seed":1', b'"seed":1,"seed":1')):
        with pytest.raises(SpecificationError):
            ProgramDescription.from_bytes(other)
    with pytest.raises(SpecificationError, match=f"at most {MAXIMUM_BYTES} are read"):
        ProgramDescription.from_bytes(b" " * (MAXIMUM_BYTES + 1))


@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        ({"seed": None}, "seed", "is missing"),
        ({"seed": -1}, "seed", "is -1 but must be from 0"),
        ({"seed": 2**53}, "seed", str(2**53)),
        ({"seed": True}, "seed", "is True but must be a whole number"),
        ({"seed": 1.5}, "seed", "is 1.5"),
        ({"batch_size": "12"}, "batch_size", "is '12' but must be a whole number"),
        ({"batch_sice": 12}, "batch_sice", "Did you mean batch_size?"),
        ({"threads": 2}, "threads", "is not a known field"),
        ({"shards": 0}, "shards", "from 1 to 4096"),
        ({"precision": {"forward": 16}}, "precision.forward", "from 3 to 13"),
        (
            {"precision": {"forward": 13, "input_gradient": 13, "weight_gradient": 13, "backward": 8}},
            "precision.backward",
            "is not a known field",
        ),
        ({"shards": 5}, "shards", "is 5, which does not divide the batch of 12. Use a divisor of batch_size."),
        ({"context": 8193}, "context", "from 1 to 8192"),
        ({"vocabulary": 65537}, "vocabulary", "65537"),
        ({"format": "trainledger/program/1"}, "format", "must be one of trainledger/description/1"),
        ({"model": "transformer"}, "model", "must be a table"),
        ({"model__kind": "transfomer"}, "model.kind", "Did you mean 'transformer'?"),
        ({"model__dropout": 0.1}, "model.dropout", "Dropout is not supported"),
        ({"model__bias": 1}, "model.bias", "must be true or false"),
        ({"model__width": 130}, "model.width", "multiple of 4"),
        ({"model__cell": "gru"}, "model.cell", "not a known field"),
        ({"optimizer__beta2": 1.0}, "optimizer.beta2", "is 1.0 but must be"),
        ({"optimizer__beta2": float("nan")}, "optimizer.beta2", "is nan"),
        ({"optimizer__epsilon": 0}, "optimizer.epsilon", "is 0"),
        ({"optimizer__weight_decay": float("inf")}, "optimizer.weight_decay", "is inf"),
        ({"optimizer__gradient_clip": -1}, "optimizer.gradient_clip", "is -1"),
        ({"schedule__learning_rate": 0.0}, "schedule.learning_rate", "above 0"),
        ({"schedule__learning_rate": 10**400}, "schedule.learning_rate", "must be"),
        ({"schedule__minimum_learning_rate": 0.1}, "schedule.minimum_learning_rate", "to 0.001"),
        ({"schedule__warmup_steps": 2001}, "schedule.warmup_steps", "from 0 to 2000"),
        ({"schedule__total_steps": 2**24 + 1}, "schedule.total_steps", "from 1 to"),
    ],
)
def test_from_mapping_wrong_field_named_with_its_value(changes: dict[str, Any], field: str, says: str) -> None:
    error = refused(complete(**changes))
    assert error.field == field
    assert says in str(error)


@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        ({"batch_size": 4096, "context": 8192}, "batch_size", "tokens in a batch"),
        ({"evaluation_batch": 4096, "context": 8192}, "evaluation_batch", "tokens in a batch"),
        ({"batch_size": 512, "vocabulary": 65536, "context": 64}, "batch_size", "logits in a batch"),
        ({"batch_size": 12, "context": 8192, "evaluation_batch": 1}, "batch_size", "attention scores"),
        ({"evaluation_windows": 2**22}, "evaluation_windows", "held-out tokens"),
        ({"model__width": 8192, "model__layers": 128}, "model.width", "parameters"),
    ],
)
def test_from_mapping_hostile_sizes_refused_before_anything_is_built(
    changes: dict[str, Any], field: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*_: object, **__: object) -> None:
        raise AssertionError("a model was built")

    monkeypatch.setattr(torch.nn.Module, "__init__", explode)
    error = refused(complete(**changes))
    assert error.field == field
    assert says in str(error)


@pytest.mark.parametrize(
    ("task_file", "field"),
    [
        ({}, "program.model.kind"),
        ({"model": {"kind": "mamba"}}, "program.model.kind"),
        ({"model": 3}, "program.model"),
        ({"model": {"kind": "recurrent", "cell": "lstmm"}}, "program.model.cell"),
        ({**NANOGPT, "vocabulary": 256}, "program.vocabulary"),
        ({**NANOGPT, "format": "x"}, "program.format"),
        ({**NANOGPT, "lerning_rate": 1}, "program.lerning_rate"),
        ({**NANOGPT, "schedule": {"total_steps": "many"}}, "program.schedule.total_steps"),
        ({**NANOGPT, "optimizer": []}, "program.optimizer"),
    ],
)
def test_from_task_file_wrong_field_named(task_file: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecificationError) as caught:
        program_of(task_file)
    assert caught.value.field == field


def test_from_task_file_defaults_fit_the_task() -> None:
    program = program_of({"model": {"kind": "recurrent"}, "schedule": {"learning_rate": 0.02}})
    assert program.schedule == ScheduleConfig(
        learning_rate=0.02, minimum_learning_rate=0.002, warmup_steps=25, total_steps=500
    )
    assert (program.vocabulary, program.seed, program.shards) == (256, 1, 1)


@settings(max_examples=80, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), lambda inner: (
    st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["model", "kind", "layers", "seed", "optimizer", "context"]), inner, max_size=5)
), max_leaves=12))  # fmt: skip
def test_from_mapping_anything_gives_a_program_or_a_specification_error(value: Any) -> None:
    mapping = {**program_of(NANOGPT).to_mapping(), **value} if isinstance(value, dict) else value
    try:
        program = ProgramDescription.from_mapping(mapping)
    except SpecificationError:
        return  # any other exception fails the test
    assert ProgramDescription.from_bytes(program.to_bytes()) == program


SMALL = {"layers": 2, "heads": 2, "width": 8}


@pytest.mark.parametrize("model", [{"kind": "transformer", "bias": True}, {"kind": "recurrent", "cell": "gru"}])
def test_layout_begins_with_metric_and_counter_then_parameters_and_moments(model: dict[str, Any]) -> None:
    program = program_of({"model": {**model, **SMALL}, "context": 4, "batch_size": 2, "evaluation_windows": 2})
    layout = trace_task(program, windows=2).layout
    assert layout.names[:2] == ("metric.heldout_loss", "counter.step")
    assert [spec.shape for spec in layout.tensors[:2]] == [(1,), (1,)]
    plain = [spec.name.removeprefix("parameter.") for spec in layout.parameters]
    count = len(plain)
    assert len(layout) == 2 + 3 * count
    assert list(layout.names[2 + count :]) == [f"moment1.{n}" for n in plain] + [f"moment2.{n}" for n in plain]
    assert layout.total_bytes == 4 + 8 + 12 * layout.parameter_count


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("tied", [True, False])
def test_rough_parameters_bound_the_real_number(cell: str, tied: bool) -> None:
    sizes = {"layers": 3, "heads": 2, "width": 24, "tied_embeddings": tied}
    for model in ({"kind": "recurrent", "cell": cell, **sizes}, {"kind": "transformer", "bias": tied, **sizes}):
        program = program_of({"model": model})
        module = build_model(program.model, vocabulary=program.vocabulary, context=program.context)
        real = sum(one.numel() for one in module.parameters())
        assert real <= rough_parameters(program) <= 2 * real + 2 * 256 * 24


def test_from_mapping_largest_program_is_no_larger_than_the_cap() -> None:
    mapping = complete(model__width=2048, model__layers=4, model__heads=1, batch_size=1)
    assert 200_000_000 < rough_parameters(ProgramDescription.from_mapping(mapping)) < MAXIMUM_PARAMETERS
    assert description.MAXIMUM_PARAMETERS == 2**28


def merged(**table: Any) -> ProgramDescription:
    return ProgramDescription.from_task_file(NANOGPT, vocabulary=256, total_steps=500, merge=table)


def test_merge_is_read_and_written() -> None:
    plain = program_of(NANOGPT)
    assert (plain.merge, plain.slots, "merge" in plain.to_mapping()) == (None, 1, False)
    for table, wanted in (
        ({"kind": "mean", "slots": 2}, MeanConfig(slots=2)),
        ({"kind": "diloco", "slots": 255}, DilocoConfig(slots=255, outer_learning_rate=0.7, outer_momentum=0.9)),
        (
            {"kind": "diloco", "slots": 8, "outer_learning_rate": 1, "outer_momentum": 0.0},
            DilocoConfig(slots=8, outer_learning_rate=1.0, outer_momentum=0.0),
        ),
    ):
        program = merged(**table)
        assert (program.merge, program.slots) == (wanted, wanted.slots)
        assert program.to_mapping()["merge"].items() >= table.items()
        assert ProgramDescription.from_bytes(program.to_bytes()) == program
        assert program.to_bytes() != plain.to_bytes()


def test_merge_null_is_one_slot_and_is_not_written() -> None:
    mapping = {**complete(), "merge": None}
    assert ProgramDescription.from_mapping(mapping) == program_of(NANOGPT)
    with pytest.raises(SpecificationError, match="not in canonical form"):
        ProgramDescription.from_bytes(json.dumps(mapping, sort_keys=True, separators=(",", ":")).encode())


@pytest.mark.parametrize(
    ("table", "field"),
    [
        ({"slots": 2}, "kind"),
        ({"kind": "median", "slots": 2}, "kind"),
        ({"kind": "mean"}, "slots"),
        ({"kind": "mean", "slots": 1}, "slots"),
        ({"kind": "mean", "slots": 256}, "slots"),
        ({"kind": "mean", "slots": 2.0}, "slots"),
        ({"kind": "mean", "slots": 2, "outer_momentum": 0.9}, "outer_momentum"),
        ({"kind": "diloco", "slots": 2, "outer_learning_rate": 0}, "outer_learning_rate"),
        ({"kind": "diloco", "slots": 2, "outer_momentum": 1.0}, "outer_momentum"),
        ({"kind": "diloco", "slots": 2, "outer_momentum": -0.1}, "outer_momentum"),
        ({"kind": "diloco", "slots": 2, "inner": 1}, "inner"),
    ],
)
def test_merge_wrong_field_named(table: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecificationError) as caught:
        merged(**table)
    assert caught.value.field == f"merge.{field}"


def test_merge_in_the_wrong_place_refused() -> None:
    with pytest.raises(SpecificationError, match=r"program\.merge cannot be set: it is the section \[merge\]"):
        program_of({**NANOGPT, "merge": {"kind": "mean", "slots": 2}})
    assert refused({**complete(), "merge": "mean"}).field == "merge"
