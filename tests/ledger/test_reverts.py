from __future__ import annotations

import pytest
from eth_abi.abi import encode
from eth_utils.abi import function_signature_to_4byte_selector as selector
from web3.exceptions import ContractLogicError

from ledger.compile import Artifact
from ledger.reverts import AMOUNTS, ErrorDecoder, revert_data

WORKER = "0xe7f1725E7734CE288F8367e1Bb143E90bb3F0512"


@pytest.fixture
def decoder(artifacts: dict[str, Artifact]) -> ErrorDecoder:
    return ErrorDecoder(artifacts)


def test_decode_custom_error_names_its_arguments(decoder: ErrorDecoder) -> None:
    data = selector("SlotTaken(address,uint8,uint256)") + encode(["address", "uint8", "uint256"], [WORKER, 1, 99])
    refusal = decoder.decode("TrainingLedger", "claim", data)
    assert (refusal.contract, refusal.method, refusal.error) == ("TrainingLedger", "claim", "SlotTaken")
    assert refusal.arguments == {"worker": WORKER, "status": 1, "deadline": 99}
    assert str(refusal) == (
        f"TrainingLedger.claim refused: SlotTaken(worker={WORKER}, status=1, deadline=99). "
        "Wait until its deadline, or take another task."
    )


def test_decode_remedy_fits_the_call(decoder: ErrorDecoder) -> None:
    closed = selector("TaskIsClosed(uint64)") + encode(["uint64"], [7])
    assert decoder.decode("TrainingLedger", "claim", closed).remedy.endswith("choose another task.")
    assert decoder.decode("TrainingLedger", "closeTask", closed).remedy.startswith("Nothing is left to close;")
    short = selector("InsufficientFreeStake(address,uint256,uint256)") + encode(
        ["address", "uint256", "uint256"], [WORKER, 1, 2]
    )
    assert decoder.decode("TrainingLedger", "claim", short).remedy.startswith("Stake more")
    assert decoder.decode("StakeVault", "requestUnbond", short).remedy.startswith("Take out no more than is free")


def test_decode_amounts_are_shown_in_tokens(decoder: ErrorDecoder) -> None:
    types = ["address", "uint256", "uint256"]
    short = selector("InsufficientFreeStake(address,uint256,uint256)") + encode(types, [WORKER, 0, 25 * 10**17])
    refusal = decoder.decode("StakeVault", "requestUnbond", short)
    assert refusal.arguments == {"owner": WORKER, "free": 0, "needed": 25 * 10**17}
    assert refusal.problem == (
        f"StakeVault.requestUnbond refused: InsufficientFreeStake(owner={WORKER}, free=0 tokens, needed=2.5 tokens)."
    )
    poor = selector("ERC20InsufficientBalance(address,uint256,uint256)") + encode(types, [WORKER, 1, 10**18])
    assert "balance=0.000000000000000001 tokens, needed=1 tokens" in decoder.decode("c", "m", poor).problem


def test_decode_parameters_that_are_amounts_are_shown_in_tokens(decoder: ErrorDecoder) -> None:
    start = selector("InvalidParameter(string,uint256)")
    bond = decoder.decode("c", "m", start + encode(["string", "uint256"], ["bond", 10**15]))
    assert bond.problem == "c.m refused: InvalidParameter(field=bond, value=0.001 tokens)."
    rounds = decoder.decode("c", "m", start + encode(["string", "uint256"], ["rounds", 0]))
    assert rounds.problem == "c.m refused: InvalidParameter(field=rounds, value=0)."


def test_every_amount_is_an_argument_of_its_error(artifacts: dict[str, Artifact]) -> None:
    known = {
        entry["name"]: {item["name"] for item in entry["inputs"]}
        for artifact in artifacts.values()
        for entry in artifact.abi
        if entry["type"] == "error"
    }
    for error, arguments in AMOUNTS.items():
        assert arguments <= known[error], error


def test_decode_root_is_shown_in_hex(decoder: ErrorDecoder) -> None:
    data = selector("AlreadySubmitted(bytes32)") + b"\xab" * 32
    assert decoder.decode("c", "m", "0x" + data.hex()).arguments == {"stateRoot": "0x" + "ab" * 32}


