"""The TOML file in which a requester describes a task; `examples/` has commented ones.

Amounts are tokens, exact decimals. The sections [data], [program] and [merge] are passed on untouched, for the trainer
to check; [merge] with the number of slots that [round] gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ledger.amounts import format_tokens
from ledger.errors import SpecificationError
from ledger.taskfields import (
    MAXIMUM_PERIOD,
    UINT32_MAX,
    Field,
    amount,
    check_text,
    contradiction,
    plain,
    read_description,
    read_document,
    read_loss,
    read_section,
    read_table,
    read_title,
    refuse_unknown,
    shown,
    whole,
)
from ledger.types import Admission

__all__ = ["TaskFile", "check_text", "load_task_file"]

_ADMISSIONS = {
    "open": Admission.OPEN,
    "stake": Admission.STAKE,
    "ticket": Admission.TICKET,
    "stake_and_ticket": Admission.STAKE_AND_TICKET,
}


@dataclass(frozen=True, kw_only=True)
class TaskFile:
    """A checked task file. Amounts are wei, times seconds; `ticket_target` is 0 where no ticket is asked for.

    `target_loss` None means that pay does not depend on the loss; `base_loss` None means that it is measured on the
    initial state. `quorum`, `round_seconds` and `merge_reward` are 0 where a round has one slot. `data`, `program` and
    `merge` hold plain TOML values (floats, not decimals); `merge` is None where a round has one slot, else it holds
    `slots` too.
    """

    path: Path
    title: str
    description: str
    rounds: int
    steps_per_round: int
    minimum_steps: int
    slot_reward: int
    bond: int
    lease_fee: int
    target_loss: float | None
    base_loss: float | None
    lease_seconds: int
    challenge_window: int
    admission: Admission
    minimum_stake: int
    ticket_target: int
    data: Mapping[str, Any]
    program: Mapping[str, Any]
    slots: int = 1
    quorum: int = 0
    round_seconds: int = 0
    merge_reward: int = 0
    merge: Mapping[str, Any] | None = None

    @property
    def total_reward(self) -> int:
        """Escrow at posting, wei."""
        return self.rounds * (self.slots * self.slot_reward + self.merge_reward)


def load_task_file(path: Path) -> TaskFile:
    """Reads and checks a task file.

    Raises:
        SpecificationError: the file is missing or not TOML, or a field is unknown, missing or has a wrong value; the
            error's `field` is its dotted name.
    """
    document = read_document(path)
    if "open" in document:
        raise SpecificationError(
            f"{path} describes an open task.", field="open", remedy="Post it with `trainledger open create`."
        )
    values: dict[str, Any] = {}
    refuse_unknown(document, [*_SECTIONS, "data", "program", "merge"], prefix="")
    for section, fields in _SECTIONS.items():
        values |= read_section(document, section, fields, optional=section in ("admission", "round"))
    values["data"], values["program"] = (plain(read_table(document, name), name) for name in ("data", "program"))
    values["merge"] = plain(read_table(document, "merge"), "merge") if "merge" in document else None
    return _assemble(path, values)


def _assemble(path: Path, values: dict[str, Any]) -> TaskFile:
    if values["minimum_steps"] is None:
        values["minimum_steps"] = values["steps_per_round"]
    values["challenge_window"] = values.pop("challenge_window_seconds")
    kind: Admission = values.pop("kind")
    bits: int | None = values.pop("ticket_bits")
    _check_admission(kind, values["minimum_stake"], bits)
    values |= _round_of(values)
    file = TaskFile(
        path=path,
        admission=kind,
        ticket_target=0 if bits is None else 2 ** (256 - bits),
        **values,
    )
    _check_relations(file)
    return file


def _round_of(values: dict[str, Any]) -> dict[str, Any]:
    """Checks [round] and [merge] against each other, and fills in what was left out."""
    slots, lease, merge = values["slots"], values["lease_seconds"], values["merge"]
    given = {name: values[name] for name in ("quorum", "merge_reward")}
    given["deadline_seconds"] = deadline = values.pop("deadline_seconds")
    if slots == 1:
        for name, value in given.items():
            if value is not None:
                raise SpecificationError(
                    f"round.{name} is given, but a round has one slot.",
                    field=f"round.{name}",
                    remedy="Leave it out, or give round.slots.",
                )
        if merge is not None:
            raise SpecificationError(
                "The section [merge] is given, but a round has one slot.",
                field="merge",
                remedy="Leave it out, or give round.slots.",
            )
        return {"quorum": 0, "round_seconds": 0, "merge_reward": 0}
    if merge is None:
        raise SpecificationError(
            f"round.slots is {slots}, and the section [merge] is missing, which says how their states become one.",
            field="merge",
            remedy='Add it, with kind = "mean" or "diloco".',
        )
    if "slots" in merge:
        raise SpecificationError(
            "merge.slots cannot be set: it is round.slots.", field="merge.slots", remedy="Leave it out."
        )
    if given["merge_reward"] is None:
        raise SpecificationError(
            f"The task file lacks round.merge_reward, and round.slots is {slots}.",
            field="round.merge_reward",
            remedy="Add it: what is paid for each round's merge, in tokens.",
        )
    quorum = slots if given["quorum"] is None else given["quorum"]
    if quorum > slots:
        raise contradiction("round.quorum", f"{quorum}, above round.slots, {slots}")
    deadline = min(2 * lease, MAXIMUM_PERIOD) if deadline is None else deadline
    if deadline < lease:
        raise contradiction("round.deadline_seconds", f"{deadline}, below timing.lease_seconds, {lease}")
    return {"quorum": quorum, "round_seconds": deadline, "merge": {"slots": slots, **merge}}


def _check_admission(kind: Admission, minimum_stake: int, bits: int | None) -> None:
    name = kind.name.lower()
    if kind.needs_ticket != (bits is not None):
        problem = "needs admission.ticket_bits" if kind.needs_ticket else "takes no admission.ticket_bits"
        raise SpecificationError(f'Admission "{name}" {problem}.', field="admission.ticket_bits")
    if kind.needs_stake != (minimum_stake > 0):
        problem = "needs an admission.minimum_stake above 0" if kind.needs_stake else "takes no admission.minimum_stake"
        raise SpecificationError(f'Admission "{name}" {problem}.', field="admission.minimum_stake")


def _check_relations(file: TaskFile) -> None:
    if file.minimum_steps > file.steps_per_round:
        raise contradiction(
            "task.minimum_steps", f"{file.minimum_steps}, above task.steps_per_round, {file.steps_per_round}"
        )
    if file.lease_fee > file.bond:
        fee, bond = format_tokens(file.lease_fee), format_tokens(file.bond)
        raise contradiction("reward.lease_fee", f"{fee}, above reward.bond, {bond}")
    if file.challenge_window < file.lease_seconds:
        raise contradiction(
            "timing.challenge_window_seconds",
            f"{file.challenge_window}, below timing.lease_seconds, {file.lease_seconds}",
        )
    if file.target_loss is None:
        if file.base_loss is not None:
            raise contradiction("reward.base_loss", f"{file.base_loss}, but there is no reward.target_loss")
    elif file.base_loss is not None and file.base_loss <= file.target_loss:
        raise contradiction(
            "reward.base_loss", f"{file.base_loss}, which is not above reward.target_loss, {file.target_loss}"
        )


def _kind(value: object, name: str) -> Admission:
    if not isinstance(value, str) or value not in _ADMISSIONS:
        raise SpecificationError(f"{name} is {shown(value)}, which is not one of {', '.join(_ADMISSIONS)}.", field=name)
    return _ADMISSIONS[value]


_SECTIONS: dict[str, dict[str, Field]] = {
    "task": {
        "title": Field(read_title),
        "description": Field(read_description, ""),
        "rounds": Field(whole(1, UINT32_MAX)),
        "steps_per_round": Field(whole(1, UINT32_MAX)),
        "minimum_steps": Field(whole(1, UINT32_MAX), None),
    },
    "reward": {
        "slot_reward": Field(amount(positive=True)),
        "bond": Field(amount(positive=True)),
        "lease_fee": Field(amount(positive=False)),
        "target_loss": Field(read_loss, None),
        "base_loss": Field(read_loss, None),
    },
    "timing": {
        "lease_seconds": Field(whole(1, MAXIMUM_PERIOD)),
        "challenge_window_seconds": Field(whole(1, MAXIMUM_PERIOD)),
    },
    "round": {
        "slots": Field(whole(1, 255), 1),
        "quorum": Field(whole(1, 255), None),
        "deadline_seconds": Field(whole(1, MAXIMUM_PERIOD), None),
        "merge_reward": Field(amount(positive=True), None),
    },
    "admission": {
        "kind": Field(_kind, Admission.OPEN),
        "minimum_stake": Field(amount(positive=False), 0),
        "ticket_bits": Field(whole(1, 64), None),
    },
}
