"""The simulation's gas of a round against a real chain's."""

from __future__ import annotations

import pytest
from life import WINDOW
from round_life import MERGE, SLOTS, collect, do_slot, finalise_slot, round_parameters
from scale import committed_gas

from ledger.anvil import LocalChain
from ledger.client import LedgerClient

pytestmark = pytest.mark.chain


def test_a_round_takes_the_gas_that_is_simulated(
    requester: LedgerClient, worker: LedgerClient, chain: LocalChain
) -> None:
    task = requester.task(requester.post_task(round_parameters(rounds=3), "file:///store"))
    sender = worker._sender
    assert sender is not None
    totals = []
    for number in range(2):
        used = 0

        def note() -> None:
            nonlocal used
            assert sender.last_receipt is not None
            used += sender.last_receipt.gas_used

        def claim_and_submit(slot: int, number: int = number) -> None:
            """Two transactions; the first is seen through the sender's receipts."""
            before = chain_gas(chain, worker)
            do_slot(worker, task, slot, 10 * number + slot, number)
            nonlocal used
            used += chain_gas(chain, worker) - before

        for slot in range(SLOTS):
            claim_and_submit(slot)
        collect(worker, task, number)
        note()
        claim_and_submit(MERGE)
        chain.advance(WINDOW + 1)
        for slot in range(SLOTS + 1):
            finalise_slot(worker, task, slot, number)
            note()
        totals.append(used)
    assert totals[1] == pytest.approx(committed_gas().of_round(SLOTS), rel=0.05)


def chain_gas(chain: LocalChain, worker: LedgerClient) -> int:
    """Gas of all transactions of an account so far."""
    web3 = worker.web3
    return sum(
        web3.eth.get_transaction_receipt(one["hash"])["gasUsed"]
        for number in range(web3.eth.block_number + 1)
        for one in web3.eth.get_block(number, full_transactions=True)["transactions"]
        if one["from"] == worker.address
    )
