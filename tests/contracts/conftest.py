"""The contracts' arithmetic, called in batches on a real node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from generate_float32 import Operation, Words
from web3 import Web3

from ledger.compile import Artifact
from ledger.rpc import rpc

# Far more than a block holds: a call of a test may be as long as it likes.
GAS = 2**50
# Cases of one call; the node refuses requests of more than 2 MB.
BATCH = 50_000


class ArithmeticProbe:
    """contracts/mocks/ArithmeticProbe.sol, at an address of its own."""

    def __init__(self, web3: Web3, artifact: Artifact) -> None:
        address = Web3.to_checksum_address(b"arithmetic probe".rjust(20, b"\0"))
        rpc(web3, "anvil_setCode", address, "0x" + artifact.runtime_bytecode.hex())
        self._functions = web3.eth.contract(address=address, abi=artifact.abi).functions

    def call(self, name: str, *arguments: Any) -> Any:
        """What a function returns."""
        return getattr(self._functions, name)(*arguments).call({"gas": GAS})

    def evaluate(self, operation: Operation, a: Words, b: Words) -> Words:
        """Results of one operation of Float32 for all pairs."""
        pairs = np.stack([a, b], axis=1).astype(">u4")
        parts = [
            np.frombuffer(self.call("evaluate", int(operation), pairs[at : at + BATCH].tobytes()), dtype=">u4")
            for at in range(0, len(pairs), BATCH)
        ]
        return np.concatenate(parts).astype(np.uint32)

    def run(self, kernel: bytes, words: Sequence[int]) -> int:
        """The result of a kernel."""
        word: int = self.call("run", kernel, list(words))[0]
        return word


@pytest.fixture(scope="session")
def probe(web3: Web3, artifacts: dict[str, Artifact]) -> ArithmeticProbe:
    return ArithmeticProbe(web3, artifacts["ArithmeticProbe"])
