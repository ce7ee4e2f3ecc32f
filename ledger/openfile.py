"""The TOML file in which a requester describes an open task (docs/open-tasks.md); examples/open.toml is one.

Its sections [task], [data] and [program] are those of a prescribed task. [open] has what is its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from ledger.amounts import format_tokens
from ledger.errors import SpecificationError
from ledger.taskfields import (
    MAXIMUM_PERIOD,
    UINT32_MAX,
    Field,
    amount,
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

__all__ = ["MAXIMUM_ROUNDS", "OpenTaskFile", "load_open_file"]

MAXIMUM_ROUNDS = 256  # OpenRules.sol has the same


@dataclass(frozen=True, kw_only=True)
class OpenTaskFile:
    """A checked file of an open task. Amounts are wei, times seconds.

    Attributes:
        steps_per_round: of the recipe, which nobody has to follow.
        full_gain: improvement of the held-out loss, nats per token, for which all of the slot reward is paid.
        held_out: secret text that rounds are scored on: a file, folder or pattern, relative to the task file; or the
            share of the data set's own text, from 0 to 0.5, that is kept out of it.
        data, program: plain TOML values, for the trainer to check.
    """

    path: Path
    title: str
    description: str
    rounds: int
    steps_per_round: int
    slot_reward: int
    bond: int
    slots: int
    full_gain: float
    floor_reward: int
    score_reward: int
    minimum_stake: int
    fee: int
    commit_seconds: int
    reveal_seconds: int
    held_out_seconds: int
    lease_seconds: int
    challenge_window: int
    held_out: str | float
    data: Mapping[str, Any]
    program: Mapping[str, Any]

    @property
    def total_reward(self) -> int:
        """Escrow at posting, wei."""
        return self.rounds * (self.slots * self.slot_reward + self.score_reward)


def load_open_file(path: Path) -> OpenTaskFile:
    """Reads and checks the file of an open task.

    Raises:
        SpecificationError: the file is missing or not TOML, or a field is unknown, missing or has a wrong value; the
            error's `field` is its dotted name.
    """
    document = read_document(path)
    refuse_unknown(document, [*_SECTIONS, "data", "program"], prefix="")
    values: dict[str, Any] = {}
    for section, fields in _SECTIONS.items():
        values |= read_section(document, section, fields, optional=False)
    values["challenge_window"] = values.pop("challenge_window_seconds")
    values["data"], values["program"] = (plain(read_table(document, name), name) for name in ("data", "program"))
    file = OpenTaskFile(path=path, **values)
    _check_relations(file)
    return file


def _check_relations(file: OpenTaskFile) -> None:
    for name, value, most_name, most in (
        ("open.floor_reward", file.floor_reward, "reward.slot_reward", file.slot_reward),
        ("open.fee", file.fee, "reward.bond", file.bond),
    ):
        if value > most:
            raise contradiction(name, f"{format_tokens(value)}, above {most_name}, {format_tokens(most)}")
    if file.challenge_window < file.lease_seconds:
        raise contradiction(
            "open.challenge_window_seconds",
            f"{file.challenge_window}, below open.lease_seconds, {file.lease_seconds}",
        )


def _gain(value: object, name: str) -> float:
    number = read_loss(value, name)
    if number < 2.0**-64:
        raise SpecificationError(f"{name} is {shown(value)}, which is not above 0.", field=name)
    return number


def _held_out(value: object, name: str) -> str | float:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, Decimal) and 0 < value <= Decimal("0.5"):
        return float(value)
    raise SpecificationError(
        f"{name} is {shown(value)}, which is neither a path nor a share above 0 and up to 0.5.", field=name
    )


_PERIOD = Field(whole(1, MAXIMUM_PERIOD))
_SECTIONS: dict[str, dict[str, Field]] = {
    "task": {
        "title": Field(read_title),
        "description": Field(read_description, ""),
        "rounds": Field(whole(1, MAXIMUM_ROUNDS)),
        "steps_per_round": Field(whole(1, UINT32_MAX)),
    },
    "reward": {
        "slot_reward": Field(amount(positive=True)),
        "bond": Field(amount(positive=True)),
    },
    "open": {
        "slots": Field(whole(1, 255)),
        "full_gain": Field(_gain),
        "floor_reward": Field(amount(positive=False), 0),
        "score_reward": Field(amount(positive=True)),
        "minimum_stake": Field(amount(positive=False), 0),
        "fee": Field(amount(positive=False)),
        "commit_seconds": _PERIOD,
        "reveal_seconds": _PERIOD,
        "held_out_seconds": _PERIOD,
        "lease_seconds": _PERIOD,
        "challenge_window_seconds": _PERIOD,
        "held_out": Field(_held_out),
    },
}
