"""From the file of an open task to all that posting it takes: programs, the public data set, and each round's own."""

from __future__ import annotations

from dataclasses import dataclass

from ledger.errors import SpecificationError
from ledger.open.records import OpenParameters
from ledger.openfile import OpenTaskFile
from ledger.performance import bits_float, float_bits
from ledger.spec import TaskSpecification
from trainer.authoring import Authored, author, tokenizer_of
from trainer.checkpoints import save_state
from trainer.commit.states import state_root
from trainer.data.config import DataConfig
from trainer.data.corpus import read_corpus
from trainer.data.dataset import (
    Dataset,
    check_description,
    check_programs,
    dataset_of,
    dataset_of_text,
    publish_dataset,
)
from trainer.engine.batches import Tokens
from trainer.engine.engines import Engine
from trainer.engine.segment import measured
from trainer.engine.state import State, heldout_loss_bits
from trainer.materials import check_readable, publish_program, specification_path
from trainer.open.held_out import (
    MAXIMUM_BYTES,
    RANDOM_TOKENS,
    SecretFolder,
    most_windows,
    secret_parts,
    siblings,
    tokens_read,
    with_held_out,
)
from trainer.program.description import MAXIMUM_STEPS, ProgramDescription
from trainer.program.task import TaskProgram
from trainer.store import BlobStore


@dataclass(frozen=True, kw_only=True)
class OpenPosting:
    """An open task ready to be published and posted.

    Attributes:
        dataset: the public one, whose held-out part is for workers to look at.
        rounds: each round's data set; their held-out parts are secret.
        base_loss: the first state's loss on the public held-out part.
    """

    specification: TaskSpecification
    parameters: OpenParameters
    program: TaskProgram
    dataset: Dataset
    rounds: tuple[Dataset, ...]
    initial: State
    base_loss: float

    @property
    def held_out_roots(self) -> list[bytes]:
        """Of the rounds in order."""
        return [data.root for data in self.rounds]


def prepare_open_posting(file: OpenTaskFile, *, engine: Engine | None = None) -> OpenPosting:
    """Prepares programs, data sets and the first state, and measures it on the public held-out part. Publishes nothing.

    What is held out of the rounds is drawn anew by each call.

    Args:
        engine: measures; None takes the reference.

    Raises:
        SpecificationError: a field of [data], [program] or [open] is wrong, or there is too little text.
        ResourceError: memory ran out.
    """
    steps = file.rounds * file.steps_per_round
    if steps > MAXIMUM_STEPS:
        raise SpecificationError(
            f"task.rounds times task.steps_per_round is {steps}; programs can count {MAXIMUM_STEPS} steps.",
            field="task.rounds",
            remedy="Lower one of them.",
        )
    whole, secret = _texts(file)
    description = ProgramDescription.from_task_file(
        file.program, vocabulary=whole.vocabulary, total_steps=steps, merge=None
    )
    check_description(description, whole)
    authored = _authored(file, description, whole, secret)
    program = authored.program
    check_readable(program)
    public, rounds = _data_sets(file, program, whole, secret)
    initial = measured(program, public, authored.initial, engine=engine)
    specification = TaskSpecification(
        title=file.title,
        description=file.description,
        program=program.root,
        dataset=public.root,
        initial_state=state_root(initial.values()),
        rounds=file.rounds,
        slots_per_round=file.slots,
        steps_per_round=file.steps_per_round,
    )
    return OpenPosting(
        specification=specification,
        parameters=_parameters(file, specification, public, tensors=len(program.layout)),
        program=program,
        dataset=public,
        rounds=rounds,
        initial=initial,
        base_loss=bits_float(heldout_loss_bits(initial)),
    )


def publish_open_posting(posting: OpenPosting, store: BlobStore, secrets: SecretFolder) -> None:
    """Keeps what is secret, then publishes what workers need. Safe to repeat; the specification comes last.

    Raises:
        ResourceError: the disk or the store is full. DataError: the store does not answer.
    """
    for data in posting.rounds:
        secrets.keep(data)
    publish_dataset(posting.dataset, store)
    publish_program(posting.program, store)
    save_state(store, posting.initial, posting.program.layout)
    store.put_bytes(specification_path(posting.specification.hash()), posting.specification.to_bytes())


def _texts(file: OpenTaskFile) -> tuple[Dataset, Tokens]:
    """The data set of the public text, and the tokens of the secret one, of which its tokenizer has seen nothing."""
    config, folder = DataConfig.from_mapping(file.data), file.path.resolve().parent
    text = read_corpus(config.source, limit_bytes=config.limit_bytes, folder=folder)
    if isinstance(file.held_out, str):
        secret = read_corpus(file.held_out, folder=folder)
    else:
        cut = len(text) - int(len(text) * file.held_out)
        text, secret = text[:cut], text[cut:]
    whole = dataset_of_text(text, config, tokenizer=tokenizer_of(config))
    return whole, whole.tokenizer.encode(secret)


def _authored(file: OpenTaskFile, description: ProgramDescription, whole: Dataset, secret: Tokens) -> Authored:
    windows = most_windows(description.context, public=len(whole.heldout), secret=len(secret), rounds=file.rounds)
    if windows < 1:
        raise SpecificationError(
            f"The public text holds {len(whole.heldout)} tokens out and the secret one has {len(secret)}, too few for "
            f"{file.rounds} rounds with a window of {description.context} tokens each; a round's may have at most "
            f"{MAXIMUM_BYTES // 2}.",
            field="open.held_out",
            remedy="Use more text, fewer rounds or a shorter context.",
        )
    return author(description, windows=windows)


def _data_sets(
    file: OpenTaskFile, program: TaskProgram, whole: Dataset, secret: Tokens
) -> tuple[Dataset, tuple[Dataset, ...]]:
    """The public data set, and those of the rounds: as many held-out tokens in each, so that they share a header."""
    read = tokens_read(program)
    public = dataset_of(whole.tokenizer, whole.train, whole.heldout[: read + RANDOM_TOKENS])
    check_programs(program, public)
    parts = secret_parts(secret, rounds=file.rounds, tokens=read, vocabulary=whole.vocabulary)
    return public, tuple(with_held_out(public, part) for part in parts)


def _parameters(
    file: OpenTaskFile, specification: TaskSpecification, public: Dataset, *, tensors: int
) -> OpenParameters:
    train_leaf, public_node = siblings(public)
    return OpenParameters(
        specification_hash=specification.hash(),
        program_root=specification.program,
        initial_state_root=specification.initial_state,
        train_leaf=train_leaf,
        public_node=public_node,
        state_tensors=tensors,
        slots_per_round=file.slots,
        full_gain=float_bits(file.full_gain),
        held_out_bytes=2 * len(public.heldout),
        slot_reward=file.slot_reward,
        floor_reward=file.floor_reward,
        score_reward=file.score_reward,
        bond=file.bond,
        fee=file.fee,
        minimum_stake=file.minimum_stake,
        commit_seconds=file.commit_seconds,
        reveal_seconds=file.reveal_seconds,
        held_out_seconds=file.held_out_seconds,
        lease_seconds=file.lease_seconds,
        challenge_window=file.challenge_window,
    )
