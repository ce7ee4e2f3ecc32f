"""What must hold once a schedule has ended: the lineage of an undisturbed run, and every wei in its place."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

from people import Person
from schedule import BOND, FEE, PEOPLE, STAKE, Schedule
from toys import STEPS

from ledger.events import fetch_events
from ledger.types import Event, Slot, SlotStatus, TaskParameters


def check(schedule: Schedule, supply: int) -> None:
    """Raises AssertionError where something is not as it must be. `supply` is the token's before, in wei."""
    _check_lineage(schedule)
    _check_money(schedule, supply)


def _same(found: object, wanted: object, what: str) -> None:
    assert found == wanted, f"{what}: {found} and not {wanted}"


def _final_slots(schedule: Schedule) -> list[Slot]:
    """All slots that are final."""
    client, task = schedule.requester, schedule.requester.task(schedule.task)
    found = []
    for number in range(min(task.current_round + 1, task.parameters.rounds)):
        for slot in range(task.parameters.last_slot + 1):
            one = client.slot(task.number, number, slot)
            assert one.status in (SlotStatus.OPEN, SlotStatus.FINALISED), f"{one} is left over"
            if one.status is SlotStatus.FINALISED:
                found.append(one)
    return found


def _check_lineage(schedule: Schedule) -> None:
    client, toy = schedule.requester, schedule.toy
    task = client.task(schedule.task)
    assert task.complete or task.closed, "the task has not ended"
    base = toy.first
    for number in range(task.current_round):
        entry = client.checkpoint(task.number, number)
        _same(entry.parent, base, f"the base of round {number}")
        if task.parameters.merges:
            counted = client.round(task.number, number).counted_slots
            assert len(counted) >= task.parameters.quorum, f"round {number} has {counted}"
            for slot in counted:
                made = client.slot(task.number, number, slot)
                assert made.status is SlotStatus.FINALISED, f"{made} counted"
                _same(made.state_root, toy.trained(base, slot), f"slot {slot} of round {number}")
            base = toy.merged(base, counted)
        else:
            base = toy.trained(base, 0)
        _same(entry.state_root, base, f"the state of round {number}")


def pay(terms: TaskParameters, slot: Slot) -> int:
    """What a slot is paid, in exact fractions (docs/formats.md section 6, docs/rounds.md "Pay")."""
    if terms.is_merge(slot.slot):
        return terms.merge_reward
    return int(Fraction(terms.slot_reward * slot.steps, terms.steps_per_round))


def _check_money(schedule: Schedule, supply: int) -> None:
    client = schedule.requester
    terms = client.task(schedule.task).parameters
    paid: Counter[str] = Counter()
    for slot in _final_slots(schedule):
        _same(slot.steps, 1 if terms.is_merge(slot.slot) else STEPS, "steps")
        paid[slot.worker] += pay(terms, slot)
    names = {"LeaseExpired", "SubmissionFell", "FallAwarded", "BondTaken", "GameSettled"}
    events = list(fetch_events(client.web3, client.deployment, names=names, artifacts=client.artifacts))
    taken, awarded, burned = _taken(events, terms)
    for person in schedule.people:
        account = client.stake_account(person.address)
        name = person.line.name
        _same(account.locked, 0, f"bonds of {name} that are locked")
        _same(account.staked, STAKE - taken[person.address], f"the stake of {name}")
        _same(account.credit, paid[person.address] + awarded[person.address], f"the credit of {name}")
    requester = client.stake_account(client.address)
    _same(client.escrow(schedule.task), 0, "escrow left")
    _same(requester.credit, terms.total_reward - sum(paid.values()), "what the requester got back")
    totals = client.totals()
    _same(totals.held, totals.staked + totals.owed, "tokens held")
    _same(totals.staked, STAKE * PEOPLE - sum(taken.values()), "all stakes")
    _same(totals.owed, sum(paid.values()) + sum(awarded.values()) + requester.credit, "all that is owed")
    _same(client._token.functions.totalSupply().call(), supply - burned, "the supply")
    _check_who_lost(schedule.people, events, terms)
    for person in schedule.people:
        if person.starts == 1 and person.earned:
            _same(person.earned, [paid[person.address]], f"what {person.line.name} says that it has earned")


def _taken(events: list[Event], terms: TaskParameters) -> tuple[Counter[str], Counter[str], int]:
    """What was taken from whom, what was awarded to whom, and what was burned, by the rules."""
    taken: Counter[str] = Counter()
    awarded: Counter[str] = Counter()
    for event in events:
        values: dict[str, object] = event.arguments
        if event.name == "LeaseExpired":
            fee = int(str(values["feeBurned"]))
            assert fee == terms.lease_fee or (fee == 0 and terms.merges), event
            taken[str(values["worker"])] += fee
        elif event.name == "FallAwarded":
            assert int(str(values["awarded"])) == terms.bond // 2, event
            taken[str(values["worker"])] += terms.bond
            awarded[str(values["winner"])] += terms.bond // 2
    by_vault = sum(int(str(event.arguments["burned"])) for event in events if event.name == "BondTaken")
    burned = sum(taken.values()) - sum(awarded.values())
    assert by_vault == burned, "something was burned by no rule"
    return taken, awarded, burned


def _check_who_lost(people: list[Person], events: list[Event], terms: TaskParameters) -> None:
    """Only cheats lose bonds, each of them once, and nobody honest loses a dispute."""
    cheats = {person.address for person in people if person.kind == "cheat"}
    falls = [event for event in events if event.name == "SubmissionFell"]
    awards = [event for event in events if event.name == "FallAwarded"]
    assert {str(event.arguments["worker"]) for event in falls} <= cheats, "an honest submission fell"
    assert len(falls) == len(awards), "a bond that fell was not shared out"
    assert (terms.bond, terms.lease_fee) == (BOND, FEE)
