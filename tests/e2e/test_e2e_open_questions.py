"""States of open tasks that somebody cannot fetch: one that is withheld, and one that is there after all."""

from __future__ import annotations

from pathlib import Path

import pytest
from open_play import BOND, OpenPlay
from stage import TOKEN, Stage

from ledger.open.records import Stage as SlotStage
from trainer.checkpoints import state_path
from trainer.open.training import FileTraining

pytestmark = pytest.mark.chain

FEE = TOKEN // 2
AUDITORS = ("carol", "dave")


def seats(stage: Stage) -> None:
    for name in AUDITORS:
        stage.fund(name, stake=50)
        stage.ask("auditor", "enrol", "6", account=name)
    stage.fund("erin", stake=50)
    stage.chain.advance(5)


def state_file(play: OpenPlay, folder: Path) -> Path:
    return play.base_file(folder / "changed.safetensors", lambda state: state["counter.step"].add_(1))


def locked(stage: Stage, name: str) -> tuple[int, int]:
    account = stage.client(name).stake_account(stage.wallet(name).address)
    return account.staked, account.locked


@pytest.mark.full  # the chain's side of it is in tests/ledger/test_open_tasks.py
def test_state_that_is_withheld_is_missing(own_stage: Stage, tmp_path: Path) -> None:
    stage = own_stage
    seats(stage)
    play = OpenPlay(stage, rounds=1, slots=1)
    worker = play.worker("alice", FileTraining(state_file(play, tmp_path)))
    before = {name: locked(stage, name) for name in ("alice", "erin")}
    play.take_turns([worker], lambda: play.stages()[0] is SlotStage.REVEALED)
    (stage.home / "store" / state_path(play.slots()[0].trained_root)).unlink()
    parties = [play.auditor("erin", question_seconds=0.0), play.requester(), *map(play.auditor, AUDITORS)]
    play.take_turns(parties, lambda: play.stages()[0] is SlotStage.MISSING, step=6)
    assert play.said.named("asked")
    assert play.said.named("absent")
    assert not play.said.named("finding-committed")
    assert locked(stage, "alice") == (before["alice"][0] - FEE, 0)
    assert locked(stage, "erin") == before["erin"]  # the deposit is back


@pytest.mark.full
def test_state_that_is_there_is_found_and_the_deposit_pays(own_stage: Stage, tmp_path: Path) -> None:
    stage = own_stage
    seats(stage)
    play = OpenPlay(stage, rounds=1, slots=1)
    worker = play.worker("alice", FileTraining(state_file(play, tmp_path)))
    play.take_turns([worker], lambda: play.stages()[0] is SlotStage.REVEALED)
    slot, asker = play.slots()[0], stage.wallet("erin").address
    play.parts("erin").chain.unavailable(play.number, 0, 0, slot.trained_root, asker)
    auditors = [play.auditor(name) for name in AUDITORS]

    def paid() -> bool:
        found = play.said.named("finding-revealed")
        return bool(found) and len(play.said.named("share")) == len(found)

    play.take_turns(auditors, paid, step=2)
    fees = sum(int(str(fields["fee"])) for fields in play.said.named("share"))
    assert 6 * (BOND // 9) // 2 - 9 <= fees <= BOND // 2
    play.play([worker, *auditors])  # a requester who answers nothing shows nothing either
    assert play.stages() == [SlotStage.FINALISED, SlotStage.EMPTY]
    stage.chain.advance(60)
    stage.ask("open", "finalise", str(play.number), account="dave")  # what the deposit owes nobody is burned
    assert locked(stage, "erin")[1] == 0
    assert locked(stage, "erin")[0] == 50 * TOKEN - BOND
    assert stage.client("deployer").totals().solvent
