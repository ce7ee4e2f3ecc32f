"""Which slot of a round a worker tries next, and what it waits for: pure functions over made-up rounds."""

from __future__ import annotations

import dataclasses
from typing import Any

from ledger.types import Round, Slot, SlotStatus
from tests.worker.test_policy import ASKED, FREE
from tests.worker.worker_fakes import ALICE, BOB, TOKEN
from trainer.worker.lease import Lease, round_problem
from trainer.worker.policy import describe_pay, reward_of
from trainer.worker.slots import (
    slot_name,
    slots_to_try,
    to_collect,
    to_finalise,
    to_release,
    what_it_waits_for,
)

SLOTS, NOW = 4, 1000
MANY = dataclasses.replace(ASKED, slots_per_round=SLOTS, quorum=2, round_seconds=120, merge_reward=2 * TOKEN)
INPUTS, OTHERS = b"7" * 32, b"8" * 32
OPEN = Round(
    task=1, round=1, deadline=1100, frozen_at=0, generation=0, running=0, submitted=0, finalised=0, counted=0,
    collected=0, submitted_slots=frozenset(), counted_slots=frozenset(), inputs_root=bytes(32), ready=False,
)  # fmt: skip
FROZEN = dataclasses.replace(OPEN, frozen_at=990, submitted=3, counted=3, counted_slots=frozenset({0, 1, 3}))
COLLECTED = dataclasses.replace(FROZEN, collected=SLOTS + 1, inputs_root=INPUTS)
THAWED = dataclasses.replace(FROZEN, frozen_at=0, submitted=2, generation=1)


def row(**changes: dict[str, Any]) -> list[Slot]:
    """Slots 0 to 3 and the merge, free but for what is said of `slot0` …"""
    return [dataclasses.replace(FREE, slot=number, **changes.get(f"slot{number}", {})) for number in range(SLOTS + 1)]


def tried(state: Round, slots: list[Slot], *, now: int = NOW, worker: str = ALICE) -> list[int]:
    return [slot.slot for slot in slots_to_try(MANY, slots, state, now=now, worker=worker)]


def leased(worker: str, **changes: Any) -> dict[str, Any]:
    return {"status": SlotStatus.LEASED, "worker": worker, "deadline": 1030, **changes}


def submitted(worker: str, **changes: Any) -> dict[str, Any]:
    return {"status": SlotStatus.SUBMITTED, "worker": worker, "deadline": 1030, **changes}


def test_open_round_offers_free_training_slots_only() -> None:
    slots = row(slot0=leased(BOB), slot2=submitted(BOB))
    assert sorted(tried(OPEN, slots)) == [1, 3]
    assert sorted(tried(OPEN, slots, now=1031)) == [0, 1, 3]  # the lease ran out: late slots reopen


def test_workers_begin_at_different_slots() -> None:
    firsts = {tried(OPEN, row(), worker=f"0x{number:040x}")[0] for number in range(40)}
    assert firsts == {0, 1, 2, 3}
    assert tried(OPEN, row()) == tried(OPEN, row()[::-1])


def test_winner_of_a_dispute_comes_to_its_slot_first() -> None:
    kept = {"worker": ALICE, "deadline": 1030}
    for number in range(SLOTS):
        slots = row(**{f"slot{number}": kept})
        assert tried(OPEN, slots)[0] == number
        assert number not in tried(OPEN, slots, worker=BOB)


def test_frozen_round_offers_nothing_and_a_collected_one_its_merge() -> None:
    assert tried(FROZEN, row()) == []
    assert tried(COLLECTED, row()) == [SLOTS]
    assert tried(COLLECTED, row(slot4=leased(BOB))) == []


def test_thawed_round_offers_what_counted_until_its_deadline() -> None:
    slots = row(slot0=submitted(BOB), slot3=submitted(BOB))
    assert tried(THAWED, slots) == [1]  # not 2, which did not count
    assert sorted(tried(THAWED, slots, now=1101)) == [1, 2]


def test_task_of_one_slot_offers_it() -> None:
    assert slots_to_try(ASKED, [FREE], None, now=NOW, worker=ALICE) == [FREE]


def test_collect_where_the_round_is_ready_or_not_read_to_its_end() -> None:
    assert not to_collect(ASKED, None)
    assert not to_collect(MANY, OPEN)
    assert to_collect(MANY, dataclasses.replace(OPEN, ready=True))
    assert to_collect(MANY, dataclasses.replace(FROZEN, collected=SLOTS))
    assert not to_collect(MANY, COLLECTED)


def test_finalise_after_the_window_and_a_merge_after_its_inputs() -> None:
    training, merge = row(slot1=submitted(BOB))[1], row(slot4=submitted(BOB))[4]
    assert not to_finalise(MANY, training, FROZEN, now=1030)
    assert to_finalise(MANY, training, FROZEN, now=1031)
    assert not to_finalise(MANY, dataclasses.replace(training, open_games=1), FROZEN, now=1031)
    assert not to_finalise(MANY, merge, COLLECTED, now=1031)
    assert to_finalise(MANY, merge, dataclasses.replace(COLLECTED, finalised=3), now=1031)
    assert not to_finalise(MANY, merge, dataclasses.replace(THAWED, finalised=3), now=1031)
    assert not to_finalise(MANY, row()[0], OPEN, now=1031)


