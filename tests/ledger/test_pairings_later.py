"""An import that is put off is not made by a short command, and is whole for whoever needs it."""

from __future__ import annotations

import subprocess
import sys

WITHOUT = """
import sys
import ledger.cli.connection
assert "eth_account" in sys.modules and "web3" in sys.modules
print(sorted(name for name in sys.modules if name.startswith("py_ecc.optimized")))
"""

WITH = """
import ledger.rpc
from eth_keyfile import create_keyfile_json, decode_keyfile_json
keystore = create_keyfile_json(bytes(31) + b"\\1", b"password", version=4, kdf="pbkdf2", iterations=1000)
assert decode_keyfile_json(keystore, b"password") == bytes(31) + b"\\1"
from py_ecc.bls12_381 import FQ12, G2, pairing
assert pairing(G2, None) == FQ12.one()  # with the point at infinity, it takes no time
import py_ecc.bls
assert py_ecc.bls.G2ProofOfPossession.SkToPk(1).hex() == keystore["pubkey"]
print(keystore["pubkey"])
"""


def run(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def test_short_command_does_not_set_up_pairings() -> None:
    assert run(WITHOUT) == "[]"


def test_pairings_are_there_for_who_uses_them() -> None:
    # The public key of the secret key 1 is the generator of G1, compressed: its first 8 bytes, as published.
    assert run(WITH).startswith("97f1d3a73197d794")


def test_pairings_imported_before_are_left_alone() -> None:
    assert run("import py_ecc.bls as before\nimport ledger, sys\nprint(sys.modules['py_ecc.bls'] is before)") == "True"
