"""Reads the training ledger: every view that trainledger uses, as typed records. `LedgerClient` adds the writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from web3 import Web3

from ledger.accounts import AccountReader
from ledger.compile import Artifact
from ledger.deploy import Deployment
from ledger.events import fetch_events
from ledger.types import Admission, Checkpoint, Round, Slot, SlotStatus, Task, TaskParameters


class LedgerReader(AccountReader):
    """Tasks, rounds and slots, on top of all that `AccountReader` does."""

    def __init__(
        self,
        web3: Web3,
        deployment: Deployment,
        *,
        artifacts: Mapping[str, Artifact] | None = None,
        open_tasks: bool = False,
    ) -> None:
        super().__init__(web3, deployment, artifacts=artifacts, open_tasks=open_tasks)
        self._committee = self._contract("AuditCommittee", deployment.committee)
        self._book = self._contract("RoundBook", deployment.book)

    def task(self, number: int) -> Task:
        """One task.

        Raises:
            ContractReverted: `UnknownTask`: there is none of that number.
        """
        fields, requester, current, closed = self._read(self._ledger.functions.getTask(number), task=number)
        return Task(
            number=number,
            parameters=_parameters(fields),
            requester=str(requester),
            current_round=current,
            closed=closed,
        )

    def tasks(self) -> list[Task]:
        """All tasks, oldest first."""
        return [self.task(number) for number in range(1, self.task_count() + 1)]

    def slot(self, task: int, round_number: int, slot: int = 0) -> Slot:
        """One slot of a round as it is stored: a lease that ran out still reads as leased until somebody acts."""
        worker, attempt, deadline, status, games, payout, steps, loss, generation, root = self._read(
            self._ledger.functions.getSlot(task, round_number, slot), task=task
        )
        return Slot(
            task=task,
            round=round_number,
            slot=slot,
            worker=str(worker),
            attempt=attempt,
            deadline=deadline,
            status=SlotStatus(status),
            open_games=games,
            payout=str(payout),
            steps=steps,
            heldout_loss=loss,
            generation=generation,
            state_root=bytes(root),
        )

    def next_attempt(self, task: int, round_number: int, slot: int = 0) -> int:
        """The attempt that a claim would have to name now; counts a lease that ran out as expired."""
        return int(self._read(self._ledger.functions.nextAttempt(task, round_number, slot), task=task))

    def base_root(self, task: int, round_number: int) -> bytes:
        """The state root that a round starts from; 32 zero bytes while the round before is not finalised."""
        return bytes(self._read(self._ledger.functions.baseRoot(task, round_number), task=task))

    def round(self, task: int, round_number: int) -> Round:
        """Where a round of a task with several slots stands.

        Raises:
            ContractReverted: `NotGrouped`: the task has one slot a round.
        """
        functions = self._book.functions
        ready = bool(self._read(functions.isReady(task, round_number)))
        numbers = self._read(functions.roundOf(task, round_number))
        deadline, frozen_at, generation, running, submitted, finalised, counted, collected = numbers
        there, counting = self._read(functions.slotsOf(task, round_number))
        return Round(
            task=task,
            round=round_number,
            deadline=deadline,
            frozen_at=frozen_at,
            generation=generation,
            running=running,
            submitted=submitted,
            finalised=finalised,
            counted=counted,
            collected=collected,
            submitted_slots=_bits(there),
            counted_slots=_bits(counting),
            inputs_root=self.inputs_root(task, round_number, generation),
            ready=ready,
        )

    def inputs_root(self, task: int, round_number: int, generation: int) -> bytes:
        """What merges of a generation start from; 32 zero bytes where its inputs were not all collected."""
        return bytes(self._read(self._book.functions.inputsOf(task, round_number, generation)))

    def merge_inputs(self, task: int, round_number: int, inputs_root: bytes) -> tuple[bytes, ...]:
        """State roots that a merge of `inputs_root` takes: the base's, then each slot's (a missing one's: the base's).

        Of what the round's inputs were before a slot fell, the log tells. Empty where no such inputs were collected.
        """
        if not any(inputs_root):
            return ()
        state, base = self.round(task, round_number), self.base_root(task, round_number)
        counted: dict[int, bytes] | None
        if state.inputs_root == inputs_root:
            counted = {slot: self.slot(task, round_number, slot).state_root for slot in state.counted_slots}
        else:
            counted = self._counted_before(task, round_number, inputs_root)
        if counted is None:
            return ()
        return base, *(counted.get(slot, base) for slot in range(self.task(task).parameters.slots_per_round))

    def _counted_before(self, task: int, round_number: int, inputs_root: bytes) -> dict[int, bytes] | None:
        """State roots of the slots that counted when these inputs were collected."""
        standing: dict[int, bytes] = {}
        frozen: dict[int, bytes] = {}
        for event in fetch_events(
            self.web3,
            self.deployment,
            names={"Submitted", "SubmissionFell", "RoundFrozen", "InputsCollected"},
            topics=[task.to_bytes(32, "big"), round_number.to_bytes(32, "big")],
            artifacts=self.artifacts,
        ):
            values: Any = event.arguments
            if event.name == "Submitted":
                standing[values["slot"]] = values["stateRoot"]
            elif event.name == "SubmissionFell":
                standing.pop(values["slot"], None)
            elif event.name == "RoundFrozen":
                frozen = dict(standing)
            elif values["inputsRoot"] == inputs_root:
                return frozen
        return None

    def checkpoint(self, task: int, round_number: int) -> Checkpoint:
        """The lineage entry of a finalised round.

        Raises:
            ContractReverted: `WrongStatus`: the round is not finalised.
        """
        parent, root, number, worker, steps, loss = self._read(
            self._ledger.functions.getCheckpoint(task, round_number), task=task
        )
        return Checkpoint(
            task=task,
            round=number,
            parent=bytes(parent),
            state_root=bytes(root),
            worker=str(worker),
            steps=steps,
            heldout_loss=loss,
        )

    def lineage(self, task: int) -> list[Checkpoint]:
        """All checkpoints of a task, oldest first."""
        return [self.checkpoint(task, number) for number in range(self.task(task).current_round)]

    def pay_for(self, task: int, round_number: int, *, steps: int, loss_bits: int) -> int:
        """Pay in wei for these steps and this held-out loss, by the contract's own reckoning."""
        return int(self._read(self._ledger.functions.payFor(task, round_number, steps, loss_bits), task=task))

    def minimum_bond(self) -> int:
        """Least bond of any task, wei."""
        return int(self._read(self._ledger.functions.minimumBond()))

    def minimum_window(self) -> int:
        """Least challenge window of any task, seconds."""
        return int(self._read(self._ledger.functions.minimumWindow()))

    def minimum_lease(self) -> int:
        """Least lease of any task, seconds."""
        return int(self._read(self._ledger.functions.minimumLease()))

    def disputes_available(self) -> bool:
        """Whether a wrong submission can be disputed on chain in this deployment."""
        return bool(self._read(self._game.functions.available()))

    def escrow(self, task: int) -> int:
        """What is left of a task's reward, wei."""
        return int(self._read(self._vault.functions.escrowOf(task)))


def _bits(mask: int) -> frozenset[int]:
    return frozenset(place for place in range(mask.bit_length()) if mask >> place & 1)


def _parameters(fields: Any) -> TaskParameters:
    """ITrainingLedger.TaskParameters, which the dataclass follows field by field."""
    names = TaskParameters.__dataclass_fields__
    values = dict(zip(names, fields, strict=True))
    for name in ("specification_hash", "program_root", "dataset_root", "initial_state_root"):
        values[name] = bytes(values[name])
    values["admission"] = Admission(values["admission"])
    return TaskParameters(**values)
