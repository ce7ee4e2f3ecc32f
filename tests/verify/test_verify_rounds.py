"""Rounds of two slots on a real chain with real programs: all slots are audited and verified, and so are the merges."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from eth_utils.crypto import keccak
from fake_games import Heard
from round_life import MERGE, base_of, claim_slot, collect, fell, finalise_slot
from small_programs import engine, traced
from typer.testing import CliRunner
from web3 import Web3
from worker_bench import TinyTask, publish_tiny_task, tiny_dataset, tiny_program

from ledger.anvil import LocalChain
from ledger.compile import Artifact
from ledger.deploy import Deployment, publish
from ledger.disputes.client import DisputeClient
from ledger.keys import Wallet
from ledger.reverts import ErrorDecoder
from ledger.rpc import rpc
from ledger.tx import TransactionSender
from ledger.types import Task
from trainer.checkpoints import save_state, state_path
from trainer.cli.main import app
from trainer.commit.states import loss_proof, state_root
from trainer.differences import difference_path, save_difference
from trainer.dispute.segments import SegmentSource
from trainer.engine.segment import run_merge, run_segment
from trainer.engine.state import State, heldout_loss_bits
from trainer.materials import fetch_description, fetch_materials
from trainer.program.description import MeanConfig
from trainer.verify.audit import AuditOptions, Auditor, AuditSummary
from trainer.verify.task import RoundVerdict, TaskVerifier, claims_of
from trainer.worker.stop import Stop

pytestmark = pytest.mark.chain
STEPS, LEASE, TOKEN = 4, 100, 10**18


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyTask:
    description = dataclasses.replace(tiny_program(), merge=MeanConfig(slots=2))
    return publish_tiny_task(
        tmp_path_factory.mktemp("rounds") / "store",
        rounds=1,
        steps=STEPS,
        other=traced(description, tiny_dataset()),
        quorum=1,
        round_seconds=2 * LEASE,
        merge_reward=TOKEN,
    )


@pytest.fixture(scope="module")
def slots(tiny: TinyTask) -> list[State]:
    """What the slots really train."""
    return [
        run_segment(tiny.program, tiny.dataset, tiny.initial, steps=STEPS, slot=slot, engine=engine()).state
        for slot in range(2)
    ]


def merged(tiny: TinyTask, *inputs: State | None) -> State:
    return run_merge(tiny.program, tiny.dataset, tiny.initial, inputs, engine=engine()).state


def spoilt(state: State) -> State:
    """One element of a parameter is another."""
    name = next(name for name in state if name.startswith("parameter."))
    return type(state)((key, tensor + 1 if key == name else tensor) for key, tensor in state.items())


class Challenged(Exception):
    """Enough of a game."""


class HeardUntilChallenged(Heard):
    def say(self, event: str, text: str, **fields: object) -> None:
        super().say(event, text, **fields)
        if event == "challenged":
            raise Challenged


class PassingStop(Stop):
    """Waiting moves the chain's time."""

    def __init__(self, chain: LocalChain) -> None:
        super().__init__()
        self._chain = chain

    def wait(self, seconds: float) -> None:
        self._chain.advance(LEASE)


