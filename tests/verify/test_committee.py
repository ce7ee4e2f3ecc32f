"""Members of a committee on a real chain: they agree, or not, whoever is killed when, and whatever the chain does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from audit_world import FEE, WINDOW, World, drawn
from fake_games import Heard
from round_life import DEADLINE, MERGE, collect, do_slot, round_parameters
from web3 import Web3

from ledger.anvil import LocalChain
from ledger.audits.client import CommitteeClient
from ledger.audits.records import VOTES, Stage, attempt_key
from ledger.compile import Artifact
from ledger.deploy import Deployment
from ledger.errors import BlobMissing, ChainUnreachable, ContractReverted
from ledger.keys import Wallet
from ledger.rpc import rpc
from ledger.types import Task
from trainer.dispute.segments import Segment
from trainer.dispute.truth import SegmentTruth
from trainer.verify.committee import CommitteeMember, Finding, FindingFolder
from trainer.verify.watch import SlotView

pytestmark = pytest.mark.chain


@dataclass
class Run:
    trace_root: bytes


@dataclass
class Truth:
    """A replay that ends in `root`, with traces made up from the number of the run and `word`."""

    root: bytes
    word: str = "true"
    asked: list[int] = field(default_factory=list)

    def state_root(self, run: int) -> bytes:
        return self.root

    def run(self, number: int) -> Run:
        self.asked.append(number)
        return Run(hashlib.sha256(f"{self.word} {number}".encode()).digest())


@dataclass
class Source:
    gives: Truth
    missing: Exception | None = None

    def truth(self, segment: Segment, /) -> SegmentTruth:
        if self.missing is not None:
            raise self.missing
        return cast(SegmentTruth, self.gives)


class Killed(BaseException):
    """The process dies."""


class DyingClient:
    """A client whose process dies just before, or just after, a write."""

    def __init__(self, client: CommitteeClient, method: str, *, after: bool) -> None:
        self._client, self._method, self._after = client, method, after

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if name != self._method:
            return found

        def dying(*arguments: Any) -> None:
            if self._after:
                found(*arguments)
            raise Killed

        return dying


class Scene:
    def __init__(self, world: World, task: Task, root: bytes, folder: Path) -> None:
        self.world, self.task, self.root, self.folder = world, task, root, folder
        self.heard: dict[str, Heard] = {}
        self.now = 0.0

    def member(self, name: str, source: Source | None = None, client: Any = None) -> CommitteeMember:
        self.heard.setdefault(name, Heard())
        return CommitteeMember(
            client or self.world.client(name),
            source or Source(Truth(self.root)),
            owner=self.world.client(name).address,
            findings=FindingFolder(self.folder / name),
            reporter=self.heard[name],
            clock=lambda: self.now,
        )

    @property
    def reader(self) -> CommitteeClient:
        return self.world.client("stranger")

    @property
    def key(self) -> int:
        return attempt_key(self.task.number, 0, 0)

    def views(self) -> list[SlotView]:
        slot = self.reader.slot(self.task.number, 0)
        return [SlotView(task=self.task, slot=slot)]

    def turn(self, member: CommitteeMember) -> bool:
        return member.turn(self.views(), lambda view: Segment.of_slot(view.task, view.slot, bytes(32)))

    def run(self, *members: CommitteeMember, turns: int = 40) -> None:
        """Lets members act in turn, a block each round, until none has anything to do for some blocks."""
        idle = 0
        while idle < 5:
            turns -= 1
            assert turns, "the members never come to rest"
            acted = [self.turn(member) for member in members]
            idle = 0 if any(acted) else idle + 1
            rpc(self.world.web3, "anvil_mine", "0x1")

    def pass_to(self, moment: int) -> None:
        self.world.chain.advance(max(1, moment - self.reader.chain_time() + 1))
        self.now += 1000.0

    def drawn(self) -> None:
        """Has the audit asked for and drawn, so that both auditors have votes."""
        drawn(self.world, self.task, self.root)

    def events(self, name: str) -> list[str]:
        return self.heard[name].events


@pytest.fixture(scope="module")
def made(
    chain: LocalChain, web3: Web3, deployment: Deployment, artifacts: dict[str, Artifact], deployer: Wallet
) -> Iterator[tuple[World, Task, bytes]]:
    before = rpc(web3, "evm_snapshot")
    world = World(web3, deployment, artifacts, chain, crowd="committee")
    yield world, *world.people(deployer)
    rpc(web3, "evm_revert", before)


@pytest.fixture
def scene(made: tuple[World, Task, bytes], rolled_back: None, tmp_path: Path) -> Scene:
    return Scene(*made, tmp_path)


def test_two_members_agree_are_paid_and_the_window_ends_early(scene: Scene) -> None:
    anna, boris = scene.member("anna"), scene.member("boris")
    end = scene.reader.slot(scene.task.number, 0).deadline
    scene.drawn()
    scene.run(anna, boris)
    audit = scene.reader.audit(scene.key)
    assert any(audit.agreed)
    floor = scene.reader.window_floor(scene.task.number)
    assert scene.reader.slot(scene.task.number, 0).deadline == end - WINDOW + floor
    assert anna.fees + boris.fees == VOTES * FEE
    for name, member in (("anna", anna), ("boris", boris)):
        client = scene.world.client(name)
        assert client.stake_account(client.address).credit == member.fees
        assert scene.events(name)[-4:] == ["audit-drawn", "audit-committed", "audit-revealed", "audit-paid"]
        assert not member.waits
    scene.pass_to(audit.reveal_end)
    scene.run(anna, boris)
    assert scene.reader.audit(scene.key).closed
    assert list(scene.folder.rglob("*.json")) == []


def test_member_asks_for_audits_of_each_slot_and_of_the_merge(scene: Scene) -> None:
    requester, worker = scene.world.client("requester"), scene.world.client("worker")
    fields = round_parameters(challenge_window=WINDOW)
    task = requester.task(requester.post_task(fields, "file:///store"))
    requester.fund_audits(task.number, FEE, 2 * VOTES * FEE)
    do_slot(worker, task, 1, seed=2)
    scene.world.chain.advance(DEADLINE // 2)
    do_slot(worker, task, 0, seed=1)
    collect(worker, task)
    do_slot(worker, task, MERGE, seed=3)
    member = scene.member("anna")
    views = [SlotView(task=task, slot=scene.reader.slot(task.number, 0, slot)) for slot in (0, MERGE)]
    for _ in views:
        assert member.turn(views, lambda view: Segment.of_slot(view.task, view.slot, bytes(32)))
    said = [one for one in scene.heard["anna"].said if one["event"] == "audit-asked"]
    assert [(one["slot"], one["text"]) for one in said] == [
        (0, f"Slot 0 of round 0 of task {task.number}: its audit was asked for."),
        (MERGE, f"The merge of round 0 of task {task.number}: its audit was asked for."),
    ]
    for slot, asked in ((0, True), (1, False), (MERGE, True)):
        audit = scene.reader.audit(attempt_key(task.number, 0, 0, slot))
        stage = audit.stage(now=scene.reader.chain_time(), block=scene.reader.block_number())
        assert (stage is Stage.ASKED) == asked


def test_only_the_drawn_run_is_traced(scene: Scene) -> None:
    source = Source(Truth(scene.root))
    scene.drawn()
    scene.run(scene.member("anna", source), scene.member("boris"))
    assert source.gives.asked == [scene.reader.audit(scene.key).drawn_run]


def test_no_member_without_seats_asks_and_none_without_a_budget(scene: Scene) -> None:
    stranger = scene.member("stranger")
    scene.run(stranger)
    assert scene.reader.audit(scene.key).requested_at == 0
    requester = scene.world.client("requester")
    requester.close_task(scene.task.number)
    requester.refund_audits(scene.task.number)
    scene.run(scene.member("anna"))
    assert scene.reader.audit(scene.key).requested_at == 0
    assert scene.events("anna") == []


def test_different_findings_are_no_agreement(scene: Scene) -> None:
    end = scene.reader.slot(scene.task.number, 0).deadline
    anna, boris = scene.member("anna"), scene.member("boris", Source(Truth(scene.root, word="false")))
    scene.run(anna, boris)
    votes = scene.reader.votes_of(scene.key, scene.world.client("anna").address)
    shortened = scene.reader.slot(scene.task.number, 0).deadline < end
    assert shortened == (votes >= 6 or votes <= 3)  # nobody tells which of two findings is true: six votes count
    assert bool(anna.fees) != bool(boris.fees) or (anna.fees, boris.fees) == (0, 0)


def test_no_show_is_evicted_by_the_one_who_came(scene: Scene) -> None:
    anna, boris = scene.member("anna"), scene.world.client("boris")
    scene.drawn()
    for _ in range(6):
        scene.turn(anna)
        rpc(scene.world.web3, "anvil_mine", "0x1")
    audit = scene.reader.audit(scene.key)
    his = {
        index
        for index, owner, _ in (scene.reader.drawn_seat(scene.key, vote) for vote in range(VOTES))
        if owner == boris.address
    }
    scene.pass_to(audit.commit_end)
    assert anna.waits
    scene.run(anna)
    scene.pass_to(audit.reveal_end)
    scene.run(anna)
    assert boris.seats_of(boris.address) == 6 - len(his)
    assert scene.reader.audit(scene.key).closed
    assert not anna.waits


@pytest.mark.parametrize("after", [pytest.param(False, marks=pytest.mark.full), True])
@pytest.mark.parametrize("method", ["request_audit", "draw_audit", "commit_finding", "reveal_finding", "collect_fee"])
def test_killed_member_goes_on(scene: Scene, method: str, after: bool) -> None:
    boris = scene.member("boris")
    dying = scene.member("anna", client=DyingClient(scene.world.client("anna"), method, after=after))
    if method not in ("request_audit", "draw_audit"):
        scene.drawn()
    alone = method in ("request_audit", "draw_audit", "commit_finding")
    with pytest.raises(Killed):
        scene.run(*([dying] if alone else [dying, boris]))
    reborn = scene.member("anna")
    scene.run(reborn, boris)
    anna = scene.world.client("anna")
    votes = scene.reader.votes_of(scene.key, anna.address)
    assert scene.reader.ballot(scene.key, anna.address).paid == (votes > 0)
    assert anna.stake_account(anna.address).credit == votes * FEE
    assert not reborn.waits


def test_seed_of_another_branch_makes_a_finding_worthless(scene: Scene) -> None:
    anna, boris = scene.member("anna"), scene.member("boris")
    anna.turn(scene.views(), lambda view: Segment.of_slot(view.task, view.slot, bytes(32)))  # asks
    branch = rpc(scene.world.web3, "evm_snapshot")
    for _ in range(5):
        rpc(scene.world.web3, "anvil_mine", "0x1")
        scene.turn(anna)
    first = scene.reader.audit(scene.key).seed
    assert any(first)
    rpc(scene.world.web3, "evm_revert", branch)
    rpc(scene.world.web3, "anvil_mine", "0x2", "0x3")  # other times make other hashes
    fresh = [scene.member("anna"), boris]  # the clients of before count on blocks that are gone
    scene.run(*fresh)
    audit = scene.reader.audit(scene.key)
    assert audit.seed != first
    assert any(audit.agreed)
    assert fresh[0].fees + boris.fees == VOTES * FEE


def test_missing_data_are_said_and_tried_again(scene: Scene) -> None:
    source = Source(Truth(scene.root), missing=BlobMissing("the base", "file:///store"))
    anna, boris = scene.member("anna", source), scene.member("boris")
    scene.drawn()
    scene.run(anna, boris)
    assert scene.events("anna") == ["audit-drawn", "audit-hindered"]
    source.missing, scene.now = None, scene.now + 100.0
    scene.run(anna, boris)
    assert anna.fees + boris.fees == VOTES * FEE


def test_outage_comes_through(scene: Scene) -> None:
    class Silent:
        def __init__(self, client: CommitteeClient) -> None:
            self._client = client

        def __getattr__(self, name: str) -> Any:
            return getattr(self._client, name)

        def audit(self, key: int) -> None:
            raise ChainUnreachable("nowhere", "no answer")

    with pytest.raises(ChainUnreachable):
        scene.turn(scene.member("anna", client=Silent(scene.world.client("anna"))))


def test_salt_lost_with_the_disk_is_a_no_show_and_nothing_worse(scene: Scene) -> None:
    anna, boris = scene.member("anna"), scene.member("boris")
    scene.drawn()
    while not scene.reader.ballot(scene.key, scene.world.client("anna").address).committed:
        scene.turn(anna)
        rpc(scene.world.web3, "anvil_mine", "0x1")
    (path,) = (scene.folder / "anna").glob("*.json")
    path.write_text("{")
    reborn = scene.member("anna")
    scene.run(reborn, boris)
    assert reborn.fees == 0
    assert not reborn.waits


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.pop("salt"),
        lambda document: document.update(seed="00"),
        lambda document: document.update(key="7"),
        lambda document: document.update(trace_root=5),
    ],
)
def test_damaged_findings_are_none(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    folder = FindingFolder(tmp_path)
    good = Finding(2**100 + 7, b"\1" * 32, b"\2" * 32, b"\3" * 32, b"\4" * 32)
    folder.keep(good)
    assert folder.all() == [good]
    (path,) = tmp_path.glob("*.json")
    assert path.stat().st_mode & 0o077 == 0  # its salt is a secret until it is revealed
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    assert folder.all() == []
    folder.forget(good.key)
    folder.forget(good.key)
    assert list(tmp_path.iterdir()) == []


def test_refused_commit_is_not_repeated_at_once(scene: Scene) -> None:
    class Refusing(DyingClient):
        count = 0

        def commit_finding(self, *arguments: Any) -> None:
            Refusing.count += 1
            raise ContractReverted("AuditCommittee", "commit", "WrongSeed", {})

    scene.drawn()
    anna = scene.member("anna", client=Refusing(scene.world.client("anna"), "nothing", after=False))
    scene.run(anna)
    assert Refusing.count == 1
