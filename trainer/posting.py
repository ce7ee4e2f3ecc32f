"""From a task file to everything that posting a task takes: here programs are traced, nowhere else."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ledger.errors import SpecificationError
from ledger.performance import bits_float, fixed_point, float_bits
from ledger.spec import TaskFile, TaskSpecification
from ledger.types import TaskParameters
from trainer.authoring import author, tokenizer_of
from trainer.checkpoints import save_state
from trainer.commit.states import state_root
from trainer.data.config import DataConfig
from trainer.data.dataset import Dataset, check_description, check_programs, prepare_dataset, publish_dataset
from trainer.engine.engines import Engine
from trainer.engine.segment import measured
from trainer.engine.state import State, heldout_loss_bits
from trainer.materials import check_readable, publish_program, specification_path
from trainer.program.description import MAXIMUM_STEPS, ProgramDescription
from trainer.program.task import TaskProgram
from trainer.store import BlobStore


@dataclass(frozen=True, kw_only=True)
class Posting:
    """A task ready to be published and posted. `base_loss` is the initial state's held-out loss, measured."""

    specification: TaskSpecification
    parameters: TaskParameters
    program: TaskProgram
    dataset: Dataset
    initial: State
    base_loss: float


def check_limits(file: TaskFile, *, minimum_bond: int, minimum_window: int, minimum_lease: int) -> None:
    """Compares a task file with the deployment's limits (wei, seconds).

    Raises:
        SpecificationError: a value is below its limit; the field is named.
    """
    for field, value, least, unit in (
        ("reward.bond", file.bond, minimum_bond, "wei"),
        ("timing.challenge_window_seconds", file.challenge_window, minimum_window, "s"),
        ("timing.lease_seconds", file.lease_seconds, minimum_lease, "s"),
    ):
        if value < least:
            raise SpecificationError(
                f"{field} is {value} {unit}; this deployment asks for at least {least} {unit}.",
                field=field,
                remedy=f"Raise {field}.",
            )


def prepare_posting(file: TaskFile, *, engine: Engine | None = None) -> Posting:
    """Prepares data set, programs and first state, and measures its held-out loss. Publishes nothing.

    `engine` measures; None takes the reference.

    Raises:
        SpecificationError: a field of [data], [program] or [merge] is wrong, or the target is not below the base loss.
        ResourceError: memory ran out.
    """
    steps = file.rounds * file.steps_per_round
    if steps > MAXIMUM_STEPS:
        raise SpecificationError(
            f"task.rounds times task.steps_per_round is {steps}; programs can count {MAXIMUM_STEPS} steps.",
            field="task.rounds",
            remedy="Lower one of them.",
        )
    data = DataConfig.from_mapping(file.data)
    dataset = prepare_dataset(data, folder=file.path.resolve().parent, tokenizer=tokenizer_of(data))
    description = ProgramDescription.from_task_file(
        file.program, vocabulary=dataset.vocabulary, total_steps=steps, merge=file.merge
    )
    check_description(description, dataset)
    authored = author(description, windows=(len(dataset.heldout) - 1) // description.context)
    program = authored.program
    check_readable(program)  # before a compiler spends minutes on what nobody could fetch
    check_programs(program, dataset)
    initial = measured(program, dataset, authored.initial, engine=engine)
    specification = TaskSpecification(
        title=file.title,
        description=file.description,
        program=program.root,
        dataset=dataset.root,
        initial_state=state_root(initial.values()),
        rounds=file.rounds,
        slots_per_round=file.slots,
        steps_per_round=file.steps_per_round,
    )
    return Posting(
        specification=specification,
        parameters=_parameters(file, specification, tensors=len(program.layout), measured=heldout_loss_bits(initial)),
        program=program,
        dataset=dataset,
        initial=initial,
        base_loss=bits_float(heldout_loss_bits(initial)),
    )


def _parameters(file: TaskFile, specification: TaskSpecification, *, tensors: int, measured: int) -> TaskParameters:
    base, target = _losses(file, measured)
    return TaskParameters(
        specification_hash=specification.hash(),
        program_root=specification.program,
        dataset_root=specification.dataset,
        initial_state_root=specification.initial_state,
        state_tensors=tensors,
        rounds=file.rounds,
        slots_per_round=file.slots,
        steps_per_round=file.steps_per_round,
        minimum_steps=file.minimum_steps,
        slot_reward=file.slot_reward,
        bond=file.bond,
        lease_fee=file.lease_fee,
        lease_seconds=file.lease_seconds,
        challenge_window=file.challenge_window,
        admission=file.admission,
        minimum_stake=file.minimum_stake,
        ticket_target=file.ticket_target,
        has_target=file.target_loss is not None,
        base_loss=base,
        target_loss=target,
        quorum=file.quorum,
        round_seconds=file.round_seconds,
        merge_reward=file.merge_reward,
    )


def _losses(file: TaskFile, measured: int) -> tuple[int, int]:
    """Base and target as binary32 bits; both 0 without a target."""
    if file.target_loss is None:
        return 0, 0
    base = measured if file.base_loss is None else float_bits(file.base_loss)
    target = float_bits(file.target_loss)
    base_fixed, target_fixed = fixed_point(base), fixed_point(target)
    if base_fixed is None or target_fixed is None or base_fixed <= target_fixed:
        shown = bits_float(base) if math.isfinite(bits_float(base)) else "not finite"
        raise SpecificationError(
            f"reward.target_loss is {file.target_loss}, and the held-out loss before training is {shown}: there is "
            "nothing left to earn.",
            field="reward.target_loss",
            remedy="Ask for a lower loss, or leave reward.target_loss out.",
        )
    return base, target


def publish_posting(posting: Posting, store: BlobStore) -> None:
    """Puts everything that workers and verifiers need into the store. Safe to repeat; the specification comes last.

    Raises:
        ResourceError: the store is full. DataError: it does not answer.
    """
    publish_dataset(posting.dataset, store)
    publish_program(posting.program, store)
    save_state(store, posting.initial, posting.program.layout)
    store.put_bytes(specification_path(posting.specification.hash()), posting.specification.to_bytes())