@dataclasses.dataclass
class Scene:
    web3: Web3
    deployment: Deployment
    artifacts: dict[str, Artifact]
    chain: LocalChain
    tiny: TinyTask
    folder: Path

    def client(self, name: str) -> DisputeClient:
        return self.of(Wallet.from_private_key(keccak(text=f"rounds {name}").hex(), name=name))

    def of(self, wallet: Wallet) -> DisputeClient:
        sender = TransactionSender(self.web3, wallet, errors=ErrorDecoder(self.artifacts))
        return DisputeClient(self.web3, self.deployment, sender, artifacts=self.artifacts)

    def posted(self, deployer: Wallet) -> Task:
        for name in ("requester", "worker", "carol"):
            client = self.client(name)
            self.chain.set_balance(client.address, 100 * TOKEN)
            self.of(deployer).transfer_token(client.address, 1000 * TOKEN)
            if name != "requester":
                client.stake(100 * TOKEN)
        requester = self.client("requester")
        return requester.task(requester.post_task(self.tiny.parameters, self.tiny.store.url))

    def submit(self, task: Task, slot: int, state: State, *, stored: bool = True, name: str = "worker") -> bytes:
        client, root = self.client(name), state_root(state.values())
        attempt = claim_slot(client, task, slot)
        if stored:
            save_state(self.tiny.store, state, self.tiny.program.layout)
        client.submit(
            task.number,
            0,
            attempt=attempt,
            base_root=base_of(client, task, slot),
            state_root=root,
            steps=1 if slot == MERGE else STEPS,
            loss_bits=heldout_loss_bits(state),
            proof=loss_proof(state.values()),
            slot=slot,
        )
        return root

    def audit(
        self, task: Task, *, heard: Heard | None = None, stop: Stop | None = None, **options: Any
    ) -> AuditSummary:
        client = self.client("carol")
        source = SegmentSource(
            client,
            store_of=lambda number: self.tiny.store.url,
            cache=self.folder / "cache",
            journals=self.folder / "journals",
            engine=engine(),
        )
        chosen = {"only_task": task.number, "once": True, "challenge": False, "finalise": False, **options}
        return Auditor(
            client,
            source,
            owner=client.address,
            options=AuditOptions(**chosen, poll_seconds=0.01),
            reporter=heard or Heard(),
            stop=stop or Stop(),
            clock=time.monotonic,
        ).run()

    def found(self, task: Task) -> list[tuple[str, str]]:
        return [(one.place, one.finding) for one in self.audit(task).audited]

    def verdicts(self, task: Task) -> list[RoundVerdict]:
        client, store = self.client("carol"), self.tiny.store
        now = client.task(task.number)
        materials = fetch_materials(fetch_description(now, store), store, self.folder / "cache")
        return list(TaskVerifier(materials, claims_of(client, now), engine=engine()).verify([0]))


@pytest.fixture
def scene(
    web3: Web3,
    deployment: Deployment,
    artifacts: dict[str, Artifact],
    chain: LocalChain,
    tiny: TinyTask,
    tmp_path: Path,
) -> Iterator[Scene]:
    snapshot = rpc(web3, "evm_snapshot")
    yield Scene(web3, deployment, artifacts, chain, tiny, tmp_path)
    rpc(web3, "evm_revert", snapshot)


@pytest.fixture
def task(scene: Scene, deployer: Wallet) -> Task:
    return scene.posted(deployer)


NAMES = ["slot 0 of round 0", "slot 1 of round 0", "the merge of round 0"]


def trained(scene: Scene, task: Task, slots: list[State]) -> bytes:
    """Both slots are submitted as they should be, and the inputs collected."""
    for slot, state in enumerate(slots):
        scene.submit(task, slot, state)
    return collect(scene.client("worker"), task)


def test_audit_looks_at_every_slot_and_at_the_merge(scene: Scene, task: Task, slots: list[State]) -> None:
    trained(scene, task, slots)
    scene.submit(task, MERGE, merged(scene.tiny, *slots))
    assert scene.found(task) == [(name, "agrees") for name in NAMES]


def test_audit_of_slot_one_takes_the_batches_of_slot_one(scene: Scene, task: Task, slots: list[State]) -> None:
    assert state_root(slots[0].values()) != state_root(slots[1].values())
    scene.submit(task, 0, slots[0])
    scene.submit(task, 1, slots[0])  # somebody else's work
    heard = Heard()
    summary = scene.audit(task, heard=heard)
    assert [one.finding for one in summary.audited] == ["agrees", "differs"]
    assert summary.audited[1].replayed == state_root(slots[1].values())
    said = [one for one in heard.said if one["event"] == "audited"]
    assert said[0]["text"].startswith(f"Slot 0 of round 0 of task {task.number} is right")
    assert said[1]["text"].startswith(f"Slot 1 of round 0 of task {task.number} is WRONG")
    assert [one["slot"] for one in said] == [0, 1]


def test_audit_challenges_a_wrong_merge(scene: Scene, task: Task, slots: list[State]) -> None:
    inputs = trained(scene, task, slots)
    scene.submit(task, MERGE, spoilt(merged(scene.tiny, *slots)))
    assert scene.found(task)[2] == (NAMES[2], "differs")
    with pytest.raises(Challenged):
        scene.audit(task, challenge=True, heard=HeardUntilChallenged())
    (view,) = scene.client("carol").games(task=task.number)
    matter = view.position.matter
    assert (matter.merge, matter.slot, matter.base) == (True, MERGE, inputs)
    assert matter.claimed == state_root(merged(scene.tiny, *slots).values())


