"""Puts off an import that takes a third of a short command's time.

eth_account imports eth_keyfile, which imports py_ecc's BLS12-381 pairings for the keystores of Ethereum's validators
(EIP-2335). Setting up their constants takes two tenths of a second, and nothing here ever uses them.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

_MODULES = ("py_ecc.bls", "py_ecc.bls12_381.bls12_381_pairing")


class _Later:
    """Stands for one thing of such a module: called, or looked into, it is the real one."""

    def __init__(self, module: ModuleType, name: str) -> None:
        self._found = (module, name)

    def _real(self) -> Any:
        module, name = self._found
        if sys.modules.get(module.__name__) is module:
            del sys.modules[module.__name__]
        return getattr(importlib.import_module(module.__name__), name)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._real()(*arguments, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real(), name)


class _ModuleLater(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what the import system asks for
            raise AttributeError(name)
        return _Later(self, name)


def put_off_pairings() -> None:
    """Has to come before the first import of eth_account; leaves alone what is imported already."""
    for name in _MODULES:
        sys.modules.setdefault(name, _ModuleLater(name))
