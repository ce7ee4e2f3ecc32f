from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from web3 import Web3

from ledger.anvil import CHAIN_ID, LocalChain
from ledger.client import LedgerClient
from ledger.compile import Artifact
from ledger.deploy import LOCAL_PARAMETERS, PUBLIC_PARAMETERS, Deployment, deploy, predict_address, publish
from ledger.errors import ChainError, ChainUnreachable, SettingsError, StaleDeployment, WrongChain
from ledger.keys import Wallet
from ledger.open.client import OpenClient
from ledger.reverts import ErrorDecoder
from ledger.rpc import connect, rpc
from ledger.tx import TransactionSender

pytestmark = pytest.mark.chain

ETHER = 10**18


def test_deploy_wires_the_contracts_to_each_other(web3: Web3, deployment: Deployment, deployer: Wallet) -> None:
    client = LedgerClient(web3, deployment)
    vault, ledger = client._vault.functions, client._ledger.functions
    assert vault.ledger().call() == deployment.ledger
    assert vault.token().call() == deployment.token
    assert ledger.vault().call() == deployment.vault
    assert ledger.disputeGame().call() == deployment.game
    assert client.minimum_bond() == LOCAL_PARAMETERS.minimum_bond
    assert client.minimum_window() == LOCAL_PARAMETERS.minimum_window
    assert client.minimum_lease() == LOCAL_PARAMETERS.minimum_lease
    assert client.unbonding_delay() == LOCAL_PARAMETERS.unbonding_delay
    assert client.disputes_available() is True
    game = client._game.functions
    assert game.referee().call() == deployment.referee
    assert game.minimumClock().call() == LOCAL_PARAMETERS.minimum_clock
    assert game.minimumMove().call() == LOCAL_PARAMETERS.minimum_move
    assert (deployment.chain_id, deployment.deployer) == (CHAIN_ID, deployer.address)
    block = web3.eth.get_block(deployment.block_number)
    assert block["hash"].to_0x_hex() == deployment.block_hash


def test_deploy_wires_the_contracts_of_open_tasks(web3: Web3, deployment: Deployment) -> None:
    client = OpenClient(web3, deployment)
    ledger, game, committee = (one.functions for one in (client._ledger, client._game, client._availability))
    assert client._vault.functions.openLedger().call() == deployment.open_ledger
    assert ledger.vault().call() == deployment.vault
    assert (ledger.disputeGame().call(), ledger.availabilityCommittee().call()) == (
        deployment.open_game,
        deployment.availability,
    )
    assert game.referee().call() == deployment.referee
    assert game.minimumClock().call() == LOCAL_PARAMETERS.minimum_clock
    assert game.minimumMove().call() == LOCAL_PARAMETERS.minimum_move
    assert committee.openLedger().call() == deployment.open_ledger
    assert committee.auditCommittee().call() == deployment.committee
    assert client.minimum_bond() == LOCAL_PARAMETERS.minimum_bond
    assert client.minimum_window() == LOCAL_PARAMETERS.minimum_window
    assert client.minimum_lease() == LOCAL_PARAMETERS.minimum_lease
    assert client.inquiry_seconds() == LOCAL_PARAMETERS.reveal_seconds
    assert (client.task_count(), client.tasks()) == (0, [])


def test_deploy_on_an_existing_token_checks_out(
    web3: Web3, deployment: Deployment, deployer: Wallet, artifacts: dict[str, Artifact]
) -> None:
    sender = TransactionSender(web3, deployer, errors=ErrorDecoder(artifacts))
    second = deploy(web3, sender, parameters=PUBLIC_PARAMETERS, token=deployment.token)
    assert second.token == deployment.token
    assert second.vault != deployment.vault
    second.check(web3)


def test_deploy_token_without_code_refused(web3: Web3, deployer: Wallet, artifacts: dict[str, Artifact]) -> None:
    sender = TransactionSender(web3, deployer, errors=ErrorDecoder(artifacts))
    nobody = Web3.to_checksum_address("0x" + "00" * 19 + "cc")
    with pytest.raises(ChainError, match=f"no token contract at {nobody}"):
        deploy(web3, sender, parameters=LOCAL_PARAMETERS, token=nobody)


@pytest.mark.parametrize("ledger", ["TrainingLedger", "OpenLedger"])
def test_deploy_another_transaction_in_between_is_noticed(
    web3: Web3,
    funded_wallet: Callable[..., Wallet],
    artifacts: dict[str, Artifact],
    deployment: Deployment,
    ledger: str,
) -> None:
    wallet = funded_wallet()
    twin = TransactionSender(web3, wallet, errors=ErrorDecoder(artifacts))

    class Interrupted(TransactionSender):
        def send_request(self, request, *, contract, method, value=0):  # type: ignore[no-untyped-def]  # as its base
            if contract == ledger:
                twin.send_request({"to": wallet.address, "data": "0x"}, contract="account", method="transfer")
            return super().send_request(request, contract=contract, method=method, value=value)

    sender = Interrupted(web3, wallet, errors=ErrorDecoder(artifacts))
    with pytest.raises(ChainError, match=r"another transaction of .* went between"):
        deploy(web3, sender, parameters=LOCAL_PARAMETERS, token=deployment.token)


def test_predict_address_known_answer() -> None:
    # The well-known first contracts of Anvil's first development account.
    deployer = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
    assert predict_address(deployer, 0) == "0x5FbDB2315678afecb367f032d93F642f64180aa3"
    assert predict_address(deployer, 1) == "0xe7f1725E7734CE288F8367e1Bb143E90bb3F0512"


