import hashlib
import json
import re
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.commit.hashing import Kind, bytes_root, leaf, merkle_proof, merkle_root, seal, verify_proof
from trainer.commit.proofs import before_depth, climb, root_before
from trainer.commit.states import inputs_root, loss_proof, root_of_leaves, salted_root, state_leaves, state_root
from trainer.commit.tensors import DTYPE_NUMBERS, tensor_bytes, tensor_root
from trainer.program.exact import DType

GOLDEN = json.loads((Path(__file__).parents[1] / "vectors" / "commitments.json").read_text())


def golden_tensors(case: dict[str, object]) -> list[torch.Tensor]:
    """The tensors that the generator describes in state_case."""
    count = int(str(case["state_tensors"]))
    loss = torch.frombuffer(bytearray(struct.pack("<I", int(str(case["loss_bits"])))), dtype=torch.float32)
    more = [torch.full((n * 100 + 1,), n / 3, dtype=torch.float32) for n in range(2, count)]
    return [loss, torch.tensor([1000]), *more][:count]


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda c: f"{c['state_tensors']}-{c['loss_bits']:08x}")
def test_state_root_and_proof_equal_golden(case: dict[str, object]) -> None:
    tensors = golden_tensors(case)
    assert [tensor_root(t).hex() for t in tensors] == case["tensor_roots"]
    assert state_root(tensors).hex() == case["state_root"]
    assert [s.hex() for s in loss_proof(tensors)] == case["loss_proof"]


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda c: str(c["state_tensors"]))
def test_loss_proof_checks_as_a_contract_would(case: dict[str, object]) -> None:
    tensors = golden_tensors(case)
    count = len(tensors)
    bits = int(str(case["loss_bits"]))
    chunk = struct.pack("<I", bits) + bytes(1020)
    start = leaf(Kind.STATE, seal(Kind.TENSOR, 1, 4, leaf(Kind.TENSOR, chunk)))
    merkle = merkle_root(Kind.STATE, state_leaves(tensors))
    assert seal(Kind.STATE, 0, count, merkle) == state_root(tensors)
    assert verify_proof(Kind.STATE, start, 0, count, loss_proof(tensors), merkle)
    wrong = leaf(Kind.STATE, seal(Kind.TENSOR, 1, 4, leaf(Kind.TENSOR, struct.pack("<I", bits ^ 1) + bytes(1020))))
    assert not verify_proof(Kind.STATE, wrong, 0, count, loss_proof(tensors), merkle)


def test_root_of_leaves_is_the_state_root() -> None:
    tensors = [torch.tensor([1.5]), torch.tensor([7]), torch.arange(600)]
    leaves = state_leaves(tensors)
    assert root_of_leaves(leaves) == state_root(tensors)
    assert merkle_proof(Kind.STATE, leaves, 0) == loss_proof(tensors)


def test_dtype_numbers_are_those_of_the_formats() -> None:
    page = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    section = page.partition("### Dtype numbers")[2].partition("## 2.")[0]
    listed = {name: int(number) for number, name in re.findall(r"\| (\d+) \| (\w+)", section)}
    assert listed == {str(dtype).removeprefix("torch."): number for dtype, number in DTYPE_NUMBERS.items()}
    assert all(listed[dtype.name.lower()] == dtype for dtype in DType)  # exact programs count the same


@pytest.mark.parametrize("dtype", list(DTYPE_NUMBERS), ids=str)
def test_tensor_root_binds_dtype_and_little_endian_bytes(dtype: torch.dtype) -> None:
    tensor = torch.tensor([1, 2, 3, 4]).to(dtype)
    root = tensor_root(tensor)
    assert root == bytes_root(Kind.TENSOR, DTYPE_NUMBERS[dtype], bytes(tensor_bytes(tensor)))
    if dtype.itemsize == 4 and not dtype.is_floating_point:
        assert bytes(tensor_bytes(tensor)) == struct.pack("<4i", 1, 2, 3, 4)
    if dtype == torch.float32:
        assert bytes(tensor_bytes(tensor)) == struct.pack("<4f", 1, 2, 3, 4)


def test_tensor_root_of_one_element_with_any_stride() -> None:
    values = torch.tensor([7, 8, 9], dtype=torch.int16)
    for view in (values[1].expand(1), values[1].expand(1, 1).clone(), values[1:2], values[1::2]):
        assert tensor_root(view) == tensor_root(torch.tensor([8], dtype=torch.int16))


