"""Descriptions and layouts under arbitrary values: a description or a SpecificationError, and every field counts."""

from __future__ import annotations

import copy
import functools
import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.canonical import canonical_json
from ledger.errors import SpecificationError
from trainer.engine.state import initial_state
from trainer.models import build_model
from trainer.program.description import MAXIMUM_BYTES, MAXIMUM_SEED, ProgramDescription, rough_parameters
from trainer.program.estimate import estimate
from trainer.program.exact import program_root
from trainer.program.fields import Fields
from trainer.program.layout import StateLayout, TensorSpec
from trainer.program.tracing.tasks import trace_task
from trainer.program.tracing.training import trace_description

TRANSFORMER: dict[str, Any] = {
    "format": "trainledger/description/1",
    "model": {"kind": "transformer", "layers": 2, "heads": 2, "width": 8, "tied_embeddings": True, "bias": False},
    "optimizer": {"beta1": 0.9, "beta2": 0.99, "epsilon": 1e-8, "weight_decay": 0.1, "gradient_clip": 1.0},
    "schedule": {"learning_rate": 1e-3, "minimum_learning_rate": 1e-4, "warmup_steps": 5, "total_steps": 100},
    "vocabulary": 64,
    "context": 8,
    "batch_size": 4,
    "evaluation_windows": 6,
    "evaluation_batch": 3,
    "seed": 1,
    "shards": 1,
    "precision": {"forward": 13, "input_gradient": 13, "weight_gradient": 13},
}
RECURRENT = {
    **TRANSFORMER,
    "model": {"kind": "recurrent", "cell": "gru", "layers": 2, "heads": 2, "width": 8, "tied_embeddings": True},
}
# Another good value for every field there is, but for the two that have only one (format, kind).
OTHERS = {
    "model.layers": 3, "model.heads": 4, "model.width": 16, "model.tied_embeddings": False, "model.bias": True,
    "model.cell": "lstm", "optimizer.beta1": 0.8, "optimizer.beta2": 0.95, "optimizer.epsilon": 1e-7,
    "optimizer.weight_decay": 0.2, "optimizer.gradient_clip": 0.0, "schedule.learning_rate": 2e-3,
    "schedule.minimum_learning_rate": 2e-4, "schedule.warmup_steps": 6, "schedule.total_steps": 101,
    "vocabulary": 65, "context": 9, "batch_size": 5, "evaluation_windows": 7, "evaluation_batch": 4, "seed": 2,
    "shards": 2, "precision.forward": 8, "precision.input_gradient": 8, "precision.weight_gradient": 12,
}  # fmt: skip


