"""Reads the ledger of open tasks and its availability committee, as typed records. `OpenClient` adds the writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from web3 import Web3

from ledger.accounts import AccountReader
from ledger.audits.records import Ballot
from ledger.compile import Artifact
from ledger.deploy import Deployment
from ledger.errors import ChainError
from ledger.events import fetch_events
from ledger.open.records import (
    Inquiry,
    OpenParameters,
    OpenPhase,
    OpenRound,
    OpenSlot,
    OpenTask,
    Question,
    Stage,
    commitment_of,
    escrow_number,
    slot_key,
)
from ledger.types import Event


class OpenReader(AccountReader):
    """Open tasks, their rounds and slots, and inquiries about states, on top of all that `AccountReader` does.

    Where a task is named, ContractReverted `UnknownTask` says that there is none.
    """

    def __init__(
        self,
        web3: Web3,
        deployment: Deployment,
        *,
        artifacts: Mapping[str, Artifact] | None = None,
        open_tasks: bool = True,
    ) -> None:
        super().__init__(web3, deployment, artifacts=artifacts, open_tasks=open_tasks)
        self._availability = self._contract("AvailabilityCommittee", deployment.availability)

    # --- tasks ---

    def task(self, number: int) -> OpenTask:
        """One task."""
        fields, requester, rounds, current, phase = self._read(self._ledger.functions.getTask(number), task=number)
        return OpenTask(
            number=number,
            parameters=_parameters(fields),
            requester=str(requester),
            rounds=rounds,
            current_round=current,
            phase=OpenPhase(phase),
        )

    def tasks(self) -> list[OpenTask]:
        """All tasks, oldest first."""
        return [self.task(number) for number in range(1, self.task_count() + 1)]

    def round(self, task: int, round_number: int) -> OpenRound:
        """Where a round stands; all zero for one in which nobody has committed yet."""
        *numbers, best = self._read(self._ledger.functions.getRound(task, round_number))
        commit_end, reveal_end, held_out_end, held_out_at, committed, opened, revealed, resolved = numbers
        return OpenRound(
            task=task,
            round=round_number,
            commit_end=commit_end,
            reveal_end=reveal_end,
            held_out_end=held_out_end,
            held_out_at=held_out_at,
            committed=committed,
            opened=opened,
            revealed=revealed,
            resolved=resolved,
            best=best - 1 if best else None,
        )

    def slot(self, task: int, round_number: int, slot: int) -> OpenSlot:
        """One slot of a round as it is stored.

        Raises:
            ContractReverted: `WrongSlot`: the task's rounds have no such slot.
        """
        call = self._ledger.functions.getOpenSlot(task, round_number, slot)
        worker, attempt, deadline, stage, games, payout, loss, bonded, question, commitment, trained, scored = (
            self._read(call, task=task)
        )
        return OpenSlot(
            task=task,
            round=round_number,
            slot=slot,
            worker=str(worker),
            attempt=attempt,
            deadline=deadline,
            stage=Stage(stage),
            open_games=games,
            payout=str(payout),
            held_out_loss=loss,
            bonded=bonded,
            question=Question(question),
            commitment=bytes(commitment),
            trained_root=bytes(trained),
            scored_root=bytes(scored),
        )

    def slot_of(self, task: int, round_number: int, worker: str) -> int | None:
        """The slot that a worker has committed to in a round; None where it has not."""
        who = Web3.to_checksum_address(worker)
        found = int(self._read(self._ledger.functions.slotOf(task, round_number, who)))
        return found - 1 if found else None

    def base_root(self, task: int, round_number: int) -> bytes:
        """The state root that a round starts from; 32 zero bytes while the round before has not ended."""
        return bytes(self._read(self._ledger.functions.baseRoot(task, round_number), task=task))

    def held_out_root(self, task: int, round_number: int) -> bytes:
        """Root of the data set whose held-out part a round is scored on.

        Raises:
            ContractReverted: `WrongRound`: the task has fewer rounds.
        """
        return bytes(self._read(self._ledger.functions.heldOutRoot(task, round_number), task=task))

    def held_out_tokens(self, task: int, round_number: int) -> bytes | None:
        """The held-out part of a round's data set, as the requester showed it; None before.

        Raises:
            ChainError: the node does not keep logs that far back.
        """
        if self.round(task, round_number).held_out_at == 0:
            return None
        for event in self._task_events({"HeldOutRevealed"}, task, round_number):
            tokens = event.arguments["tokens"]
            assert isinstance(tokens, bytes)
            return tokens
        raise ChainError(
            f"The node no longer has the log of the held-out data of round {round_number} of open task {task}.",
            remedy="Name a node that keeps the history with --rpc-url.",
        )

    def commitment(self, task: int, round_number: int, worker: str, trained_root: bytes, salt: bytes) -> bytes:
        """What `worker` has to commit to for a state. `salt` is 32 bytes that nobody can guess."""
        return commitment_of(
            chain_id=self.deployment.chain_id,
            ledger=self.deployment.open_ledger,
            task=task,
            round_number=round_number,
            worker=Web3.to_checksum_address(worker),
            trained_root=trained_root,
            salt=salt,
        )

    def pay_for(self, task: int, baseline_loss: int, loss: int) -> int:
        """Pay in wei of a worker's slot with this loss, by the contract's own reckoning; losses are binary32 bits."""
        return int(self._read(self._ledger.functions.payFor(task, baseline_loss, loss), task=task))

    def escrow(self, task: int) -> int:
        """What is left of a task's rewards, wei."""
        return int(self._read(self._vault.functions.escrowOf(escrow_number(task))))

    def minimum_bond(self) -> int:
        """Least bond of any task, wei."""
        return int(self._read(self._availability.functions.minimumBond()))

    def minimum_window(self) -> int:
        """Least challenge window of any task, seconds."""
        return int(self._read(self._availability.functions.minimumWindow()))

    def minimum_lease(self) -> int:
        """Least of the other periods of any task, seconds."""
        return int(self._read(self._availability.functions.minimumLease()))

    def find_task(self, specification_hash: bytes, requester: str) -> int | None:
        """The newest task that `requester` posted with this specification: for going on after a crash."""
        topics = [None, bytes(12) + bytes.fromhex(requester[2:]), specification_hash]
        found = [event.arguments["task"] for event in self._open_events({"OpenTaskPosted"}, topics)]
        return int(str(found[-1])) if found else None

    def store_url(self, task: int) -> str:
        """Where the requester says the task's specification, data and first state can be fetched.

        Raises:
            ChainError: the node does not keep logs that far back.
        """
        self.task(task)
        for event in self._task_events({"OpenTaskPosted"}, task):
            return str(event.arguments["storeUrl"])
        raise ChainError(
            f"The node no longer has the log of open task {task}, which names its store.",
            remedy="Name the store with --store, or a node that keeps the history with --rpc-url.",
        )

    # --- states that nobody can fetch ---

    def inquiry(self, task: int, round_number: int, slot: int) -> Inquiry:
        """The question about a slot's state as the contract keeps it; all zero where nobody has asked."""
        values = self._read(self._availability.functions.getInquiry(slot_key(task, round_number, slot)))
        asked_at, seed_block, seats, commit_end, reveal_end, committed, closed, asker, bond, fee, *roots = values
        trained_root, seed, agreed = (bytes(root) for root in roots)
        return Inquiry(
            task=task,
            round=round_number,
            slot=slot,
            asked_at=asked_at,
            seed_block=seed_block,
            seats=seats,
            commit_end=commit_end,
            reveal_end=reveal_end,
            committed=committed,
            closed=closed,
            asker=str(asker),
            bond=bond,
            fee=fee,
            trained_root=trained_root,
            seed=seed,
            agreed=agreed,
        )

    def inquiry_seconds(self) -> int:
        """Seconds that drawn auditors have to commit in, and again to reveal in."""
        return int(self._read(self._availability.functions.periodSeconds()))

    def ballot(self, task: int, round_number: int, slot: int, auditor: str) -> Ballot:
        """An auditor's part in an inquiry; its `finding` is the salted root."""
        who = Web3.to_checksum_address(auditor)
        key = slot_key(task, round_number, slot)
        commitment, salted_root, votes, paid = self._read(self._availability.functions.ballotOf(key, who))
        return Ballot(bytes(commitment), bytes(salted_root), votes, paid)

    def votes_of(self, task: int, round_number: int, slot: int, auditor: str) -> int:
        """Votes of an auditor in a drawn inquiry.

        Raises:
            ContractReverted: `UnknownInquiry`, `NotDrawn`.
        """
        who = Web3.to_checksum_address(auditor)
        return int(self._read(self._availability.functions.votesOf(slot_key(task, round_number, slot), who)))

    def _task_events(self, names: set[str], task: int, round_number: int | None = None) -> list[Event]:
        """Events of a task, or of one of its rounds, oldest first."""
        topics: list[bytes | None] = [task.to_bytes(32, "big")]
        if round_number is not None:
            topics.append(round_number.to_bytes(32, "big"))
        return self._open_events(names, topics)

    def _open_events(self, names: set[str], topics: Sequence[bytes | None]) -> list[Event]:
        return list(
            fetch_events(
                self.web3, self.deployment, names=names, topics=topics, open_tasks=True, artifacts=self.artifacts
            )
        )


def _parameters(fields: Any) -> OpenParameters:
    """IOpenLedger.TaskParameters, which the dataclass follows field by field."""
    values = dict(zip(OpenParameters.__dataclass_fields__, fields, strict=True))
    for name in ("specification_hash", "program_root", "initial_state_root", "train_leaf", "public_node"):
        values[name] = bytes(values[name])
    return OpenParameters(**values)