def test_decode_reason_string_and_panic(decoder: ErrorDecoder) -> None:
    said = decoder.decode("c", "m", selector("Error(string)") + encode(["string"], ["no such luck"]))
    assert (said.error, said.arguments) == ("Error", {"message": "no such luck"})
    panic = decoder.decode("c", "m", selector("Panic(uint256)") + encode(["uint256"], [0x11]))
    assert (panic.error, panic.arguments) == ("Panic", {"code": 0x11})


@pytest.mark.parametrize("data", [b"", None, "0x", "no hex", b"\x01\x02", b"\xde\xad\xbe\xef\x00"])
def test_decode_unknown_data_keeps_the_bytes(decoder: ErrorDecoder, data: bytes | str | None) -> None:
    refusal = decoder.decode("c", "m", data)
    raw = data if isinstance(data, bytes) else b""
    assert (refusal.error, refusal.arguments) == ("Unknown", {"data": "0x" + raw.hex()})


def test_decode_cut_off_arguments_keep_the_bytes(decoder: ErrorDecoder) -> None:
    data = selector("SlotTaken(address,uint8,uint256)") + b"\0" * 40
    refusal = decoder.decode("c", "m", data)
    assert (refusal.error, refusal.arguments) == ("Unknown", {"data": "0x" + data.hex()})


def test_every_error_of_the_interfaces_is_known(decoder: ErrorDecoder, artifacts: dict[str, Artifact]) -> None:
    checked = 0
    names = ("ITrainingLedger", "IStakeVault", "IDisputeGame", "IAuditCommittee", "IRoundBook", "TrainingToken")
    for name in (*names, "IOpenLedger", "IAvailabilityCommittee"):
        for entry in artifacts[name].abi:
            if entry["type"] != "error":
                continue
            types = [item["type"] for item in entry["inputs"]]
            zeros = {"string": "", "address": "0x" + "00" * 20, "bytes32": bytes(32)}
            values = [zeros.get(kind, 0) for kind in types]
            data = selector(f"{entry['name']}({','.join(types)})") + encode(types, values)
            refusal = decoder.decode(name, "m", data)
            assert refusal.error == entry["name"]
            assert list(refusal.arguments) == [item["name"] for item in entry["inputs"]]
            checked += 1
    assert checked > 100


def test_every_error_of_open_tasks_has_a_remedy(decoder: ErrorDecoder, artifacts: dict[str, Artifact]) -> None:
    for name in ("IOpenLedger", "IAvailabilityCommittee"):
        for entry in artifacts[name].abi:
            if entry["type"] == "error":
                types = [item["type"] for item in entry["inputs"]]
                zeros = {"string": "", "address": "0x" + "00" * 20, "bytes32": bytes(32)}
                values = [zeros.get(kind, 0) for kind in types]
                data = selector(f"{entry['name']}({','.join(types)})") + encode(types, values)
                assert decoder.decode(name.removeprefix("I"), "m", data).remedy.endswith("."), entry["name"]


def test_decode_same_error_of_two_contracts_is_the_called_ones(decoder: ErrorDecoder) -> None:
    data = selector("TooLate(uint256,uint256)") + encode(["uint256", "uint256"], [7, 8])
    game = decoder.decode("DisputeGame", "narrow", data)
    assert game.arguments == {"deadline": 7, "nowTime": 8}
    assert game.remedy.startswith("The deadline has passed")
    round_over = decoder.decode("OpenLedger", "reveal", data)
    assert round_over.arguments == {"periodEnd": 7, "nowTime": 8}
    assert round_over.remedy.startswith("That period of the round is over")


@pytest.mark.parametrize(
    ("problem", "data"),
    [
        (ContractLogicError("x", data="0x01020304"), b"\1\2\3\4"),
        (ContractLogicError("x", data={"data": "0x0102"}), b"\1\2"),
        (ContractLogicError("x", data="Reverted 0x0102"), b"\1\2"),
        (ContractLogicError("execution reverted", data=None), b""),
        (
            ContractLogicError("execution reverted: no luck", data=None),
            selector("Error(string)") + encode(["string"], ["no luck"]),
        ),
    ],
)
def test_revert_data_of_every_kind_of_node(problem: ContractLogicError, data: bytes) -> None:
    assert revert_data(problem) == data
