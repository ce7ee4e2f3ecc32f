"""A schedule: a task, who works on it, and what goes wrong when, all drawn from a seed."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clockwork import Clockwork
from line import Dice
from people import Person, Place
from toys import STEPS, Toy

from ledger.client import LedgerClient
from ledger.types import TaskParameters

TOKEN = 10**18
BOND, FEE, REWARD, MERGE_REWARD, STAKE = 6 * TOKEN, TOKEN, 10 * TOKEN, 3 * TOKEN, 100 * TOKEN
LEASE, DEADLINE = 60, 100
WORKERS = 4
EVERYBODY = (*(f"worker {number}" for number in range(WORKERS)), "cheat", "auditor")
PEOPLE = len(EVERYBODY)
# Seconds of calm in which everything must end.
CALM = 4000.0
FAULTS = {
    "kill": 8, "join": 3, "straggler": 3, "partition": 3, "reorganise": 4, "restart": 1, "save": 1,
    "lose": 4, "damage": 3, "withhold": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Pace:
    """Seconds: in which things go wrong, of a challenge window, and between two looks at the chain."""

    trouble: float
    window: int
    poll: float


QUIET = Pace(240.0, 60, 12.0)
# Who challenges must come back, and say it again after a reorganisation, while the window is open.
DISPUTED = Pace(160.0, 300, 25.0)


@dataclass
class Schedule:
    """One play. `trace` has what happened: time, who, what."""

    seed: int
    toy: Toy
    place: Place
    requester: LedgerClient
    people: list[Person]
    pace: Pace
    rng: random.Random
    dice: Dice
    counts: Counter[str]
    trace: list[str]
    task: int = 0
    closes: bool = False
    withheld: list[tuple[Path, Path]] = field(default_factory=list)

    @property
    def clock(self) -> Clockwork:
        return self.place.clock

    def say(self, who: str, what: str) -> None:
        self.trace.append(f"{self.clock.now:8.1f} {who:10} {what}")

    # --- before ---

    def post(self, rounds: int) -> None:
        """Publishes and posts the task."""
        self.toy.publish(self.place.store, rounds)
        slots, rng = self.toy.program.slots, self.rng
        merges: dict[str, Any] = {
            "quorum": rng.randint(1, slots), "round_seconds": DEADLINE, "merge_reward": MERGE_REWARD,
        }  # fmt: skip
        terms = TaskParameters(
            specification_hash=self.toy.specification(rounds).hash(),
            program_root=self.toy.program.root,
            dataset_root=self.toy.dataset.root,
            initial_state_root=self.toy.first,
            state_tensors=len(self.toy.program.layout),
            rounds=rounds,
            slots_per_round=slots,
            steps_per_round=STEPS,
            minimum_steps=STEPS,
            slot_reward=REWARD,
            bond=BOND,
            lease_fee=FEE,
            lease_seconds=LEASE,
            challenge_window=self.pace.window,
            **(merges if slots > 1 else {}),
        )
        self.task = self.requester.post_task(terms, "")
        self.place.node.save()
        self.say("requester", f"posted {self.toy.kind}, {rounds} rounds, quorum {merges['quorum']} of {slots}")

    # --- while things go wrong ---

    def arrange(self) -> None:
        """Draws when what goes wrong."""
        first, *later = self.people
        first.start()
        for person in later:
            when = self.rng.choice((0.0, self.rng.uniform(0, self.pace.trouble)))
            self.clock.at(when, person.start)
        for _ in range(self.rng.randint(6, 18)):
            fault = self.rng.choices(list(FAULTS), list(FAULTS.values()))[0]
            self.clock.at(self.rng.uniform(0, self.pace.trouble), getattr(self, fault))
        if self.closes:
            self.clock.at(self.rng.uniform(20, self.pace.trouble), self.close_task)

    def kill(self) -> None:
        """A process dies at one of its next calls, in one of three cases around a transaction, and comes back later."""
        alive = [person for person in self.people if person.running]
        if not alive:
            return
        person, kind = self.rng.choice(alive), self.rng.choice(("send", "send", "store", "step", "word", "read"))
        left = self.rng.randint(0, 60 if kind == "read" else 3)
        person.line.doom = (kind, left, self.rng.choice(("before", "after")))
        self.clock.at(self.clock.now + self.rng.uniform(5, 150), person.start)

    def join(self) -> None:
        """Whoever is not there yet, or died, starts now."""
        resting = [person for person in self.people if not person.running]
        if resting:
            self.rng.choice(resting).start()

    def straggler(self) -> None:
        person = self.rng.choice(self.people)
        person.line.slowness = self.rng.choice((5.0, 15.0, 40.0))
        self.say(person.line.name, f"SLOW by {person.line.slowness:g}")
        self.counts["straggler"] += 1

    def partition(self) -> None:
        person, until = self.rng.choice(self.people), self.clock.now + self.rng.uniform(10, 120)
        for what in self.rng.choice((("chain",), ("store",), ("chain", "store"))):
            person.line.cut[what] = until
            self.say(person.line.name, f"CUT off from the {what} until {until:.1f}")
            self.counts[f"cut off from the {what}"] += 1

    def reorganise(self) -> None:
        self.say("node", f"REORGANISED: {self.place.node.reorganise()}")

    def save(self) -> None:
        self.place.node.save()

    def restart(self) -> None:
        node, saved = self.place.node, self.rng.random() < 0.5
        node.stop(saved=saved)
        self.say("node", f"DOWN, {'saved' if saved else 'not saved'}")
        self.clock.at(self.clock.now + self.rng.uniform(1, 40), self.back)

    def back(self) -> None:
        self.say("node", f"UP: {self.place.node.start()}")

    def lose(self) -> None:
        """The store loses a state; never the first, which nobody could make again."""
        if found := self._states():
            path = self.rng.choice(found)
            path.unlink()
            self.say("store", f"LOST {path.name}")
            self.counts["blob lost"] += 1

    def damage(self) -> None:
        """The store gives a state with a byte changed, or cut short."""
        if found := self._states():
            path = self.rng.choice(found)
            data = bytearray(path.read_bytes())
            at = self.rng.randrange(len(data))
            if self.rng.random() < 0.3:
                data = data[:at]
            else:
                data[at] ^= 1 << self.rng.randrange(8)
            path.write_bytes(data)
            self.say("store", f"DAMAGED {path.name} at byte {at}")
            self.counts["blob damaged"] += 1

    def withhold(self) -> None:
        """Something that the requester published cannot be had until the calm."""
        published = [one for one in sorted(self.place.store.rglob("*")) if one.is_file() and one not in self._states()]
        path = self.rng.choice(published)
        aside = self.place.folder / f"withheld-{len(self.withheld)}"
        shutil.move(path, aside)
        self.withheld.append((aside, path))
        self.say("store", f"WITHHELD {path.name}")
        self.counts["blob withheld"] += 1

    def close_task(self) -> None:
        """The requester closes the task, where the chain can be asked."""
        if self.place.node.down or self.requester.task(self.task).complete:
            return
        self.requester.close_task(self.task)
        self.say("requester", "CLOSED the task")
        self.counts["task closed"] += 1

    def _states(self) -> list[Path]:
        first = f"0x{self.toy.first.hex()}.safetensors"
        return [path for path in sorted((self.place.store / "states").iterdir()) if path.name != first]

    # --- afterwards ---

    def calm(self) -> None:
        """No more faults; whoever is honest comes back."""
        self.say("schedule", "CALM")
        self.back()
        node = self.place.node
        node.mail = lambda account: "now"
        self.dice.clear()
        for aside, path in self.withheld:
            shutil.move(aside, path)
        for person in self.people:
            person.line.slowness, person.line.doom = 1.0, None
            person.line.cut.clear()
            if person.kind != "cheat":
                person.start()

    def play(self) -> bool:
        """Plays it. False where it does not end."""
        self.arrange()
        self.clock.run(until=lambda: False, limit=self.pace.trouble)
        self.clock.now = max(self.clock.now, self.pace.trouble)
        self.calm()
        return self.clock.run(until=self._is_over, limit=self.pace.trouble + CALM)

    def _is_over(self) -> bool:
        return all(not person.running for person in self.people if person.kind != "cheat")


def draw_dice(rng: random.Random) -> Dice:
    """Chances of a schedule's small faults; many have none of a kind."""

    def chance(most: float) -> float:
        return rng.choice((0.0, 0.0, rng.random() * most))

    return Dice(
        lost_read=chance(0.02),
        lost_send=chance(0.2),
        lost_store=chance(0.1),
        stall=chance(0.1),
        mail={"twice": chance(0.2), "later": chance(0.2), "never": chance(0.2)},
    )


def mail_by(dice: Dice, rng: random.Random) -> Callable[[str], str]:
    """What becomes of a transaction, by these chances."""

    def fate(account: str) -> str:
        drawn = rng.random()
        for what, chance in dice.mail.items():
            if drawn < chance:
                return what
            drawn -= chance
        return "now"

    return fate
