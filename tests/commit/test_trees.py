"""Views, paths, range proofs and frontiers, against the shared vectors and against each other."""

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from trainer.commit.hashing import Kind, depth, leaf, merkle_root, node, pad, verify_proof
from trainer.commit.proofs import climb, parting_height, range_proof_length, range_root, view_root, view_siblings
from trainer.commit.traces import trace_leaf, trace_leaves, trace_root
from trainer.commit.trees import Tree

VECTORS = Path(__file__).parents[1] / "vectors"
GOLDEN = json.loads((VECTORS / "traces.json").read_text())
SIZES = [*range(1, 18), 31, 33, 100]


def leaves_of(count: int, kind: Kind = Kind.TRACE) -> list[bytes]:
    return [leaf(kind, n.to_bytes(32, "big")) for n in range(count)]


def tree_of(count: int) -> Tree:
    return Tree(Kind.TRACE, leaves_of(count))


def read(hashes: list[str]) -> list[bytes]:
    return [bytes.fromhex(one) for one in hashes]


def test_traces_json_is_what_the_generator_writes() -> None:
    before = (VECTORS / "traces.json").read_bytes()
    subprocess.run([sys.executable, VECTORS / "generate_traces.py"], check=True)
    assert (VECTORS / "traces.json").read_bytes() == before


@pytest.mark.parametrize("case", GOLDEN["traces"], ids=lambda case: len(case["outputs"]))
def test_trace_root_equals_the_shared_vector(case: dict) -> None:
    outputs, after = read(case["outputs"]), bytes.fromhex(case["state_after"])
    leaves = trace_leaves(outputs, after)
    assert trace_root(leaves).hex() == case["root"]
    assert leaves[-1] == trace_leaf(after)
    assert len(leaves) == len(outputs) + 1


@pytest.mark.parametrize("case", GOLDEN["traces"], ids=lambda case: len(case["outputs"]))
def test_tree_gives_the_shared_views_frontiers_and_paths(case: dict) -> None:
    tree = Tree(Kind.TRACE, trace_leaves(read(case["outputs"]), bytes.fromhex(case["state_after"])))
    assert tree.view(tree.depth, 0, min(6, tree.depth)) == read(case["view"])
    for one in case["frontiers"]:
        assert tree.frontier(one["reached"]) == read(one["nodes"])
    assert case["paths"]
    for one in case["paths"]:
        height = parting_height(one["earlier"], one["reached"])
        assert tree.path(one["earlier"], high=height) == read(one["siblings"])


@pytest.mark.parametrize("case", GOLDEN["ranges"], ids=lambda case: f"{case['first']}-{case['last']}/{case['chunks']}")
def test_range_proof_equals_the_shared_vector(case: dict) -> None:
    leaves = [leaf(Kind.TENSOR, bytes([number]) * 1024) for number in range(case["chunks"])]
    tree = Tree(Kind.TENSOR, leaves)
    first, last = case["first"], case["last"]
    assert tree.range_proof(first, last) == read(case["siblings"])
    found = range_root(Kind.TENSOR, leaves[first : last + 1], first, depth(len(leaves)), read(case["siblings"]))
    assert found.hex() == case["merkle_root"] == tree.root.hex()


@pytest.mark.parametrize("count", SIZES)
def test_view_hashes_up_to_its_node_everywhere(count: int) -> None:
    tree = tree_of(count)
    assert tree.root == merkle_root(Kind.TRACE, leaves_of(count))
    for height in range(tree.depth + 1):
        for index in range(1 << (tree.depth - height)):
            for width in range(height + 1):
                nodes = tree.view(height, index, width)
                assert len(nodes) == 1 << width
                assert view_root(Kind.TRACE, nodes) == tree.node(height, index)


def test_view_shows_pads_where_no_leaf_is() -> None:
    tree = tree_of(5)
    padding = pad(Kind.TRACE)
    assert tree.view(3, 0, 3) == [*leaves_of(5), padding, padding, padding]
    assert tree.node(1, 3) == node(Kind.TRACE, padding, padding)


@pytest.mark.parametrize("count", SIZES)
def test_view_siblings_lead_back_to_the_node(count: int) -> None:
    tree = tree_of(count)
    nodes = tree.view(tree.depth, 0, tree.depth)
    for place, one in enumerate(nodes):
        assert climb(Kind.TRACE, one, place, view_siblings(Kind.TRACE, nodes, place)) == tree.root


