"""Writes commitments.json: golden roots and proofs for Python and Solidity.

An implementation of docs/formats.md sections 1 and 2, and of the inputs of docs/rounds.md, of its own: plain recursion
over whole, padded trees, and nothing of trainledger imported.
Run from anywhere: python tests/vectors/generate_commitments.py
"""

import json
import struct
from hashlib import sha256
from pathlib import Path

TENSOR, STATE, PROGRAM, DATASET, BLOB, INPUTS = 1, 2, 4, 5, 6, 7
FLOAT32, INT64 = 1, 2


def leaf(kind, payload):
    return sha256(struct.pack(">BB", 0, kind) + payload).digest()


def padded(kind, hashes):
    size = 1
    while size < len(hashes):
        size = size * 2
    return hashes + [sha256(struct.pack(">BB", 2, kind)).digest()] * (size - len(hashes))


def tree(kind, hashes):
    """Root of a power of two of hashes."""
    if len(hashes) == 1:
        return hashes[0]
    half = len(hashes) // 2
    left, right = tree(kind, hashes[:half]), tree(kind, hashes[half:])
    return sha256(struct.pack(">BB", 1, kind) + left + right).digest()


def path(kind, hashes, index):
    """Siblings of a leaf from the bottom up."""
    if len(hashes) == 1:
        return []
    half = len(hashes) // 2
    if index < half:
        return [*path(kind, hashes[:half], index), tree(kind, hashes[half:])]
    return [*path(kind, hashes[half:], index - half), tree(kind, hashes[:half])]


def seal(kind, type_number, size, root):
    return sha256(struct.pack(">BBBQ", 3, kind, type_number, size) + root).digest()


def bytes_root(kind, type_number, data):
    chunks = [data[at : at + 1024].ljust(1024, b"\0") for at in range(0, len(data), 1024)]
    return seal(kind, type_number, len(data), tree(kind, padded(kind, [leaf(kind, c) for c in chunks])))


def state_case(loss_bits, tensors):
    loss = bytes_root(TENSOR, FLOAT32, struct.pack("<I", loss_bits))
    step = bytes_root(TENSOR, INT64, struct.pack("<q", 1000))
    more = [bytes_root(TENSOR, FLOAT32, struct.pack("<f", n / 3) * (n * 100 + 1)) for n in range(2, tensors)]
    roots = [loss, step, *more][:tensors]
    hashes = padded(STATE, [leaf(STATE, root) for root in roots])
    return {
        "loss_bits": loss_bits,
        "state_tensors": tensors,
        "tensor_roots": [root.hex() for root in roots],
        "state_root": seal(STATE, 0, tensors, tree(STATE, hashes)).hex(),
        "loss_proof": [sibling.hex() for sibling in path(STATE, hashes, 0)],
    }


def inputs_case(slots, missing, tensors):
    """A merge of made-up states: tensor t of state j has the root of a leaf of its numbers."""
    states = [[leaf(TENSOR, struct.pack(">BB", j, t)) for t in range(tensors)] for j in range(slots + 1)]
    trees = [padded(STATE, [leaf(STATE, root) for root in roots]) for roots in states]
    roots = [seal(STATE, 0, tensors, tree(STATE, hashes)) for hashes in trees]
    taken = [roots[0]] + [roots[0] if s in missing else roots[1 + s] for s in range(slots)]
    hashes = padded(INPUTS, [leaf(INPUTS, root) for root in taken])
    sealed = seal(INPUTS, 0, slots + 1, tree(INPUTS, hashes))
    shown = [(0, tensors - 1), (slots, 0), (1 + missing[0] if missing else slots // 2, tensors // 2)]
    proofs = []
    for state, tensor in shown:
        source = 0 if state - 1 in missing else state
        proofs.append(
            {
                "state": state,
                "tensor": tensor,
                "tensor_root": states[source][tensor].hex(),
                "in_state": [one.hex() for one in path(STATE, trees[source], tensor)],
                "in_inputs": [one.hex() for one in path(INPUTS, hashes, state)],
            }
        )
    return {
        "state_tensors": tensors,
        "base": roots[0].hex(),
        "slots": [None if s in missing else roots[1 + s].hex() for s in range(slots)],
        "inputs_root": sealed.hex(),
        "proofs": proofs,
    }


def bytes_case(kind, type_number, data):
    return {"kind": kind, "type": type_number, "data": data.hex(), "root": bytes_root(kind, type_number, data).hex()}


def main():
    losses = [0x3FC00000, 0x40B1F5C3, 0x00000000, 0x80000000, 0x7FC00000, 0x7F800000, 0xFF800000, 0x00000001]
    counts = [2, 3, 4, 5, 7, 8, 9, 41, 83, 128, 129]
    cases = [state_case(losses[n % len(losses)], count) for n, count in enumerate(counts)]
    cases.append(state_case(0x7F7FFFFF, 1))
    pattern = bytes((n * 167 + 13) % 256 for n in range(5000))
    lengths = [1, 31, 1023, 1024, 1025, 2048, 2049, 3072, 4097]
    kinds = [(TENSOR, FLOAT32), (PROGRAM, 0), (DATASET, 6), (BLOB, 0)]
    data = [bytes_case(*kinds[n % len(kinds)], pattern[:length]) for n, length in enumerate(lengths)]
    data += [bytes_case(TENSOR, FLOAT32, b"\0" * 4), bytes_case(TENSOR, INT64, b"\0" * 4)]
    inputs = [inputs_case(*one) for one in ((2, [], 2), (2, [1], 5), (3, [0, 2], 4), (8, [], 3), (17, [4], 41))]
    inputs += [inputs_case(40, list(range(40)), 9), inputs_case(255, [254], 7)]
    target = Path(__file__).with_name("commitments.json")
    target.write_text(json.dumps({"cases": cases, "bytes": data, "inputs": inputs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
