"""The held-out data of a round: made and kept secret by the requester, rebuilt by everybody once it is shown.

All data sets of a task have the same header, tokenizer and train part, which are public; a round's own held-out tokens
are secret until its commits are revealed (docs/open-tasks.md, "The held-out data of a round").
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ledger.atomic import write_atomically
from ledger.canonical import root_hex
from ledger.errors import DataError, SpecificationError
from trainer.commit.hashing import Kind, chunk_leaves, leaf, merkle_root, node, seal
from trainer.data.dataset import Dataset, PartDigest, digest_root
from trainer.engine.batches import Tokens
from trainer.program.exact import Part
from trainer.program.task import TaskProgram, batches_of

MAXIMUM_BYTES = 65_536  # of a round's held-out tokens; HeldOut.sol has the same
RANDOM_TOKENS = 32  # behind what the evaluation reads, so that nobody finds the rest by trying texts

Below = Callable[[int], int]


def tokens_read(program: TaskProgram) -> int:
    """Held-out tokens that a task's programs read, from the first one on."""
    return max(
        (
            samples * length + shift
            for built in program.programs
            for part, samples, length, shift in batches_of(built.program)
            if part is Part.HELDOUT
        ),
        default=0,
    )


def most_windows(context: int, *, public: int, secret: int, rounds: int) -> int:
    """Held-out windows of `context` tokens that every round can have.

    Args:
        public, secret: held-out tokens of the public data set, and secret ones for all rounds together.
    """
    shown = MAXIMUM_BYTES // 2
    return max(0, (min(min(public, shown) - RANDOM_TOKENS, secret // rounds) - 1) // context)


def secret_parts(
    secret: Tokens, *, rounds: int, tokens: int, vocabulary: int, below: Below = secrets.randbelow
) -> list[Tokens]:
    """The held-out part of each round: `tokens` of the secret text, of places that no two share, and the random tokens.

    Which place is whose is drawn, so that a round that was shown tells nothing about the next.

    Args:
        below: gives a random number below another one; cryptographic.

    Raises:
        SpecificationError: the secret text is too short.
    """
    places = len(secret) // tokens
    if places < rounds:
        raise SpecificationError(
            f"The secret text has {len(secret)} tokens, and {rounds} rounds of {tokens} need {rounds * tokens}.",
            field="open.held_out",
            remedy="Hold out more text, or ask for fewer rounds or program.evaluation_windows.",
        )
    left = list(range(places))
    parts = []
    for _ in range(rounds):
        at = left.pop(below(len(left))) * tokens
        tail = np.array([below(vocabulary) for _ in range(RANDOM_TOKENS)], dtype="<u2")
        parts.append(np.concatenate([secret[at : at + tokens], tail]).astype("<u2"))
    return parts


def with_held_out(public: Dataset, held_out: Tokens) -> Dataset:
    """The data set of a round: the public one with another held-out part, uint16 tokens."""
    part = np.ascontiguousarray(held_out, dtype="<u2").view(np.uint8).data
    digests = (*public.digests[:3], PartDigest(part.nbytes, chunk_leaves(Kind.DATASET, part)))
    return dataclasses.replace(public, root=digest_root(digests), heldout=held_out, digests=digests)


def rebuild(public: Dataset, shown: bytes, root: bytes) -> Dataset:
    """The data set of a round from the tokens that its requester showed.

    Raises:
        DataError: they do not give the round's root with the task's public parts: nobody could prove a score on them.
    """
    data = None if len(shown) % 2 or not shown else with_held_out(public, np.frombuffer(shown, dtype="<u2"))
    if data is None or data.root != root:
        raise DataError(
            f"The held-out tokens shown do not give the root {root_hex(root)} with the task's public data set.",
            remedy="Its requester posted other parts than it published: leave the task alone.",
        )
    return data


def siblings(public: Dataset) -> tuple[bytes, bytes]:
    """What leads from the held-out leaf to the root: the train part's leaf, and the node over header and tokenizer."""
    header, tokenizer, train = (
        leaf(Kind.DATASET, seal(Kind.DATASET, number, one.size, merkle_root(Kind.DATASET, one.leaves)))
        for number, one in zip((0, 0, 6), public.digests[:3], strict=True)
    )
    return train, node(Kind.DATASET, header, tokenizer)


class SecretFolder:
    """A requester's held-out tokens, each file under the root of its round's data set. Nothing here is ever published.

    A name says all that is in a file, so posting the same task again never writes over what another posting needs.

    Args:
        folder: made, readable by the user alone.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, data: Dataset) -> None:
        """Writes a round's tokens, whole or not at all; on disk when this returns. Raises ResourceError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        write_atomically(self._path(data.root), data.heldout.astype("<u2").tobytes(), mode=0o600)

    def find(self, root: bytes) -> bytes | None:
        """The held-out tokens of the data set with this root, little-endian; None where they are not here."""
        try:
            return self._path(root).read_bytes()
        except FileNotFoundError:
            return None

    def _path(self, root: bytes) -> Path:
        return self._folder / f"{root_hex(root)}.bin"