@pytest.mark.parametrize("count", SIZES)
def test_path_verifies_for_every_leaf(count: int) -> None:
    tree = tree_of(count)
    for index, hashed in enumerate(leaves_of(count)):
        assert verify_proof(Kind.TRACE, hashed, index, count, tree.path(index), tree.root)


@pytest.mark.parametrize("count", SIZES)
def test_range_proof_of_every_range_leads_to_the_root(count: int) -> None:
    leaves, tree = leaves_of(count), tree_of(count)
    for first, last in itertools.combinations_with_replacement(range(count), 2):
        proof = tree.range_proof(first, last)
        assert len(proof) == range_proof_length(first, last, tree.depth)
        assert range_root(Kind.TRACE, leaves[first : last + 1], first, tree.depth, proof) == tree.root


def test_range_root_any_changed_part_leads_elsewhere() -> None:
    leaves, tree = leaves_of(13), tree_of(13)
    proof = tree.range_proof(3, 6)
    shown = leaves[3:7]
    for place in range(len(proof)):
        changed = [*proof[:place], bytes(32), *proof[place + 1 :]]
        assert range_root(Kind.TRACE, shown, 3, tree.depth, changed) != tree.root
    for place in range(len(shown)):
        changed = [*shown[:place], bytes(32), *shown[place + 1 :]]
        assert range_root(Kind.TRACE, changed, 3, tree.depth, proof) != tree.root
    assert range_root(Kind.TRACE, shown[::-1], 3, tree.depth, proof) != tree.root


@pytest.mark.parametrize(
    ("first", "count", "depth", "proof"), [(0, 1, 2, 1), (0, 1, 2, 3), (3, 2, 2, 1), (-1, 1, 2, 2), (0, 0, 2, 0)]
)
def test_range_root_refuses_another_length_or_range(first: int, count: int, depth: int, proof: int) -> None:
    with pytest.raises(ValueError, match=r"leaves|siblings"):
        range_root(Kind.TRACE, leaves_of(count), first, depth, [bytes(32)] * proof)


@pytest.mark.parametrize("count", [2, 3, 5, 8, 17])
def test_frontier_covers_every_earlier_leaf(count: int) -> None:
    tree = tree_of(count)
    for earlier, reached in itertools.combinations(range(count), 2):
        frontier = tree.frontier(reached)
        height = parting_height(earlier, reached)
        path = tree.path(earlier, high=height)
        assert len(path) == height
        assert climb(Kind.TRACE, tree.node(0, earlier), earlier, path) == frontier[height]


def test_frontier_says_nothing_of_what_follows() -> None:
    frontiers = [Tree(Kind.TRACE, [*leaves_of(9), *leaves_of(n)]).frontier(9)[:4] for n in (1, 3, 7)]
    assert frontiers[0] == frontiers[1] == frontiers[2]


@pytest.mark.parametrize(
    "ask",
    [
        lambda tree: tree.node(0, 8),
        lambda tree: tree.node(4, 0),
        lambda tree: tree.node(-1, 0),
        lambda tree: tree.view(2, 0, 3),
        lambda tree: tree.view(2, 2, 1),
        lambda tree: tree.range_proof(2, 5),
        lambda tree: tree.range_proof(3, 2),
        lambda tree: tree.frontier(5),
    ],
    ids=["index", "height", "below", "width", "view", "pads", "backwards", "frontier"],
)
def test_tree_refuses_places_that_it_does_not_have(ask: Callable[[Tree], object]) -> None:
    with pytest.raises(IndexError):
        ask(tree_of(5))


@pytest.mark.parametrize(("earlier", "reached"), [(3, 3), (4, 3), (-1, 3)])
def test_parting_height_refuses_what_is_not_earlier(earlier: int, reached: int) -> None:
    with pytest.raises(ValueError, match="not before"):
        parting_height(earlier, reached)


def test_view_root_refuses_what_is_no_view() -> None:
    for count in (0, 3, 6):
        with pytest.raises(ValueError, match="power of two"):
            view_root(Kind.TRACE, leaves_of(count))
    with pytest.raises(IndexError):
        view_siblings(Kind.TRACE, leaves_of(4), 4)
