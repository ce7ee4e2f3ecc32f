"""Scores: the evaluation program, run once on a revealed state with its round's held-out data."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch

from trainer.commit.hashing import Kind, merkle_proof
from trainer.commit.states import root_of_leaves, state_leaves
from trainer.engine.batches import TokenData
from trainer.engine.engines import Engine
from trainer.engine.segment import run_segment
from trainer.engine.state import State, heldout_loss_bits
from trainer.program.layout import HELDOUT_LOSS
from trainer.program.task import TaskProgram


@dataclass(frozen=True, kw_only=True)
class Score:
    """A score as the chain takes it: root of the state after evaluation, its loss (binary32 bits), the loss's proof."""

    root: bytes
    loss_bits: int
    proof: list[bytes]


def score_state(
    program: TaskProgram, data: TokenData, state: State, *, slot: int, engine: Engine | None = None
) -> Score:
    """Scores a state: a segment of no steps, whose one run is repeated on the reference and compared.

    Args:
        data: the round's data set. slot: of the round; W for the baseline.
        engine: runs the evaluation; None takes the reference.

    Raises:
        MachineFault: the repeated run gave other bits.
        ResourceError: memory ran out.
    """
    scored = run_segment(program, data, state, steps=0, slot=slot, engine=engine, recheck=0).state
    leaves = state_leaves(scored.values())
    return Score(
        root=root_of_leaves(leaves),
        loss_bits=heldout_loss_bits(scored),
        proof=merkle_proof(Kind.STATE, leaves, 0),
    )


def with_loss(state: State, loss_bits: int) -> State:
    """A state with another held-out loss (binary32 bits): all that an open task's evaluation changes."""
    signed = loss_bits - 2**32 if loss_bits >= 2**31 else loss_bits
    loss = torch.tensor([signed], dtype=torch.int32).view(torch.float32)
    return OrderedDict((name, loss if name == HELDOUT_LOSS else tensor) for name, tensor in state.items())
