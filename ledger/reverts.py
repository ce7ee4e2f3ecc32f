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

# What to do about the errors that users meet; the rest speak for themselves. "method.error" goes before
# "contract.error", and that before "error".
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
    # Open tasks.
    "OpenLedger.UnknownTask": "See `trainledger open list` for the open tasks there are.",
    "OpenLedger.NothingToAward": "See `trainledger open show` for the slots there are.",
    "OpenLedger.TooLate": "That period of the round is over; `trainledger open show` tells what it waits for.",
    "OnlyAvailabilityCommittee": "Nobody calls this; ask about a state with `trainledger open question`.",
    "WrongStage": "The slot is not as far, or further; look at it again with `trainledger open show`.",
    "AlreadyCommitted": "A worker commits once a round, and an auditor once to what it found; open that.",
    "AlreadyDone": "Nothing is left to do.",
    "CommitsOver": "The round is full, or its time for commits is over; wait for the next round.",
    "TooEarly": "Try again after that time; `trainledger open show` tells what the round waits for.",
    "WrongCommitment": "Open it with the very state and salt that were committed to.",
    "WrongHeldOut": "Show the held-out tokens that the task was posted with for this very round.",
    "WrongHeldOutSize": "Show exactly the bytes that the task was posted with.",
    "score.HeldOutShown": "Wait until the requester has shown the round's held-out data.",
    "expire.HeldOutShown": "Wait until the requester has shown the round's held-out data.",
    "HeldOutShown": "The held-out data was shown in time: the states are scored now.",
    "NotYourScore": "Only its worker may score this state until then; try again after it.",
    "BaselineNotFinal": "Let the round's base be scored and made final first; it is the last slot.",
    "Questioned": "It is asked once whether a state can be fetched; wait for the answer if there is none yet.",
    "RoundHasStates": "There are states to score or to pay; `trainledger open show` tells which.",
    "OnlyRequesterAcknowledges": "Act as the task's requester with --account.",
    "unavailable.WindowOver": "A state can be asked about only until the window of its score ends.",
    "AvailabilityCommittee.TooFewSeats": "Wait until auditors have nine seats; `trainledger auditor enrol` takes some.",
    "UnknownInquiry": "Nobody has asked whether this state can be fetched; `trainledger open question` asks.",
    "AlreadyDecided": "Nothing is left to do; `trainledger open show` tells what was decided.",
    "AlreadyDrawn": "Nothing is left to draw.",
    "NotDrawn": "Draw the auditors first, two blocks after the question.",
    "SeedUnavailable": "Try again two blocks later.",
    "WrongSeed": "The auditors were drawn anew; look at it again.",
    "NotDrawnInto": "Act for an auditor who was drawn, and who has committed where it is about to reveal.",
    "AlreadyRevealed": "Nothing is left to do.",
    "EmptyCommitment": "Commit to the hash of what was found.",
    "CommitOver": "The time to commit is over; what was committed to can be revealed.",
    "CommitStillOpen": "Reveal when the time to commit is over.",
    "RevealOver": "The time to reveal is over.",
    "WrongOpening": "Open it with the very finding and salt that were committed to.",
    "InquiryStillRuns": "Try again when the time to reveal is over.",
    "NothingToCollect": "This auditor is owed nothing, or has it; see `trainledger rewards`.",
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
_AMOUNT_FIELDS = frozenset(
    {
        "bond",
        "fee",
        "floorReward",
        "leaseFee",
        "mergeReward",
        "minimumBond",
        "minimumStake",
        "scoreReward",
        "slotReward",
    }
)


_Error = tuple[str, list[str], list[str]]  # name, names of the arguments, their types


class ErrorDecoder:
    """Decodes revert data with the custom errors of all given artifacts.

    Args:
        artifacts: the contracts whose errors are known; a call into one may revert with an error of any other. Where
            two have the same error, and name its arguments otherwise, the names are those of the one called.
    """

    def __init__(self, artifacts: Iterable[Artifact] | Mapping[str, Artifact]) -> None:
        self._errors: dict[bytes, _Error] = {
            _ERROR: ("Error", ["message"], ["string"]),
            _PANIC: ("Panic", ["code"], ["uint256"]),
        }
        self._own: dict[tuple[str, bytes], _Error] = {}
        for artifact in artifacts.values() if isinstance(artifacts, Mapping) else artifacts:
            for entry in artifact.abi:
                if entry["type"] == "error":
                    selector, error = _read_entry(entry)
                    self._errors[selector] = self._own[artifact.name, selector] = error

    def decode(self, contract: str, method: str, data: bytes | str | None) -> ContractReverted:
        """The error to raise for revert data that `contract.method` gave.

        `error` is "Unknown" for a selector in no ABI and for empty data (a call that ran out of gas, or into an
        address without code); then `arguments` holds the raw data.
        """
        raw = _to_bytes(data)
        known = self._own.get((contract, raw[:4]), self._errors.get(raw[:4]))
        if known is not None:
            name, names, types = known
            try:
                values = abi_decode(types, raw[4:])
            except (DecodingError, UnicodeDecodeError, OverflowError):
                known = None
            else:
                arguments = {key: _plain(value, kind) for key, value, kind in zip(names, values, types, strict=True)}
                return ContractReverted(
                    contract,
                    method,
                    name,
                    arguments,
                    amounts=_amounts_of(name, arguments),
                    remedy=_remedy_of(contract, method, name),
                )
        return ContractReverted(contract, method, "Unknown", {"data": "0x" + raw.hex()})


def _read_entry(entry: Mapping[str, Any]) -> tuple[bytes, _Error]:
    """Selector, name, and the names and types of the arguments of an ABI's error."""
    types = [collapse_if_tuple(item) for item in entry["inputs"]]
    names = [item["name"] or f"argument{index}" for index, item in enumerate(entry["inputs"])]
    selector = function_signature_to_4byte_selector(f"{entry['name']}({','.join(types)})")
    return selector, (entry["name"], names, types)


def _remedy_of(contract: str, method: str, error: str) -> str:
    keys = (f"{method}.{error}", f"{contract}.{error}", error)
    return next((_REMEDIES[key] for key in keys if key in _REMEDIES), "")


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
