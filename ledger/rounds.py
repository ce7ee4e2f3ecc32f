"""What a merge takes, as the chain knows it: the base of its round, and the states of the slots that count.

docs/rounds.md, "Which states a merge takes".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ledger.events import fetch_events
from ledger.types import Event

if TYPE_CHECKING:
    from ledger.reader import LedgerReader

_EVENTS = frozenset({"Submitted", "SubmissionFell", "RoundFrozen"})


def merge_inputs(chain: LedgerReader, task: int, round_number: int, inputs_root: bytes) -> list[bytes] | None:
    """State roots that a merge with these inputs takes: the base, then each slot's, the base where one is missing.

    None where the round never had inputs of this root. The caller compares what they come to: a node could lie.

    Raises:
        ChainError: the chain does not answer.
    """
    state = chain.round(task, round_number)
    base, slots = chain.base_root(task, round_number), chain.task(task).parameters.slots_per_round
    if state.inputs_root == inputs_root:
        return [base, *_now(chain, task, round_number, slots, state.counted_slots, base)]
    for generation in range(state.generation):
        if chain.inputs_root(task, round_number, generation) == inputs_root:
            events = fetch_events(
                chain.web3,
                chain.deployment,
                names=_EVENTS,
                topics=[task.to_bytes(32, "big"), round_number.to_bytes(32, "big")],
                artifacts=chain.artifacts,
            )
            return [base, *inputs_then(list(events), slots, generation, base)]
    return None


def inputs_then(events: Sequence[Event], slots: int, generation: int, base: bytes) -> list[bytes]:
    """Each slot's state root when a round was frozen in an earlier generation, told from its events in their order.

    A slot that fell later is not in the contract's storage any more. The base stands for a slot that was missing.
    """
    standing: dict[object, object] = {}
    for event in events:
        arguments = event.arguments
        if event.name == "RoundFrozen" and arguments["generation"] == generation:
            break
        if event.name == "Submitted":
            standing[arguments["slot"]] = arguments["stateRoot"]
        elif event.name == "SubmissionFell":
            standing.pop(arguments["slot"], None)
    roots = [standing.get(slot, base) for slot in range(slots)]
    return [root if isinstance(root, bytes) else bytes.fromhex(str(root).removeprefix("0x")) for root in roots]


def _now(
    chain: LedgerReader, task: int, round_number: int, slots: int, counted: frozenset[int], base: bytes
) -> list[bytes]:
    return [chain.slot(task, round_number, slot).state_root if slot in counted else base for slot in range(slots)]
