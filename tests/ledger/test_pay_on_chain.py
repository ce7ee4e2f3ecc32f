"""Pay and tickets: what Python reckons is what the deployed contract answers, for terms that nobody chose."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from life import BOND, ETHER, parameters

from ledger.amounts import UINT96_MAX
from ledger.client import LedgerClient
from ledger.errors import ContractReverted
from ledger.performance import bits_float, fixed_point, float_bits, pay_for
from ledger.ticket import Ticket, find_ticket, ticket_digest
from ledger.types import TaskParameters

WORDS: dict[str, Any] = {
    "chain_id": 5, "ledger": "0x" + "11" * 20, "task": 2**64 - 1, "round_number": 7, "slot": 0, "attempt": 2**32 - 1,
    "worker": "0x" + "22" * 20, "base_root": b"\3" * 32, "block_hash": b"\4" * 32,
}  # fmt: skip


def random_terms(source: random.Random) -> TaskParameters:
    """Any terms that a task may have, small and huge ones; every third without a target."""
    steps = source.choice([1, 3, 1000, 2**32 - 1])
    base, target = sorted((source.uniform(-1, 12) * 10 ** source.randint(-20, 20) for _ in range(2)), reverse=True)
    reward, rounds = source.randint(1, 10 ** source.randint(1, 17)), source.choice([1, 2, 3, 97])
    fields: dict[str, Any] = {"rounds": rounds, "slot_reward": reward, "steps_per_round": steps, "minimum_steps": 1}
    if source.random() < 1 / 3 or fixed_point(float_bits(base)) == fixed_point(float_bits(target)):
        return parameters(**fields, has_target=False, base_loss=0, target_loss=0)
    return parameters(**fields, base_loss=float_bits(base), target_loss=float_bits(target))


@pytest.mark.chain
@pytest.mark.parametrize("seed", range(6))
def test_pay_for_equals_the_contracts_for_random_terms(requester: LedgerClient, seed: int) -> None:
    source = random.Random(seed)
    terms = random_terms(source)
    number = requester.post_task(terms, "")
    paid = set()
    for _ in range(12):
        near = bits_float(terms.base_loss) * source.uniform(-1, 1.1)
        loss = source.choice([source.getrandbits(32), float_bits(near), terms.base_loss, terms.target_loss])
        place = {"round_number": source.randrange(terms.rounds), "steps": source.randint(0, terms.steps_per_round)}
        expected = pay_for(terms, **place, loss_bits=loss)
        actual = requester.pay_for(number, place["round_number"], steps=place["steps"], loss_bits=loss)
        assert actual == expected <= terms.slot_reward, (terms, place, hex(loss))
        paid.add(actual)
    assert len(paid) > 1 or terms.slot_reward < 10


@pytest.mark.chain
def test_pay_for_outside_the_task_is_refused_with_its_bounds(requester: LedgerClient) -> None:
    number = requester.post_task(parameters(), "")
    for place, error, arguments in (
        ({"round_number": 2, "steps": 1}, "WrongRound", {"round": 2, "current": 0}),
        ({"round_number": 0, "steps": 11}, "WrongSteps", {"steps": 11, "minimumSteps": 5, "stepsPerRound": 10}),
    ):
        with pytest.raises(ContractReverted) as caught:
            requester.pay_for(number, place["round_number"], steps=place["steps"], loss_bits=0)
        assert (caught.value.error, caught.value.arguments) == (error, arguments)


@pytest.mark.chain
@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"state_tensors": 1}, "stateTensors", 1),
        ({"state_tensors": 2**20 + 1}, "stateTensors", 2**20 + 1),
        ({"rounds": 0}, "rounds", 0),
        ({"minimum_steps": 11}, "minimumSteps", 11),
        ({"slot_reward": 0}, "slotReward", 0),
        ({"lease_fee": BOND + 1}, "leaseFee", BOND + 1),
        ({"lease_seconds": 601}, "challengeWindow", 600),
        ({"minimum_stake": 1}, "minimumStake", 1),
        ({"ticket_target": 1}, "ticketTarget", 1),
        ({"base_loss": float_bits(float("inf"))}, "baseLoss", 0x7F800000),
        ({"target_loss": float_bits(4.0)}, "targetLoss", float_bits(4.0)),
        ({"has_target": False}, "baseLoss", float_bits(4.0)),
    ],
)
def test_post_task_each_bad_field_is_named(
    requester: LedgerClient, changes: dict[str, Any], field: str, value: int
) -> None:
    before = requester.token_balance(requester.address)
    with pytest.raises(ContractReverted) as caught:
        requester.post_task(dataclasses.replace(parameters(), **changes), "")
    assert (caught.value.error, caught.value.arguments) == ("InvalidParameter", {"field": field, "value": value})
    assert requester.token_balance(requester.address) == before == 1000 * ETHER


@given(bits=st.integers(0, 40), task=st.integers(0, 2**64 - 1), root=st.binary(min_size=32, max_size=32))
@settings(max_examples=25, deadline=None)
def test_find_ticket_is_below_any_target_it_finds(bits: int, task: int, root: bytes) -> None:
    words = WORDS | {"task": task, "base_root": root}
    found = find_ticket(**words, block=9, target=2 ** (256 - bits), seconds=0.0)
    if found is None:
        assert bits > 6  # 2,000 tries miss one in 64 once in 10^13
        return
    assert found.block == 9
    assert ticket_digest(**words, nonce=found.nonce) < 2 ** (256 - bits)


@given(nonce=st.integers(0, 2**256 - 2), name=st.sampled_from(sorted(WORDS)))
@settings(max_examples=40, deadline=None)
def test_ticket_digest_changes_with_every_word(nonce: int, name: str) -> None:
    value = WORDS[name]
    other = b"\x05" * 32 if isinstance(value, bytes) else "0x" + "33" * 20 if isinstance(value, str) else value ^ 1
    digest = ticket_digest(**WORDS, nonce=nonce)
    assert 0 <= digest < 2**256
    assert ticket_digest(**(WORDS | {name: other}), nonce=nonce) != digest
    assert ticket_digest(**WORDS, nonce=nonce + 1) != digest


def test_find_ticket_impossible_target_is_none_and_certain_one_is_first() -> None:
    assert find_ticket(**WORDS, block=1, target=0, seconds=0.0) is None
    found = find_ticket(**WORDS, block=1, target=2**256, seconds=0.0)
    assert isinstance(found, Ticket)
    assert 0 <= found.nonce < 2**256


def test_pay_for_largest_reward_never_exceeds_it() -> None:
    terms = parameters(slot_reward=UINT96_MAX, steps_per_round=2**32 - 1, rounds=2**32 - 1)
    full = {"round_number": 2**32 - 2, "steps": 2**32 - 1}
    assert pay_for(terms, **full, loss_bits=terms.target_loss) == UINT96_MAX
    assert pay_for(terms, **full, loss_bits=terms.target_loss + 1) < UINT96_MAX
    assert pay_for(terms, **full, loss_bits=0xFF7FFFFF) == UINT96_MAX
    assert pay_for(terms, **full, loss_bits=terms.base_loss) == 0
