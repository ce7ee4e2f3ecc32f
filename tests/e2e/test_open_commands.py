"""The commands of open tasks in processes of their own, one of which is killed between its commit and its reveal."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from open_play import SLOT_REWARD, OpenPlay
from safetensors.torch import save_file
from stage import Stage

from ledger.open.records import Stage as SlotStage
from trainer.open.policy import why_waiting
from trainer.open.ports import look

pytestmark = pytest.mark.chain

SCRIPT = """
def train(state, data, seconds):
    assert len(data.train) > 1000 and 0 < seconds <= 60
    name = next(name for name in state if name.startswith("parameter."))
    return {name: state[name].double() * 1.001}
"""


def play_on(stage: Stage, play: OpenPlay, *, seconds: float = 240.0) -> None:
    """Moves the chain's clock on where everybody waits for it, until the task is over."""
    chain, end = play.chain(), time.monotonic() + seconds
    while not (view := look(chain, play.number, None)).over:
        waiting = why_waiting(view, "")
        # Nobody is hurried: a period is cut short only where everybody has done what is to be done in it.
        if waiting.code in ("windows", "commits") and waiting.until and waiting.until >= view.now:
            stage.chain.advance(waiting.until - view.now + 1)
        assert time.monotonic() < end, [process.out.read_text()[-1500:] for process in stage.processes]
        time.sleep(0.3)


@pytest.mark.full  # four processes, each of which imports PyTorch; the loops themselves are quick
def test_commands_of_open_tasks_and_a_kill(stage: Stage, tmp_path: Path) -> None:
    stage.fund("carol", stake=100)
    play = OpenPlay(stage, rounds=1, slots=3)
    task, script = str(play.number), tmp_path / "script.py"
    script.write_text(SCRIPT)
    parts = play.parts("deployer")
    base = parts.source.base(parts.chain.task(play.number), 0)
    save_file({"counter.step": base["counter.step"] + 7}, tmp_path / "state.safetensors")

    killed = stage.command("alice", "open", "work", task, "--recipe")
    first = killed.wait_for("committed", seconds=120)
    killed.kill()
    handed = stage.command("carol", "open", "work", task, "--state", str(tmp_path / "state.safetensors"))
    handed.wait_for("committed", seconds=120)
    again = stage.command("alice", "open", "work", task, "--recipe")
    again.wait_for("waiting", reason="commits", seconds=120)  # it has a slot, and trains nothing twice
    scripted = stage.command("bob", "open", "work", task, "--script", str(script))
    requester = stage.command("requester", "open", "serve", task)
    auditor = stage.command("dave", "open", "audit", task, "--dry-run", "--exit-when-done")
    revealed = again.wait_for("revealed", seconds=120)
    assert revealed["slot"] == first["slot"] == 0
    play_on(stage, play)
    for process in (again, handed, scripted, requester, auditor):
        assert process.ended() == 0, process.err.read_text()
    assert "training" not in again.events()
    assert play.stages() == [SlotStage.FINALISED] * 4
    chain = play.chain()
    assert chain.base_root(play.number, 1) == play.slots()[0].scored_root  # the recipe's is the best state
    assert 0 < int(again.said("round-over")["earned"]) <= SLOT_REWARD + 10**18
    assert requester.said("finished")["shown"] == 1
    audited = [line for line in auditor.lines() if line["event"] == "audited"]
    assert {line["finding"] for line in audited} == {"agrees"}
    assert chain.escrow(play.number) == 0
    shown = stage.ask("open", "show", task)
    assert shown
    again_posted = stage.run("open", "work", task, "--recipe", account="alice")
    assert again_posted.exit_code != 0
    assert "is over" in again_posted.stderr


def test_commands_refuse_what_makes_no_sense(stage: Stage, tmp_path: Path) -> None:
    none = stage.run("open", "work", "1", account="alice")
    assert none.exit_code != 0
    assert "Give one of --recipe, --script and --state" in none.stderr
    both = stage.run("open", "work", "1", "--recipe", "--state", str(tmp_path), account="alice")
    assert both.exit_code != 0
    nothing = stage.run("open", "serve", "77", account="requester")
    assert nothing.exit_code != 0
    assert "77" in nothing.stderr
    dry = stage.run("open", "audit", "--dry-run", "--question", "3")
    assert "--dry-run" in dry.stderr