def test_audit_of_a_merge_trains_again_what_was_withheld(scene: Scene, task: Task, slots: list[State]) -> None:
    trained(scene, task, slots)
    scene.submit(task, MERGE, spoilt(merged(scene.tiny, *slots)))
    Path(scene.tiny.store._root, state_path(state_root(slots[1].values()))).unlink()
    assert [finding for _, finding in scene.found(task)] == ["agrees", "agrees", "differs"]


def test_audit_of_a_merge_whose_inputs_are_not_to_be_had_challenges_nobody_for_it(
    scene: Scene, task: Task, slots: list[State]
) -> None:
    false = spoilt(slots[1])
    trained(scene, task, [slots[0], false])
    scene.submit(task, MERGE, spoilt(merged(scene.tiny, slots[0], false)))
    Path(scene.tiny.store._root, state_path(state_root(false.values()))).unlink()
    assert [finding for _, finding in scene.found(task)] == ["agrees", "differs", "unchecked"]
    with pytest.raises(Challenged):
        scene.audit(task, challenge=True, heard=HeardUntilChallenged())
    assert [view.position.matter.merge for view in scene.client("carol").games(task=task.number)] == [False]


def test_audit_of_a_merge_without_a_slot(scene: Scene, task: Task, slots: list[State]) -> None:
    scene.submit(task, 1, slots[1])
    scene.chain.advance(2 * LEASE + 1)
    collect(scene.client("worker"), task)
    scene.submit(task, MERGE, merged(scene.tiny, None, slots[1]))
    assert scene.found(task) == [(NAMES[2], "agrees")]  # the window of slot 1 is over


def test_audit_of_a_merge_goes_by_the_inputs_that_it_took(scene: Scene, task: Task, slots: list[State]) -> None:
    trained(scene, task, [slots[0], slots[0]])
    scene.submit(task, MERGE, merged(scene.tiny, slots[0], slots[0]))
    window = scene.client("worker").slot(task.number, 0, MERGE).deadline
    before = scene.found(task)
    assert [finding for _, finding in before] == ["agrees", "differs", "agrees"]
    fell(scene.client("carol"), task, 1, scene.chain)
    scene.submit(task, 1, slots[1], name="carol")
    collect(scene.client("worker"), task)
    claims = {claim.slot: claim for claim in claims_of(scene.client("carol"), scene.client("carol").task(task.number))}
    same = state_root(slots[0].values())
    assert claims[MERGE].inputs == (state_root(scene.tiny.initial.values()), same, same)
    assert [verdict.verdict for verdict in scene.verdicts(task)] == ["agrees"] * 3
    assert scene.client("worker").chain_time() > window


def test_auditor_closes_slots_and_merge(scene: Scene, task: Task, slots: list[State]) -> None:
    trained(scene, task, slots)
    scene.submit(task, MERGE, merged(scene.tiny, *slots))
    heard = Heard()
    scene.audit(
        task,
        heard=heard,
        stop=PassingStop(scene.chain),
        finalise=True,
        once=False,
        exit_when_done=True,
        turn_seconds=0.0,
    )
    closed = [one["text"] for one in heard.said if one["event"] == "finalised"]
    assert closed == [f"Finalised {name} of task {task.number}." for name in NAMES]
    assert scene.client("carol").task(task.number).complete


def finished(scene: Scene, task: Task, slots: list[State], merge: State) -> None:
    trained(scene, task, slots)
    scene.submit(task, MERGE, merge)
    scene.chain.advance(LEASE + 1)
    for slot in range(3):
        finalise_slot(scene.client("worker"), task, slot)


def test_verify_whole_round_on_the_command_line(
    scene: Scene, task: Task, slots: list[State], deployment: Deployment
) -> None:
    finished(scene, task, slots, merged(scene.tiny, *slots))
    publish(deployment, scene.folder / "record")
    environment = {
        "TRAINLEDGER_HOME": str(scene.folder / "home"),
        "TRAINLEDGER_RPC_URL": scene.chain.rpc_url,
        "TRAINLEDGER_DEPLOYMENT": str(scene.folder / "record"),
        "TRAINLEDGER_STORE": scene.tiny.store.url,
        "TRAINLEDGER_ENGINE": "reference",
    }
    words = ["verify", str(task.number)]
    done = CliRunner().invoke(app, words, env=environment, prog_name="trainledger")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[1].startswith("Slot 1 of round 0 (final, by 0x")
    assert lines[2].startswith("The merge of round 0 (final, by 0x")
    assert "the replay of its inputs gives the same state" in lines[2]
    done = CliRunner().invoke(app, [*words, "--json"], env=environment, prog_name="trainledger")
    said = json.loads(done.stdout)
    assert [(one["slot"], one["merge"], one["verdict"]) for one in said["rounds"]] == [
        (0, False, "agrees"),
        (1, False, "agrees"),
        (2, True, "agrees"),
    ]


