"""Gas of the arithmetic that disputes end in: binary32 operations, kernels, and folds of 1,024 elements.

python benchmarks/arithmetic_gas.py
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from web3 import Web3

from ledger.anvil import LocalChain
from ledger.compile import load_artifact
from ledger.rpc import connect, rpc
from trainer.engine.exact.functions import FUNCTIONS, function_kernel
from trainer.engine.exact.kernels import MAXIMUM_LENGTH, Instruction, Kernel, Op, operands_of

RESULTS = Path(__file__).parent / "results"
COMMAND = "python benchmarks/arithmetic_gas.py"
Call = Callable[..., Any]

# Operands that take the paths of an instruction: the middle of the range, cancellation, subnormal numbers, no numbers.
OPERANDS = {
    "ordinary": (0x3FB504F3, 0x40490FDB),
    "nearly opposite": (0x3FB504F3, 0xBFB504F9),
    "subnormal": (0x00000123, 0x80000457),
    "infinity and NaN": (0x7F800000, 0x7FC00000),
}
REPEATED = 100
ELEMENTS = 1024
PRODUCT_TARGET = 200_000
KERNEL_TARGET = 5_000_000


def instruction_gas(call: Call, op: Op, a: int, b: int) -> int:
    """Gas of one more instruction of a kernel, from kernels of 1 and of 101 of them."""
    constants = [Instruction(Op.CONST, word=a), Instruction(Op.CONST, word=b)]
    if op is Op.CONST:
        one = constants[0]
    elif op is Op.INPUT:
        one = Instruction(op, 0)
    else:
        one = Instruction(op, *(0, 1, 1)[: operands_of(op)])
    used = [call("run", Kernel(1, (*constants, *[one] * count)).encode(), [a])[1] for count in (1, 1 + REPEATED)]
    return round((used[1] - used[0]) / REPEATED)


def instructions(call: Call) -> dict[str, dict[str, int]]:
    return {op.name: {name: instruction_gas(call, op, *words) for name, words in OPERANDS.items()} for op in Op}


def kernels(call: Call) -> dict[str, dict[str, int]]:
    """Kernels of functions at 0.3, and the longest kernel of the dearest instruction."""
    word = int(np.float32(0.3).view(np.uint32))
    found = {}
    for name in FUNCTIONS:
        kernel = function_kernel(name)
        found[name] = {"instructions": len(kernel.instructions), "gas": call("run", kernel.encode(), [word])[1]}
    constants = [Instruction(Op.CONST, word=word) for word in OPERANDS["subnormal"]]
    longest = Kernel(0, (*constants, *[Instruction(Op.FDIV, 0, 1)] * (MAXIMUM_LENGTH - 2)))
    found["all divisions of subnormal numbers"] = {
        "instructions": MAXIMUM_LENGTH,
        "gas": call("run", longest.encode(), [])[1],
    }
    return found


def folds(call: Call) -> dict[str, int]:
    rng = np.random.default_rng(1)
    integers = {
        width: rng.integers(-top, top, ELEMENTS, endpoint=True).astype(f"<i{width}").tobytes()
        for width, top in ((1, 127), (2, 4095))
    }
    x = rng.normal(size=ELEMENTS).astype("<f4").tobytes()
    index = rng.integers(0, 64, ELEMENTS).astype("<i4").tobytes()
    every = bytes(4 * ELEMENTS)

    def dot(left: int, right: int) -> int:
        gas: int = call("dot", 0, integers[left], 0, left, integers[right], 0, right, ELEMENTS)[1]
        return gas

    return {
        "dot of int16 and int16": dot(2, 2),
        "dot of int8 and int8": dot(1, 1),
        "dot of int8 and int16": dot(1, 2),
        "sum": call("sum", 0, x, 0, ELEMENTS, 3)[1],
        "scatter, 1 of 64 in the row": call("scatter", 0, x, 0, index, 0, ELEMENTS, 1, 3)[1],
        "scatter, all in the row": call("scatter", 0, x, 0, every, 0, ELEMENTS, 0, 3)[1],
        "maximum of values": call("maximum", 0, x, 0, ELEMENTS, False)[1],
        "maximum of magnitudes": call("maximum", 0, x, 0, ELEMENTS, True)[1],
    }


def measure() -> dict[str, Any]:
    artifact = load_artifact("ArithmeticProbe")
    address = Web3.to_checksum_address(b"arithmetic probe".rjust(20, b"\0"))
    with tempfile.TemporaryDirectory() as home, LocalChain(Path(home), 0) as chain:
        web3 = connect(chain.rpc_url)
        rpc(web3, "anvil_setCode", address, "0x" + artifact.runtime_bytecode.hex())
        functions = web3.eth.contract(address=address, abi=artifact.abi).functions

        def call(name: str, *arguments: Any) -> Any:
            return getattr(functions, name)(*arguments).call({"gas": 2**50})

        found = {"instructions": instructions(call), "kernels": kernels(call), "folds": folds(call)}
    product, longest = found["folds"]["dot of int16 and int16"], max(one["gas"] for one in found["kernels"].values())
    targets = {
        f"dot of {ELEMENTS:,} int16 pairs": {"limit": PRODUCT_TARGET, "measured": product},
        "dearest kernel": {"limit": KERNEL_TARGET, "measured": longest},
    }
    return {
        "command": COMMAND,
        "elements": ELEMENTS,
        **found,
        "targets": targets,
        "probe_bytes": len(artifact.runtime_bytecode),
    }


def markdown(result: dict[str, Any]) -> str:
    lines = [
        "# Gas of exact arithmetic",
        "",
        "Inside a call, on Anvil, data in memory: what calldata and hashing cost comes on top. "
        f"All of Float32, Kernel and Fold with the probe around them: {result['probe_bytes']:,} bytes of code.",
        "",
        "## Instructions of a kernel",
        "Decoding, checks and dispatch included: about 700 gas of each.",
        "",
        f"| instruction | {' | '.join(OPERANDS)} |",
        f"| --- |{' --- |' * len(OPERANDS)}",
    ]
    for name, values in result["instructions"].items():
        lines.append(f"| {name} | {' | '.join(f'{values[kind]:,}' for kind in OPERANDS)} |")
    lines += ["", "## Whole kernels", "", "| kernel | instructions | gas |", "| --- | --- | --- |"]
    lines += [f"| {name} | {one['instructions']} | {one['gas']:,} |" for name, one in result["kernels"].items()]
    lines += [
        "",
        f"## Folds of {result['elements']:,} elements",
        "",
        "| fold | gas | of an element |",
        "| --- | --- | --- |",
    ]
    lines += [f"| {name} | {gas:,} | {gas / result['elements']:.0f} |" for name, gas in result["folds"].items()]
    lines += ["", "| target | limit | measured | met |", "| --- | --- | --- | --- |"]
    for name, one in result["targets"].items():
        met = "yes" if one["measured"] < one["limit"] else "NO"
        lines.append(f"| {name} | {one['limit']:,} | {one['measured']:,} | {met} |")
    return "\n".join([*lines, "", f"Again: `{result['command']}`"]) + "\n"


def main() -> None:
    result = measure()
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "arithmetic_gas.json").write_text(json.dumps(result, indent=2) + "\n")
    (RESULTS / "arithmetic_gas.md").write_text(markdown(result))
    print(markdown(result))


if __name__ == "__main__":
    main()
