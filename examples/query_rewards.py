"""Prints what an account holds and has earned, with nothing but web3 and the published deployment record.

    python examples/query_rewards.py [--deployment DIR] [--rpc-url URL] ACCOUNT

DIR is the folder that `trainledger up` or `trainledger deploy` wrote: `deployment.json` with the addresses, and `abi/`
with one ABI per contract. ACCOUNT is an address. The output is the same, byte for byte, as that of

    trainledger rewards --json --account ACCOUNT

but nothing of trainledger is imported here: it shows how any program can read the ledger.
"""

import argparse
import json
import math
import os
import struct
import sys
from decimal import Decimal, localcontext
from pathlib import Path

from web3 import Web3
from web3.exceptions import Web3Exception

CHUNK = 2000  # blocks per request for logs; many providers refuse more
EVENTS = {
    "ledger": ("TaskPosted", "SlotClaimed", "Finalised"),
    "open_ledger": ("ScoreFinalised", "DefaultPaid"),
    "vault": ("EscrowPaid", "BondTaken", "Withdrawn"),
}
CONTRACTS = {
    "ledger": "TrainingLedger",
    "open_ledger": "OpenLedger",
    "vault": "StakeVault",
    "token": "TrainingToken",
}


def amount(wei):
    """An amount as JSON shows it: exact, in wei and in tokens of 18 decimals."""
    with localcontext() as context:
        context.prec = 100
        tokens = format(Decimal(wei).scaleb(-18), "f")
    return {"wei": str(wei), "tokens": tokens.rstrip("0").rstrip(".") if "." in tokens else tokens}


def loss(bits):
    """The loss whose IEEE-754 binary32 bits stand on chain; None where it is NaN or infinite."""
    value = struct.unpack(">f", bits.to_bytes(4, "big"))[0]
    return value if math.isfinite(value) else None


def open_contracts(web3, directory):
    """The record, and its contracts by role."""
    record = json.loads((directory / "deployment.json").read_text())
    if web3.eth.chain_id != record["chain_id"]:
        sys.exit(f"The chain has id {web3.eth.chain_id}, but the deployment is on {record['chain_id']}.")
    contracts = {}
    for role, name in CONTRACTS.items():
        abi = json.loads((directory / "abi" / f"{name}.json").read_text())
        contracts[role] = web3.eth.contract(address=record[role], abi=abi)
    return record, contracts


def read_events(web3, contracts, first):
    """All logs of the events above, in the chain's order, fetched a few thousand blocks at a time."""
    last = web3.eth.block_number
    while first <= last:
        end = min(first + CHUNK - 1, last)
        found = []
        for role, names in EVENTS.items():
            for name in names:
                found += getattr(contracts[role].events, name).get_logs(from_block=first, to_block=end)
        yield from sorted(found, key=lambda log: (log["blockNumber"], log["logIndex"]))
        first = end + 1


def read_balance(contracts, account):
    """What the account holds, and what of it is at stake."""
    vault = contracts["vault"].functions
    staked, locked = vault.stakeOf(account).call()
    unbonding, release = vault.unbondingOf(account).call()
    return {
        "tokens_held": amount(contracts["token"].functions.balanceOf(account).call()),
        "staked": amount(staked),
        "locked": amount(locked),
        "free": amount(staked - locked),
        "unbonding": amount(unbonding),
        "unbonding_release": release if unbonding else None,
        "credit": amount(vault.creditOf(account).call()),
    }


def describe(log, operator, account, merge):
    """One finalised submission: who did it with which key, and who was paid. `merge`: it merged its round's slots."""
    values = log["args"]
    roles = {"worker": values["worker"], "operator": operator, "payout": values["payout"]}
    return {
        "task": values["task"],
        "round": values["round"],
        "slot": values["slot"],
        "merge": merge,
        "attempt": values["attempt"],
        **roles,
        "roles": [role for role, address in roles.items() if address == account],
        "state_root": "0x" + values["stateRoot"].hex().removeprefix("0x"),
        "steps": values["steps"],
        "heldout_loss": loss(values["heldOutLoss"]),
        "paid": amount(values["paid"]),
        "block": log["blockNumber"],
        "transaction": "0x" + log["transactionHash"].hex().removeprefix("0x"),
    }


