"""The TOML file in which a requester describes a task; `examples/` has commented ones.

Amounts are tokens, exact decimals. The sections [data], [program] and [merge] are passed on untouched, for the trainer
to check; [merge] with the number of slots that [round] gives.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from ledger.amounts import UINT96_MAX, format_tokens, parse_tokens
from ledger.errors import SpecificationError, UsageError
from ledger.toml import parse_toml
from ledger.types import Admission

__all__ = ["TaskFile", "check_text", "load_task_file"]

_UINT32_MAX = 2**32 - 1
_MAXIMUM_PERIOD = 365 * 24 * 3600  # seconds; TaskRules.sol has the same
_ADMISSIONS = {
    "open": Admission.OPEN,
    "stake": Admission.STAKE,
    "ticket": Admission.TICKET,
    "stake_and_ticket": Admission.STAKE_AND_TICKET,
}
_MISSING = object()


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


@dataclass(frozen=True)
class _Field:
    read: Callable[[object, str], Any]
    default: Any = _MISSING


def load_task_file(path: Path) -> TaskFile:
    """Reads and checks a task file.

    Raises:
        SpecificationError: the file is missing or not TOML, or a field is unknown, missing or has a wrong value; the
            error's `field` is its dotted name.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecificationError(
            f"The task file {path} does not exist.", remedy="examples/ has some to start from."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecificationError(
            f"The task file {path} cannot be read: {error}.", remedy="Name a TOML file; examples/ has some."
        ) from error
    try:
        document = parse_toml(text)
    except ValueError as error:
        raise SpecificationError(
            f"The task file {path} is not valid TOML: {error}.", remedy="Correct it there; examples/ shows the form."
        ) from error
    values: dict[str, Any] = {}
    _refuse_unknown(document, [*_SECTIONS, "data", "program", "merge"], prefix="")
    for section, fields in _SECTIONS.items():
        table = _table(document, section)
        _refuse_unknown(table, list(fields), prefix=f"{section}.")
        values |= {name: _read(table, f"{section}.{name}", field) for name, field in fields.items()}
    values["data"], values["program"] = (_plain(_table(document, name), name) for name in ("data", "program"))
    values["merge"] = _plain(_table(document, "merge"), "merge") if "merge" in document else None
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
        raise _refuse("round.quorum", f"{quorum}, above round.slots, {slots}")
    deadline = min(2 * lease, _MAXIMUM_PERIOD) if deadline is None else deadline
    if deadline < lease:
        raise _refuse("round.deadline_seconds", f"{deadline}, below timing.lease_seconds, {lease}")
    return {"quorum": quorum, "round_seconds": deadline, "merge": {"slots": slots, **merge}}


def _refuse(field: str, problem: str) -> SpecificationError:
    return SpecificationError(f"{field} is {problem}.", field=field, remedy="Change one of the two.")


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
        raise _refuse("task.minimum_steps", f"{file.minimum_steps}, above task.steps_per_round, {file.steps_per_round}")
    if file.lease_fee > file.bond:
        fee, bond = format_tokens(file.lease_fee), format_tokens(file.bond)
        raise _refuse("reward.lease_fee", f"{fee}, above reward.bond, {bond}")
    if file.challenge_window < file.lease_seconds:
        raise _refuse(
            "timing.challenge_window_seconds",
            f"{file.challenge_window}, below timing.lease_seconds, {file.lease_seconds}",
        )
    if file.target_loss is None:
        if file.base_loss is not None:
            raise _refuse("reward.base_loss", f"{file.base_loss}, but there is no reward.target_loss")
    elif file.base_loss is not None and file.base_loss <= file.target_loss:
        raise _refuse(
            "reward.base_loss", f"{file.base_loss}, which is not above reward.target_loss, {file.target_loss}"
        )


def _read(table: Mapping[str, Any], name: str, field: _Field) -> Any:
    key = name.rpartition(".")[2]
    if key in table:
        return field.read(table[key], name)
    if field.default is _MISSING:
        raise SpecificationError(f"The task file lacks {name}.", field=name, remedy="Add it; examples/ shows how.")
    return field.default


