"""Does this machine compute exactly? Known answers, for processors nobody has tried yet.

Runs with nothing but torch and numpy: `python -m trainer.engine.exact.selftest [cpu|cuda]`.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from trainer.engine.exact import reference
from trainer.engine.exact.backends import BACKENDS, admitted_backends, fastest

_ROWS, _LENGTH = 64, 257

# SHA-256 of each operation's output over `inputs`, checked against exact fractions in the tests.
KNOWN_ANSWERS = {
    "add": "794d6ba177703be488da42ae8800f1ab0dd3ef00bdc5ef4f1f6b27275450501a",
    "subtract": "8f22c0d758b0f56061d8148a3123673c38dc02b93188f6ea4168a27d74df5d7f",
    "multiply": "707ac1113b25d3b1faf475b114c7b36e9d7dc9d661697e0b376d5bf645b4abe0",
    "divide": "e60df44e496ddf1e9ab86a02d5122702c9017ab708b1634c9fb8fbb90713b272",
    "multiply, then add": "6ca31e79eea7f7247033f1730b3d8d3ff8daeb3a6489f7b23b0d7b45add7803d",
    "square root": "8e62b2402ba52cd58ad6e14c5e3aa40e02cb6f817aa8b90b94073dcb590ffe7f",
    "compare": "eb6cdc2b70a90c5683f6e7f78f21f62f9936512fb79076d6c4cdce401c664dbf",
    "order keys": "827284f2fd25c83c32d6a41e048ecb7e6644db07db504a2821472fde61b94ff1",
    "maximum": "e5a8aa0dff47bf70d540e8cc72859ecb35b2de9a528fb491a77b6c8dbc527c85",
    "position of the maximum": "3554cb2c4bdb69d1357cee5a7d0331e0a7c02148f6bbb7d0bbcab5d0d6d3413d",
    "quantise to 8 bits": "f248a7fca64999895da6605c8dc5b7d43af026e9c045912607f1bd0b22cd19f6",
    "quantise to 13 bits": "9d5872949e1b740a7cd60c70aa8dc19bb1fa421e3b1eb41fcb9d790594160a99",
    "8-bit product": "26bfb49ea473c5f46591d6a06bfe665eee29babfeb67cb95321d19587adc6def",
    "13-bit product": "b24e222ec7fc7ed339042ec00fcb81aade6a4e5014ca590cebc4fd5459cc5ac6",
    "8-bit by 13-bit product": "15aa023e578e6f618a60f91ee0ea9ebe19c90e6b0ff0ccfed6c2a5457d4112a1",
    "sum": "20f702628284dd9ad172fb234f113eb36c77a814e42231afe25304e28c0cb483",
}


@dataclass(frozen=True)
class Check:
    """One thing tried: `fault` is empty where the machine is right."""

    name: str
    fault: str


@dataclass(frozen=True)
class SelfTest:
    """All that was tried. `backends` are those admitted, `fastest` the one to use; "" if none, or not asked for."""

    device: str
    processor: str
    torch: str
    checks: tuple[Check, ...]
    backends: tuple[str, ...]
    fastest: str

    @property
    def passed(self) -> bool:
        """Whether the machine may compute for pay: all operations are right, and at least one backend is."""
        return bool(self.backends) and not any(check.fault for check in self.checks)


def inputs() -> tuple[Tensor, Tensor]:
    """Two float32 tensors [64, 257] that reach every exponent, and, in the first rows, every kind of special value."""
    bits = np.frombuffer(_stream(2 * _ROWS * _LENGTH), dtype="<u4").copy().reshape(2, _ROWS, _LENGTH)
    # Half of the rows stay near 1, where sums and products round in every bit; the others are any bits at all.
    near = (bits & 0x807FFFFF) | ((bits >> 4 & 0xF) + 119 << 23).astype(np.uint32)
    bits[:, ::2] = near[:, ::2]
    special = [0, 0x80000000, 1, 0x80000001, 0x7FFFFF, 0x800000, 0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000, 0xFF800000]
    special += [0x7FC00000, 0xFFC00001, 0x7FBFFFFF, 0x3F800000, 0xBF800000, 0x33800000, 0x4B000001, 0xCF000000]
    for index, value in enumerate(special):
        bits[0, 1, index * len(special) : (index + 1) * len(special)][: len(special)] = value
    bits[1, 1] = np.resize(np.array(special, dtype=np.uint32), _LENGTH)
    a, b = (torch.from_numpy(half.view(np.int32)).view(torch.float32) for half in bits)
    return a, b


def _stream(words: int) -> bytes:
    return b"".join(
        hashlib.sha256(b"trainledger/selftest/1" + block.to_bytes(4, "big")).digest() for block in range(words // 8 + 1)
    )[: 4 * words]


def _operations() -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    canonical = reference.canonical_nan

    def quantised(bits: int) -> Callable[[Tensor, Tensor], Tensor]:
        def run(a: Tensor, b: Tensor) -> Tensor:
            q, scale = reference.quantise_rows(a, bits)
            return torch.cat([q.to(torch.int32), scale.view(torch.int32)], -1)

        return run

    def product(bits_a: int, bits_b: int) -> Callable[[Tensor, Tensor], Tensor]:
        def run(a: Tensor, b: Tensor) -> Tensor:
            left, right = reference.quantise_rows(a, bits_a), reference.quantise_rows(b, bits_b)
            return reference.matmul(left, right, bits=(bits_a, bits_b))

        return run

    return {
        "add": lambda a, b: canonical(a + b),
        "subtract": lambda a, b: canonical(a - b),
        "multiply": lambda a, b: canonical(a * b),
        "divide": lambda a, b: canonical(a / b),
        "multiply, then add": lambda a, b: canonical(a * b + a),
        "square root": lambda a, b: reference.square_root(a),
        "compare": lambda a, b: (a < b).to(torch.int32) + 2 * (a == b) + 4 * (a > b),
        "order keys": lambda a, b: reference.order_key(a),
        "maximum": lambda a, b: reference.max_rows(a),
        "position of the maximum": lambda a, b: reference.argmax_rows(a),
        "quantise to 8 bits": quantised(8),
        "quantise to 13 bits": quantised(13),
        "8-bit product": product(8, 8),
        "13-bit product": product(13, 13),
        "8-bit by 13-bit product": product(8, 13),
        "sum": lambda a, b: reference.sum_rows(a, reference.exponent_of(a)[0]),
    }


def digests(device: torch.device) -> Iterator[tuple[str, str]]:
    """Each operation's name and the SHA-256 of its output bytes on a device."""
    a, b = (half.to(device) for half in inputs())
    for name, operation in _operations().items():
        output = operation(a, b).cpu().contiguous()
        yield name, hashlib.sha256(output.view(torch.uint8).numpy().tobytes()).hexdigest()


