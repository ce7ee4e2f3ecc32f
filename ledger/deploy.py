"""Deploys the contracts, and keeps the frozen record of where they are and what exactly was deployed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from eth_abi.abi import encode as abi_encode
from web3 import Web3
from web3.exceptions import BlockNotFound
from web3.types import Nonce
from web3.utils import get_create_address

from ledger import __version__
from ledger.atomic import write_atomically
from ledger.canonical import parse_json_strict
from ledger.compile import Artifact, compile_contracts
from ledger.errors import ChainError, SettingsError, SpecificationError, StaleDeployment, WrongChain
from ledger.rpc import chain_id, endpoint
from ledger.tx import TransactionSender

RECORD_FORMAT = "trainledger/deployment/5"
_OLDER_FORMATS = tuple(f"trainledger/deployment/{number}" for number in (1, 2, 3, 4))
_DAY = 24 * 3600
# Field of the record -> contract; a token of somebody else's is checked for code only.
_CONTRACTS = {
    "token": "TrainingToken",
    "vault": "StakeVault",
    "ledger": "TrainingLedger",
    "game": "DisputeGame",
    "referee": "StepReferee",
    "committee": "AuditCommittee",
    "book": "RoundBook",
    "open_ledger": "OpenLedger",
    "open_game": "DisputeGame",
    "availability": "AvailabilityCommittee",
}
_FRESH = "Deploy again with `trainledger deploy`, or name another record with --deployment."


@dataclass(frozen=True, kw_only=True)
class DeploymentParameters:
    """What is fixed for good at deployment: seconds, and wei of the token.

    Attributes:
        unbonding_delay: between asking for stake and getting it.
        minimum_bond, minimum_window, minimum_lease: the least that any task may ask for.
        minimum_clock: least time that each side of a dispute has in all; long leases give more (docs/dispute.md).
        minimum_move: time that a side has for each move, however little is left on its clock.
        seat_stake: of a seat that auditors are drawn from. seat_age: for which it must have been taken to count.
        reveal_seconds: that drawn auditors have to reveal in (docs/auditors.md), and to commit and to reveal in where
            they are asked for a state (docs/open-tasks.md).
        token_supply: minted to the deployer; without effect where a token is given.
    """

    unbonding_delay: int
    minimum_bond: int
    minimum_window: int
    minimum_lease: int
    minimum_clock: int
    minimum_move: int
    seat_stake: int
    seat_age: int
    reveal_seconds: int
    token_supply: int = 10**27


# For a chain on one's own machine: rounds of seconds, so that a whole task fits into a coffee break. The supply,
# a thousand million tokens, is for handing out.
# A dispute's clocks stop for nobody, so they leave a busy machine the time to recompute a segment.
LOCAL_PARAMETERS = DeploymentParameters(
    unbonding_delay=30,
    minimum_bond=10**15,
    minimum_window=2,
    minimum_lease=2,
    minimum_clock=120,
    minimum_move=30,
    seat_stake=10**18,
    seat_age=2,
    reveal_seconds=20,
)

# For a chain shared with strangers. A week of unbonding outlasts any sensible window, so that stake cannot leave before
# what it vouched for is judged; an hour of window lets a watcher in an outage or a congested chain still answer; a
# lease of ten minutes keeps claims from being churned; a bond of one token makes each claim cost something to waste.
# In a dispute an hour on each clock leaves room for some recomputing, and ten minutes for each move outlast a crash.
# A seat costs as much as a serious bond and counts after a day, so that nobody enrols for one audit; half an hour to
# reveal outlasts a crash too.
PUBLIC_PARAMETERS = DeploymentParameters(
    unbonding_delay=7 * _DAY,
    minimum_bond=10**18,
    minimum_window=3600,
    minimum_lease=600,
    minimum_clock=3600,
    minimum_move=600,
    seat_stake=100 * 10**18,
    seat_age=_DAY,
    reveal_seconds=1800,
)


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """Where the contracts are. Addresses are checksummed, hashes hex with 0x.

    Attributes:
        block_number, block_hash: the block in which the last contract was deployed.
        artifact_hashes: SHA-256 of each contract's runtime code with immutables masked, by contract name.
        version: of trainledger that deployed.
    """

    chain_id: int
    token: str
    vault: str
    ledger: str
    game: str
    referee: str
    committee: str
    book: str
    open_ledger: str
    open_game: str
    availability: str
    block_number: int
    block_hash: str
    artifact_hashes: Mapping[str, str]
    deployer: str
    parameters: DeploymentParameters
    version: str

    def to_json(self) -> bytes:
        """The record as a JSON document."""
        return json.dumps({"format": RECORD_FORMAT, **asdict(self)}, indent=2, sort_keys=True).encode() + b"\n"

    def save(self, path: Path) -> None:
        """Writes the record to `path` (a folder, or a .json file in one) atomically."""
        write_atomically(_record_path(path), self.to_json())

    @classmethod
    def load(cls, path: Path) -> Deployment:
        """Reads the record at `path` (a folder, or a .json file).

        Raises:
            SettingsError: there is none, or it is not a deployment record.
            StaleDeployment: it was written by a version whose contracts were others.
        """
        file = _record_path(path)
        try:
            document = parse_json_strict(file.read_bytes(), "It")
        except FileNotFoundError:
            raise SettingsError(
                f"There is no deployment record at {file}.",
                remedy="Deploy with `trainledger deploy`, or name a record with --deployment.",
            ) from None
        except (SpecificationError, OSError) as problem:
            reason = str(problem).rstrip(".")
            raise SettingsError(f"The deployment record {file} cannot be read: {reason}.", remedy=_FRESH) from None
        names = {field.name for field in fields(cls)}
        if isinstance(document, dict) and document.get("format") in _OLDER_FORMATS:
            raise StaleDeployment(
                f"The deployment record {file} is of an older trainledger, whose contracts were others.", remedy=_FRESH
            )
        if not isinstance(document, dict) or document.get("format") != RECORD_FORMAT:
            raise SettingsError(f"{file} is not a record of format {RECORD_FORMAT}.", remedy=_FRESH)
        if missing := sorted(names - set(document)):
            raise SettingsError(f"The deployment record {file} lacks {', '.join(missing)}.", remedy=_FRESH)
        try:
            return _read_record(document)
        except (TypeError, ValueError) as problem:
            raise SettingsError(f"The deployment record {file} is damaged: {problem}.", remedy=_FRESH) from None

    def check(self, web3: Web3) -> None:
        """Compares the record with the chain and with this version's contracts.

        Raises:
            WrongChain: the chain has another id.
            StaleDeployment: another block, no code, other code, or code of another version than this.
        """
        actual = chain_id(web3)
        if actual != self.chain_id:
            raise WrongChain(self.chain_id, actual, endpoint(web3))
        self._check_block(web3)
        artifacts = compile_contracts()
        for role, name in _CONTRACTS.items():
            address = getattr(self, role)
            code = bytes(web3.eth.get_code(address, "latest"))
            if not code:
                raise StaleDeployment(f"There is no contract at {address}, where {name} should be.", remedy=_FRESH)
            if role == "token" and name not in self.artifact_hashes:
                continue  # a token that was there before
            artifact = artifacts[name]
            if self.artifact_hashes[name] != artifact.code_hash():
                other = f"another version of trainledger ({self.version}; this is {__version__})"
                if self.version == __version__:  # contracts that were changed between two versions
                    other = f"a trainledger {self.version} whose contracts were others than this one's"
                raise StaleDeployment(f"{name} at {address} was deployed by {other}.", remedy=_FRESH)
            if hashlib.sha256(artifact.masked(code)).hexdigest() != self.artifact_hashes[name]:
                raise StaleDeployment(f"The code at {address} is not the {name} of the record.", remedy=_FRESH)

    def _check_block(self, web3: Web3) -> None:
        try:
            actual = web3.eth.get_block(self.block_number)["hash"].to_0x_hex()
        except BlockNotFound:
            actual = "not there"
        if actual != self.block_hash:
            raise StaleDeployment(
                f"Block {self.block_number}, in which the contracts were deployed, is {actual} on the chain at "
                f"{endpoint(web3)}; the record says {self.block_hash}. It is another chain, or it began anew.",
                remedy=_FRESH,
            )


def _read_record(document: Mapping[str, Any]) -> Deployment:
    """The record that a JSON object describes; ValueError or TypeError where a value is of the wrong kind."""
    numbers, hashes = document["parameters"], document["artifact_hashes"]
    if not isinstance(numbers, Mapping) or not isinstance(hashes, Mapping):
        raise TypeError("parameters or artifact_hashes is not an object")
    counts = {name: document[name] for name in ("chain_id", "block_number")} | dict(numbers)
    for name, value in counts.items():
        if type(value) is not int or not 0 <= value < 2**256:
            raise ValueError(f"{name} is {value!r}, which is not a whole number")
    for name, contract in _CONTRACTS.items():
        if contract not in hashes and name != "token":
            raise ValueError(f"artifact_hashes lacks {contract}")
    for name, value in {**hashes, "block_hash": document["block_hash"], "version": document["version"]}.items():
        if not isinstance(value, str):
            raise TypeError(f"{name} is {value!r}, which is not a text")
    addresses: dict[str, Any] = {key: _address(document[key], key) for key in (*_CONTRACTS, "deployer")}
    rest = {field.name: document[field.name] for field in fields(Deployment) if field.name != "parameters"}
    return Deployment(parameters=DeploymentParameters(**numbers), **(rest | addresses))


def _address(value: object, name: str) -> str:
    if not isinstance(value, str) or not Web3.is_address(value):
        raise ValueError(f"{name} is {value!r}, which is not an address")
    return str(Web3.to_checksum_address(value))


def deploy(
    web3: Web3, sender: TransactionSender, *, parameters: DeploymentParameters, token: str | None = None
) -> Deployment:
    """Deploys vault, both ledgers with a dispute game each, referee, both committees, round book; a token unless given.

    They know each other by immutable addresses, so some are told others' before those exist: the address of a contract
    follows from its deployer and nonce.

    Args:
        token: an existing ERC-20 that moves exact amounts and can be burned.

    Raises:
        ChainError: the account was used by somebody else in between, so that the addresses came out otherwise;
            `token` has no code. And all that `TransactionSender.send` raises.
    """
    artifacts = compile_contracts()
    owner = Web3.to_checksum_address(sender.address)
    token = _token(web3, sender, artifacts, token, supply=parameters.token_supply)
    referee, _ = _create(sender, artifacts["StepReferee"])
    nonce = web3.eth.get_transaction_count(owner, "pending")
    committee, ledger, open_ledger = (predict_address(owner, nonce + place) for place in (1, 4, 7))
    p = parameters
    vault, _ = _create(sender, artifacts["StakeVault"], token, ledger, open_ledger, committee, p.unbonding_delay)
    _create(sender, artifacts["AuditCommittee"], vault, ledger, p.seat_stake, p.seat_age, p.reveal_seconds)
    game, _ = _create(sender, artifacts["DisputeGame"], ledger, referee, p.minimum_clock, p.minimum_move)
    book, _ = _create(sender, artifacts["RoundBook"], ledger)
    limits = (p.minimum_bond, p.minimum_window, p.minimum_lease)
    actual, _ = _create(sender, artifacts["TrainingLedger"], vault, game, committee, book, *limits)
    _check_predicted(actual, ledger, owner)
    open_game, _ = _create(sender, artifacts["DisputeGame"], open_ledger, referee, p.minimum_clock, p.minimum_move)
    asked = (open_ledger, committee, vault, p.reveal_seconds)
    availability, _ = _create(sender, artifacts["AvailabilityCommittee"], *asked, *limits)
    actual, (number, block_hash) = _create(sender, artifacts["OpenLedger"], vault, open_game, availability)
    _check_predicted(actual, open_ledger, owner)
    own = [name for role, name in _CONTRACTS.items() if role != "token" or _is_training_token(web3, token, artifacts)]
    return Deployment(
        chain_id=chain_id(web3),
        token=token,
        vault=vault,
        ledger=ledger,
        game=game,
        referee=referee,
        committee=committee,
        book=book,
        open_ledger=open_ledger,
        open_game=open_game,
        availability=availability,
        block_number=number,
        block_hash=block_hash,
        artifact_hashes={name: artifacts[name].code_hash() for name in own},
        deployer=owner,
        parameters=parameters,
        version=__version__,
    )


def _check_predicted(actual: str, expected: str, owner: str) -> None:
    if actual != expected:
        raise ChainError(
            f"A ledger came to be at {actual}, not at {expected}: another transaction of {owner} went between.",
            remedy="Deploy again, with an account that nobody else uses meanwhile.",
        )


def _token(
    web3: Web3, sender: TransactionSender, artifacts: Mapping[str, Artifact], given: str | None, *, supply: int
) -> str:
    """Address of the token: the one given, which has to be there, or a new one whose supply the deployer gets."""
    if given is None:
        return _create(sender, artifacts["TrainingToken"], sender.address, supply)[0]
    token = str(Web3.to_checksum_address(given))
    if not web3.eth.get_code(Web3.to_checksum_address(token), "latest"):
        raise ChainError(f"There is no token contract at {given}.", remedy="Name the address of an ERC-20.")
    return token


def _is_training_token(web3: Web3, token: str, artifacts: Mapping[str, Artifact]) -> bool:
    """Whether the token's code is this version's TrainingToken."""
    code = bytes(web3.eth.get_code(Web3.to_checksum_address(token), "latest"))
    artifact = artifacts["TrainingToken"]
    return hashlib.sha256(artifact.masked(code)).hexdigest() == artifact.code_hash()


def predict_address(deployer: str, nonce: int) -> str:
    """The address of the contract that `deployer`'s transaction `nonce` creates (Yellow Paper, section 7)."""
    return str(get_create_address(Web3.to_checksum_address(deployer), Nonce(nonce)))


