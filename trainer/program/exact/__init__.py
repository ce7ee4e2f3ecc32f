"""Exact programs: what they are made of, their bytes, their checks and their cost (docs/programs.md)."""

from trainer.program.exact.builder import BuiltProgram, ProgramBuilder, Quantised
from trainer.program.exact.cost import Cost, cost_of
from trainer.program.exact.encoding import decode_program, encode_program, program_root
from trainer.program.exact.listing import listing
from trainer.program.exact.operations import DType, Operand, Operation, Part, Program, Role
from trainer.program.exact.validate import check_constants, check_program, load_program
from trainer.program.exact.views import Value

__all__ = [
    "BuiltProgram",
    "Cost",
    "DType",
    "Operand",
    "Operation",
    "Part",
    "Program",
    "ProgramBuilder",
    "Quantised",
    "Role",
    "Value",
    "check_constants",
    "check_program",
    "cost_of",
    "decode_program",
    "encode_program",
    "listing",
    "load_program",
    "program_root",
]
