"""What an Ethereum node may answer: checked where answers arrive, so that nothing behind meets another shape."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["wrong_answer"]

_QUANTITY = re.compile(r"0x[0-9a-fA-F]{1,64}")
_DATA = re.compile(r"0x(?:[0-9a-fA-F]{2})*")
_WORD = re.compile(r"0x[0-9a-fA-F]{64}")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_SHOWN = 60

Check = Callable[[Any], bool]


def wrong_answer(method: str, params: Any, response: object) -> str | None:
    """Why `response` is no JSON-RPC answer to `method`, for an error's text; None where it may be one."""
    if not isinstance(response, Mapping):
        return f"{method} gave {_shown(response)}"
    name, error = response.get("id"), response.get("error")
    numbered = (
        type(name) is int or (isinstance(name, str) and name.isdecimal()) or (name is None and "error" in response)
    )
    if response.get("jsonrpc") != "2.0" or not numbered:
        return f"{method} gave {_shown(response)}, which is not JSON-RPC 2.0"
    if ("error" in response) == ("result" in response):
        return f"{method} gave {'both a result and' if 'error' in response else 'neither a result nor'} an error"
    if "error" in response:
        good = isinstance(error, Mapping) and isinstance(error.get("message"), str) and type(error.get("code")) is int
        return None if good else f"{method} gave the error {_shown(error)}"
    result = response["result"]
    if method == "eth_getBlockByNumber" and result is None and list(params)[:1] == ["latest"]:
        return "it has no newest block"
    check = _CHECKS.get(method)
    return None if check is None or check(result) else f"{method} gave {_shown(result)}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _matches(pattern: re.Pattern[str]) -> Check:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _list_of(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(check(item) for item in value)


def _object(**fields: Check) -> Check:
    def good(value: Any) -> bool:
        return isinstance(value, Mapping) and all(check(value.get(name)) for name, check in fields.items())

    return good


def _or_null(check: Check) -> Check:
    return lambda value: value is None or check(value)


_quantity, _data, _word, _address = (_matches(pattern) for pattern in (_QUANTITY, _DATA, _WORD, _ADDRESS))
_place = {"blockNumber": _quantity, "blockHash": _word, "transactionHash": _word}
_log = _object(address=_address, topics=_list_of(_word), data=_data, logIndex=_quantity, **_place)
_CHECKS: Mapping[str, Check] = {
    **dict.fromkeys(
        (
            "eth_chainId",
            "eth_blockNumber",
            "eth_getTransactionCount",
            "eth_getBalance",
            "eth_estimateGas",
            "eth_maxPriorityFeePerGas",
        ),
        _quantity,
    ),
    "eth_call": _data,
    "eth_getCode": _data,
    "eth_sendRawTransaction": _word,
    "eth_getBlockByNumber": _or_null(_object(number=_quantity, hash=_word, timestamp=_quantity)),
    "eth_getTransactionReceipt": _or_null(_object(status=_quantity, gasUsed=_quantity, logs=_list_of(_log), **_place)),
    "eth_getLogs": _list_of(_log),
}
