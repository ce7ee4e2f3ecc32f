"""What the books say, put to the chain: a chain with its own clock, and every view with the bytes it must answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from book_model import AlreadyDone, Book, Events, Refused
from eth_abi.abi import encode
from eth_utils.abi import function_signature_to_4byte_selector
from web3 import Web3

from ledger.client import LedgerClient
from ledger.compile import Artifact
from ledger.deploy import Deployment
from ledger.keys import Wallet
from ledger.reverts import ErrorDecoder
from ledger.rpc import rpc
from ledger.tx import TransactionSender

SLOT = ["address", "uint32", "uint40", "uint8", "uint16", "address", "uint32", "uint32", "uint32", "bytes32"]
Read = tuple[dict[str, str], bytes]


@dataclass(frozen=True)
class World:
    """A chain whose clock moves by exactly a second a block, with the contracts on it."""

    web3: Web3
    deployment: Deployment
    artifacts: dict[str, Artifact]
    people: list[Wallet]
    counts: Counter[str]

    def client(self, wallet: Wallet) -> LedgerClient:
        sender = TransactionSender(self.web3, wallet, errors=ErrorDecoder(self.artifacts))
        return LedgerClient(self.web3, self.deployment, sender, artifacts=self.artifacts)

    def now(self) -> int:
        return self.web3.eth.get_block("latest")["timestamp"]

    def advance(self, seconds: int) -> None:
        rpc(self.web3, "evm_setNextBlockTimestamp", self.now() + seconds)
        rpc(self.web3, "evm_mine")


def outcome(model: Callable[..., Events], *arguments: Any) -> tuple[Events | None, Refused | None]:
    """What the book says: events, or nothing because all is done, or a refusal."""
    try:
        return model(*arguments), None
    except Refused as refusal:
        return None, refusal
    except AlreadyDone:
        return None, None


def expected_reads(book: Book, world: World, people: Sequence[str], supply: int) -> list[Read]:
    """(call, what it must answer) for every view of money and tasks."""

    def read(role: str, signature: str, arguments: tuple[Any, ...], types: list[str], *expected: Any) -> Read:
        inputs = signature.partition("(")[2].rstrip(")")
        data = function_signature_to_4byte_selector(signature)
        data += encode(inputs.split(",") if inputs else [], arguments)
        return {"to": getattr(world.deployment, role), "data": "0x" + data.hex()}, encode(types, expected)

    reads = [
        read("vault", "totalStaked()", (), ["uint256"], book.total_staked),
        read("vault", "totalOwed()", (), ["uint256"], book.total_owed),
        read("token", "totalSupply()", (), ["uint256"], supply - book.burned),
        read("token", "balanceOf(address)", (book.vault,), ["uint256"], book.total_staked + book.total_owed),
        read("ledger", "taskCount()", (), ["uint64"], len(book.tasks)),
    ]
    for who in people:
        leaving = (book.unbonding[who], book.release[who])
        reads += [
            read("token", "balanceOf(address)", (who,), ["uint256"], book.tokens[who]),
            read("vault", "stakeOf(address)", (who,), ["uint128"] * 2, book.staked[who], book.locked[who]),
            read("vault", "unbondingOf(address)", (who,), ["uint128", "uint64"], *leaving),
            read("vault", "creditOf(address)", (who,), ["uint256"], book.credit[who]),
            read("vault", "payoutOf(address)", (who,), ["address"], book.payout_of(who)),
        ]
    now = world.now()
    for number, task in book.tasks.items():
        base, current = task.base(task.current), (number, task.current)
        reads.append(read("vault", "escrowOf(uint64)", (number,), ["uint256"], task.escrow))
        reads.append(read("ledger", "baseRoot(uint64,uint32)", current, ["bytes32"], base))
        for round_number in {max(task.current - 1, 0), task.current}:
            slot, place = task.slots[round_number], (number, round_number, 0)
            fields = (slot.worker, slot.attempt, slot.deadline, slot.status, 0, slot.payout, slot.steps, slot.loss)
            attempt = slot.attempt + slot.lapsed(now)
            reads.append(read("ledger", "getSlot(uint64,uint32,uint32)", place, SLOT, *fields, 0, slot.root))
            reads.append(read("ledger", "nextAttempt(uint64,uint32,uint32)", place, ["uint32"], attempt))
    return reads
