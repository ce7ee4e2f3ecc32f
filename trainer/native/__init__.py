"""Compilers of this machine: C text to a library, kept in a folder for the next time."""

from trainer.native.compiler import Compiler, CompilerError, compiled_program, find_compiler

__all__ = ["Compiler", "CompilerError", "compiled_program", "find_compiler"]
