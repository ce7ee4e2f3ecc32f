"""The description of a task's programs: what a requester writes, and what they are traced from (docs/programs.md).

It decides nothing: the traced programs do. A task carries it so that people can read it and exports can use it.

Importable with nothing but numpy and torch installed; only `to_bytes` and `from_bytes` need `ledger.canonical`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ledger.errors import SpecificationError
from trainer.models.config import (
    PUBLIC_KINDS,
    ModelConfig,
    OwnConfig,
    PublicConfig,
    RecurrentConfig,
    TransformerConfig,
)
from trainer.program.exact.operations import LEAST_INPUTS, MAXIMUM_INPUTS
from trainer.program.fields import Fields
from trainer.program.task import MAXIMUM_SEED

FORMAT = "trainledger/description/1"

# Caps that keep a mistake in a task file from exhausting the requester's machine.
MAXIMUM_LAYERS = 128
MAXIMUM_WIDTH = 8192
MAXIMUM_HEADS = 128
MAXIMUM_VOCABULARY = 65_536  # tokens are uint16
MAXIMUM_CONTEXT = 8192
MAXIMUM_BATCH = 4096
MAXIMUM_STEPS = 2**24
MAXIMUM_PARAMETERS = 2**28
MAXIMUM_BATCH_TOKENS = 2**20
MAXIMUM_BATCH_LOGITS = 2**30  # batch × context × vocabulary: 4 GiB of float32
MAXIMUM_BATCH_SCORES = 2**30  # batch × heads × context², where attention is not fused
MAXIMUM_EVALUATION_TOKENS = 2**22
MAXIMUM_BYTES = 65_536

_SECTIONS = ("model", "optimizer", "schedule", "precision")
CELLS = ("rnn", "gru", "lstm")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW (Loshchilov and Hutter 2019). Decay applies to matrices only; `gradient_clip` 0 means no clipping."""

    beta1: float = 0.9
    beta2: float = 0.99
    epsilon: float = 1e-8
    weight_decay: float = 0.1
    gradient_clip: float = 1.0


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Linear warm-up, then half a cosine down to the minimum at `total_steps`, and the minimum from there on."""

    learning_rate: float = 1e-3
    minimum_learning_rate: float = 1e-4
    warmup_steps: int = 100
    total_steps: int = 2000


@dataclass(frozen=True, kw_only=True)
class MeanConfig:
    """Rounds of several slots, whose states are averaged with the steps that each has done."""

    kind: ClassVar[str] = "mean"
    slots: int


@dataclass(frozen=True, kw_only=True)
class DilocoConfig:
    """DiLoCo (Douillard and others 2023): an outer step of SGD with Nesterov momentum on what the slots have moved."""

    kind: ClassVar[str] = "diloco"
    slots: int
    outer_learning_rate: float = 0.7
    outer_momentum: float = 0.9


MergeConfig = MeanConfig | DilocoConfig


@dataclass(frozen=True)
class Precision:
    """Bits of the operands of matrix products, 3 to 13 each.

    Attributes:
        forward: products of the forward pass.
        input_gradient: products of the backward pass whose result flows on to earlier layers.
        weight_gradient: products whose result is a parameter's gradient.
    """

    forward: int = 13
    input_gradient: int = 13
    weight_gradient: int = 13

    def __post_init__(self) -> None:
        for bits in (self.forward, self.input_gradient, self.weight_gradient):
            if not 3 <= bits <= 13:
                raise ValueError(f"products take operands of 3 to 13 bits, not {bits}")


@dataclass(frozen=True, kw_only=True)
class ProgramDescription:
    """A validated description. Equal descriptions have equal bytes.

    Attributes:
        vocabulary: number of token values, equal to the data set's.
        context: tokens of a window, T. batch_size: windows of a step, B.
        evaluation_windows, evaluation_batch: held-out windows measured, and how many at a time.
        seed: of the first parameters and of the batches.
        precision: bits of matrix products.
        shards: equal parts of a batch, summed exactly: up to so many ranks of a worker can share a step.
        merge: how a round's slots become one state; None where a round has one slot.
    """

    model: ModelConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    vocabulary: int
    context: int
    batch_size: int
    evaluation_windows: int
    evaluation_batch: int
    seed: int
    shards: int = 1
    precision: Precision = Precision()  # frozen
    merge: MergeConfig | None = None

    @property
    def slots(self) -> int:
        """Training slots of a round."""
        return 1 if self.merge is None else self.merge.slots

    def to_mapping(self) -> dict[str, Any]:
        """The description as JSON values, all fields present; `merge` only where there is one."""
        plain = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in (*_SECTIONS, "merge")
        }
        return {
            "format": FORMAT,
            "model": _model_mapping(self.model),
            "optimizer": dataclasses.asdict(self.optimizer),
            "schedule": dataclasses.asdict(self.schedule),
            "precision": dataclasses.asdict(self.precision),
            **({} if self.merge is None else {"merge": {"kind": self.merge.kind, **dataclasses.asdict(self.merge)}}),
            **plain,
        }

    def to_bytes(self) -> bytes:
        """Canonical JSON (RFC 8785)."""
        from ledger.canonical import canonical_json  # here, so that the engine needs no JSON package

        return canonical_json(self.to_mapping())

    @classmethod
    def from_bytes(cls, data: bytes) -> ProgramDescription:
        """Parse canonical JSON; raises SpecificationError on anything else, also JSON that is not canonical."""
        from ledger.canonical import parse_json_strict  # see to_bytes

        if len(data) > MAXIMUM_BYTES:
            raise SpecificationError(f"The program has {len(data)} bytes; at most {MAXIMUM_BYTES} are read.")
        program = cls.from_mapping(parse_json_strict(data, "program description"))
        if program.to_bytes() != data:
            raise SpecificationError(
                "The description is not in canonical form.",
                remedy="Write it with ProgramDescription.to_bytes (RFC 8785: sorted keys, no spaces, short numbers).",
            )
        return program

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], *, path: str = "") -> ProgramDescription:
        """Read a complete description; raises SpecificationError naming the first wrong field."""
        fields = Fields(mapping, path)
        fields.take_choice("format", [FORMAT])
        program = cls(
            model=_model(fields.table("model")),
            optimizer=_optimizer(fields.table("optimizer")),
            schedule=_schedule(fields.table("schedule")),
            vocabulary=fields.take_int("vocabulary", 2, MAXIMUM_VOCABULARY),
            context=fields.take_int("context", 1, MAXIMUM_CONTEXT),
            batch_size=fields.take_int("batch_size", 1, MAXIMUM_BATCH),
            evaluation_windows=fields.take_int("evaluation_windows", 1, MAXIMUM_EVALUATION_TOKENS),
            evaluation_batch=fields.take_int("evaluation_batch", 1, MAXIMUM_BATCH),
            seed=fields.take_int("seed", 0, MAXIMUM_SEED),
            shards=fields.take_int("shards", 1, MAXIMUM_BATCH),
            precision=_precision(fields.table("precision")),
            merge=_optional_merge(fields),
        )
        fields.done()
        _check_products(program, fields)
        return program

    @classmethod
    def from_task_file(
        cls,
        mapping: Mapping[str, Any],
        *,
        vocabulary: int,
        total_steps: int,
        merge: Mapping[str, Any] | None = None,
    ) -> ProgramDescription:
        """Read the `[program]` section of a task file, where all but `model.kind` has a default.

        `vocabulary` comes from the prepared data set, `total_steps` (rounds × steps per round) is the schedule's
        default length, `merge` is the section `[merge]`, without which a round has one slot. Raises SpecificationError
        with fields named `program.…` and `merge.…`.
        """
        given = dict(Fields(mapping, "program")._values)
        for forbidden, why in (
            ("format", "is written by the program"),
            ("vocabulary", "comes from the data set"),
            ("merge", "is the section [merge]"),
        ):
            if forbidden in given:
                name = f"program.{forbidden}"
                raise SpecificationError(f"{name} cannot be set: it {why}.", field=name, remedy="Leave it out.")
        complete: dict[str, Any] = {"format": FORMAT, "vocabulary": vocabulary, **_DEFAULTS, **given}
        for section in _SECTIONS:
            if not isinstance(given.get(section, {}), Mapping):
                continue  # from_mapping names the fault
            values = dict(given.get(section, {}))
            complete[section] = {**_section_defaults(section, values, total_steps), **values}
        program = cls.from_mapping(complete, path="program")
        if merge is None:
            return program
        outer = dataclasses.asdict(DilocoConfig(slots=2)) if merge.get("kind") == DilocoConfig.kind else {}
        outer.pop("slots", None)
        return dataclasses.replace(program, merge=_merge(Fields({**outer, **merge}, "merge")))


_DEFAULTS: dict[str, Any] = {
    "context": 64,
    "batch_size": 12,
    "evaluation_windows": 256,
    "evaluation_batch": 32,
    "seed": 1,
    "shards": 1,
}


def _section_defaults(section: str, given: Mapping[str, Any], total_steps: int) -> dict[str, Any]:
    if section == "optimizer":
        return dataclasses.asdict(OptimizerConfig())
    if section == "precision":
        return dataclasses.asdict(Precision())
    if section == "schedule":
        length = given.get("total_steps", total_steps)
        rate = given.get("learning_rate", ScheduleConfig.learning_rate)
        defaults = dataclasses.asdict(ScheduleConfig())
        defaults["total_steps"] = total_steps
        if isinstance(length, int) and length > 0:
            defaults["warmup_steps"] = min(100, length // 20)
        if isinstance(rate, float):
            defaults["minimum_learning_rate"] = rate / 10
        return defaults
    common: dict[str, Any] = {"layers": 4, "heads": 4, "width": 128, "tied_embeddings": True}
    if given.get("kind") == RecurrentConfig.kind:
        return {**common, "layers": 1, "cell": "lstm"}
    return {**common, "bias": False} if given.get("kind") == TransformerConfig.kind else {}


def _model_mapping(model: ModelConfig) -> dict[str, Any]:
    sizes = dict(model.sizes) if isinstance(model, PublicConfig) else dataclasses.asdict(model)
    return {"kind": model.kind, **sizes}


def _public_model(kind: str, fields: Fields) -> PublicConfig:
    sizes = fields.rest()
    for name, value in sizes.items():
        if not isinstance(value, int):  # a boolean is one
            raise SpecificationError(
                f"{fields.name(name)} is {value!r}, which is neither a whole number nor true or false.",
                field=fields.name(name),
            )
    return PublicConfig(kind=kind, sizes=tuple(sorted(sizes.items())))


def _model(fields: Fields) -> ModelConfig:
    kind = fields.take_choice("kind", [TransformerConfig.kind, RecurrentConfig.kind, *PUBLIC_KINDS])
    if kind in PUBLIC_KINDS:
        return _public_model(kind, fields)
    common: dict[str, Any] = {
        "layers": fields.take_int("layers", 1, MAXIMUM_LAYERS),
        "heads": fields.take_int("heads", 1, MAXIMUM_HEADS),
        "width": fields.take_int("width", 1, MAXIMUM_WIDTH),
        "tied_embeddings": fields.take_bool("tied_embeddings"),
    }
    model: OwnConfig
    if kind == TransformerConfig.kind:
        model = TransformerConfig(**common, bias=fields.take_bool("bias"))
    else:
        model = RecurrentConfig(**common, cell=fields.take_choice("cell", CELLS))
    fields.done()
    if model.width % model.heads:
        name = fields.name("width")
        raise SpecificationError(
            f"{name} is {model.width}, which {model.heads} heads do not divide.",
            field=name,
            remedy=f"Use a multiple of {model.heads}.",
        )
    return model


def _optimizer(fields: Fields) -> OptimizerConfig:
    # Below 1 by more than float32 can round away: bias correction divides by 1 − beta^step.
    optimizer = OptimizerConfig(
        beta1=fields.take_float("beta1", 0.0, 0.999999),
        beta2=fields.take_float("beta2", 0.0, 0.999999),
        epsilon=fields.take_float("epsilon", 1e-20, 1.0),
        weight_decay=fields.take_float("weight_decay", 0.0, 100.0),
        gradient_clip=fields.take_float("gradient_clip", 0.0, 1e6),
    )
    fields.done()
    return optimizer


def _optional_merge(fields: Fields) -> MergeConfig | None:
    given = fields.take("merge") if fields.has("merge") else None
    return None if given is None else _merge(Fields(given, fields.name("merge")))


def _merge(fields: Fields) -> MergeConfig:
    kind = fields.take_choice("kind", [MeanConfig.kind, DilocoConfig.kind])
    slots = fields.take_int("slots", LEAST_INPUTS, MAXIMUM_INPUTS)
    merge: MergeConfig = MeanConfig(slots=slots)
    if kind == DilocoConfig.kind:
        merge = DilocoConfig(
            slots=slots,
            outer_learning_rate=fields.take_float("outer_learning_rate", 0.0, 100.0, above=True),
            outer_momentum=fields.take_float("outer_momentum", 0.0, 0.999999),
        )
    fields.done()
    return merge


def _precision(fields: Fields) -> Precision:
    bits = {field.name: fields.take_int(field.name, 3, 13) for field in dataclasses.fields(Precision)}
    fields.done()
    return Precision(**bits)


def _schedule(fields: Fields) -> ScheduleConfig:
    rate = fields.take_float("learning_rate", 0.0, 100.0, above=True)
    total = fields.take_int("total_steps", 1, MAXIMUM_STEPS)
    schedule = ScheduleConfig(
        learning_rate=rate,
        total_steps=total,
        minimum_learning_rate=fields.take_float("minimum_learning_rate", 0.0, rate),
        warmup_steps=fields.take_int("warmup_steps", 0, total),
    )
    fields.done()
    return schedule


def _check_products(program: ProgramDescription, fields: Fields) -> None:
    """Refuse sizes that are each allowed but together too large, or do not fit each other."""
    if program.batch_size % program.shards:
        name = fields.name("shards")
        raise SpecificationError(
            f"{name} is {program.shards}, which does not divide the batch of {program.batch_size}.",
            field=name,
            remedy=f"Use a divisor of {fields.name('batch_size')}.",
        )
    largest = max(program.batch_size, program.evaluation_batch)
    tokens = largest * program.context
    batch = "batch_size" if largest == program.batch_size else "evaluation_batch"
    checks = (
        (batch, "tokens in a batch", tokens, MAXIMUM_BATCH_TOKENS),
        (batch, "logits in a batch", tokens * program.vocabulary, MAXIMUM_BATCH_LOGITS),
        (batch, "attention scores in a batch", tokens * program.context * _heads(program.model), MAXIMUM_BATCH_SCORES),
        (
            "evaluation_windows",
            "held-out tokens",
            program.evaluation_windows * program.context,
            MAXIMUM_EVALUATION_TOKENS,
        ),
        ("model.width", "parameters", rough_parameters(program), MAXIMUM_PARAMETERS),
    )
    for field, what, value, limit in checks:
        if value > limit:
            name = fields.name(field)
            raise SpecificationError(
                f"{name} gives {value} {what}, and at most {limit} are allowed.", field=name, remedy=f"Lower {name}."
            )


def _heads(model: ModelConfig) -> int:
    heads = dict(model.sizes).get("heads", 1) if isinstance(model, PublicConfig) else model.heads
    return max(1, heads)


def rough_parameters(program: ProgramDescription) -> int:
    """Upper bound of the number of parameters, from the sizes alone: no module is built for a refused program.

    0 for a public model, which `trainer.foreign` checks.
    """
    model = program.model
    if isinstance(model, PublicConfig):
        return 0
    tables = (2 * program.vocabulary + program.context) * model.width
    square = model.width * (model.width + 2)
    if isinstance(model, TransformerConfig):
        return tables + 13 * model.layers * square
    gates = {"rnn": 1, "gru": 3, "lstm": 4}[model.cell]
    return tables + 2 * gates * model.layers * square + 5 * square