def test_release_what_came_to_nothing() -> None:
    mine, others, _, _, merge = row(slot0=leased(ALICE), slot1=leased(BOB), slot4=leased(BOB))
    assert not to_release(MANY, mine, OPEN, bytes(32), now=NOW, worker=ALICE)
    assert to_release(MANY, mine, FROZEN, bytes(32), now=NOW, worker=ALICE)
    ran_out = dataclasses.replace(mine, deadline=980)  # and nobody can claim it any more
    assert to_release(MANY, ran_out, FROZEN, bytes(32), now=NOW, worker=ALICE)
    assert not to_release(MANY, ran_out, FROZEN, bytes(32), now=NOW, worker=BOB)
    assert not to_release(MANY, ran_out, OPEN, bytes(32), now=NOW, worker=ALICE)  # a claim ends it
    assert not to_release(MANY, others, FROZEN, bytes(32), now=NOW, worker=ALICE)
    assert not to_release(MANY, merge, COLLECTED, INPUTS, now=NOW, worker=ALICE)
    assert to_release(MANY, merge, COLLECTED, OTHERS, now=NOW, worker=ALICE)
    late = dataclasses.replace(mine, slot=2)  # it did not count, and cannot come in while the round waits for a redo
    assert to_release(MANY, late, THAWED, bytes(32), now=NOW, worker=ALICE)
    assert not to_release(MANY, late, THAWED, bytes(32), now=1101, worker=ALICE)
    assert not to_release(MANY, mine, THAWED, bytes(32), now=NOW, worker=ALICE)
    assert to_release(MANY, merge, THAWED, INPUTS, now=NOW, worker=ALICE)
    assert not to_release(ASKED, dataclasses.replace(FREE, **leased(ALICE)), None, bytes(32), now=NOW, worker=ALICE)


def test_release_what_ran_out_in_a_closed_task_whosever_it_is() -> None:
    for parameters, state in ((MANY, OPEN), (MANY, COLLECTED), (ASKED, None)):
        slot = dataclasses.replace(FREE, **leased(BOB))
        assert not to_release(parameters, slot, state, INPUTS, now=1030, worker=ALICE, closed=True)
        assert to_release(parameters, slot, state, INPUTS, now=1031, worker=ALICE, closed=True)
        assert not to_release(parameters, slot, state, INPUTS, now=1031, worker=ALICE)


def test_what_it_waits_for_in_words() -> None:
    said = {
        "slots": (
            dataclasses.replace(OPEN, submitted=1),
            "1 of 4 slots of round 1 are submitted; 2 are enough in 100 s",
        ),
        "merge": (dataclasses.replace(COLLECTED, finalised=2), "round 1 is being merged; 2 of 3 are final"),
    }
    for code, (state, text) in said.items():
        found = what_it_waits_for(MANY, state, now=NOW)
        assert (found.code, found.text) == (code, text)
    assert what_it_waits_for(MANY, dataclasses.replace(OPEN, submitted=1), now=1200).text.endswith("; 2 are enough")
    assert "collected" in what_it_waits_for(MANY, FROZEN, now=NOW).text


def test_names_and_pay() -> None:
    assert slot_name(ASKED, 7, 2, 0) == "round 2 of task 7"
    assert slot_name(MANY, 7, 2, 3) == "slot 3 of round 2 of task 7"
    assert slot_name(MANY, 7, 2, SLOTS) == "the merge of round 2 of task 7"
    assert describe_pay(MANY, SLOTS) == "2 tokens"
    assert describe_pay(MANY, 1) == "10 tokens a slot"
    assert [reward_of(MANY, slot) for slot in row()] == [MANY.slot_reward] * SLOTS + [MANY.merge_reward]


def test_lease_comes_to_nothing_where_its_round_goes_on_without_it() -> None:
    lease = Lease(task=1, round=1, slot=2, attempt=0, worker=ALICE, deadline=1030, merges=True)
    counted, merge = dataclasses.replace(lease, slot=0), dataclasses.replace(lease, slot=SLOTS, inputs_root=INPUTS)
    assert round_problem(lease, OPEN, NOW) is None
    assert round_problem(lease, FROZEN, NOW) == "Round 1 of task 1 went on without slot 2."
    assert round_problem(lease, THAWED, NOW) == "Round 1 of task 1 went on without slot 2."
    assert round_problem(lease, THAWED, 1101) is None  # the redo did not come: every slot may
    assert round_problem(counted, THAWED, NOW) is None
    assert round_problem(merge, COLLECTED, NOW) is None
    assert "changed" in str(round_problem(merge, THAWED, NOW))
