"""`rewards explain`: a submission's pay, factor by factor, and where the money is."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ledger.attempts import EVENTS, Attempt, AttemptKey, AttemptLog, Stage, read_attempts
from ledger.canonical import root_hex
from ledger.cli.common import CommandApp, CommandContext
from ledger.cli.output import amount, loss_value, table
from ledger.cli.tasks import TaskNumber
from ledger.errors import ChainError, UsageError
from ledger.performance import PayFactors, pay_factors
from ledger.rounds import describe_slot
from ledger.types import ZERO_ADDRESS, Task

if TYPE_CHECKING:
    from ledger.client import LedgerClient

__all__ = ["register"]

_FACTORS = ("base", "target", "loss", "gain", "need", "earned", "numerator", "denominator", "remainder")
_STATES = {
    Stage.LEASED: "leased; nothing is submitted yet",
    Stage.SUBMITTED: "submitted; not final yet",
    Stage.FINAL: "final",
    Stage.LAPSED: "over: its lease ended without a submission",
    Stage.FELL: "over: it fell in a dispute",
    Stage.VOID: "over: its inputs changed, so it was void",
}

RoundNumber = Annotated[int, typer.Argument(help="Number of the round, from 0.", min=0, max=2**32 - 1, metavar="ROUND")]


def register(app: CommandApp) -> None:
    """Adds the command to the group `rewards`."""
    app.command("explain")(explain)


def explain(
    context: CommandContext,
    number: TaskNumber,
    round_number: RoundNumber,
    slot: Annotated[
        str | None,
        typer.Option(
            "--slot", help="Which slot, by number, or `merge`; needed where a round has several.", metavar="N"
        ),
    ] = None,
    attempt: Annotated[
        int | None,
        typer.Option(help="Which attempt at the slot, from 0; the newest if not given.", min=0, metavar="A"),
    ] = None,
) -> None:
    """Show the arithmetic of a submission's pay to the last wei, and where the money is now.

    A submission is named by task, round, slot and attempt. Losses, gain and need are in fixed point, whole units of
    2⁻⁶⁴ nats, as the contract has them (docs/formats.md, section 6); the result is compared with the contract's own.

    JSON: `task`, `round`, `slot`, `merge`, `attempt`, `about` (the slot in words), `state` (leased, submitted, final,
    lapsed, fell or void), `worker`, `operator`, `payout`, `symbol`; `submission` (null before) with `state_root`,
    `steps` and `heldout_loss` (null where not finite); `slot_reward` (of a merge the merge reward); `pay` (what it
    earned or will earn when it is final, null before it is submitted) and `unearned`; `factors` (null for merges, and
    where nothing can be paid) with `steps_per_round`, `rounds`, `rate` and `performance` (fractions in lowest terms),
    and as decimal strings `base`, `target` and `loss` (null without a target; `loss` where not finite), `gain`,
    `need`, `earned` (min(gain × rounds, need)), `numerator` and `denominator` (pay is their quotient rounded down)
    and `remainder`; `money` with `place` (escrow, credit, withdrawn or requester; null of an attempt that ended
    without pay), `credited` and `withdrawn` (transactions, null before) and `text`; `bond` with `whole`, `freed`,
    `burned`, `awarded`, `locked`, `winner` and `transaction` (null without one) and `text`.

    Examples: `trainledger rewards explain 1 0`, `trainledger rewards explain 1 0 --slot merge --json`
    """
    client = context.client()
    task = client.task(number)
    log = read_attempts(context.events(EVENTS))
    found = _find(log, task, round_number, _slot_number(task, slot), attempt)
    document = _document(client, task, log, found)
    context.emit(document, lambda console: _print(console, document))


def _slot_number(task: Task, slot: str | None) -> int:
    fixed = task.parameters
    if slot is None:
        if not fixed.merges:
            return 0
        raise UsageError(
            f"A round of task {task.number} has {fixed.slots_per_round} slots and a merge.",
            remedy=f"Name one with --slot 0 to {fixed.slots_per_round - 1}, or with --slot merge.",
        )
    if slot == "merge" and fixed.merges:
        return fixed.last_slot
    if slot.isascii() and slot.isdigit() and len(slot) < 10 and int(slot) <= fixed.last_slot:
        return int(slot)
    last = fixed.slots_per_round - 1
    raise UsageError(
        f"Task {task.number} has no slot {slot!r}.",
        remedy=f"Its slots are 0 to {last}{', and merge' if fixed.merges else ''}.",
    )


def _find(log: AttemptLog, task: Task, round_number: int, slot: int, attempt: int | None) -> Attempt:
    place = (task.number, round_number, slot)
    there = [key for key in log.attempts if key[:3] == place]
    about = f"{describe_slot(task.parameters, round_number, slot)} of task {task.number}"
    if not there:
        raise UsageError(f"Nobody has claimed {about} yet.", remedy=f"See `trainledger task show {task.number}`.")
    wanted = max(there) if attempt is None else AttemptKey(*place, attempt)
    if wanted not in log.attempts:
        raise UsageError(
            f"There is no attempt {attempt} at {about}.",
            remedy=f"Its attempts so far: {', '.join(str(key.attempt) for key in there)}.",
        )
    return log.attempts[wanted]


def _document(client: LedgerClient, task: Task, log: AttemptLog, attempt: Attempt) -> dict[str, Any]:
    key, fixed = attempt.key, task.parameters
    merge = fixed.is_merge(key.slot)
    reward = fixed.merge_reward if merge else fixed.slot_reward
    pays = attempt.stage in (Stage.SUBMITTED, Stage.FINAL)
    factors = None
    if pays and not merge:
        factors = pay_factors(fixed, round_number=key.round, steps=attempt.steps, loss_bits=attempt.loss_bits)
        _check_against_contract(client, attempt, factors.pay)
    earned = factors.pay if factors is not None else reward if pays else 0
    if attempt.stage is Stage.FINAL and attempt.paid != earned:
        raise _contradiction(attempt, earned, attempt.paid)
    waiting = attempt.stage is Stage.LEASED
    return {
        "task": key.task,
        "round": key.round,
        "slot": key.slot,
        "merge": merge,
        "attempt": key.attempt,
        "about": describe_slot(fixed, key.round, key.slot),
        "state": attempt.stage.value,
        "worker": attempt.worker,
        "operator": attempt.operator,
        "payout": attempt.payout,
        "symbol": client.token_symbol,
        "submission": _submission(attempt) if attempt.was_submitted else None,
        "slot_reward": amount(reward),
        "pay": None if waiting else amount(earned),
        "unearned": None if waiting else amount(reward - earned),
        "factors": None if factors is None else _factors_document(factors),
        "money": _money(task, log, attempt),
        "bond": _bond(attempt, fixed.bond),
    }


def _submission(attempt: Attempt) -> dict[str, Any]:
    return {
        "state_root": root_hex(attempt.state_root),
        "steps": attempt.steps,
        "heldout_loss": loss_value(attempt.loss_bits),
    }


def _check_against_contract(client: LedgerClient, attempt: Attempt, pay: int) -> None:
    key = attempt.key
    theirs = client.pay_for(key.task, key.round, steps=attempt.steps, loss_bits=attempt.loss_bits)
    if theirs != pay:
        raise _contradiction(attempt, pay, theirs)


def _contradiction(attempt: Attempt, ours: int, theirs: int) -> ChainError:
    return ChainError(
        f"The arithmetic of task {attempt.key.task} gives {ours} wei, and the contract says {theirs} wei.",
        remedy="Name another node with --rpc-url; if it says the same, these contracts are not those of this version.",
    )


def _factors_document(factors: PayFactors) -> dict[str, Any]:
    exact = {name: getattr(factors, name) for name in _FACTORS}
    return {
        "steps_per_round": factors.steps_per_round,
        "rounds": factors.rounds,
        "rate": str(Fraction(factors.steps, factors.steps_per_round)),
        "performance": str(Fraction(factors.earned, factors.need)),
        **{name: None if value is None else str(value) for name, value in exact.items()},
    }


def _money(task: Task, log: AttemptLog, attempt: Attempt) -> dict[str, Any]:
    """Where the slot's reward is."""
    over = task.closed or task.complete
    place: str | None = "escrow"
    rest = "has gone back to the requester" if over else "stays in the task's escrow"
    credited = attempt.ended if attempt.stage is Stage.FINAL and attempt.paid else None
    withdrawn = None if credited is None else log.withdrawn(attempt)
    if credited is not None:
        text = f"credited to {attempt.payout} in transaction {root_hex(credited)}, "
        text += (
            f"and not withdrawn: `trainledger withdraw --account {attempt.payout}`"
            if withdrawn is None
            else f"and withdrawn in transaction {root_hex(withdrawn)}"
        )
        place = "credit" if withdrawn is None else "withdrawn"
        text += f"; what was not earned {rest}"
    elif attempt.stage in (Stage.LEASED, Stage.SUBMITTED):
        text = "in the task's escrow, until the slot is final"
    elif attempt.stage is Stage.FINAL:
        place = "requester" if over else "escrow"
        text = f"nothing was earned; the reward {rest}"
    else:
        place = None
        text = f"this attempt earns nothing; the slot's reward {'is for' if not over else 'was for'} a later attempt"
    return {
        "place": place,
        "credited": None if credited is None else root_hex(credited),
        "withdrawn": None if withdrawn is None else root_hex(withdrawn),
        "text": text,
    }