def run_selftest(device: str = "cpu", *, compare_speeds: bool = True) -> SelfTest:
    """Tries everything on a device, a fraction of a second on the CPU; and which backend is fastest, if asked."""
    target = torch.device(device)
    checks = [
        Check(name, "" if digest == KNOWN_ANSWERS[name] else f"gives {digest}, and {KNOWN_ANSWERS[name]} is right")
        for name, digest in digests(target)
    ]
    faults = admitted_backends(target)
    admitted = tuple(name for name, fault in faults.items() if not fault)
    checks.append(Check("an exact product", "" if admitted else "; ".join(f"{n}: {f}" for n, f in faults.items())))
    name = torch.cuda.get_device_name(target) if target.type == "cuda" else platform.processor() or platform.machine()
    return SelfTest(
        device=device,
        processor=name,
        torch=torch.__version__,
        checks=tuple(checks),
        backends=admitted,
        fastest=fastest(list(admitted), target) if admitted and compare_speeds else "",
    )


def as_json(test: SelfTest) -> dict[str, object]:
    """The result as JSON values; `passed` first."""
    return {"passed": test.passed, **asdict(test), "not_admitted": sorted(set(BACKENDS) - set(test.backends))}


def main() -> int:
    """Prints the result as JSON; exit status 0 if the machine computes exactly, else 1."""
    test = run_selftest(sys.argv[1] if len(sys.argv) > 1 else "cpu")
    sys.stdout.write(json.dumps(as_json(test), indent=2) + "\n")
    return 0 if test.passed else 1


if __name__ == "__main__":
    sys.exit(main())
