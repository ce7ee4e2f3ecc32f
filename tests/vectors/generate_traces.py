"""Writes traces.json: golden roots, views, paths, range proofs and frontiers of small trees.

An implementation of docs/dispute.md, "Trees", and docs/formats.md, section 1, of its own: plain recursion over whole,
padded trees, and nothing of trainledger imported. Run from anywhere: python tests/vectors/generate_traces.py
"""

import json
import struct
from hashlib import sha256
from pathlib import Path

TENSOR, STATE, TRACE = 1, 2, 3
WIDTH = 6


def leaf(kind, payload):
    return sha256(struct.pack(">BB", 0, kind) + payload).digest()


def padded(kind, hashes):
    size = 1
    while size < len(hashes):
        size = size * 2
    return hashes + [sha256(struct.pack(">BB", 2, kind)).digest()] * (size - len(hashes))


def top(kind, hashes):
    """Root of a power of two of hashes."""
    if len(hashes) == 1:
        return hashes[0]
    half = len(hashes) // 2
    return sha256(struct.pack(">BB", 1, kind) + top(kind, hashes[:half]) + top(kind, hashes[half:])).digest()


def node(kind, hashes, height, index):
    """A node of a padded tree, from the leaves below it."""
    return top(kind, hashes[index << height : (index + 1) << height])


def depth(hashes):
    return len(hashes).bit_length() - 1


def view(kind, hashes, height, index):
    width = min(WIDTH, height)
    return [node(kind, hashes, height - width, (index << width) + place) for place in range(1 << width)]


def range_proof(kind, hashes, first, last):
    proof = []
    for height in range(depth(hashes)):
        if first % 2 == 1:
            proof.append(node(kind, hashes, height, first - 1))
        if last % 2 == 0:
            proof.append(node(kind, hashes, height, last + 1))
        first, last = first // 2, last // 2
    return proof


def frontier(kind, hashes, reached):
    """Zeros where the path to the leaf turns left: nothing before the leaf lies there."""
    return [
        node(kind, hashes, height, (reached >> height) - 1) if reached >> height & 1 else bytes(32)
        for height in range(depth(hashes))
    ]


def earlier_path(kind, hashes, earlier, reached):
    """Siblings from an earlier leaf up to the frontier's node that covers it."""
    height = max(bit for bit in range(depth(hashes)) if (earlier ^ reached) >> bit & 1)
    return [node(kind, hashes, low, (earlier >> low) ^ 1) for low in range(height)]


def seal(kind, type_number, size, root):
    return sha256(struct.pack(">BBBQ", 3, kind, type_number, size) + root).digest()


def trace_case(operations):
    outputs = [sha256(b"output %d" % number).digest() for number in range(operations)]
    state = sha256(b"state after").digest()
    hashes = padded(TRACE, [leaf(TRACE, root) for root in [*outputs, state]])
    reached = sorted({0, 1, operations // 2, operations - 1, operations} - {-1})
    return {
        "outputs": [root.hex() for root in outputs],
        "state_after": state.hex(),
        "root": seal(TRACE, 0, operations + 1, top(TRACE, hashes)).hex(),
        "view": [one.hex() for one in view(TRACE, hashes, depth(hashes), 0)],
        "frontiers": [{"reached": at, "nodes": hexes(frontier(TRACE, hashes, at))} for at in reached],
        "paths": [
            {"earlier": early, "reached": at, "siblings": hexes(earlier_path(TRACE, hashes, early, at))}
            for at in reached
            for early in sorted({0, at // 3, at - 1})
            if 0 <= early < at
        ],
    }


def hexes(hashes):
    return [one.hex() for one in hashes]


def range_case(chunks, first, last):
    hashes = padded(TENSOR, [leaf(TENSOR, bytes([number]) * 1024) for number in range(chunks)])
    return {
        "chunks": chunks,
        "first": first,
        "last": last,
        "merkle_root": top(TENSOR, hashes).hex(),
        "siblings": hexes(range_proof(TENSOR, hashes, first, last)),
    }


def main():
    ranges = [(1, 0, 0), (2, 0, 0), (2, 0, 1), (3, 2, 2), (5, 1, 3), (7, 6, 6), (8, 3, 4), (9, 8, 8), (100, 31, 64)]
    document = {
        "traces": [trace_case(operations) for operations in (1, 2, 3, 7, 8, 70)],
        "ranges": [range_case(*one) for one in ranges],
    }
    Path(__file__).with_name("traces.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
