from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import requests

from ledger.anvil import CHAIN_ID, LocalChain
from ledger.errors import ChainError, ChainUnreachable, SettingsError, WrongChain
from ledger.rpc import chain_errors, connect, endpoint, mask_url, rpc


@contextmanager
def server(answer: Callable[[int], tuple[int, bytes] | None]) -> Iterator[str]:
    """An HTTP server that gives request n what `answer(n)` says; None drops the connection."""
    count = iter(range(1000))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            said = answer(next(count))
            if said is None:
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response(said[0])
            self.end_headers()
            self.wfile.write(said[1])

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    running = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_port}"
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


def good(chain: int) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 0, "result": hex(chain)}).encode()


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("http://127.0.0.1:8545", "http://127.0.0.1:8545"),
        ("https://mainnet.example.org/v3/0123456789abcdef", "https://mainnet.example.org/…"),
        ("https://user:secret@example.org:444/x?key=secret", "https://…@example.org:444/…"),
        ("http://[::1]:8545/", "http://[::1]:8545"),
    ],
)
def test_mask_url_hides_keys_and_passwords(url: str, masked: str) -> None:
    assert mask_url(url) == masked


@pytest.mark.chain
def test_connect_live_chain_succeeds(chain: LocalChain) -> None:
    web3 = connect(chain.rpc_url, expected_chain=CHAIN_ID)
    assert web3.eth.chain_id == CHAIN_ID
    assert endpoint(web3) == chain.rpc_url


@pytest.mark.chain
def test_connect_other_chain_is_named(chain: LocalChain) -> None:
    with pytest.raises(WrongChain) as caught:
        connect(chain.rpc_url, expected_chain=1)
    assert (caught.value.expected, caught.value.actual, caught.value.url) == (1, CHAIN_ID, chain.rpc_url)


def test_connect_nobody_listens_is_unreachable() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(ChainUnreachable) as caught:
        connect(f"http://user:secret@127.0.0.1:{port}/v3/secret")
    assert caught.value.reason == "connection refused"
    assert caught.value.url == f"http://…@127.0.0.1:{port}/…"
    assert "secret" not in str(caught.value)


def test_connect_silent_server_is_unreachable() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(ChainUnreachable) as caught:
            connect(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.1)
    assert caught.value.reason == "it did not answer in time"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((401, b"{}"), "it refused the request with HTTP status 401"),
        ((200, b"<html>hello</html>"), "it did not answer in JSON-RPC"),
        ((200, b"\xff\xfe"), "it did not answer in JSON-RPC"),
    ],
)
def test_connect_no_json_rpc_is_unreachable(answer: tuple[int, bytes], reason: str) -> None:
    with server(lambda _: answer) as url, pytest.raises(ChainUnreachable) as caught:
        connect(url)
    assert caught.value.reason == reason


def test_connect_json_of_another_kind_is_unreachable() -> None:
    with server(lambda _: (200, b'{"hello": 1}')) as url, pytest.raises(ChainUnreachable, match="Ethereum node"):
        connect(url)


def test_connect_dropped_connection_is_repeated() -> None:
    with server(lambda n: None if n < 2 else (200, good(5))) as url:
        assert connect(url, expected_chain=5).eth.chain_id == 5


@pytest.mark.parametrize("url", ["ws://127.0.0.1:8545", "127.0.0.1:8545", "", "http://"])
def test_connect_not_http_is_a_settings_error(url: str) -> None:
    with pytest.raises(SettingsError, match="is not an HTTP address"):
        connect(url)


def test_chain_errors_hides_the_url_of_any_request_error() -> None:
    with pytest.raises(ChainUnreachable) as caught, chain_errors("https://example.org/secret"):
        raise requests.exceptions.TooManyRedirects("https://example.org/secret")
    assert str(caught.value).startswith("No answer from the chain at https://example.org/…: TooManyRedirects.")


@pytest.mark.chain
def test_rpc_refused_method_is_a_chain_error(chain: LocalChain) -> None:
    with pytest.raises(ChainError, match="refused evm_noSuchThing"):
        rpc(connect(chain.rpc_url), "evm_noSuchThing")
