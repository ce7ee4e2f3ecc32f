"""What a contract's refusal means: revert data to ContractReverted, through the errors of all ABIs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from eth_abi.abi import decode as abi_decode
from eth_abi.abi import encode as abi_encode
from eth_abi.exceptions import DecodingError
from eth_utils.abi import collapse_if_tuple, function_signature_to_4byte_selector
from web3 import Web3
from web3.exceptions import ContractLogicError

from ledger.compile import Artifact
from ledger.errors import ContractReverted

_ERROR = function_signature_to_4byte_selector("Error(string)")
_PANIC = function_signature_to_4byte_selector("Panic(uint256)")

# What to do about the errors that users meet; the rest speak for themselves. "method.error" goes before "error".
_REMEDIES: Mapping[str, str] = {
    "closeTask.TaskIsClosed": "Nothing is left to close; `trainledger withdraw` sends what it returned to you.",
    "requestUnbond.InsufficientFreeStake": "Take out no more than is free; a bond comes free when its round ends.",
    "UnknownTask": "See `trainledger task list` for the tasks there are.",
    "TaskIsClosed": "It takes no more claims; choose another task.",
    "WrongRound": "That round's turn is over or has not come; look at the task again.",
    "WrongAttempt": "The slot has changed hands since it was looked at; look at it again.",
    "WrongBase": "The base checkpoint has changed; fetch the round's base again.",
    "SlotTaken": "Wait until its deadline, or take another task.",
    "LeaseOver": "The lease ran out before the submission; claim the slot again if it is still open.",
    "OnlyRequester": "Act as the requester with --account.",
    "NotAuthorised": "Let the stake's owner allow this account with `trainledger account authorise`.",
    "NotAuthorisedFor": "Let the seats' owner allow this account with `trainledger account authorise`.",
    "InsufficientFreeStake": "Stake more with `trainledger account stake`.",
    "StakeTooSmall": "Stake more with `trainledger account stake`, or take a task with another admission.",
    "TicketBlockUnknown": "The ticket is too old; find a new one.",
    "WindowStillOpen": "Try again after the challenge window.",
    "LeaseStillRunning": "Try again after the lease's end.",
    "StillUnbonding": "Try again after the release time.",
    "NothingUnbonding": "Ask for free stake first with `trainledger account unbond AMOUNT`.",
    "ZeroAddress": "Name an address other than zero.",
    "InvalidParameter": "Give that field a value the deployment takes; docs/contracts.md has the rules.",
    "NothingToWithdraw": "Rewards are credited when a round is finalised; see `trainledger rewards`.",
    "ERC20InsufficientBalance": "Get more tokens, or spend fewer.",
    "ERC20InsufficientAllowance": "Approve the vault for the amount, or use a token that has EIP-2612 permits.",
    "GameOver": "Nothing is left to do; see `trainledger dispute show`.",
    "GamesStillOpen": "Wait until they are over; `trainledger dispute list --running` shows them.",
    "NoSuchGame": "See `trainledger dispute list` for the games there are.",
    "NotLate": "Try again after the deadline that `trainledger dispute show` gives.",
    "NotYourMove": "Act as the party whose turn it is, with --account, or wait; `trainledger dispute show` tells.",
    "NothingToAward": "See `trainledger task show` for the attempts there were.",
    "SubmissionStands": "It has not fallen; play on, or settle the game once a clock has run out.",
    "TooLate": "The deadline has passed: anybody may now end the game with `trainledger dispute settle`.",
    "WindowOver": "A submission can be challenged only until its challenge window ends.",
    "WrongPosition": "The game has moved on, or the chain was reorganised; look at it again.",
    "WrongState": "The slot holds another state now; look at it again.",
    "NotSubmitted": "The slot holds another submission now, or none; look at it again.",
    "NoTimeForAudit": "Ask sooner after a submission, or post tasks whose window is longer than lease and reveal.",
    "BudgetTooSmall": "Add to the task's audit budget with `trainledger auditor fund`.",
    "TooFewSeats": "Wait until there are more auditors, or take seats with `trainledger auditor enrol`.",
    "WrongFee": "Name the fee that the budget was opened with; `trainledger auditor budget` shows it.",
    "OnlyRequesterOpensBudget": "Let the task's requester open its audit budget first.",
    "TaskStillRuns": "The budget comes back when the task is complete or closed.",
    "SeatBusy": "Its owner has committed in an audit; try again after that time.",
    "RoundIsFrozen": "It is decided which slots count; wait for the round's merge, or for the next round.",
    "SlotDidNotCount": "Take a slot that counted, or try again after the deadline; `trainledger task show` lists them.",
    "RoundNotReady": "Wait for more submissions, or for the round's deadline; `trainledger task show` tells which.",
    "InputsNotCollected": "The round waits for its slots, or for somebody to collect their states; look at it again.",
    "InputsNotFinal": "Try again when the slots that the merge took are final.",
    "WrongGeneration": "A slot that counted fell, and the round goes on without it; look at it again.",
    "AlreadyCollected": "Nothing is left to collect; the merge can be claimed.",
    "NotGrouped": "The task has one slot a round, which no merge follows.",
    "WrongSeatCount": "Take at least one seat and no more than the most at once.",
}

# Which arguments of an error are wei of the token. The ABI does not tell amounts from other numbers.
AMOUNTS: Mapping[str, frozenset[str]] = {
    "AmountTooLarge": frozenset({"amount"}),
    "AwardTooLarge": frozenset({"taken", "awarded"}),
    "BudgetTooSmall": frozenset({"free", "needed"}),
    "ERC20InsufficientAllowance": frozenset({"allowance", "needed"}),
    "ERC20InsufficientBalance": frozenset({"balance", "needed"}),
    "InsufficientEscrow": frozenset({"escrow", "needed"}),
    "InsufficientFreeStake": frozenset({"free", "needed"}),
    "InsufficientLockedStake": frozenset({"locked", "needed"}),
    "StakeTooSmall": frozenset({"staked", "minimumStake"}),
    "WrongAmountReceived": frozenset({"asked", "received"}),
    "WrongFee": frozenset({"given", "expected"}),
}
# The same for the parameters that InvalidParameter is about.
_AMOUNT_FIELDS = frozenset({"bond", "leaseFee", "minimumBond", "minimumStake", "slotReward", "mergeReward"})


class ErrorDecoder:
    """Decodes revert data with the custom errors of all given artifacts.

    Args:
        artifacts: the contracts whose errors are known; a call into one may revert with an error of any other.
    """

    def __init__(self, artifacts: Iterable[Artifact] | Mapping[str, Artifact]) -> None:
        self._errors: dict[bytes, tuple[str, list[str], list[str]]] = {
            _ERROR: ("Error", ["message"], ["string"]),
            _PANIC: ("Panic", ["code"], ["uint256"]),
        }
        for artifact in artifacts.values() if isinstance(artifacts, Mapping) else artifacts:
            for entry in artifact.abi:
                if entry["type"] == "error":
                    self._add(entry)

    def _add(self, entry: Mapping[str, Any]) -> None:
        types = [collapse_if_tuple(item) for item in entry["inputs"]]
        names = [item["name"] or f"argument{index}" for index, item in enumerate(entry["inputs"])]
        selector = function_signature_to_4byte_selector(f"{entry['name']}({','.join(types)})")
        self._errors[selector] = (entry["name"], names, types)

    def decode(self, contract: str, method: str, data: bytes | str | None) -> ContractReverted:
        """The error to raise for revert data that `contract.method` gave.

        `error` is "Unknown" for a selector in no ABI and for empty data (a call that ran out of gas, or into an
        address without code); then `arguments` holds the raw data.
        """
        raw = _to_bytes(data)
        known = self._errors.get(raw[:4])
        if known is not None:
            name, names, types = known
            try:
                values = abi_decode(types, raw[4:])
            except (DecodingError, UnicodeDecodeError, OverflowError):
                known = None
            else:
                arguments = {key: _plain(value, kind) for key, value, kind in zip(names, values, types, strict=True)}
                remedy = _REMEDIES.get(f"{method}.{name}", _REMEDIES.get(name, ""))
                return ContractReverted(
                    contract, method, name, arguments, amounts=_amounts_of(name, arguments), remedy=remedy
                )
        return ContractReverted(contract, method, "Unknown", {"data": "0x" + raw.hex()})


def _amounts_of(error: str, arguments: Mapping[str, Any]) -> frozenset[str]:
    if error == "InvalidParameter":
        return frozenset({"value"}) if arguments["field"] in _AMOUNT_FIELDS else frozenset()
    return AMOUNTS.get(error, frozenset())


def revert_data(problem: ContractLogicError) -> bytes:
    """The revert data inside web3's exception; empty where the node gave none."""
    data: Any = problem.data
    if isinstance(data, dict):
        data = data.get("data") or data.get("result")
    if isinstance(data, str | bytes):
        raw = _to_bytes(data.removeprefix("Reverted ") if isinstance(data, str) else data)
        if raw:
            return raw
    prefix = "execution reverted: "
    if problem.message and problem.message.startswith(prefix):  # an old node gives the reason string alone
        return _ERROR + abi_encode(["string"], [problem.message.removeprefix(prefix)])
    return b""


def _to_bytes(data: bytes | str | None) -> bytes:
    if data is None:
        return b""
    if isinstance(data, str):
        try:
            return bytes.fromhex(data.removeprefix("0x"))
        except ValueError:
            return b""
    return bytes(data)


def _plain(value: Any, kind: str) -> Any:
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if kind == "address":
        return str(Web3.to_checksum_address(value))
    if isinstance(value, tuple | list):
        return [_plain(item, "") for item in value]
    return value