def test_tensor_root_of_a_view_is_that_of_its_row_major_copy() -> None:
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    assert tensor_root(base.t()) == tensor_root(base.t().contiguous())
    assert tensor_root(base.t()) != tensor_root(base)
    assert tensor_root(base.t().contiguous().requires_grad_()) == tensor_root(base.t())


def test_tensor_bytes_of_a_contiguous_tensor_are_not_copied() -> None:
    tensor = torch.zeros(4)
    view = tensor_bytes(tensor)
    tensor[0] = 1.0
    assert bytes(view[:4]) == struct.pack("<f", 1.0)


def test_tensor_root_negative_zero_counts() -> None:
    zero, minus = torch.tensor([0.0]), torch.tensor([-0.0])
    assert tensor_root(zero) != tensor_root(minus)


@pytest.mark.parametrize(
    "tensor", [torch.zeros(0), torch.zeros(2, dtype=torch.float64), torch.zeros(1, dtype=torch.bool)]
)
def test_tensor_root_without_a_root_refused(tensor: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"root|number"):
        tensor_root(tensor)


@pytest.mark.parametrize("case", GOLDEN["inputs"], ids=lambda c: f"{len(c['slots'])}-{c['state_tensors']}")
def test_inputs_root_equals_golden(case: dict[str, Any]) -> None:
    base = bytes.fromhex(case["base"])
    slots = [None if root is None else bytes.fromhex(root) for root in case["slots"]]
    root = inputs_root(base, slots)
    assert root.hex() == case["inputs_root"]
    assert inputs_root(base, [one or base for one in slots]) == root
    if slots != slots[::-1]:  # the order is the slots'
        assert inputs_root(base, slots[::-1]) != root


@pytest.mark.parametrize("case", GOLDEN["inputs"], ids=lambda c: f"{len(c['slots'])}-{c['state_tensors']}")
def test_root_before_is_that_of_all_inputs(case: dict[str, Any]) -> None:
    tensors, slots = case["state_tensors"], len(case["slots"])
    roots = [case["base"], *(one or case["base"] for one in case["slots"])]
    for proof in case["proofs"]:
        number, root = proof["state"] * tensors + proof["tensor"], bytes.fromhex(proof["tensor_root"])
        path = [bytes.fromhex(one) for one in (*proof["in_state"], *proof["in_inputs"])]
        assert len(path) == before_depth(tensors, slots)
        assert root_before(tensors, slots, number, root, path).hex() == case["inputs_root"]
        # No other place has it but that tensor of the same state again, which a missing slot is.
        for other in range(tensors * (slots + 1)):
            if root_before(tensors, slots, other, root, path).hex() == case["inputs_root"]:
                assert other % tensors == proof["tensor"]
                assert roots[other // tensors] == roots[proof["state"]]


@pytest.mark.parametrize("case", GOLDEN["inputs"], ids=lambda c: f"{len(c['slots'])}-{c['state_tensors']}")
def test_tensors_of_a_merge_are_proved_through_both_trees(case: dict[str, Any]) -> None:
    tensors, slots = case["state_tensors"], len(case["slots"])
    for proof in case["proofs"]:
        hash_ = leaf(Kind.STATE, bytes.fromhex(proof["tensor_root"]))
        hash_ = climb(Kind.STATE, hash_, proof["tensor"], list(map(bytes.fromhex, proof["in_state"])))
        hash_ = leaf(Kind.INPUTS, seal(Kind.STATE, 0, tensors, hash_))
        hash_ = climb(Kind.INPUTS, hash_, proof["state"], list(map(bytes.fromhex, proof["in_inputs"])))
        assert seal(Kind.INPUTS, 0, slots + 1, hash_).hex() == case["inputs_root"]


def test_salted_root_takes_every_byte_and_the_seed() -> None:
    tensors = [torch.arange(5, dtype=torch.int64), torch.tensor([1.5, -0.0])]
    data = b"".join(bytes(tensor_bytes(tensor)) for tensor in tensors)
    seed = bytes(range(32))
    assert salted_root(tensors, seed) == hashlib.sha256(b"trainledger/available/1\x00" + seed + data).digest()
    assert salted_root(tensors, seed) != salted_root([tensors[0], torch.tensor([1.5, 0.0])], seed)
    assert salted_root(tensors, seed) != salted_root(tensors, bytes(32))