def _bond(attempt: Attempt, bond: int) -> dict[str, Any]:
    """What became of the worker's bond: freed + burned + awarded + locked is the whole."""
    award, transaction, winner = attempt.award, attempt.ended, None
    freed = burned = awarded = 0
    if attempt.stage in (Stage.FINAL, Stage.VOID):
        freed, text = bond, f"freed for {attempt.worker}"
    elif attempt.stage is Stage.LAPSED:
        freed, burned = bond - attempt.fee, attempt.fee
        text = f"the lease's fee burned, the rest freed for {attempt.worker}"
    elif award is not None:
        burned, awarded, transaction = award.burned, award.awarded, award.transaction
        winner = None if award.winner == ZERO_ADDRESS else award.winner
        text = "burned, as no challenger had named the right state" if winner is None else f"half awarded to {winner}"
    elif attempt.stage is Stage.FELL:
        transaction, text = None, "locked until the slot is final; then it is burned and awarded"
    else:
        text = "locked until the slot is final"
    locked = bond - freed - burned - awarded
    return {
        "whole": amount(bond),
        "freed": amount(freed),
        "burned": amount(burned),
        "awarded": amount(awarded),
        "locked": amount(locked),
        "winner": winner,
        "transaction": None if transaction is None else root_hex(transaction),
        "text": text,
    }


