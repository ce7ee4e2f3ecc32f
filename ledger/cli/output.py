"""How commands print: one JSON document with --json, else tables and lines through rich."""

from __future__ import annotations

import json
import math
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ledger.amounts import format_tokens

__all__ = ["Output", "amount", "dump_json", "loss_value", "shorten", "table"]


def dump_json(document: Any) -> str:
    """The text form of every --json output: keys in the order given, two spaces, no escaped letters."""
    return json.dumps(document, indent=2, ensure_ascii=False)


def amount(wei: int) -> dict[str, str]:
    """An amount in JSON: exact decimal strings, in wei and in tokens."""
    return {"wei": str(wei), "tokens": format_tokens(wei)}


def loss_value(bits: int) -> float | None:
    """A loss on chain (binary32 bits) as a number; None where it is not finite, which JSON cannot hold."""
    value: float = struct.unpack(">f", bits.to_bytes(4, "big"))[0]
    return value if math.isfinite(value) else None


def shorten(address: str) -> str:
    """An address for a table's cell: 0x1234…abcd."""
    return f"{address[:6]}…{address[-4:]}"


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[str] = ()) -> Table:
    """A plain table; cells are shown literally, never as markup. `right` names columns aligned to the right."""
    result = Table(box=None, pad_edge=False, header_style="bold", show_header=any(columns))
    for column in columns:
        result.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        result.add_row(*(Text(str(cell)) for cell in row))
    return result


class Output:
    """Mixed into the command context."""

    json: bool

    @property
    def console(self) -> Console:
        """Standard output, for results."""
        # Made at each use, because tests and pipes replace sys.stdout.
        # A pipe or file has no width to fold at: a root must stay in one piece there.
        width = None if sys.stdout.isatty() else 200
        return Console(file=sys.stdout, highlight=False, soft_wrap=True, markup=False, width=width)

    @property
    def notices(self) -> Console:
        """Standard error, for progress and remarks, so that results can be piped."""
        return Console(file=sys.stderr, highlight=False, soft_wrap=True, markup=False)

    def emit(self, document: Any, human: Callable[[Console], None]) -> None:
        """Prints a result: `document` with --json, else whatever `human` prints."""
        if self.json:
            print(dump_json(document))
        else:
            human(self.console)

    def say(self, text: str) -> None:
        """A remark for people, on stderr; silent with --json."""
        if not self.json:
            self.notices.print(text)
