"""The local chain across every way of ending it."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from history import POOR, RICH, assert_kept, call, kill, make_history, mined, time_of, wait_until

from ledger import _node, anvil
from ledger._node import is_anvil, running_nodes, unpack_dump
from ledger.anvil import LocalChain, find_anvil
from ledger.errors import ChainError, ResourceError, ToolMissing

pytestmark = pytest.mark.chain


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # whatever a failed test left running
        pid = json.loads((tmp_path / "chain/node.json").read_text())["pid"]
        if is_anvil(pid):
            os.kill(pid, signal.SIGKILL)


def test_stop_and_start_keep_everything(home: Path) -> None:
    with LocalChain(home, 0) as chain:
        facts = make_history(chain)
    assert not chain.owned
    with LocalChain(home, chain.port) as again:
        assert_kept(again, facts)
        receipt = mined(again, call(again, "eth_sendTransaction", {"from": RICH, "to": facts.contract}))
        assert int(receipt["status"], 16) == 1
    with LocalChain(home, 0) as third:
        logs = call(third, "eth_getLogs", {"fromBlock": "0x0", "toBlock": "latest", "address": facts.contract})
        assert len(logs) == 2


def test_killed_node_comes_back_with_everything(home: Path) -> None:
    chain = LocalChain(home, 0).start()
    facts = make_history(chain)
    newest = int(call(chain, "eth_blockNumber"), 16)
    wait_until(lambda: chain._saved_block >= newest)
    kill(chain.pid)
    chain.start()  # the same object: its owner noticed and starts it again
    assert_kept(chain, facts)
    kill(chain.pid)
    chain.stop()  # stopping a chain that is dead already is no failure
    with LocalChain(home, 0) as again:
        assert_kept(again, facts)


OWNER = """
import sys, time
from pathlib import Path
from ledger.anvil import LocalChain
chain = LocalChain(Path(sys.argv[1]), 0).start()
print(chain.port, chain.pid, flush=True)
time.sleep(600)
"""


@contextlib.contextmanager
def other_owner(home: Path) -> Iterator[tuple[subprocess.Popen[bytes], int, int]]:
    """Another process that owns the chain: (process, port, node's pid)."""
    process = subprocess.Popen([sys.executable, "-c", OWNER, str(home)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    port, pid = (int(word) for word in process.stdout.readline().split())
    try:
        yield process, port, pid
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_killed_owner_leaves_a_node_that_is_adopted(home: Path) -> None:
    with other_owner(home) as (process, port, pid):
        guest = LocalChain(home, 0).start()
        facts = make_history(guest)
        process.kill()
        process.wait()
        with LocalChain(home, 0) as heir:
            assert heir.owned
            assert (heir.port, heir.pid) == (port, pid)
            assert_kept(heir, facts)
        assert not is_anvil(pid)
    with LocalChain(home, 0) as again:
        assert again.pid != pid
        assert_kept(again, facts)


def test_killed_owner_before_the_record_is_written_leaves_a_node_that_is_adopted(home: Path) -> None:
    with other_owner(home) as (process, port, pid):
        facts = make_history(LocalChain(home, 0).start())
        process.kill()
        process.wait()
        (home / "chain/node.json").unlink()
        with LocalChain(home, 0) as heir:
            assert (heir.port, heir.pid) == (port, pid)
            assert_kept(heir, facts)
    assert not is_anvil(pid)


def test_deleted_home_made_anew_ends_the_old_node(home: Path) -> None:
    with other_owner(home) as (process, _, pid):
        process.kill()
        process.wait()
        shutil.rmtree(home / "chain")
        with LocalChain(home, 0) as fresh:
            assert fresh.pid != pid
            assert not is_anvil(pid)
            assert [found for found, _ in running_nodes(home / "chain/cache")] == [fresh.pid]
    assert running_nodes(home / "chain/cache") == []


def test_killed_owner_and_node_come_back(home: Path) -> None:
    with other_owner(home) as (process, _, pid):
        facts = make_history(LocalChain(home, 0).start())
        newest = facts.block_number + 1
        wait_until(lambda: saved_block(home) >= newest)
        process.kill()
        kill(pid)
    with LocalChain(home, 0) as again:
        assert_kept(again, facts)


def saved_block(home: Path) -> int:
    state = json.loads(gzip.decompress((home / "chain/state.gz").read_bytes()))
    return int(state["best_block_number"])


def test_guest_leaves_the_chain_to_its_owner(home: Path) -> None:
    with other_owner(home) as (_, port, pid):
        with LocalChain(home, 0) as guest:
            assert not guest.owned
            assert (guest.port, guest.pid) == (port, pid)
        assert int(call(guest, "eth_chainId"), 16) == anvil.CHAIN_ID
        kill(pid)


def test_start_twice_is_one_node(home: Path) -> None:
    with LocalChain(home, 0) as chain:
        pid = chain.pid
        assert chain.start().pid == pid


BEGUN = gzip.compress(b'{"bl')  # of a document cut short


# With names, because a file of gzip holds the time of day, and test processes have to agree on their tests.
@pytest.mark.parametrize(
    "damage",
    [b"", b"\x1f\x8b\x08 half a dump", gzip.compress(b"{}"), BEGUN],
    ids=["empty", "half", "no state", "half a state"],
)
def test_damaged_dump_falls_back_to_the_one_before(home: Path, damage: bytes) -> None:
    with LocalChain(home, 0) as chain:
        facts = make_history(chain)
        chain.save()
        chain.save()
    (home / "chain/state.gz").write_bytes(damage)
    with LocalChain(home, 0) as again:
        assert_kept(again, facts)


def test_missing_newest_dump_falls_back_to_the_one_before(home: Path) -> None:
    with LocalChain(home, 0) as chain:
        facts = make_history(chain)
        chain.save()
    (home / "chain/state.gz").unlink()
    with LocalChain(home, 0) as again:
        assert_kept(again, facts)


def test_both_dumps_damaged_is_an_error_not_an_empty_chain(home: Path) -> None:
    with LocalChain(home, 0):
        pass
    for name in ("state.gz", "state.previous.gz"):
        (home / "chain" / name).write_bytes(b"?")
    broken = LocalChain(home, 0)
    with pytest.raises(ChainError, match=r"No saved state in .* can be loaded"):
        broken.start()
    assert not broken.owned


def test_save_killed_in_the_middle_keeps_a_loadable_dump(home: Path) -> None:
    """Kills a process that saves all the time, at several moments: the newest dump must be whole."""
    with LocalChain(home, 0) as chain:
        make_history(chain)
        code = "import sys\nfrom pathlib import Path\nfrom ledger.anvil import LocalChain\n"
        code += "chain = LocalChain(Path(sys.argv[1]), int(sys.argv[2]))\nprint('go', flush=True)\n"
        code += "while True: chain.save()"
        for delay in (0.0, 0.011, 0.023, 0.037, 0.052):
            process = subprocess.Popen([sys.executable, "-c", code, str(home), str(chain.port)], stdout=subprocess.PIPE)
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.1 + delay)
            process.kill()
            process.wait()
            process.stdout.close()
            assert unpack_dump(home / "chain/state.gz") is not None


def test_full_disk_at_stop_leaves_the_node_to_be_adopted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = LocalChain(home, 0).start()
    facts, pid = make_history(chain), chain.pid

    def full(path: Path, data: bytes, mode: int = 0o644) -> None:
        raise ResourceError("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(anvil, "write_atomically", full)
        with pytest.raises(ResourceError):
            chain.stop()
    assert not chain.owned
    with LocalChain(home, 0) as again:
        assert again.pid == pid
        assert_kept(again, facts)
    with LocalChain(home, 0) as third:
        assert_kept(third, facts)


def test_full_disk_while_running_is_told_and_saved_later(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with LocalChain(home, 0) as chain:
        with monkeypatch.context() as patch:

            def full(path: Path, data: bytes, mode: int = 0o644) -> None:
                raise ResourceError("The disk is full.")

            patch.setattr(anvil, "write_atomically", full)
            facts = make_history(chain)
            wait_until(lambda: "could not be saved: The disk is full." in caplog.text)
        wait_until(lambda: saved_block(home) > facts.block_number)
        kill(chain.pid)
    with LocalChain(home, 0) as again:
        assert_kept(again, facts)


def test_advance_moves_time_and_a_restart_does_not_move_it_back(home: Path) -> None:
    with LocalChain(home, 0) as chain:
        before = time_of(chain)
        after = chain.advance(5000)
        assert before + 5000 <= after <= before + 5010
    with LocalChain(home, 0) as again:
        start = time_of(again)
        assert start >= after
        number = int(call(again, "eth_blockNumber"), 16)
        wait_until(lambda: int(call(again, "eth_blockNumber"), 16) >= number + 2)
        assert start < time_of(again) <= start + 10
        assert again.advance(1) > start


def test_advance_backwards_refused(home: Path) -> None:
    with pytest.raises(ChainError, match="cannot go back by 5 seconds"):
        LocalChain(home, 0).advance(-5)


def test_time_passes_without_transactions(home: Path) -> None:
    with LocalChain(home, 0) as chain:
        before = time_of(chain)
        wait_until(lambda: time_of(chain) >= before + 2)
        assert abs(time_of(chain) - time.time()) < 3


def test_set_balance_gives_exactly_that(home: Path) -> None:
    with LocalChain(home, 0) as chain:
        chain.set_balance(POOR, 12345678901234567890)
        assert int(call(chain, "eth_getBalance", POOR, "latest"), 16) == 12345678901234567890


def test_foreign_port_is_named(home: Path) -> None:
    with socket.socket() as foreign:
        foreign.bind(("127.0.0.1", 0))
        foreign.listen()
        port = foreign.getsockname()[1]
        chain = LocalChain(home, port)
        with pytest.raises(ChainError, match=f"Port {port} is in use by another program"):
            chain.start()
    assert not chain.owned
    with chain:  # the port is free now: the same command goes on
        assert chain.port == port


def test_another_homes_chain_is_foreign(tmp_path: Path) -> None:
    with LocalChain(tmp_path / "one", 0) as chain, pytest.raises(ChainError, match=f"Port {chain.port} is in use"):
        LocalChain(tmp_path / "two", chain.port).start()


def test_stale_record_of_another_process_is_not_adopted(home: Path) -> None:
    (home / "chain").mkdir()
    (home / "chain/node.json").write_text(json.dumps({"pid": os.getpid(), "port": 1}))
    with LocalChain(home, 0) as chain:
        assert chain.pid != os.getpid()


def test_find_anvil_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_node, "__file__", str(tmp_path / "a/b/anvil.py"))
    with pytest.raises(ToolMissing, match="npm ci"):
        find_anvil()


@pytest.mark.parametrize("minutes", [20, pytest.param(60, marks=pytest.mark.full)])
def test_an_hour_of_empty_blocks_stays_small_and_keeps_history(home: Path, minutes: int) -> None:
    with LocalChain(home, 0) as chain:
        facts = make_history(chain)
        for _ in range(minutes):
            call(chain, "anvil_mine", hex(60), hex(1))
        chain.save()
        assert (home / "chain/state.gz").stat().st_size < minutes * 40_000  # 1.26 MB measured after an hour
        status = Path(f"/proc/{chain.pid}/status")
        if status.exists():  # Linux
            resident = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
            # 38 MB measured after an hour; with states kept, 900 MB then and 300 MB after a third of it.
            assert int(resident.split()[1]) < 200_000
        assert_kept(chain, facts)
    with LocalChain(home, 0) as again:
        assert_kept(again, facts)