def _print(console: Console, document: dict[str, Any]) -> None:
    symbol, bond = document["symbol"], document["bond"]

    def money(value: dict[str, str]) -> str:
        return f"{value['wei']} wei = {value['tokens']} {symbol}"

    state = _STATES[Stage(document["state"])]
    about = document["about"][0].upper() + document["about"][1:]
    console.print(f"{about} of task {document['task']}, attempt {document['attempt']}, is {state}.")
    rows = [("worker", document["worker"]), ("paid to", document["payout"])]
    if document["factors"] is not None:
        rows += _arithmetic(document)
    elif document["merge"] and document["pay"] is not None and document["pay"]["wei"] != "0":
        rows.append(("merge reward", "fixed by the task, whatever the merge's loss"))
    if document["pay"] is not None:
        rows.append(("pay", money(document["pay"])))
        rows.append(("not earned", f"{money(document['unearned'])}, of {money(document['slot_reward'])}"))
    rows.append(("money", document["money"]["text"]))
    parts = [f"{name} {bond[name]['wei']} wei" for name in ("freed", "burned", "awarded", "locked")]
    rows.append(("bond", f"{money(bond['whole'])}: {', '.join(parts)}"))
    rows.append(("", bond["text"] + (f", in transaction {bond['transaction']}" if bond["transaction"] else "")))
    console.print(table(["", ""], rows))


def _arithmetic(document: dict[str, Any]) -> list[tuple[str, str]]:
    """Factor by factor, as docs/formats.md has them."""
    factors, steps = document["factors"], document["submission"]["steps"]
    rows = [("rate", f"{steps} steps of {factors['steps_per_round']} = {factors['rate']}")]
    earned = "1"
    if factors["base"] is not None:
        base, target, loss = factors["base"], factors["target"], factors["loss"]
        difference = "0, as the loss is not finite" if loss is None else f"max(0, {base} - {loss}) = {factors['gain']}"
        due = document["round"] + 1
        earned = f"min({factors['gain']} * {factors['rounds']}, {factors['need']})"
        rows += [
            ("gain", f"{difference} (units of 2⁻⁶⁴ nats)"),
            ("need", f"({base} - {target}) * {due} = {factors['need']}"),
            ("performance", f"{earned} / {factors['need']} = {factors['performance']}"),
        ]
    else:
        rows.append(("performance", "1, as the task has no target"))
    reward = document["slot_reward"]["wei"]
    rows += [
        ("numerator", f"{reward} * {steps} * {factors['earned']} = {factors['numerator']}"),
        ("denominator", f"{factors['steps_per_round']} * {factors['need']} = {factors['denominator']}"),
        ("rounded down", f"by {factors['remainder']} / {factors['denominator']} wei"),
    ]
    return rows
