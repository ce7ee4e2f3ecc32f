"""Exact programs: what they are made of, their bytes, their checks and their cost (docs/programs.md)."""

from trainer.program.exact.builder import BuiltProgram, ProgramBuilder, Quantised
from trainer.program.exact.operations import DType, Operand, Operation, Part, Program, Role
from trainer.program.exact.views import Value

__all__ = [
    "BuiltProgram",
    "DType",
    "Operand",
    "Operation",
    "Part",
    "Program",
    "ProgramBuilder",
    "Quantised",
    "Role",
    "Value",
]
