"""The auditor: what is wrong is challenged and falls; what is a fault of its own or of others never is."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from typing import Any

import pytest
from arena import DEFENDER
from fake_audits import BOND, WINDOW, AuditView, FakeAudits, Sources
from fake_games import FixedTruths, Heard, reverted
from liars import plants
from plain_truth import PlainSegment
from worlds import LONG, World, world

from ledger.disputes.positions import Outcome
from ledger.errors import (
    BlobMissing,
    ChainUnreachable,
    ContractReverted,
    DataError,
    ResourceError,
    TransactionFailed,
)
from ledger.types import SlotStatus
from trainer.dispute.player import Player
from trainer.verify.audit import AuditOptions, Auditor
from trainer.worker.stop import Interrupted, Stop

AUDITOR, LIE = "0x" + "a7" * 20, "matmul 10 element 0 alone"


class ToldStop(Stop):
    """Time passes when the auditor waits; and then the others act."""

    def __init__(self, wait: Callable[[float], None]) -> None:
        super().__init__()
        self._wait = wait

    def wait(self, seconds: float) -> None:
        self._wait(seconds)


class DyingAt(Heard):
    """A reporter at one of whose events the process dies."""

    def __init__(self, event: str, death: type[BaseException]) -> None:
        super().__init__()
        self._event, self._death = event, death

    def say(self, event: str, text: str, **fields: object) -> None:
        if event == self._event:
            raise self._death
        super().say(event, text, **fields)


class Scene:
    def __init__(self) -> None:
        self.at: World = world(LONG)
        self.ledger = FakeAudits(at=self.at)
        self.ledger.staked[AUDITOR] = 100 * BOND
        self.heard, self.sources = Heard(), Sources(self.at.party)
        self.true = self.at.party.state_root(self.at.plain.steps + 1)
        self.liars: list[Player] = []
        self.waits = 0
        self.waiting: Callable[[], None] = lambda: None
        self.stop = ToldStop(self._waited)

    def wrong_task(self, lie: str = LIE) -> int:
        fake = self.fake(lie)
        account = "0x" + f"{len(self.liars) + 1:02x}" * 20
        self.liars.append(
            Player(
                self.ledger, FixedTruths(fake), owner=account, reporter=Heard(), clock=lambda: float(self.ledger.now)
            )
        )
        return self.ledger.post(account, fake.state_root(self.at.plain.steps + 1))

    def fake(self, lie: str) -> PlainSegment:
        return self.at.liar(1, next(one for one in plants(self.at.plain.run(1), random.Random(8)) if one.name == lie))

    def auditor(self, **options: Any) -> Auditor:
        return Auditor(
            AuditView(self.ledger),
            self.sources,
            owner=AUDITOR,
            options=AuditOptions(**{"once": True, "poll_seconds": 60.0, **options}),
            reporter=self.heard,
            stop=self.stop,
            clock=lambda: float(self.ledger.now),
        )

    def said(self, event: str) -> list[dict[str, Any]]:
        return [one for one in self.heard.said if one["event"] == event]

    def _waited(self, seconds: float) -> None:
        self.waits += 1
        assert self.waits < 2_000, "the auditor never leaves"
        self.waiting()
        if not any(liar.turn() for liar in self.liars):
            self.ledger.now += round(seconds)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_run_wrong_submission_is_challenged_and_falls(scene: Scene) -> None:
    scene.ledger.post(DEFENDER, scene.true)
    wrong = scene.wrong_task()
    summary = scene.auditor().run()
    assert [(one.slot.task, one.finding) for one in summary.audited] == [(1, "agrees"), (wrong, "differs")]
    assert (summary.won, summary.lost) == ([1], [])
    assert scene.ledger.views[1].outcome is Outcome.CHALLENGER_WON
    assert scene.ledger.slots[(wrong, 0)].status is SlotStatus.OPEN
    (right, false) = scene.said("audited")
    assert "Round 0 of task 1 is right" in right["text"]
    assert false["finding"] == "differs"
    assert false["replayed_root"] == "0x" + scene.true.hex() != false["submitted_root"]
    assert false["game"] == 1


def test_run_several_wrong_submissions_at_once_all_fall(scene: Scene) -> None:
    for lie in (LIE, "state counter.step element 0", "view 18 element 0 alone"):
        scene.wrong_task(lie)
    assert sorted(scene.auditor().run().won) == [1, 2, 3]


def test_run_dry_run_only_reports(scene: Scene) -> None:
    scene.wrong_task()
    summary = scene.auditor(challenge=False).run()
    assert [one.finding for one in summary.audited] == ["differs"]
    assert scene.ledger.moves == []
    assert scene.ledger.staked[AUDITOR] == 100 * BOND


def test_run_too_little_stake_says_what_to_do_and_challenges_once_it_is_there(scene: Scene) -> None:
    scene.wrong_task()
    scene.ledger.staked[AUDITOR] = BOND - 1
    summary = scene.auditor().run()
    assert summary.stake_missing is not None
    assert "add stake with `trainledger account stake`" in str(summary.stake_missing)
    (found,) = summary.audited
    assert (found.finding, found.game) == ("differs", None)
    assert "has 4.999999999999999999 tokens of free stake and needs 5." in found.problem
    assert scene.ledger.views == {}

    def staked() -> None:
        scene.ledger.staked[AUDITOR] = BOND

    scene.waiting = staked
    later = scene.auditor(once=False, exit_when_done=True)
    scene.ledger.closed = True  # so that it may leave in the end
    assert later.run().won == [1]
    assert scene.sources.replays < 12  # the challenge was tried again, not the replay


def test_run_missing_data_never_challenges(scene: Scene) -> None:
    scene.wrong_task()
    scene.sources.missing[1] = BlobMissing("states/0x12", "file:///nowhere")
    (found,) = scene.auditor().run().audited
    assert (found.finding, found.replayed) == ("unchecked", None)
    assert "states/0x12 is not in the store" in found.problem
    assert scene.ledger.moves == []


def test_run_missing_data_are_asked_for_again(scene: Scene) -> None:
    scene.ledger.post(DEFENDER, scene.true)
    scene.sources.missing[1] = DataError("the store does not answer")

    def back() -> None:
        if scene.waits == 5:
            scene.sources.missing.clear()

    scene.waiting = back
    summary = scene.auditor(once=False, exit_when_done=True).run()
    assert [one.finding for one in summary.audited] == ["agrees"]
    assert [one["finding"] for one in scene.said("audited")] == ["unchecked", "agrees"]


def test_run_fault_in_one_replay_never_challenges(scene: Scene) -> None:
    scene.ledger.post(DEFENDER, scene.true)
    scene.sources.first = scene.fake(LIE)
    (found,) = scene.auditor().run().audited
    assert found.finding == "unchecked"
    assert "Two replays of round 0 of task 1 gave" in found.problem
    assert scene.sources.distrusted == 1
    assert scene.ledger.moves == []


def test_run_own_submission_is_not_audited(scene: Scene) -> None:
    scene.ledger.post(AUDITOR, b"w" * 32)
    assert scene.auditor().run().audited == []
    assert scene.sources.replays == 0


def test_run_window_over_is_not_audited(scene: Scene) -> None:
    scene.wrong_task()
    scene.ledger.now += WINDOW + 1
    assert scene.auditor().run().audited == []


def test_run_submission_fell_before_the_challenge_is_let_be(scene: Scene) -> None:
    scene.wrong_task()

    def gone(method: str, game: int) -> None:
        raise reverted("open", "WrongAttempt", attempt=1, current=2)

    scene.ledger.before_write = gone
    summary = scene.auditor(once=False, exit_when_done=True)
    scene.ledger.closed = True

    def over() -> None:
        scene.ledger.slots[(1, 0)] = scene.ledger.slots[(1, 0)].__class__(
            **{**scene.ledger.slots[(1, 0)].__dict__, "status": SlotStatus.OPEN}
        )

    scene.waiting = over
    (found,) = summary.run().audited
    assert (found.finding, found.game) == ("differs", None)
    assert "WrongAttempt" in found.problem
    assert scene.sources.replays <= 3


def test_run_right_round_is_closed_after_its_window(scene: Scene) -> None:
    scene.ledger.post(DEFENDER, scene.true)
    scene.auditor(once=False, exit_when_done=True).run()
    assert scene.ledger.finalised == [1]
    assert scene.ledger.now > scene.ledger.slots[(1, 0)].deadline


def test_run_goes_on_where_another_closed_the_round_a_moment_before(scene: Scene) -> None:
    scene.ledger.post(DEFENDER, scene.true)
    finalise = scene.ledger.finalise

    def be_late(*place: int, **named: Any) -> None:
        finalise(*place, **named)
        raise TransactionFailed("0x00", "TrainingLedger.finalise was mined in block 9 and reverted.")

    scene.ledger.finalise = be_late  # type: ignore[method-assign]  # the simulation saw the round still open
    scene.auditor(once=False, exit_when_done=True).run()
    assert scene.ledger.finalised == [1]


@pytest.mark.parametrize("landed", [False, True])
def test_run_killed_around_the_challenge_goes_on(scene: Scene, landed: bool) -> None:
    class Killed(BaseException):
        pass

    scene.wrong_task()

    def kill(method: str, game: int) -> None:
        raise Killed

    if landed:
        scene.heard = DyingAt("challenged", Killed)  # right after the transaction
    else:
        scene.ledger.before_write = kill
    with pytest.raises(Killed):
        scene.auditor().run()
    scene.ledger.before_write = lambda method, game: None
    scene.heard = Heard()
    assert len(scene.ledger.views) == landed
    assert scene.auditor().run().won == [1]
    assert scene.ledger.staked[AUDITOR] == 99 * BOND  # one bond, not two


@pytest.mark.parametrize("taken", [False, True])
def test_run_challenge_that_a_reorganisation_took_back_is_made_again(scene: Scene, taken: bool) -> None:
    """Also where its number is somebody else's game now."""
    wrong, other = scene.wrong_task(), scene.ledger.post(DEFENDER, scene.true)
    lost: list[int] = []

    def reorganise() -> None:
        if not lost and scene.ledger.views:
            lost.extend(scene.ledger.views)
            view = scene.ledger.views.pop(1)
            scene.ledger.staked[AUDITOR] += BOND
            if taken:
                matter = dataclasses.replace(view.position.matter, task=other, defender=DEFENDER, challenger=DEFENDER)
                scene.ledger.open(matter, [bytes([at]) * 32 for at in range(4)])

    scene.waiting = reorganise
    liar, scene.liars = scene.liars, []  # nobody moves before the reorganisation
    summary = scene.auditor().run()
    assert (lost, liar[0].running) == ([1], frozenset())
    assert [summary.won, summary.lost] == [[1 + taken], []]
    assert [one["game"] for one in scene.said("challenged")] == [1, 1 + taken]
    assert scene.ledger.slots[(wrong, 0)].status is SlotStatus.OPEN