def test_verify_wrong_merge_and_wrong_slot_are_told_apart(scene: Scene, task: Task, slots: list[State]) -> None:
    false = spoilt(slots[1])
    finished(scene, task, [slots[0], false], merged(scene.tiny, slots[0], false))
    # The merge is right, given what it took.
    assert [one.verdict for one in scene.verdicts(task)] == ["agrees", "differs", "agrees"]


def test_verify_false_merge_differs(scene: Scene, task: Task, slots: list[State]) -> None:
    true = merged(scene.tiny, *slots)
    finished(scene, task, slots, spoilt(true))
    verdicts = scene.verdicts(task)
    assert [one.verdict for one in verdicts] == ["agrees", "agrees", "differs"]
    assert verdicts[2].replayed == state_root(true.values())


def test_verify_replays_what_a_merge_took_where_the_store_lost_it(scene: Scene, task: Task, slots: list[State]) -> None:
    finished(scene, task, slots, merged(scene.tiny, *slots))
    for state in slots:
        Path(scene.tiny.store._root, state_path(state_root(state.values()))).unlink()
    verdicts = scene.verdicts(task)
    assert [one.verdict for one in verdicts] == ["agrees"] * 3
    assert [one.stored for one in verdicts] == ["missing", "missing", "whole"]


def test_states_that_are_sent_as_differences_are_found(scene: Scene, task: Task, slots: list[State]) -> None:
    tiny, root = scene.tiny, state_root(slots[1].values())
    trained(scene, task, slots)
    base_root = state_root(tiny.initial.values())
    Path(tiny.store._root, state_path(root)).unlink()
    save_difference(tiny.store, slots[1], tiny.initial, tiny.program.layout, base_root=base_root)
    path = Path(tiny.store._root, difference_path(root))
    try:
        scene.submit(task, MERGE, merged(tiny, *slots))
        assert scene.found(task) == [(name, "agrees") for name in NAMES]
        assert [one.stored for one in scene.verdicts(task)] == ["whole"] * 3
        path.write_bytes(path.read_bytes()[:-1])
        assert [(one.verdict, one.stored) for one in scene.verdicts(task)] == [
            ("agrees", "whole"),
            ("agrees", "corrupt"),
            ("agrees", "whole"),
        ]
        save_state(tiny.store, slots[1], tiny.program.layout)  # the whole one is as good
        assert [one.stored for one in scene.verdicts(task)] == ["whole"] * 3
    finally:
        path.unlink()


def test_verify_merge_of_a_false_slot_that_is_gone_is_unchecked(scene: Scene, task: Task, slots: list[State]) -> None:
    false = spoilt(slots[1])
    finished(scene, task, [slots[0], false], merged(scene.tiny, slots[0], false))
    Path(scene.tiny.store._root, state_path(state_root(false.values()))).unlink()
    verdicts = scene.verdicts(task)
    assert [one.verdict for one in verdicts] == ["agrees", "differs", "unchecked"]
    assert verdicts[2].problems[0].startswith("what it merges cannot be had: ")


def test_verify_inputs_that_a_lying_node_names_are_unchecked(scene: Scene, task: Task, slots: list[State]) -> None:
    finished(scene, task, slots, merged(scene.tiny, *slots))
    client, store = scene.client("carol"), scene.tiny.store
    now = client.task(task.number)
    claims = claims_of(client, now)
    base, first, second = claims[2].inputs
    materials = fetch_materials(fetch_description(now, store), store, scene.folder / "cache")
    for lie in ((), (base, second, first), (first, first, second), (base, first)):
        told = [*claims[:2], dataclasses.replace(claims[2], inputs=lie)]
        *_, verdict = TaskVerifier(materials, told, engine=engine()).verify([0])
        assert verdict.verdict == "unchecked"
        assert "no states are known that it takes" in verdict.problems[0]
