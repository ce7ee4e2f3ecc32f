"""Open tasks from posting to pay: a script, a copy and idleness; a requester who shows nothing; a false score."""

from __future__ import annotations

from pathlib import Path

import pytest
from open_play import BOND, FLOOR, SCORE_REWARD, SLOT_REWARD, OpenPlay
from small_programs import engine
from stage import Stage

from ledger.open.records import OpenTask
from ledger.open.records import Stage as SlotStage
from ledger.performance import bits_float, open_pay
from ledger.types import StakeAccount
from trainer.commit.states import loss_proof, state_root
from trainer.engine.engines import Engine
from trainer.engine.state import heldout_loss_bits
from trainer.open.scoring import Score, with_loss
from trainer.open.source import OpenSource
from trainer.open.training import FileTraining, ScriptTraining

pytestmark = pytest.mark.chain

# Half a second of SGD in bfloat16: neither the task's program nor its arithmetic.
SCRIPT = """
import torch
from trainer.models import TransformerConfig, build_model

def train(state, data, seconds):
    torch.manual_seed(1)
    model = build_model(TransformerConfig(layers=1, heads=2, width=16), vocabulary=256, context=16)
    model.load_state_dict({n[10:]: t for n, t in state.items() if n.startswith("parameter.")})
    tokens = torch.from_numpy(data.train.astype("int64"))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(60):
        at = torch.randint(len(tokens) - 16, (16,))
        windows = torch.stack([tokens[i : i + 17] for i in at])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(windows[:, :-1], windows[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {"parameter." + n: p.detach() for n, p in model.named_parameters()}
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "my_training.py"
    path.write_text(SCRIPT)
    return path


class Copied:
    """Hands in what another worker made: it has seen the file before anything was committed."""

    name = "copy"

    def __init__(self, original: ScriptTraining) -> None:
        self._original = original

    def train(self, job: object) -> object:
        return self._original.train(job)  # type: ignore[arg-type]  # the script gives the same with the same seed


def accounts(stage: Stage, names: tuple[str, ...]) -> dict[str, StakeAccount]:
    return {name: stage.client(name).stake_account(stage.wallet(name).address) for name in names}


def test_pay_follows_what_a_state_improves(stage: Stage, tmp_path: Path, script: Path) -> None:
    names = ("alice", "bob", "carol")
    stage.fund("carol", stake=100)
    before, books = accounts(stage, names), stage.client("deployer").totals()
    play = OpenPlay(stage, rounds=1, slots=3)
    chain = play.chain()
    assert chain.escrow(play.number) == play.escrow
    assert not any(root_file.exists() for root_file in (stage.home / "store").glob("held-out/*"))
    trains = ScriptTraining(script)
    parties = [
        play.requester(),
        play.worker("alice", trains),
        play.worker("bob", Copied(trains)),  # type: ignore[arg-type]
        play.worker("carol", FileTraining(play.base_file(tmp_path / "base.safetensors"))),
    ]
    play.play(parties)

    original, copy, idle, baseline = play.slots()
    assert [slot.stage for slot in (original, copy, idle)] == [SlotStage.FINALISED, SlotStage.COPY, SlotStage.COPY]
    assert copy.trained_root == original.trained_root
    assert idle.trained_root == chain.base_root(play.number, 0) == baseline.trained_root
    parameters = chain.task(play.number).parameters
    pay = open_pay(parameters, baseline.held_out_loss, original.held_out_loss)
    assert bits_float(original.held_out_loss) < bits_float(baseline.held_out_loss) - 0.5
    assert FLOOR < pay <= SLOT_REWARD
    assert chain.base_root(play.number, 1) == original.scored_root

    after = accounts(stage, names)
    earned = {name: after[name].credit - before[name].credit for name in names}
    scorer = next(name for name in names if stage.wallet(name).address == baseline.worker)
    assert earned == {"alice": pay, "bob": 0, "carol": 0} | {scorer: SCORE_REWARD + (pay if scorer == "alice" else 0)}
    assert all((after[name].staked, after[name].locked) == (before[name].staked, 0) for name in names)
    assert chain.escrow(play.number) == 0
    now = stage.client("deployer").totals()
    assert now.solvent
    assert now.owed - books.owed == play.escrow  # what was not earned is the requester's again
    assert now.staked == books.staked


def test_requester_who_shows_nothing_pays_in_full(stage: Stage, tmp_path: Path, script: Path) -> None:
    before = accounts(stage, ("alice", "bob"))
    play = OpenPlay(stage, rounds=2, slots=2)
    changed = play.base_file(tmp_path / "changed.safetensors", lambda state: state["counter.step"].add_(1))
    play.play([play.worker("alice", FileTraining(changed)), play.worker("bob", ScriptTraining(script))])
    assert play.stages()[:2] == [SlotStage.FINALISED] * 2
    after = accounts(stage, ("alice", "bob"))
    for name in before:
        assert after[name].credit - before[name].credit == SLOT_REWARD
        assert (after[name].staked, after[name].locked) == (before[name].staked, 0)
    chain = play.chain()
    assert chain.task(play.number).closed
    assert chain.escrow(play.number) == 0


class Boastful(OpenSource):
    """Scores as the truth is, but for one bit of the loss: lower by far."""

    def score(self, task: OpenTask, round_number: int, slot: int, *, engine: Engine | None = None) -> Score:
        true = super().score(task, round_number, slot, engine=engine)
        if slot == task.parameters.baseline:
            return true
        state = with_loss(self.scored(task, round_number, slot), true.loss_bits ^ 1 << 23)
        return Score(
            root=state_root(state.values()),
            loss_bits=heldout_loss_bits(state),
            proof=loss_proof(state.values()),
        )


def test_false_score_loses_its_bond(stage: Stage, tmp_path: Path) -> None:
    stage.fund("dave", stake=100)
    before = accounts(stage, ("alice", "dave"))
    play = OpenPlay(stage, rounds=1, slots=1)
    parts = play.parts("alice")
    lies = Boastful(parts.chain, store_of=lambda _: str(stage.home / "store"), cache=tmp_path, engine=engine())
    changed = play.base_file(tmp_path / "changed.safetensors", lambda state: state["counter.step"].add_(1))
    play.play([play.requester(), play.auditor("dave"), play.worker("alice", FileTraining(changed), source=lies)])

    own, baseline = play.slots()
    assert own.stage is baseline.stage is SlotStage.FINALISED
    assert own.attempt == 1
    assert own.worker == stage.wallet("dave").address  # who proved the lie scored the state anew
    assert own.held_out_loss == baseline.held_out_loss  # a step counted changes no loss
    game = play.said.named("challenged")[0]["game"]
    assert [fields["outcome"] for fields in play.said.named("game-over") if fields["game"] == game]
    after = accounts(stage, ("alice", "dave"))
    assert before["alice"].staked - after["alice"].staked == BOND
    won = after["dave"].staked + after["dave"].credit - before["dave"].staked - before["dave"].credit
    assert won >= BOND // 2 + FLOOR  # the award, and what the score of the state pays
    assert all(account.locked == 0 for account in after.values())
    assert play.chain().escrow(play.number) == 0
    assert stage.client("deployer").totals().solvent