def test_run_only_the_named_task(scene: Scene) -> None:
    scene.wrong_task()
    second = scene.ledger.post(DEFENDER, scene.true)
    summary = scene.auditor(only_task=second).run()
    assert [one.slot.task for one in summary.audited] == [second]
    with pytest.raises(ContractReverted, match="UnknownTask"):
        scene.auditor(only_task=7).run()


@pytest.mark.parametrize("often", [1, 3, 4])
def test_run_contradictions_of_a_reorganisation_pass(scene: Scene, often: int) -> None:
    """A task may be gone between two reads; where it stays gone, that is an error."""
    scene.ledger.post(DEFENDER, scene.true)
    right, left = scene.ledger.task_count, [often]

    def odd() -> int:
        if left[0]:
            left[0] -= 1
            raise reverted("getSlot", "UnknownTask", task=1)
        return right()

    scene.ledger.task_count = odd  # type: ignore[method-assign]  # the fault under test
    if often < 4:
        assert [one.finding for one in scene.auditor().run().audited] == ["agrees"]
    else:
        with pytest.raises(ContractReverted):
            scene.auditor().run()


def test_run_outage_is_waited_for(scene: Scene) -> None:
    scene.ledger.post(DEFENDER, scene.true)
    scene.sources.missing[1] = ChainUnreachable("http://x", "refused")

    def back() -> None:
        scene.sources.missing.clear()

    scene.waiting = back
    assert [one.finding for one in scene.auditor().run().audited] == ["agrees"]
    assert [event for event in scene.heard.events if event.startswith("chain")] == ["chain-lost", "chain-back"]


def test_run_asked_to_stop_or_full_disk_ends(scene: Scene) -> None:
    scene.ledger.post(DEFENDER, scene.true)
    scene.sources.missing[1] = ResourceError("disk full")
    with pytest.raises(ResourceError):
        scene.auditor().run()
    scene.sources.missing[1] = Interrupted("Interrupted.")
    with pytest.raises(Interrupted):
        scene.auditor().run()
    scene.stop.request()
    with pytest.raises(Interrupted):
        scene.auditor().run()