def describe_open(log, account):
    """One slot of an open task that was paid; where its requester showed no held-out data it has no loss."""
    values = log["args"]
    roles = {"worker": values["worker"], "payout": values["payout"]}
    scored = log["event"] == "ScoreFinalised"
    return {
        "task": values["task"],
        "round": values["round"],
        "slot": values["slot"],
        **roles,
        "roles": [role for role, address in roles.items() if address == account],
        "state_root": "0x" + values["scoredRoot" if scored else "trainedRoot"].hex().removeprefix("0x"),
        "heldout_loss": loss(values["heldOutLoss"]) if scored else None,
        "paid": amount(values["paid"]),
        "block": log["blockNumber"],
        "transaction": "0x" + log["transactionHash"].hex().removeprefix("0x"),
    }


def read_earnings(events, account):
    """The submissions that have to do with the account, those of open tasks, and its sums over all logs."""
    earnings, open_earnings, operators, merges = [], [], {}, set()
    earned = credited = awarded = taken = withdrawn = 0
    for log in events:
        values = log["args"]
        if log["event"] in ("SlotClaimed", "Finalised"):
            attempt = tuple(values[name] for name in ("task", "round", "slot", "attempt"))
        if log["event"] == "TaskPosted":
            merges.add((values["task"], values["parameters"]["slotsPerRound"]))  # with one slot a round it is number 0
        elif log["event"] == "SlotClaimed":
            operators[attempt] = values["operator"]
        elif log["event"] == "Finalised":
            entry = describe(log, operators[attempt], account, (values["task"], values["slot"]) in merges)
            if entry["roles"]:
                earnings.append(entry)
            earned += values["paid"] if values["payout"] == account else 0
        elif log["event"] in EVENTS["open_ledger"]:
            entry = describe_open(log, account)
            if entry["roles"]:
                open_earnings.append(entry)
            earned += values["paid"] if values["payout"] == account else 0
        elif log["event"] == "EscrowPaid":
            credited += values["amount"] if values["to"] == account else 0
        elif log["event"] == "BondTaken":
            awarded += values["awarded"] if values["winner"] == account else 0
            taken += values["burned"] + values["awarded"] if values["owner"] == account else 0
        elif log["event"] == "Withdrawn":
            withdrawn += values["amount"] if values["account"] == account else 0
    total = {
        "earned": amount(earned),
        "refunded": amount(credited - earned),
        "awarded": amount(awarded),
        "withdrawn": amount(withdrawn),
        "stake_taken": amount(taken),
    }
    return earnings, open_earnings, total


def main():
    """Reads the arguments and prints the document."""
    home = Path(os.environ.get("TRAINLEDGER_HOME") or Path.home() / ".local/share/trainledger")
    parser = argparse.ArgumentParser(description="What an account holds and earned, read with web3 alone.")
    parser.add_argument("account", metavar="ACCOUNT", help="address of the account")
    parser.add_argument("--deployment", type=Path, default=home / "deployments" / "31337", metavar="DIR")
    parser.add_argument("--rpc-url", default="http://127.0.0.1:8545", metavar="URL")
    arguments = parser.parse_args()
    if not Web3.is_address(arguments.account):
        sys.exit(f"{arguments.account!r} is not an address: give 0x and 40 hexadecimal digits.")
    account = Web3.to_checksum_address(arguments.account)
    web3 = Web3(Web3.HTTPProvider(arguments.rpc_url))
    try:
        record, contracts = open_contracts(web3, arguments.deployment)
        events = read_events(web3, contracts, record["block_number"])
        earnings, open_earnings, total = read_earnings(events, account)
        document = {
            "account": account,
            "chain_id": record["chain_id"],
            "ledger": record["ledger"],
            "symbol": contracts["token"].functions.symbol().call(),
            "balance": read_balance(contracts, account),
            "payout": contracts["vault"].functions.payoutOf(account).call(),
            "earnings": earnings,
            "open_earnings": open_earnings,
            "total": total,
        }
    except FileNotFoundError as problem:
        sys.exit(f"{problem.filename} does not exist: name the folder of the deployment's record with --deployment.")
    except OSError:
        sys.exit(f"Nothing answers at {arguments.rpc_url}: name a running node with --rpc-url.")
    except Web3Exception:
        sys.exit(
            f"The node at {arguments.rpc_url} does not answer as the contracts of {arguments.deployment} do: "
            "name the right pair with --rpc-url and --deployment."
        )
    print(json.dumps(document, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
