"""Gas of every call in a task's life, as a real Anvil charges it to real transactions of the Python client.

python benchmarks/gas.py
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eth_utils.crypto import keccak

from ledger.anvil import LocalChain
from ledger.client import LedgerClient
from ledger.compile import compile_contracts, load_artifact
from ledger.deploy import LOCAL_PARAMETERS, deploy
from ledger.keys import Wallet
from ledger.performance import float_bits
from ledger.reverts import ErrorDecoder
from ledger.rpc import connect
from ledger.tx import TransactionSender
from ledger.types import TaskParameters
from trainer.commit.hashing import Kind, leaf, merkle_proof, merkle_root, seal

RESULTS = Path(__file__).parent / "results"
ETHER = 10**18
ROUNDS = 4
LEASE = WINDOW = 600
LOSS = float_bits(2.5)
TENSORS = 160  # a GPT of 12 blocks with AdamW's moments has about three times its 50 parameters, and the two metrics
TOGETHER_TARGET, SUBMIT_TARGET = 250_000, 90_000
PEERS = {"rl-swarm, submit": 90_000, "Prime Intellect, submit": 150_000}  # reported figures, both "about"


def make_state(seed: int) -> tuple[bytes, list[bytes]]:
    """Root and loss proof of a state of random tensor roots."""
    chunk = LOSS.to_bytes(4, "little") + bytes(1020)
    loss = seal(Kind.TENSOR, 1, 4, leaf(Kind.TENSOR, chunk))
    others = [hashlib.sha256(b"%d %d" % (seed, index)).digest() for index in range(1, TENSORS)]
    leaves = [leaf(Kind.STATE, root) for root in (loss, *others)]
    return seal(Kind.STATE, 0, TENSORS, merkle_root(Kind.STATE, leaves)), merkle_proof(Kind.STATE, leaves, 0)


def root(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


@contextmanager
def world() -> Iterator[tuple[LocalChain, LedgerClient, LedgerClient]]:
    """A fresh chain with the contracts, a requester and a worker."""
    with tempfile.TemporaryDirectory() as home, LocalChain(Path(home), 0) as chain:
        web3 = connect(chain.rpc_url)
        errors = ErrorDecoder(compile_contracts())
        senders = []
        for name in ("requester", "worker"):
            wallet = Wallet.from_private_key(keccak(text=f"gas benchmark {name}").hex())
            chain.set_balance(wallet.address, 1000 * ETHER)
            senders.append(TransactionSender(web3, wallet, errors=errors))
        deployment = deploy(web3, senders[0], parameters=LOCAL_PARAMETERS)
        requester, worker = (LedgerClient(web3, deployment, sender) for sender in senders)
        requester.transfer_token(worker.address, 1000 * ETHER)
        yield chain, requester, worker


def gas(client: LedgerClient) -> int:
    sender = client._sender
    assert sender is not None
    assert sender.last_receipt is not None
    return sender.last_receipt.gas_used


def measure(chain: LocalChain, requester: LedgerClient, worker: LedgerClient) -> dict[str, list[int]]:
    """Gas used by each call, one entry for each time it was made."""
    used: dict[str, list[int]] = {}

    def note(name: str, client: LedgerClient) -> None:
        used.setdefault(name, []).append(gas(client))

    for _ in range(2):
        worker.stake(ETHER)
        note("stake (permit)", worker)
    parameters = TaskParameters(
        specification_hash=root("specification"),
        program_root=root("program"),
        dataset_root=root("data set"),
        initial_state_root=root("initial state"),
        state_tensors=TENSORS,
        rounds=ROUNDS,
        steps_per_round=500,
        minimum_steps=500,
        slot_reward=10 * ETHER,
        bond=ETHER // 10,
        lease_fee=ETHER // 100,
        lease_seconds=LEASE,
        challenge_window=WINDOW,
        has_target=True,
        base_loss=float_bits(5.5),
        target_loss=float_bits(1.5),
    )
    number = requester.post_task(parameters, "https://store.example.org/tasks")
    note("post task (permit)", requester)
    task = requester.task(number)
    for turn in range(ROUNDS):
        base, attempt = worker.base_root(number, turn), worker.next_attempt(number, turn)
        worker.claim(task, turn, base_root=base, attempt=attempt, worker=worker.address)
        note("claim", worker)
        state, proof = make_state(turn)
        worker.submit(
            number, turn, attempt=attempt, base_root=base, state_root=state, steps=500, loss_bits=LOSS, proof=proof
        )
        note("submit", worker)
        chain.advance(WINDOW + 1)
        worker.finalise(number, turn, attempt=attempt, state_root=state)
        note("finalise", worker)
        if turn != 1:  # twice in a row without a withdrawal shows the price of a credit that is already open
            continue
        worker.withdraw()
        note("withdraw", worker)
    worker.withdraw()
    note("withdraw", worker)
    assert requester.totals().solvent
    return used


def report(used: dict[str, list[int]]) -> dict[str, Any]:
    rounds = [sum(entry) for entry in zip(used["claim"], used["submit"], used["finalise"], strict=True)]
    sizes = {
        name: len(load_artifact(name).runtime_bytecode)
        for name in ("TrainingToken", "StakeVault", "TrainingLedger", "DisputeGame", "StepReferee")
    }
    return {
        "command": "python benchmarks/gas.py",
        "tensors_of_a_state": TENSORS,
        "gas": used,
        "claim_submit_finalise": rounds,
        "targets": {
            "claim + submit + finalise, credit open": _target(TOGETHER_TARGET, min(rounds)),
            "claim + submit + finalise, dearest round": _target(TOGETHER_TARGET, max(rounds)),
            "submit, dearest": _target(SUBMIT_TARGET, max(used["submit"])),
        },
        "peers_reported": PEERS,
        "ratio_of_submit_to_peers": {name: round(max(used["submit"]) / value, 2) for name, value in PEERS.items()},
        "runtime_bytes": sizes,
    }


def _target(limit: int, measured: int) -> dict[str, Any]:
    return {"limit": limit, "measured": measured, "met": measured < limit}


def markdown(result: dict[str, Any]) -> str:
    lines = [
        "# Gas of a task's life",
        "",
        f"Real transactions on Anvil, a state of {TENSORS} tensors, one worker, {ROUNDS} rounds in order.",
        "",
        "| call | first | then |",
        "| --- | --- | --- |",
    ]
    rows = {**result["gas"], "**claim + submit + finalise**": result["claim_submit_finalise"]}
    for name, values in rows.items():
        lines.append(f"| {name} | {values[0]:,} | {', '.join(f'{value:,}' for value in values[1:]) or 'once'} |")
    lines += ["", "| target | limit | measured | met |", "| --- | --- | --- | --- |"]
    for name, entry in result["targets"].items():
        lines.append(f"| {name} | {entry['limit']:,} | {entry['measured']:,} | {'yes' if entry['met'] else 'NO'} |")
    lines += ["", "| submit against peers (as reported) | theirs | ours ÷ theirs |", "| --- | --- | --- |"]
    for name, ratio in result["ratio_of_submit_to_peers"].items():
        lines.append(f"| {name} | about {PEERS[name]:,} | {ratio} |")
    lines += [
        "",
        "The first finalise opens the storage slot of the worker's credit (17,100 gas), as does the first after a "
        "withdrawal; the last of a task also returns the rest of the escrow to the requester. Only rounds without "
        "either are below the limit.",
        "",
        f"Again: `{result['command']}`",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    with world() as (chain, requester, worker):
        result = report(measure(chain, requester, worker))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "gas.json").write_text(json.dumps(result, indent=2) + "\n")
    (RESULTS / "gas.md").write_text(markdown(result))
    print(markdown(result))


if __name__ == "__main__":
    main()
