"""Rounds with a cheating slot, a cheating merger, a withheld state: the rules handle each, the others are paid."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from small_programs import engine
from stage import TOKEN, Process, Stage
from test_e2e_disputes import disputes, pass_clocks

from ledger.performance import pay_of
from ledger.types import Slot, SlotStatus
from trainer.checkpoints import load_state, save_state
from trainer.commit.states import loss_proof, state_root
from trainer.differences import load_slot_state
from trainer.engine.segment import run_merge, run_segment
from trainer.engine.state import State, heldout_loss_bits
from trainer.materials import Materials, open_materials

pytestmark = pytest.mark.chain

SLOTS, STEPS, BOND = 2, 12, 5 * TOKEN
ROUND = """
[round]
slots = 2
deadline_seconds = 900
merge_reward = "2"

[merge]
kind = "mean"
"""


def post(stage: Stage) -> int:
    return stage.post(rounds=1, steps=STEPS, lease=300, window=600, target=0.2, more=ROUND)


def materials_of(stage: Stage, task: int) -> Materials:
    return open_materials(stage.client("deployer"), task, str(stage.home / "store"), stage.home / "c")


def trained(materials: Materials, base: State, slot: int) -> State:
    return run_segment(materials.program, materials.dataset, base, steps=STEPS, slot=slot, engine=engine()).state


def submit(stage: Stage, task: int, name: str, slot: int, state: State, *, base_root: bytes, publish: bool) -> bytes:
    """Claims a slot and submits a state in it, whatever it is. Gives its root."""
    client, materials = stage.client(name), materials_of(stage, task)
    attempt = client.next_attempt(task, 0, slot)
    client.claim(client.task(task), 0, base_root=base_root, attempt=attempt, worker=client.address, slot=slot)
    root = state_root(state.values())
    if publish:
        save_state(materials.store, state, materials.layout)
    client.submit(
        task,
        0,
        attempt=attempt,
        base_root=base_root,
        state_root=root,
        steps=1 if slot == SLOTS else STEPS,
        loss_bits=heldout_loss_bits(state),
        proof=loss_proof(state.values()),
        slot=slot,
    )
    return root


def falsified(materials: Materials, state: State) -> State:
    state[materials.layout.parameters[0].name].view(-1)[3] += 1
    return state


def wait_until(stage: Stage, what: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not what():
        assert time.monotonic() < end, [process.out.read_text()[-1500:] for process in stage.processes]
        time.sleep(0.1)


def slots_of(stage: Stage, task: int) -> list[Slot]:
    client = stage.client("deployer")
    return [client.slot(task, 0, slot) for slot in range(SLOTS + 1)]


def lose(stage: Stage, audit: Process, cheat: str) -> None:
    """The cheat does not answer; who caught it lets its own turn at the slot pass."""
    watcher = disputes(stage, "carol")
    game = audit.wait_for("challenged")["game"]
    pass_clocks(stage, watcher, of=stage.wallet(cheat).address)
    audit.wait_for("game-over", game=game, outcome="challenger_won")
    fallen = watcher.view(int(game)).position.matter
    kept = watcher.slot(fallen.task, 0, fallen.slot)
    assert (kept.status, kept.worker) == (SlotStatus.OPEN, watcher.address)
    stage.chain.advance(max(0, kept.deadline - watcher.chain_time()) + 1)


def assert_settled(stage: Stage, task: int, *, worker: str, slots: set[int], credit: int, cheat: str | None) -> None:
    """Everybody is paid to the wei for what is final, the cheat has lost its bond, and all of it can be verified."""
    client, parameters = stage.client("deployer"), stage.client("deployer").task(task).parameters
    found = slots_of(stage, task)
    assert all(slot.status is SlotStatus.FINALISED for slot in found)
    own = {slot.slot for slot in found if slot.worker == stage.wallet(worker).address}
    assert own == slots
    earned = sum(pay_of(parameters, slot) for slot in found if slot.slot in own)
    assert client.stake_account(stage.wallet(worker).address).credit - credit == earned
    assert client.escrow(task) == 0
    assert client.totals().solvent
    if cheat is not None:
        assert client.stake_account(stage.wallet(cheat).address).staked == 100 * TOKEN - BOND
        assert client.stake_account(stage.wallet("carol").address).credit == BOND // 2
    assert stage.ask("verify", str(task), "--all")["agrees"] is True


def credit_of(stage: Stage, name: str) -> int:
    return stage.client(name).stake_account(stage.wallet(name).address).credit


@pytest.mark.full  # contracts/test/RoundFalls.t.sol has what follows from the fall
def test_false_slot_falls_and_the_merge_of_it_is_void(own_stage: Stage) -> None:
    stage = own_stage
    stage.fund("carol", stake=100)
    task = post(stage)
    materials, base_root = materials_of(stage, task), stage.client("bob").base_root(task, 0)
    base = load_state(materials.store, base_root, materials.layout)
    true = trained(materials, base, 0)
    right = state_root(true.values())
    wrong = submit(stage, task, "bob", 0, falsified(materials, true), base_root=base_root, publish=True)
    worker = stage.worker("alice", "--task", str(task), "--exit-when-done")
    merged = worker.wait_for("submitted", slot=SLOTS)["state_root"]  # of a false state, which nobody has noticed yet
    audit = stage.command("carol", "audit", str(task), "--exit-when-done")
    lose(stage, audit, "bob")
    wait_until(stage, lambda: slots_of(stage, task)[0].state_root == right)
    stage.play_out(task)
    assert worker.ended() == 0
    assert audit.ended() == 0
    assert wrong != right
    final = stage.client("alice").checkpoint(task, 0)
    assert "0x" + final.state_root.hex() != merged
    assert "submission-gone" in worker.events()  # the merge of the false state, unpaid
    assert_settled(stage, task, worker="alice", slots={0, 1, SLOTS}, credit=0, cheat="bob")


@pytest.mark.full  # tests/dispute/test_merge_rounds_on_chain.py has it without processes
def test_false_merge_falls_and_is_redone(own_stage: Stage) -> None:
    stage = own_stage
    stage.fund("carol", stake=100)
    task = post(stage)
    worker = stage.worker("alice", "--task", str(task), "--max-rounds", "2")
    client = stage.client("bob")
    wait_until(stage, lambda: client.round(task, 0).submitted == SLOTS)
    worker.kill()
    if not any(client.round(task, 0).inputs_root):
        client.collect(task, 0, 0)
    materials, inputs_root = materials_of(stage, task), client.round(task, 0).inputs_root
    base, first, second = client.merge_inputs(task, 0, inputs_root)
    start = load_state(materials.store, base, materials.layout)
    states = [
        load_slot_state(materials.store, root, start, materials.layout, base_root=base) for root in (first, second)
    ]
    true = run_merge(materials.program, materials.dataset, start, states, engine=engine()).state
    right = state_root(true.values())
    submit(stage, task, "bob", SLOTS, falsified(materials, true), base_root=inputs_root, publish=True)
    audit = stage.command("carol", "audit", str(task), "--exit-when-done")
    lose(stage, audit, "bob")
    again = stage.worker("alice", "--task", str(task), "--exit-when-done")
    wait_until(stage, lambda: slots_of(stage, task)[SLOTS].state_root == right)
    stage.play_out(task)
    assert again.ended() == 0
    assert audit.ended() == 0
    assert_settled(stage, task, worker="alice", slots={0, 1, SLOTS}, credit=0, cheat="bob")


def test_withheld_state_is_trained_again_by_whoever_merges(own_stage: Stage) -> None:
    stage = own_stage
    task = post(stage)
    materials, base_root = materials_of(stage, task), stage.client("bob").base_root(task, 0)
    base = load_state(materials.store, base_root, materials.layout)
    root = submit(stage, task, "bob", 0, trained(materials, base, 0), base_root=base_root, publish=False)
    worker = stage.worker("alice", "--task", str(task), "--exit-when-done")
    assert worker.wait_for("retraining", round=0)["state_root"] == "0x" + root.hex()
    stage.play_out(task)
    assert worker.ended() == 0
    assert_settled(stage, task, worker="alice", slots={1, SLOTS}, credit=0, cheat=None)
    assert credit_of(stage, "bob") == pay_of(stage.client("bob").task(task).parameters, slots_of(stage, task)[0])