def _table(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = document.get(name, {} if name in ("admission", "round") else None)
    if table is None:
        raise SpecificationError(f"The task file lacks the section [{name}].", field=name, remedy="Add it.")
    if not isinstance(table, Mapping):
        raise SpecificationError(f"{name} is {table!r}, which is not a section.", field=name)
    return table


def _refuse_unknown(table: Mapping[str, Any], known: list[str], *, prefix: str) -> None:
    for key in table:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            remedy = f"Did you mean {prefix}{close[0]}?" if close else f"Known here: {', '.join(known)}."
            raise SpecificationError(
                f"The task file has an unknown field {prefix}{key}.", field=prefix + key, remedy=remedy
            )


def _plain(value: Any, name: str) -> Any:
    """Turns decimals into floats all the way down; amounts never pass through here."""
    if isinstance(value, Decimal):
        number = float(value)
        if not math.isfinite(number):
            raise SpecificationError(f"{name} is {value}, which is not a finite number.", field=name)
        return number
    if isinstance(value, Mapping):
        return {key: _plain(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, f"{name}[{index}]") for index, item in enumerate(value)]
    return value


def _whole(least: int, most: int) -> Callable[[object, str], int]:
    def read(value: object, name: str) -> int:
        if type(value) is not int or not least <= value <= most:
            raise SpecificationError(
                f"{name} is {_shown(value)}, which is not a whole number from {least} to {most}.", field=name
            )
        return value

    return read


def _amount(*, positive: bool) -> Callable[[object, str], int]:
    def read(value: object, name: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
            raise SpecificationError(f"{name} is {_shown(value)}, which is not a number of tokens.", field=name)
        try:
            wei = parse_tokens(value, what=name)
        except UsageError as error:
            raise SpecificationError(error.problem, field=name, remedy=error.remedy) from None
        if wei > UINT96_MAX or (positive and wei == 0):
            least = "more than 0" if positive else "0"
            raise SpecificationError(
                f"{name} is {value}; it must be {least} and at most {format_tokens(UINT96_MAX)} tokens.", field=name
            )
        return wei

    return read


def _loss(value: object, name: str) -> float:
    number = Decimal(value) if isinstance(value, int | Decimal) and not isinstance(value, bool) else Decimal("nan")
    if number.is_nan() or not 0 <= number < 10**6:
        raise SpecificationError(f"{name} is {_shown(value)}, which is not a loss from 0 to 1000000.", field=name)
    return float(number)


def _kind(value: object, name: str) -> Admission:
    if not isinstance(value, str) or value not in _ADMISSIONS:
        raise SpecificationError(
            f"{name} is {_shown(value)}, which is not one of {', '.join(_ADMISSIONS)}.", field=name
        )
    return _ADMISSIONS[value]


def _title(value: object, name: str) -> str:
    return check_text(value, name, limit=200, empty=False)


def _description(value: object, name: str) -> str:
    return check_text(value, name, limit=10_000, empty=True)


def check_text(value: object, name: str, *, limit: int, empty: bool) -> str:
    """A text for people: at most `limit` characters, and nothing that could steer a terminal."""
    if not isinstance(value, str) or (not empty and not value.strip()):
        raise SpecificationError(f"{name} is {value!r}, which is not a text.", field=name)
    if len(value) > limit:
        raise SpecificationError(f"{name} has {len(value)} characters; {limit} are allowed.", field=name)
    if any(not (character.isprintable() or character in "\n\t") for character in value):
        raise SpecificationError(f"{name} holds control characters.", field=name, remedy="Remove them.")
    return value


def _shown(value: object) -> str:
    return str(value) if isinstance(value, Decimal) else repr(value)


_SECTIONS: dict[str, dict[str, _Field]] = {
    "task": {
        "title": _Field(_title),
        "description": _Field(_description, ""),
        "rounds": _Field(_whole(1, _UINT32_MAX)),
        "steps_per_round": _Field(_whole(1, _UINT32_MAX)),
        "minimum_steps": _Field(_whole(1, _UINT32_MAX), None),
    },
    "reward": {
        "slot_reward": _Field(_amount(positive=True)),
        "bond": _Field(_amount(positive=True)),
        "lease_fee": _Field(_amount(positive=False)),
        "target_loss": _Field(_loss, None),
        "base_loss": _Field(_loss, None),
    },
    "timing": {
        "lease_seconds": _Field(_whole(1, _MAXIMUM_PERIOD)),
        "challenge_window_seconds": _Field(_whole(1, _MAXIMUM_PERIOD)),
    },
    "round": {
        "slots": _Field(_whole(1, 255), 1),
        "quorum": _Field(_whole(1, 255), None),
        "deadline_seconds": _Field(_whole(1, _MAXIMUM_PERIOD), None),
        "merge_reward": _Field(_amount(positive=True), None),
    },
    "admission": {
        "kind": _Field(_kind, Admission.OPEN),
        "minimum_stake": _Field(_amount(positive=False), 0),
        "ticket_bits": _Field(_whole(1, 64), None),
    },
}
