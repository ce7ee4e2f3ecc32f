"""Disputes with real processes: an audit that catches a cheat, and a worker that is killed while it defends itself."""

from __future__ import annotations

import json
from typing import Any

import pytest
from small_programs import engine
from stage import TOKEN, Stage

from ledger.disputes.client import DisputeClient
from ledger.disputes.moves import Opening
from ledger.disputes.positions import Outcome, points_of
from ledger.reverts import ErrorDecoder
from ledger.rpc import connect
from ledger.tx import TransactionSender
from ledger.types import SlotStatus
from trainer.checkpoints import load_state, save_state
from trainer.commit.states import loss_proof, state_root
from trainer.engine.segment import run_segment
from trainer.engine.state import heldout_loss_bits
from trainer.materials import open_materials

pytestmark = pytest.mark.chain

STEPS = 12


def disputes(stage: Stage, name: str) -> DisputeClient:
    client = stage.client(name)
    sender = TransactionSender(connect(stage.chain.rpc_url), stage.wallet(name), errors=ErrorDecoder(client.artifacts))
    return DisputeClient(sender.web3, stage.deployment, sender)


def submit_false_work(stage: Stage, task: int, name: str) -> tuple[bytes, bytes]:
    """Claims and submits a round with one wrong element in one parameter. Gives the false root and the true one."""
    client = stage.client(name)
    state, materials = client.task(task), open_materials(client, task, str(stage.home / "store"), stage.home / "c")
    base_root = client.base_root(task, 0)
    client.claim(state, 0, base_root=base_root, attempt=0, worker=client.address)
    base = load_state(materials.store, base_root, materials.layout)
    result = run_segment(materials.program, materials.dataset, base, steps=STEPS, engine=engine()).state
    true = state_root(result.values())
    result[materials.layout.parameters[0].name].view(-1)[3] += 1
    save_state(materials.store, result, materials.layout)
    false = state_root(result.values())
    client.submit(
        task,
        0,
        attempt=0,
        base_root=base_root,
        state_root=false,
        steps=STEPS,
        loss_bits=heldout_loss_bits(result),
        proof=loss_proof(result.values()),
    )
    return false, true


def pass_clocks(stage: Stage, client: DisputeClient, *, of: str) -> None:
    """Lets the time of the side to move run out in every game where that is `of`'s side."""
    late = [view for view in client.games(only_running=True) if view.position.mover == of]
    for view in late:
        stage.chain.advance(max(0, view.deadline - client.chain_time()) + 1)


def test_audit_catches_a_cheat_and_an_honest_worker_redoes_the_round(stage: Stage) -> None:
    stage.fund("carol", stake=100)
    task = stage.post(rounds=1, steps=STEPS)
    false, true = submit_false_work(stage, task, "bob")
    cheat, watcher = stage.wallet("bob").address, disputes(stage, "carol")
    said = json.loads(stage.run("audit", str(task), "--once", "--dry-run", "--json").stdout.splitlines()[2])
    assert (said["event"], said["finding"], said["replayed_root"]) == ("audited", "differs", "0x" + true.hex())
    audit = stage.command("carol", "audit", str(task), "--exit-when-done")
    game = int(audit.wait_for("challenged")["game"])
    shown: dict[str, Any] = stage.ask("dispute", "show", str(game))
    assert (shown["submitted"], shown["claimed"]) == ("0x" + false.hex(), "0x" + true.hex())
    pass_clocks(stage, watcher, of=cheat)
    audit.wait_for("game-over", game=game, outcome="challenger_won")
    slot = watcher.slot(task, 0)
    assert (slot.status, slot.attempt, slot.worker) == (SlotStatus.OPEN, 1, watcher.address)
    worker = stage.worker("alice", "--task", str(task), "--exit-when-done")
    worker.wait_for("waiting", reason="reserved")
    stage.chain.advance(max(0, slot.deadline - watcher.chain_time()) + 1)  # the winner lets its turn pass
    assert bytes.fromhex(worker.wait_for("submitted")["state_root"][2:]) == true
    stage.play_out(task)
    assert worker.ended() == 0
    assert audit.ended() == 0
    assert audit.said("finished")["won"] == [game]
    assert "awarded" in audit.events()
    lost = stage.client("bob").stake_account(cheat)
    assert (lost.staked, lost.locked) == (95 * TOKEN, 0)
    assert watcher.stake_account(watcher.address).credit == 5 * TOKEN // 2
    assert watcher.checkpoint(task, 0).state_root == true


def test_worker_killed_while_it_defends_itself_wins_and_is_paid(stage: Stage) -> None:
    stage.fund("rogue", stake=100)
    task = stage.post(rounds=1, steps=STEPS)
    worker = stage.worker("alice", "--task", str(task), "--exit-when-done")
    root = bytes.fromhex(worker.wait_for("submitted")["state_root"][2:])
    rogue = disputes(stage, "rogue")
    slot = rogue.slot(task, 0)
    points = [bytes([number]) * 32 for number, _ in enumerate(points_of(0, slot.steps + 1, 32), start=1)]
    game = rogue.open(Opening(rogue.address, task, 0, 0, slot.attempt, root), points)
    worker.wait_for("game", game=game)
    worker.kill()
    again = stage.worker("alice", "--task", str(task), "--exit-when-done")
    moved = again.wait_for("moved", game=game) if rogue.view(game).position.moves < 2 else {"move": "enterRun"}
    assert moved["move"] == "enterRun"
    pass_clocks(stage, rogue, of=rogue.address)
    again.wait_for("game-over", game=game, outcome="defender_won")
    stage.play_out(task)
    assert again.ended() == 0
    assert rogue.view(game).outcome is Outcome.DEFENDER_WON
    assert stage.client("alice").checkpoint(task, 0).state_root == root
    assert rogue.stake_account(rogue.address).staked == 95 * TOKEN


@pytest.mark.full
def test_dispute_play_refuses_strangers_and_loses_what_is_false(stage: Stage) -> None:
    stage.fund("dora", stake=100)
    task = stage.post(rounds=1, steps=STEPS)
    _, true = submit_false_work(stage, task, "bob")
    dora = disputes(stage, "dora")
    slot = dora.slot(task, 0)
    points = [*([b"x" * 32] * STEPS), true]
    game = dora.open(Opening(dora.address, task, 0, 0, slot.attempt, slot.state_root), points)
    stranger = stage.run("dispute", "play", str(game), account="alice")
    assert stranger.exit_code == 2
    assert "is no party of game" in stranger.stderr
    player = stage.command("bob", "dispute", "play", str(game))
    # Its first roots are false, so bob's machine answers them with true ones, and never concedes those.
    player.wait_for("moved", move="enterRun")
    pass_clocks(stage, dora, of=dora.address)
    assert player.ended() == 0
    assert dora.view(game).outcome is Outcome.DEFENDER_WON
