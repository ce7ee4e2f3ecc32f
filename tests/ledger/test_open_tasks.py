"""Open tasks on a real node, through the client: whole rounds, what is paid, and what nobody can fetch."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from open_world import FLOOR, SCORE, SLOT, SLOTS, OpenWorld, held_out
from web3 import Web3

from ledger.anvil import LocalChain
from ledger.compile import Artifact
from ledger.deploy import Deployment
from ledger.keys import Wallet
from ledger.open.records import OpenPhase, Stage
from ledger.rpc import rpc

pytestmark = [pytest.mark.chain, pytest.mark.usefixtures("solvent")]


@pytest.fixture(scope="module")
def made(
    chain: LocalChain, web3: Web3, deployment: Deployment, artifacts: dict[str, Artifact], deployer: Wallet
) -> Iterator[OpenWorld]:
    """Undone afterwards: seats that stay would be drawn elsewhere."""
    before = rpc(web3, "evm_snapshot")
    world = OpenWorld(web3, deployment, artifacts, chain)
    world.people(deployer)
    yield world
    rpc(web3, "evm_revert", before)


@pytest.fixture
def world(made: OpenWorld, rolled_back: None) -> OpenWorld:
    """As new for each test."""
    return made


def test_improvement_is_paid_and_the_best_state_goes_on(world: OpenWorld) -> None:
    task = world.post(rounds=2)
    client = world.client("stranger")
    assert client.escrow(task) == client.task(task).parameters.total_reward(2) == 2 * (SLOTS * SLOT + SCORE)
    world.handed_in(("anna", "boris", "clara"), task)
    assert client.held_out_tokens(task, 0) is None
    world.show(task)
    assert client.held_out_tokens(task, 0) == held_out(0).tokens
    losses = {"anna": 3.0, "boris": 1.0, "clara": 5.0}
    states = {name: world.score(name, task, slot, loss) for slot, (name, loss) in enumerate(losses.items())}
    world.score("stranger", task, SLOTS, 4.0)
    world.pass_time(client.slot(task, 0, SLOTS).deadline)
    for slot in (SLOTS, 0, 1, 2):
        world.finalise(task, slot)
    paid = {name: world.client(name).stake_account(world.client(name).address).credit for name in losses}
    assert paid == {"anna": FLOOR + (SLOT - FLOOR) // 2, "boris": SLOT, "clara": FLOOR}
    assert client.stake_account(client.address).credit == SCORE
    assert all(world.client(name).stake_account(world.client(name).address).locked == 0 for name in losses)
    now = client.task(task)
    assert (now.current_round, now.phase, now.complete) == (1, OpenPhase.RUNNING, False)
    assert client.base_root(task, 1) == states["boris"].root
    assert (client.round(task, 0).best, client.slot(task, 0, 1).stage) == (1, Stage.FINALISED)
