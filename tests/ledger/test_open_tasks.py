"""Open tasks on a real node, through the client: whole rounds, what is paid, and what nobody can fetch."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest
from open_world import (
    BASE,
    BOND,
    FEE,
    FLOOR,
    SALT,
    SCORE,
    SLOT,
    SLOTS,
    TENSORS,
    OpenWorld,
    held_out,
    parameters,
    trained_root,
)
from states import make_state
from web3 import Web3

from ledger.anvil import LocalChain
from ledger.compile import Artifact
from ledger.deploy import Deployment
from ledger.disputes.moves import Opening
from ledger.errors import ContractReverted, InsufficientFunds
from ledger.events import fetch_events
from ledger.keys import Wallet
from ledger.open.records import (
    AGREEMENT,
    InquiryStage,
    OpenPhase,
    Question,
    Stage,
    finding_commitment_of,
    slot_key,
    split_slot_key,
)
from ledger.performance import float_bits, open_pay
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
    with pytest.raises(ContractReverted, match=r"BaselineNotFinal.*the round's base be scored"):
        world.finalise(task, 0)
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
    assert client.finalise(task, 0, 1, 0, states["boris"].root) is None  # once is enough


def test_what_is_done_already_is_not_sent_again(world: OpenWorld) -> None:
    task = world.post(slots_per_round=1)
    anna, requester, data = world.client("anna"), world.client("requester"), held_out(0)
    slot = world.commit("anna", task, trained_root("anna"))
    assert world.commit("anna", task, trained_root("anna")) == slot == anna.slot_of(task, 0, anna.address) == 0
    with pytest.raises(ContractReverted, match=r"CommitsOver.*wait for the next round"):
        world.commit("anna", task, trained_root("another"))
    assert anna.reveal(task, 0, slot, trained_root("anna"), SALT) is not None
    assert anna.reveal(task, 0, slot, trained_root("anna"), SALT) is None
    assert requester.reveal_held_out(task, 0, data.tokens) is not None
    assert requester.reveal_held_out(task, 0, data.tokens) is None
    state = world.score("anna", task, slot, 3.0)
    again = (anna.address, trained_root("anna"), state.root, float_bits(3.0), state.loss_proof)
    assert anna.score(task, 0, slot, 0, *again) is None
    with pytest.raises(ContractReverted, match="WrongStage"):
        anna.score(task, 0, slot, 0, anna.address, trained_root("anna"), BASE, float_bits(3.0), state.loss_proof)


def test_copies_and_the_base_are_unpaid_and_an_unopened_commit_costs_the_fee(world: OpenWorld) -> None:
    task = world.post(slots_per_round=4)
    client = world.client("stranger")
    for name, state in (("anna", "anna"), ("boris", "anna")):
        world.commit(name, task, trained_root(state))
    world.commit("clara", task, BASE)
    world.commit("stranger", task, trained_root("never opened"))
    with pytest.raises(ContractReverted, match=r"TooEarly.*what the round waits for"):
        client.forfeit(task, 0, 3)
    # The copy is opened first; the earlier commit wins all the same.
    for name, slot, root in (("boris", 1, trained_root("anna")), ("anna", 0, trained_root("anna")), ("clara", 2, BASE)):
        world.client(name).reveal(task, 0, slot, root, SALT)
    with pytest.raises(ContractReverted, match=r"WrongCommitment.*very state and salt"):
        client.reveal(task, 0, 3, BASE, SALT)
    assert [client.slot(task, 0, slot).stage for slot in range(4)] == [
        Stage.REVEALED, Stage.COPY, Stage.COPY, Stage.COMMITTED,
    ]  # fmt: skip
    assert client.round(task, 0).revealed == 1
    world.pass_time(client.round(task, 0).reveal_end)
    staked = client.stake_account(client.address).staked
    assert client.forfeit(task, 0, 3) is not None
    assert client.forfeit(task, 0, 3) is None
    assert client.stake_account(client.address).staked == staked - FEE
    locked = {name: world.client(name).stake_account(world.client(name).address).locked for name in ("boris", "clara")}
    assert locked == {"boris": 0, "clara": 0}


def test_requester_who_shows_nothing_pays_in_full(world: OpenWorld) -> None:
    task = world.post(rounds=2, slots_per_round=2)
    client = world.client("stranger")
    world.handed_in(("anna", "boris"), task)
    with pytest.raises(ContractReverted, match="TooEarly"):
        client.settle_default(task, 0, 0, trained_root("anna"))
    state = client.round(task, 0)
    assert not state.defaulted(2, state.held_out_end)
    world.pass_time(state.held_out_end)
    assert state.defaulted(2, client.chain_time())
    data = held_out(0)
    with pytest.raises(ContractReverted, match=r"TooLate.*That period of the round is over"):
        world.client("requester").reveal_held_out(task, 0, data.tokens)
    for slot, name in enumerate(("anna", "boris")):
        assert client.settle_default(task, 0, slot, trained_root(name)) is not None
        assert client.settle_default(task, 0, slot, trained_root(name)) is None
        assert client.stake_account(world.client(name).address).credit == SLOT
    assert (client.task(task).phase, client.task(task).closed, client.escrow(task)) == (OpenPhase.CLOSED, True, 0)
    requester = world.client("requester")
    assert requester.stake_account(requester.address).credit == 2 * (2 * SLOT + SCORE) - 2 * SLOT


def test_round_without_states_is_skipped_and_a_closed_task_refunds(world: OpenWorld) -> None:
    task = world.post(rounds=3, slots_per_round=1)
    client, requester = world.client("stranger"), world.client("requester")
    world.commit("anna", task, BASE)
    world.client("anna").reveal(task, 0, 0, BASE, SALT)
    assert client.skip(task, 0) is not None
    assert client.skip(task, 0) is None
    assert (client.base_root(task, 1), client.task(task).current_round) == (BASE, 1)
    world.handed_in(("anna",), task, 1)
    with pytest.raises(ContractReverted, match=r"RoundHasStates\(revealed=1\).*to score or to pay"):
        client.skip(task, 1)
    with pytest.raises(ContractReverted, match=r"OnlyRequester.*Act as the requester"):
        client.close_task(task)
    requester.close_task(task)
    assert client.escrow(task) == SLOT + SCORE  # the round that runs keeps its rewards
    world.show(task, 1)
    state = client.round(task, 1)
    world.pass_time(client.slot(task, 1, 0).expires(client.task(task).parameters, state))
    for slot in (0, 1):
        assert client.expire(task, 1, slot, 0) is not None
        assert client.expire(task, 1, slot, 0) is None
    assert (client.task(task).current_round, client.escrow(task)) == (2, 0)
    with pytest.raises(ContractReverted, match="TaskIsClosed"):
        world.commit("boris", task, trained_root("boris"), 2)


def test_wrong_score_falls_and_its_bond_is_awarded(world: OpenWorld) -> None:
    task = world.post(slots_per_round=1)
    world.handed_in(("anna",), task)
    world.show(task)
    wrong, right = world.score("anna", task, 0, 1.0), make_state(float_bits(3.5), TENSORS, seed=9)
    boris, client = world.disputes("boris"), world.client("boris")
    assert (boris.game_count(), boris.games()) == (0, [])
    opening = Opening(boris.address, task, 0, 0, 0, wrong.root)
    with pytest.raises(ContractReverted, match="WrongState"):
        boris.open(Opening(boris.address, task, 0, 0, 0, right.root), [wrong.root])
    game = boris.open(opening, [right.root])
    assert boris.open(opening, [right.root]) == game == 1
    matter = boris.view(game).position.matter
    assert (matter.steps, matter.base, matter.dataset) == (0, trained_root("anna"), client.held_out_root(task, 0))
    assert (boris.slot(task, 0).state_root, boris.slot(task, 0).open_games) == (wrong.root, 1)
    world.pass_time(boris.view(game).deadline)
    boris.settle_late(game)
    assert boris.view(game).winner == boris.address
    names, first = {"SubmissionFell", "GameEnded"}, boris.view(game).moved_block
    told = [
        list(fetch_events(world.web3, world.deployment, from_block=first, names=names, open_tasks=of_open))
        for of_open in (False, True)
    ]
    assert [[event.name for event in events] for events in told] == [[], ["GameEnded", "SubmissionFell"]]
    fallen = client.slot(task, 0, 0)
    assert (fallen.stage, fallen.worker, fallen.attempt, fallen.bonded) == (Stage.REVEALED, boris.address, 1, False)
    with pytest.raises(ContractReverted, match=r"NotYourScore.*Only its worker"):
        world.score("clara", task, 0, 3.5)
    with pytest.raises(ContractReverted, match="WrongStage"):
        client.award_fall(task, 0, 0, 0)
    loss = float_bits(3.5)
    client.score(task, 0, 0, 1, client.address, trained_root("anna"), right.root, loss, right.loss_proof)
    world.score("stranger", task, 1, 4.0)
    world.pass_time(client.slot(task, 0, 1).deadline)
    for slot in (1, 0):
        world.finalise(task, slot)
    expected = open_pay(client.task(task).parameters, float_bits(4.0), loss)
    assert client.stake_account(client.address).credit == expected
    anna = world.client("anna")
    staked = anna.stake_account(anna.address).staked
    assert client.award_fall(task, 0, 0, 0) is not None
    assert client.award_fall(task, 0, 0, 0) is None
    assert anna.stake_account(anna.address).staked == staked - BOND
    assert client.stake_account(client.address).credit == expected + BOND // 2
    with pytest.raises(ContractReverted, match=r"NothingToAward.*open show"):
        client.award_fall(task, 0, 0, 1)


@pytest.fixture
def asked(world: OpenWorld) -> tuple[OpenWorld, int]:
    """A round of one scored state, which the stranger says cannot be fetched, and auditors with ten seats."""
    world.enrol()
    task = world.post(slots_per_round=1)
    world.handed_in(("anna",), task)
    world.show(task)
    world.score("anna", task, 0, 3.0)
    client = world.client("stranger")
    assert client.inquiry(task, 0, 0).stage(client.chain_time()) is InquiryStage.NONE
    assert client.unavailable(task, 0, 0, trained_root("anna"), client.address) is not None
    assert client.unavailable(task, 0, 0, trained_root("anna"), client.address) is None
    assert client.slot(task, 0, 0).question is Question.OPEN
    assert client.stake_account(client.address).locked == BOND
    return world, task


def drawn(world: OpenWorld, task: int) -> None:
    client = world.client("stranger")
    rpc(world.web3, "anvil_mine", hex(3))
    assert client.inquiry(task, 0, 0).stage(client.chain_time()) is InquiryStage.ASKED
    assert client.draw(task, 0, 0) is not None
    assert client.draw(task, 0, 0) is None


def test_requester_acknowledges_that_a_state_is_there(asked: tuple[OpenWorld, int]) -> None:
    world, task = asked
    client, requester = world.client("stranger"), world.client("requester")
    world.pass_time(client.slot(task, 0, 0).deadline)
    with pytest.raises(ContractReverted, match=r"Questioned\(question=1\).*wait for the answer"):
        world.finalise(task, 0)
    with pytest.raises(ContractReverted, match=r"OnlyRequesterAcknowledges.*requester with --account"):
        client.acknowledge(task, 0, 0)
    staked = client.stake_account(client.address).staked
    assert requester.acknowledge(task, 0, 0) is not None
    assert requester.acknowledge(task, 0, 0) is None
    mine = client.stake_account(client.address)
    assert (mine.staked, mine.locked) == (staked - FEE, 0)
    slot, now = client.slot(task, 0, 0), client.chain_time()
    assert (slot.question, slot.deadline >= now + 500) == (Question.CLEARED, True)
    assert client.inquiry(task, 0, 0).stage(now) is InquiryStage.DECIDED


def test_auditors_who_have_a_state_share_the_deposit(asked: tuple[OpenWorld, int]) -> None:
    world, task = asked
    drawn(world, task)
    client = world.client("stranger")
    inquiry = client.inquiry(task, 0, 0)
    assert (inquiry.asker, inquiry.bond, inquiry.trained_root) == (client.address, BOND, trained_root("anna"))
    votes = {}
    for name in ("boris", "clara"):
        auditor = world.client(name)
        votes[name] = auditor.votes_of(task, 0, 0, auditor.address)
        if votes[name] == 0:
            continue
        commitment = finding_commitment_of(inquiry.key, inquiry.seed, auditor.address, b"\x09" * 32, SALT)
        finding = (inquiry.seed, auditor.address, commitment)
        assert auditor.commit_finding(task, 0, 0, *finding) is not None
        assert auditor.commit_finding(task, 0, 0, *finding) is None
        with pytest.raises(ContractReverted, match="AlreadyCommitted"):
            auditor.commit_finding(task, 0, 0, inquiry.seed, auditor.address, b"\x07" * 32)
    assert sum(votes.values()) == 9
    assert client.inquiry(task, 0, 0).stage(client.chain_time()) is InquiryStage.REVEALING
    for name in (name for name, count in votes.items() if count):
        auditor = world.client(name)
        assert auditor.reveal_finding(task, 0, 0, auditor.address, b"\x09" * 32, SALT) is not None
        assert auditor.reveal_finding(task, 0, 0, auditor.address, b"\x09" * 32, SALT) is None
    for name in votes:
        auditor = world.client(name)
        assert auditor.collect_share(task, 0, 0, auditor.address) == BOND // 9 * votes[name] // 2
        assert auditor.collect_share(task, 0, 0, auditor.address) == 0
    assert client.inquiry(task, 0, 0).agreed == b"\x09" * 32
    world.pass_time(inquiry.reveal_end)
    assert client.close_inquiry(task, 0, 0) is not None
    assert client.close_inquiry(task, 0, 0) is None
    assert client.stake_account(client.address).locked == 0
    assert client.slot(task, 0, 0).question is Question.CLEARED


def test_state_that_too_few_have_is_missing(asked: tuple[OpenWorld, int]) -> None:
    world, task = asked
    client, anna = world.client("stranger"), world.client("anna")
    with pytest.raises(ContractReverted, match=r"NotDrawn.*Draw the auditors first"):
        client.close_inquiry(task, 0, 0)
    drawn(world, task)
    with pytest.raises(ContractReverted, match=r"InquiryStillRuns.*time to reveal is over"):
        client.close_inquiry(task, 0, 0)
    inquiry = client.inquiry(task, 0, 0)
    assert inquiry.stage(inquiry.commit_end) is InquiryStage.COMMITTING
    assert inquiry.stage(inquiry.reveal_end) is InquiryStage.REVEALING
    world.pass_time(inquiry.reveal_end)
    assert inquiry.stage(client.chain_time()) is InquiryStage.OVER
    staked = anna.stake_account(anna.address).staked
    assert client.close_inquiry(task, 0, 0) is not None
    mine, hers = client.stake_account(client.address), anna.stake_account(anna.address)
    assert (mine.locked, hers.locked, hers.staked) == (0, 0, staked - FEE)
    assert client.slot(task, 0, 0).stage is Stage.MISSING
    with pytest.raises(ContractReverted, match="AlreadyDecided"):
        world.client("requester").acknowledge(task, 0, 0)


def test_question_needs_nine_seats(world: OpenWorld) -> None:
    task, client = world.post(slots_per_round=1), world.client("stranger")
    with pytest.raises(ContractReverted, match=r"TooFewSeats\(seats=\d, needed=9\).*nine seats"):
        client.unavailable(task, 0, 0, trained_root("anna"), client.address)
    with pytest.raises(ContractReverted, match=r"UnknownInquiry.*open question"):
        client.draw(task, 0, 0)


def test_post_refusals_name_what_is_wrong(world: OpenWorld) -> None:
    requester, roots = world.client("requester"), [held_out(0).root]
    with pytest.raises(InsufficientFunds):
        requester.post_task(parameters(slot_reward=10**24), roots, "")
    with pytest.raises(ContractReverted, match=r"InvalidParameter\(field=floorReward, value=11 tokens\)"):
        requester.post_task(parameters(floor_reward=11 * 10**18), roots, "")
    with pytest.raises(ContractReverted, match=r"InvalidParameter\(field=rounds, value=0\)"):
        requester.post_task(parameters(), [], "")
    with pytest.raises(ContractReverted, match=r"Open task 99 does not exist; there is none yet\..*open list"):
        requester.task(99)
    number = requester.post_task(parameters(), roots, "file:///here")
    assert requester.task(number).parameters == parameters()
    assert (requester.store_url(number), requester.held_out_root(number, 0)) == ("file:///here", roots[0])
    assert requester.find_task(b"\1" * 32, requester.address) == number
    assert requester.find_task(b"\2" * 32, requester.address) is None


def test_commitments_and_pay_are_the_contracts(world: OpenWorld) -> None:
    client, source = world.client("anna"), random.Random(1)
    told: Callable[..., object] = client._ledger.functions["commitmentOf"]
    fields = (7, 3, client.address, b"\x05" * 32, SALT)
    assert client._read(told(*fields)) == client.commitment(*fields)  # type: ignore[arg-type]  # a web3 call
    told = client._availability.functions["commitmentOf"]
    finding = (slot_key(7, 3, 2), b"\x06" * 32, client.address, b"\x05" * 32, SALT)
    assert client._read(told(*finding)) == finding_commitment_of(*finding)  # type: ignore[arg-type]  # a web3 call
    assert split_slot_key(slot_key(7, 3, 2)) == (7, 3, 2)
    asked = client._availability.functions
    assert (asked.VOTES().call(), asked.AGREEMENT().call()) == (9, AGREEMENT)
    for _ in range(40):
        reward = source.randrange(1, 2 ** source.choice([8, 64, 96]))
        full = float_bits(source.uniform(0.001, 3) * 10 ** source.randint(-9, 9))
        terms = parameters(slot_reward=reward, floor_reward=source.randint(0, reward), full_gain=full)
        base = source.choice([source.getrandbits(32), float_bits(source.uniform(0, 12))])
        loss = source.choice([source.getrandbits(32), float_bits(source.uniform(0, 12)), base])
        contracts = asked.payOf(terms.slot_reward, terms.floor_reward, full, base, loss).call()
        assert contracts == open_pay(terms, base, loss), (terms, hex(base), hex(loss))
