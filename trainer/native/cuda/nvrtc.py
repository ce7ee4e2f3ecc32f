"""NVRTC in a process of its own, which can be ended when it takes too long: run as a program, with no other import.

nvrtc.py LIBRARY                            prints {"version": [12, 8], "architectures": [50, …, 90]}
nvrtc.py LIBRARY cubin|ptx FILE OPTION…     compiles CUDA C++ from standard input into a file
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path


class Nvrtc:
    """The library. Raises OSError where it cannot be loaded, RuntimeError where a call fails."""

    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(path)
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p

    def describe(self) -> dict[str, list[int]]:
        """Its version, and the architectures that it compiles for, such as 90 for compute capability 9.0."""
        major, minor, count = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        self._call("nvrtcGetNumSupportedArchs", ctypes.byref(count))
        architectures = (ctypes.c_int * count.value)()
        self._call("nvrtcGetSupportedArchs", architectures)
        return {"version": [major.value, minor.value], "architectures": list(architectures)}

    def compile(self, text: bytes, kind: str, options: list[str]) -> bytes:
        """A cubin or PTX of CUDA C++. Raises RuntimeError with what the compiler says."""
        program = ctypes.c_void_p()
        self._call("nvrtcCreateProgram", ctypes.byref(program), text, b"program.cu", 0, None, None)
        given = (ctypes.c_char_p * len(options))(*(one.encode() for one in options))
        if self._library.nvrtcCompileProgram(program, len(options), given):
            raise RuntimeError(self._read(program, "nvrtcGetProgramLog").rstrip(b"\0").decode(errors="replace"))
        return self._read(program, "nvrtcGetCUBIN" if kind == "cubin" else "nvrtcGetPTX")

    def _read(self, program: ctypes.c_void_p, name: str) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"{name}Size", program, ctypes.byref(size))
        data = ctypes.create_string_buffer(size.value)
        self._call(name, program, data)
        return data.raw

    def _call(self, name: str, *arguments: object) -> None:
        fault = getattr(self._library, name)(*arguments)
        if fault:
            raise RuntimeError(f"{name}: {self._library.nvrtcGetErrorString(fault).decode()}")


def main(arguments: list[str]) -> int:
    """Does what the arguments ask; exit status 1 with the reason on standard error."""
    try:
        library = Nvrtc(arguments[0])
        if len(arguments) == 1:
            sys.stdout.write(json.dumps(library.describe()))
            return 0
        made = library.compile(sys.stdin.buffer.read(), arguments[1], arguments[3:])
        Path(arguments[2]).write_bytes(made)
    except (OSError, RuntimeError, AttributeError) as error:
        sys.stderr.write(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