def paths(mapping: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in mapping.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from paths(value, f"{prefix}{name}.")


def changed(mapping: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with one field set, or deleted where the value is Ellipsis."""
    result = copy.deepcopy(mapping)
    *sections, name = path.split(".")
    table = result
    for section in sections:
        table = table[section]
    if value is ...:
        del table[name]
    else:
        table[name] = value
    return result


LEAVES = sorted({path for path in (*paths(TRANSFORMER), *paths(RECURRENT)) if path in OTHERS})
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


def home_of(path: str) -> dict[str, Any]:
    return RECURRENT if path == "model.cell" else TRANSFORMER


@pytest.mark.parametrize("path", LEAVES)
def test_to_bytes_changes_with_every_field(path: str) -> None:
    before = ProgramDescription.from_mapping(home_of(path))
    after = ProgramDescription.from_mapping(changed(home_of(path), path, OTHERS[path]))
    assert before.to_bytes() != after.to_bytes()
    assert before != after
    assert ProgramDescription.from_bytes(after.to_bytes()) == after


# It makes the first state and the batches.
NOT_TRACED = {"seed"}


@functools.cache
def program_roots(description: ProgramDescription) -> list[bytes]:
    return [program_root(built.program) for built in trace_description(description, windows=20)]


@pytest.mark.parametrize("path", [path for path in LEAVES if path not in NOT_TRACED])
def test_trace_description_every_field_is_in_the_programs(path: str) -> None:
    """A field that tracing forgot would be a promise that nobody keeps."""
    small = changed(changed(home_of(path), "context", 4), "model.layers", 1)
    other = changed(small, path, OTHERS[path])
    before, after = (program_roots(ProgramDescription.from_mapping(one)) for one in (small, other))
    assert before != after
    assert (before[0] == after[0]) == path.startswith("evaluation_")


def test_leaves_are_all_the_fields() -> None:
    every = {*paths(TRANSFORMER), *paths(RECURRENT)}
    assert every - set(LEAVES) == {"format", "model", "model.kind", "optimizer", "schedule", "precision"}


@pytest.mark.parametrize("kind", [TRANSFORMER, RECURRENT], ids=["transformer", "recurrent"])
def test_from_mapping_missing_and_surplus_fields_named(kind: dict[str, Any]) -> None:
    for path in paths(kind):
        with pytest.raises(SpecificationError) as caught:
            ProgramDescription.from_mapping(changed(kind, path, ...))
        assert (caught.value.field, caught.value.problem) == (path, f"{path} is missing.")
        section = path.rpartition(".")[0]
        surplus = f"{section}.surplus" if section else "surplus"
        with pytest.raises(SpecificationError, match=rf"{surplus} is not a known field") as caught:
            ProgramDescription.from_mapping(changed(kind, surplus, 1))
        assert caught.value.field == surplus


@settings(max_examples=300, deadline=None)
@given(path=st.sampled_from(sorted({*paths(TRANSFORMER), *paths(RECURRENT)})), value=junk)
def test_from_mapping_junk_in_any_field_is_a_specification_error_that_names_it(path: str, value: Any) -> None:
    mapping = changed(RECURRENT if path == "model.cell" else TRANSFORMER, path, value)
    program = refused = None
    try:
        program = ProgramDescription.from_mapping(mapping)
    except SpecificationError as error:
        refused = error
    if refused is not None:
        # Of two fields that contradict each other (a width and its heads, say) either may be named.
        assert refused.field.split(".")[0] == path.split(".")[0]
        assert refused.field in refused.problem
        return
    assert program is not None
    assert ProgramDescription.from_bytes(program.to_bytes()) == program
    assert json.loads(program.to_bytes()).keys() == TRANSFORMER.keys()


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=200) | junk.map(lambda value: json.dumps(value, default=repr).encode()))
def test_from_bytes_anything_is_a_specification_error(data: bytes) -> None:
    with pytest.raises(SpecificationError):
        ProgramDescription.from_bytes(data)


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_from_bytes_flipped_bit_is_another_program_or_refused(at: int, bit: int) -> None:
    whole = ProgramDescription.from_mapping(TRANSFORMER)
    data = bytearray(whole.to_bytes())
    data[at % len(data)] ^= 1 << bit
    try:
        program = ProgramDescription.from_bytes(bytes(data))
    except SpecificationError:
        return
    assert program != whole
    assert program.to_bytes() == bytes(data)


def test_from_bytes_other_spellings_of_the_same_program_refused() -> None:
    plain = ProgramDescription.from_mapping(TRANSFORMER)
    canonical = plain.to_bytes()
    assert canonical == canonical_json(plain.to_mapping())
    for data in (
        json.dumps(TRANSFORMER).encode(),
        canonical + b"\n",
        b" " + canonical,
        canonical.replace(b'"seed":1', b'"seed":1.0'),
        canonical.replace(b'"beta1":0.9', b'"beta1":0.90'),
        canonical.replace(b'"seed"', b'"se\\u0065d"'),
    ):
        assert data != canonical
        with pytest.raises(SpecificationError, match=r"canonical form|must be a whole number"):
            ProgramDescription.from_bytes(data)
    with pytest.raises(SpecificationError, match=f"has {MAXIMUM_BYTES + 1} bytes; at most {MAXIMUM_BYTES} are read"):
        ProgramDescription.from_bytes(canonical.ljust(MAXIMUM_BYTES + 1))


@pytest.mark.parametrize(
    ("path", "good", "bad"),
    [
        ("seed", [0, MAXIMUM_SEED], [-1, MAXIMUM_SEED + 1, True, 1.0]),
        ("shards", [1, 2, 4], [0, 3, 8, 4097]),
        ("precision.forward", [3, 13], [2, 14]),
        ("precision.weight_gradient", [3, 13], [2, 14]),
        ("vocabulary", [2, 65_536], [1, 65_537]),
        ("context", [1, 8192], [0, 8193]),
        ("optimizer.beta1", [0, 0.0, 0.999999], [-1e-9, 0.9999991, 1, math.nan, "0.5"]),
        ("optimizer.epsilon", [1e-20, 1], [0, 9e-21, math.inf]),
        ("optimizer.weight_decay", [0, 100], [-0.1, 100.1]),
        ("optimizer.gradient_clip", [0, 1e6], [-1, 2e6]),
        ("schedule.learning_rate", [1e-3, 100], [0, -1, 100.5, 10**400]),
        ("schedule.minimum_learning_rate", [0, 1e-3], [1.1e-3, -1e-9]),
        ("schedule.warmup_steps", [0, 100], [-1, 101]),
        ("schedule.total_steps", [5, 2**24], [4, 0, 2**24 + 1]),
    ],
)
def test_from_mapping_limits_are_inclusive(path: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        program = ProgramDescription.from_mapping(changed(TRANSFORMER, path, value))
        assert Fields(program.to_mapping(), "").take(path.split(".")[0]) is not None
    for value in bad:
        with pytest.raises(SpecificationError) as caught:
            ProgramDescription.from_mapping(changed(TRANSFORMER, path, value))
        assert caught.value.field == (
            "schedule.warmup_steps" if path == "schedule.total_steps" and value == 4 else path
        )


def test_negative_zero_is_zero() -> None:
    one, other = (
        ProgramDescription.from_mapping(changed(TRANSFORMER, "optimizer.beta1", zero)) for zero in (0.0, -0.0)
    )
    assert one.to_bytes() == other.to_bytes()
    assert math.copysign(1, other.optimizer.beta1) == 1


@settings(max_examples=12)
@given(
    kind=st.sampled_from(["transformer", "rnn", "gru", "lstm"]),
    layers=st.integers(1, 2),
    heads=st.integers(1, 4),
    depth=st.integers(1, 6),
    flag=st.booleans(),
    vocabulary=st.integers(2, 90),
    context=st.integers(1, 4),
)
def test_layout_and_estimate_equal_the_real_model(
    kind: str, layers: int, heads: int, depth: int, flag: bool, vocabulary: int, context: int
) -> None:
    model = {"layers": layers, "heads": heads, "width": heads * depth, "tied_embeddings": flag}
    model |= {"kind": kind, "bias": not flag} if kind == "transformer" else {"kind": "recurrent", "cell": kind}
    mapping = {**TRANSFORMER, "model": model, "vocabulary": vocabulary, "context": context}
    program = ProgramDescription.from_mapping(mapping)
    traced = trace_task(program, windows=1)
    layout = traced.layout
    assert layout == StateLayout.of(traced.evaluation.program)
    real = build_model(program.model, vocabulary=vocabulary, context=context).state_dict()
    expected = [TensorSpec(f"parameter.{name}", tensor.dtype, tuple(tensor.shape)) for name, tensor in real.items()]
    assert list(layout.parameters) == expected
    count = sum(tensor.numel() for tensor in real.values())
    guess = estimate(traced)
    assert (layout.parameter_count, guess.parameters) == (count, count)
    assert guess.state_bytes == layout.total_bytes == 12 + 3 * 4 * count
    assert count <= rough_parameters(program)
    state = initial_state(program, layout)
    assert [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in state.items()] == [
        (spec.name, spec.dtype, spec.shape) for spec in layout.tensors
    ]
    assert all(bool((state[spec.name] == 0).all()) for spec in layout.tensors[2 + len(expected) :])
    assert state["counter.step"].dtype == torch.int64


def test_fields_name_and_suggest() -> None:
    fields = Fields({"widht": 3, "dropout": 0.1}, "model")
    assert not fields.has("width")
    with pytest.raises(SpecificationError, match=r"model\.widht is not a known field") as caught:
        fields.done()
    assert (caught.value.field, caught.value.remedy) == ("model.widht", "Did you mean model.width?")
    with pytest.raises(SpecificationError, match=r"model\.dropout = 0\.1 cannot be used") as caught:
        Fields({"dropout": 0.1}, "model").done()
    assert "Dropout is not supported" in caught.value.remedy
    with pytest.raises(SpecificationError, match=r"kind is 'transfomer' but must be one of") as caught:
        Fields({"kind": "transfomer"}, "").take_choice("kind", ["transformer", "recurrent"])
    assert caught.value.remedy == "Did you mean 'transformer'?"
    with pytest.raises(SpecificationError, match=r"the description is \[\] but must be a table") as caught:
        Fields([], "")
    assert caught.value.field == ""


def test_fields_long_values_are_shown_in_part() -> None:
    with pytest.raises(SpecificationError) as caught:
        Fields({"seed": "x" * 10_000}, "").take_int("seed", 0, 1)
    assert caught.value.problem == f"seed is '{'x' * 76}... but must be a whole number."
