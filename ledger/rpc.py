"""A web3 connection whose failures are chain errors, and whose URL never shows a password or an API key."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import requests
from web3 import HTTPProvider, Web3
from web3.exceptions import BadResponseFormat, Web3Exception
from web3.middleware import ExtraDataToPOAMiddleware
from web3.types import RPCEndpoint, RPCResponse

from ledger.answers import wrong_answer
from ledger.canonical import MAXIMUM_DEPTH, nesting_depth
from ledger.errors import ChainError, ChainUnreachable, SettingsError, WrongChain

# A node that restarts is back within a second or two; a wrong address should not keep anybody waiting longer.
_ATTEMPTS = 4
_FIRST_PAUSE_SECONDS = 0.1


def mask_url(url: str) -> str:
    """The scheme, host and port of `url`: providers put keys in the user part, the path and the query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an address that cannot be read"
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    try:
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        port = ":?"
    rest = "/…" if parts.path.strip("/") or parts.query else ""
    user = "…@" if parts.username else ""
    return f"{parts.scheme}://{user}{host}{port}{rest}"


@contextlib.contextmanager
def chain_errors(url: str) -> Iterator[None]:
    """Turns what transports raise into ChainUnreachable, with the URL masked."""
    masked = mask_url(url)
    try:
        yield
    except requests.exceptions.HTTPError as problem:
        status = problem.response.status_code if problem.response is not None else "?"
        raise ChainUnreachable(masked, f"it refused the request with HTTP status {status}") from None
    except requests.exceptions.Timeout:
        raise ChainUnreachable(masked, "it did not answer in time") from None
    except requests.exceptions.ConnectionError as problem:
        raise ChainUnreachable(masked, _reason(problem)) from None
    except requests.exceptions.RequestException as problem:
        raise ChainUnreachable(masked, type(problem).__name__) from None
    except (BadResponseFormat, UnicodeDecodeError, json.JSONDecodeError):
        raise ChainUnreachable(masked, "it did not answer in JSON-RPC") from None
    except ConnectionError as problem:
        raise ChainUnreachable(masked, problem.strerror or type(problem).__name__) from None


def _reason(problem: requests.exceptions.ConnectionError) -> str:
    # The library's own text repeats the whole URL, keys included; only the cause in it is shown.
    text = str(problem)
    for sign, reason in (
        ("refused", "connection refused"),
        ("resolve", "the host name is unknown"),
        ("Name or service not known", "the host name is unknown"),
        ("reset", "the connection was reset"),
        ("closed connection", "the connection was closed"),
        ("RemoteDisconnected", "the connection was closed"),
    ):
        if sign in text:
            return reason
    return "the connection failed"


class ChainProvider(HTTPProvider):
    """HTTPProvider that repeats a call whose connection broke, and then raises ChainUnreachable.

    What trainledger says to a public node may be repeated: reads change nothing, and a signed transaction sent twice
    is the same transaction (its nonce and hash are in the bytes). For what may not be, there is `attempts=1`.
    """

    def __init__(self, url: str, *, timeout: float, attempts: int = _ATTEMPTS) -> None:
        super().__init__(url, request_kwargs={"timeout": timeout}, exception_retry_configuration=None)
        self._url = url
        self._attempts = attempts

    @staticmethod
    def decode_rpc_response(raw_response: bytes) -> RPCResponse:
        # Python's parser recurses: a node that answers with brackets alone could end the process.
        if nesting_depth(raw_response) > MAXIMUM_DEPTH:
            raise BadResponseFormat(f"it is nested more than {MAXIMUM_DEPTH} deep")
        return HTTPProvider.decode_rpc_response(raw_response)

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        pause = _FIRST_PAUSE_SECONDS
        for attempt in range(1, self._attempts + 1):
            try:
                with chain_errors(self._url):
                    response = super().make_request(method, params)
                if (wrong := wrong_answer(method, params, response)) is not None:
                    raise ChainUnreachable(mask_url(self._url), f"it does not answer as an Ethereum node ({wrong})")
                if attempt == self._attempts or not _raced(response):
                    return response
            except ChainUnreachable:
                if attempt == self._attempts:
                    raise
            time.sleep(pause)
            pause *= 2
        raise AssertionError("unreachable: the last attempt returns or raises")


def _raced(response: RPCResponse) -> bool:
    """Whether a block was mined while Anvil, which keeps only the newest state, looked up the one before."""
    error = response.get("error")
    return isinstance(error, dict) and "BlockOutOfRangeError" in str(error.get("message", ""))


def connect(url: str, *, expected_chain: int | None = None, timeout: float = 10) -> Web3:
    """Connects to a JSON-RPC endpoint over HTTP and checks that it is alive.

    Args:
        expected_chain: chain id that the endpoint must have; any when None.
        timeout: seconds that one request may take.

    Raises:
        SettingsError: `url` is not an http(s) URL.
        ChainUnreachable: nobody answers, or not in JSON-RPC.
        WrongChain: the endpoint serves another chain.
    """
    _check_url(url)
    web3 = Web3(ChainProvider(url, timeout=timeout))
    # Chains with proof of authority (and some rollups) put more into a block's extra data than web3 otherwise takes.
    web3.middleware_onion.inject(ExtraDataToPOAMiddleware, layer=0)
    # It asks for the chain id before every call, to compare it with one in the call, where ours have none: transactions
    # are signed for their chain, and calls are to addresses of a deployment whose chain was checked here.
    web3.middleware_onion.remove("validation")
    actual = chain_id(web3)
    if expected_chain is not None and actual != expected_chain:
        raise WrongChain(expected_chain, actual, mask_url(url))
    return web3


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        good, shown = parts.scheme in ("http", "https") and bool(parts.hostname), repr(url)
        if parts.scheme and parts.hostname:
            shown = mask_url(url)
    except ValueError:
        good, shown = False, "given"
    if not good:
        raise SettingsError(
            f"The RPC URL {shown} is not an HTTP address.", remedy="Write it as http://HOST:PORT or https://HOST/PATH."
        )


def chain_id(web3: Web3) -> int:
    """The chain id that the endpoint reports.

    Raises:
        ChainUnreachable: what answers is no Ethereum node.
    """
    try:
        return int(web3.eth.chain_id)
    except (Web3Exception, TypeError, ValueError) as problem:
        raise ChainUnreachable(endpoint(web3), f"it does not answer as an Ethereum node ({problem})") from None


def endpoint(web3: Web3) -> str:
    """The masked URL of a connection, for messages."""
    return mask_url(str(getattr(web3.provider, "endpoint_uri", "") or "local://provider"))


def rpc(web3: Web3, method: str, *parameters: Any) -> Any:
    """Calls a JSON-RPC method that web3 has no name for, such as Anvil's own.

    Raises:
        ChainError: the node answers with an error.
    """
    try:
        response = web3.provider.make_request(RPCEndpoint(method), list(parameters))
    except Web3Exception as problem:
        raise ChainError(f"The node at {endpoint(web3)} refused {method}: {problem}.") from problem
    if "error" in response:
        error = response["error"]
        text = error.get("message", error) if isinstance(error, dict) else error
        raise ChainError(f"The node at {endpoint(web3)} refused {method}: {text}.")
    return response["result"]
