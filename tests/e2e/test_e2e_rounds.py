"""Four workers in four processes train one model by DiLoCo: one is killed in mid-round, others join later."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from stage import TOKEN, Stage

from ledger.performance import bits_float, pay_of
from ledger.types import Slot, SlotStatus
from trainer.differences import difference_path

pytestmark = pytest.mark.chain

SLOTS, ROUNDS, STEPS, MERGE_REWARD = 4, 2, 30, 2 * TOKEN
ROUND = """
[round]
slots = 4
quorum = 2
deadline_seconds = 900
merge_reward = "2"

[merge]
kind = "diloco"
"""
FIRST, LATER = ("alice", "bob", "carol", "dave"), ("erin", "frank")


def slots_of(stage: Stage, task: int, round_number: int) -> list[Slot]:
    client = stage.client("deployer")
    return [client.slot(task, round_number, slot) for slot in range(SLOTS + 1)]


def wait_until(stage: Stage, what: Callable[[], bool], *, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, [process.out.read_text()[-1500:] for process in stage.processes]
        time.sleep(0.1)


def test_four_workers_one_model(stage: Stage) -> None:
    for name in (*FIRST[2:], *LATER):
        stage.fund(name, stake=100)
    before = {name: stage.client(name).stake_account(stage.wallet(name).address) for name in (*FIRST, *LATER)}
    supply = stage.client("deployer").totals()
    task = stage.post(rounds=ROUNDS, steps=STEPS, lease=300, window=600, target=0.2, more=ROUND)
    client = stage.client("deployer")
    escrow = ROUNDS * (SLOTS * 10 * TOKEN + MERGE_REWARD)
    assert client.escrow(task) == escrow

    workers = {name: stage.worker(name, "--task", str(task), "--exit-when-done") for name in FIRST}
    lost = workers["dave"].wait_for("claimed")
    workers["dave"].kill()  # in mid-round: its slot stays leased
    wait_until(stage, lambda: client.round(task, 0).submitted == SLOTS - 1)
    workers |= {name: stage.worker(name, "--task", str(task), "--exit-when-done") for name in LATER}
    workers["dave"] = stage.worker("dave", "--task", str(task), "--exit-when-done")
    resumed = workers["dave"].wait_for("submitted", round=0)
    assert resumed["slot"] == lost["slot"]  # it goes on with what it had leased

    stage.play_out(task)
    for worker in workers.values():
        assert worker.ended() == 0, worker.err.read_text()
    rounds = [slots_of(stage, task, number) for number in range(ROUNDS)]
    assert all(slot.status is SlotStatus.FINALISED for slots in rounds for slot in slots)
    parameters = client.task(task).parameters
    earned = dict.fromkeys(workers, 0)
    for slot in (slot for slots in rounds for slot in slots):
        earned[next(name for name in workers if stage.wallet(name).address == slot.worker)] += pay_of(parameters, slot)
    for name in workers:
        account = stage.client(name).stake_account(stage.wallet(name).address)
        assert account.credit - before[name].credit == earned[name]
        assert (account.staked, account.locked) == (before[name].staked, before[name].locked)
    assert client.escrow(task) == 0
    after = client.totals()
    assert after.solvent
    assert after.owed - supply.owed == escrow  # what was not earned is the requester's again

    lineage = client.lineage(task)
    losses = [bits_float(parameters.base_loss), *(bits_float(entry.heldout_loss) for entry in lineage)]
    assert losses == sorted(losses, reverse=True)
    assert len({slot.state_root for slot in rounds[0]}) == SLOTS + 1  # each had a shard of its own
    store = stage.home / "store"
    sent = [(store / difference_path(slot.state_root)).stat().st_size for slot in rounds[0][:SLOTS]]
    whole = (store / f"states/0x{rounds[0][SLOTS].state_root.hex()}.safetensors").stat().st_size
    assert max(sent) * 10 < whole
    assert not any((store / f"states/0x{slot.state_root.hex()}.safetensors").exists() for slot in rounds[0][:SLOTS])

    said = stage.ask("verify", str(task), "--all")
    assert said["agrees"] is True


@pytest.mark.full  # a withheld state is quick; quorums are in contracts/test/Rounds.t.sol
def test_round_goes_on_without_who_does_not_come(stage: Stage) -> None:
    """One worker does two of four slots, which are a quorum; the deadline passes; the merge takes two missing slots."""
    task = stage.post(rounds=1, steps=STEPS, lease=300, window=600, more=ROUND)
    client = stage.client("deployer")
    worker = stage.worker("alice", "--task", str(task), "--max-rounds", "2")
    wait_until(stage, lambda: client.round(task, 0).submitted == 2)
    worker.kill()
    stage.chain.advance(client.round(task, 0).deadline - client.chain_time() + 1)
    merger = stage.worker("bob", "--task", str(task), "--exit-when-done")
    stage.play_out(task)
    assert merger.ended() == 0
    slots = slots_of(stage, task, 0)
    assert [slot.status for slot in slots].count(SlotStatus.FINALISED) == 3
    assert slots[SLOTS].worker == stage.wallet("bob").address
    assert client.round(task, 0).counted == 2
    assert client.escrow(task) == 0
    assert stage.ask("verify", str(task))["agrees"] is True