def test_publish_and_load_give_the_same_record(deployment: Deployment, tmp_path: Path, web3: Web3) -> None:
    publish(deployment, tmp_path)
    for path in (tmp_path, tmp_path / "deployment.json"):
        assert Deployment.load(path) == deployment
    Deployment.load(tmp_path).check(web3)
    record = json.loads((tmp_path / "deployment.json").read_text())
    abi = json.loads((tmp_path / "abi/TrainingLedger.json").read_text())
    contract = web3.eth.contract(address=record["ledger"], abi=abi)
    assert contract.functions.vault().call() == record["vault"]
    assert sorted(path.name for path in (tmp_path / "abi").iterdir()) == [
        "AuditCommittee.json",
        "AvailabilityCommittee.json",
        "DisputeGame.json",
        "OpenLedger.json",
        "RoundBook.json",
        "StakeVault.json",
        "StepReferee.json",
        "TrainingLedger.json",
        "TrainingToken.json",
    ]


def test_load_missing_record_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"There is no deployment record at .*trainledger deploy"):
        Deployment.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record.pop("vault"), "lacks vault"),
        (lambda record: record.update(format="other"), "is not a record of format trainledger/deployment/5"),
        (lambda record: record.update(ledger="0x12"), "is damaged"),
        (lambda record: record["parameters"].pop("minimum_bond"), "is damaged"),
    ],
)
def test_load_damaged_record_is_named(
    deployment: Deployment, tmp_path: Path, change: Callable[[dict[str, object]], object], message: str
) -> None:
    record = json.loads(deployment.to_json())
    change(record)
    (tmp_path / "deployment.json").write_text(json.dumps(record))
    with pytest.raises(SettingsError, match=message):
        Deployment.load(tmp_path)


def test_load_record_of_an_older_format_is_stale(deployment: Deployment, tmp_path: Path) -> None:
    record = json.loads(deployment.to_json()) | {"format": "trainledger/deployment/4"}
    del record["open_ledger"]
    (tmp_path / "deployment.json").write_text(json.dumps(record))
    with pytest.raises(StaleDeployment, match=r"is of an older trainledger, whose contracts were others.*Deploy again"):
        Deployment.load(tmp_path)


def test_load_cut_off_record_is_named(deployment: Deployment, tmp_path: Path) -> None:
    (tmp_path / "deployment.json").write_bytes(deployment.to_json()[:100])
    with pytest.raises(SettingsError, match="cannot be read"):
        Deployment.load(tmp_path)


def test_check_right_chain_succeeds(deployment: Deployment, web3: Web3) -> None:
    deployment.check(web3)


def test_check_wrong_chain_id(deployment: Deployment, web3: Web3) -> None:
    with pytest.raises(WrongChain) as caught:
        dataclasses.replace(deployment, chain_id=1).check(web3)
    assert (caught.value.expected, caught.value.actual) == (1, CHAIN_ID)


def test_check_other_block_hash_is_stale(deployment: Deployment, web3: Web3) -> None:
    wrong = "0x" + "ab" * 32
    with pytest.raises(StaleDeployment, match=f"Block {deployment.block_number}.*the record says {wrong}"):
        dataclasses.replace(deployment, block_hash=wrong).check(web3)


def test_check_fresh_chain_is_stale(deployment: Deployment, tmp_path: Path) -> None:
    with LocalChain(tmp_path, 0) as fresh, pytest.raises(StaleDeployment, match="is not there on the chain"):
        deployment.check(connect(fresh.rpc_url))


def test_check_no_code_is_stale(deployment: Deployment, web3: Web3) -> None:
    nobody = Web3.to_checksum_address("0x" + "00" * 19 + "cc")
    with pytest.raises(StaleDeployment, match=f"no contract at {nobody}, where StakeVault should be"):
        dataclasses.replace(deployment, vault=nobody).check(web3)


def test_check_other_contract_is_stale(deployment: Deployment, web3: Web3) -> None:
    with pytest.raises(StaleDeployment, match=f"The code at {deployment.game} is not the StakeVault"):
        dataclasses.replace(deployment, vault=deployment.game).check(web3)


def test_check_one_changed_byte_of_code_is_stale(deployment: Deployment, web3: Web3, rolled_back: None) -> None:
    code = bytearray(web3.eth.get_code(Web3.to_checksum_address(deployment.ledger)))
    code[100] ^= 1
    rpc(web3, "anvil_setCode", deployment.ledger, "0x" + code.hex())
    with pytest.raises(StaleDeployment, match="is not the TrainingLedger of the record"):
        deployment.check(web3)


def test_check_other_version_is_stale(deployment: Deployment, web3: Web3) -> None:
    hashes = {**deployment.artifact_hashes, "StakeVault": "00" * 32}
    older = dataclasses.replace(deployment, artifact_hashes=hashes, version="0.0.1")
    with pytest.raises(StaleDeployment, match=r"StakeVault at 0x\w+ was deployed by another version .*\(0\.0\.1;"):
        older.check(web3)
    with pytest.raises(StaleDeployment, match="whose contracts were others than this one's"):
        dataclasses.replace(older, version=deployment.version).check(web3)


def test_check_chain_down_is_unreachable(deployment: Deployment, tmp_path: Path) -> None:
    with LocalChain(tmp_path, 0) as other:
        web3 = connect(other.rpc_url)
    with pytest.raises(ChainUnreachable):
        deployment.check(web3)