def publish(deployment: Deployment, directory: Path) -> None:
    """Writes `abi/<Contract>.json` and then `deployment.json`, so that scripts with web3 alone can use the contracts.

    The record comes last: where it is, all is there.
    """
    artifacts = compile_contracts()
    for name in _CONTRACTS.values():
        text = json.dumps(artifacts[name].abi, indent=2)
        write_atomically(directory / "abi" / f"{name}.json", text.encode() + b"\n")
    deployment.save(directory / "deployment.json")


def _record_path(path: Path) -> Path:
    return path if path.suffix == ".json" else path / "deployment.json"


def _create(sender: TransactionSender, artifact: Artifact, *values: object) -> tuple[str, tuple[int, str]]:
    """Deploys one contract with its constructor's arguments; returns its address, and its block's number and hash."""
    inputs = [entry["inputs"] for entry in artifact.abi if entry["type"] == "constructor"]
    arguments = abi_encode([one["type"] for one in inputs[0]], values) if inputs else b""
    request: dict[str, Any] = {"data": "0x" + (artifact.bytecode + arguments).hex()}
    receipt = sender.send_request(request, contract=artifact.name, method="constructor")
    if receipt.contract_address is None:
        raise ChainError(f"The node gave no address for {artifact.name} in the receipt of {receipt.transaction}.")
    address = str(Web3.to_checksum_address(receipt.contract_address))
    return address, (receipt.block_number, "0x" + receipt.block_hash.hex())
