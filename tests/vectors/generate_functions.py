"""Writes functions.json: the kernels of exp, log and the like, and what they give for values of every kind.

They are defined by their instructions, so these come from trainledger. The results come from a loop over them
here, with the processor's own float32, and nothing else of trainledger. Run: python tests/vectors/generate_functions.py
"""

import json
import random
import struct
import warnings
from pathlib import Path

import numpy as np

from trainer.engine.exact.functions import FUNCTIONS, function_kernel

NAN = 0x7FC00000
SPECIALS = [
    0x00000000, 0x80000000, 0x00000001, 0x807FFFFF, 0x00800000, 0x3F800000, 0xBF800000, 0x3F000000, 0x40490FDB,
    0x42B17218, 0xC2CFF1B5, 0x43000000, 0xC3000000, 0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000,
    0xFFC12345,
]  # fmt: skip


def floating(code: int, a: np.float32, b: np.float32) -> int:
    match code:
        case 0x10:
            value = a + b
        case 0x11:
            value = a - b
        case 0x12:
            value = a * b
        case 0x13:
            value = a / b
        case 0x14:
            value = np.sqrt(a)
    return NAN if np.isnan(value) else int(value.view(np.uint32))


def integer(code: int, a: int, b: int) -> int:
    signed = a - (a >> 31 << 32), b - (b >> 31 << 32)
    match code:
        case 0x20:
            return a + b & 0xFFFFFFFF
        case 0x21:
            return a - b & 0xFFFFFFFF
        case 0x22:
            return a * b & 0xFFFFFFFF
        case 0x23:
            return a & b
        case 0x24:
            return a | b
        case 0x25:
            return a ^ b
        case 0x26:
            return a << (b & 31) & 0xFFFFFFFF
        case 0x27:
            return a >> (b & 31)
        case 0x28:
            return signed[0] >> (b & 31) & 0xFFFFFFFF
        case 0x29:
            return int(signed[0] < signed[1])
        case 0x2A:
            return int(a == b)
    raise ValueError(hex(code))


def run(kernel: bytes, word: int) -> int:
    """The result of a kernel of one input."""
    registers: list[int] = []
    for code, _, a, b, c in struct.iter_unpack(">BBHHH", kernel):
        if code == 0x00:
            registers.append(word)
            continue
        if code == 0x01:
            registers.append(b << 16 | c)
            continue
        words = [registers[a], registers[b], registers[c]]
        floats = [np.uint32(one).view(np.float32) for one in words]
        if 0x10 <= code <= 0x14:
            registers.append(floating(code, floats[0], floats[1]))
        elif code in (0x18, 0x19, 0x1A):
            left, right = floats[:2]
            registers.append(int({0x18: left < right, 0x19: left <= right, 0x1A: left == right}[code]))
        elif code == 0x1C:
            value = 0.0 if np.isnan(floats[0]) else min(max(float(floats[0]), -(2.0**31)), 2.0**31 - 128)
            registers.append(round(value) & 0xFFFFFFFF)  # Python rounds ties to even
        elif code == 0x1D:
            registers.append(int(np.float32(words[0] - (words[0] >> 31 << 32)).view(np.uint32)))
        elif code == 0x30:
            registers.append(words[1] if words[0] else words[2])
        else:
            registers.append(integer(code, words[0], words[1]))
    result = registers[-1]
    return NAN if result & 0x7FFFFFFF > 0x7F800000 else result


def main() -> None:
    drawn = random.Random(20)
    inputs = SPECIALS + [drawn.getrandbits(32) for _ in range(40)]
    inputs += [struct.unpack(">I", struct.pack(">f", drawn.uniform(-12, 12)))[0] for _ in range(60)]
    functions = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # overflows and divisions by zero are among the cases
        for name in FUNCTIONS:
            kernel = function_kernel(name).encode()
            results = [run(kernel, word) for word in inputs]
            functions.append(
                {"name": name, "kernel": "0x" + kernel.hex(), "results": "0x" + "".join(f"{w:08x}" for w in results)}
            )
    document = {"inputs": "0x" + "".join(f"{word:08x}" for word in inputs), "functions": functions}
    Path(__file__).with_name("functions.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
