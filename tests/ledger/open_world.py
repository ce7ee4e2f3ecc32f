"""People of open tasks, and a task's rounds in short calls, with made-up states and real held-out data."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eth_utils.crypto import keccak
from life import ETHER
from states import MadeUpState, make_state
from web3 import Web3

from ledger.anvil import LocalChain
from ledger.audits.client import CommitteeClient
from ledger.client import LedgerClient
from ledger.compile import Artifact
from ledger.deploy import Deployment
from ledger.disputes.client import DisputeClient
from ledger.keys import Wallet
from ledger.open.client import OpenClient
from ledger.open.records import OpenParameters
from ledger.performance import float_bits
from ledger.reverts import ErrorDecoder
from ledger.tx import TransactionSender

TENSORS = 7
PERIOD = 300  # of commits, reveals, held-out data and leases: never over by itself within a test
WINDOW = 600
BOND, FEE = ETHER, ETHER // 10
SLOT, FLOOR, SCORE = 10 * ETHER, ETHER, ETHER // 2
SLOTS = 3
BASE = b"\4" * 32
BASE_LOSS = float_bits(4.0)
PEOPLE = ("requester", "anna", "boris", "clara", "stranger")
_DATASET = 5
SALT = b"\x08" * 32


def parameters(**fields: Any) -> OpenParameters:
    defaults: dict[str, Any] = {
        "specification_hash": b"\1" * 32,
        "program_root": b"\2" * 32,
        "initial_state_root": BASE,
        "state_tensors": TENSORS,
        "slots_per_round": SLOTS,
        "full_gain": float_bits(2.0),
        "slot_reward": SLOT,
        "floor_reward": FLOOR,
        "score_reward": SCORE,
        "bond": BOND,
        "fee": FEE,
        "commit_seconds": PERIOD,
        "reveal_seconds": PERIOD,
        "held_out_seconds": PERIOD,
        "lease_seconds": PERIOD,
        "challenge_window": WINDOW,
    }
    return OpenParameters(**(defaults | fields))
