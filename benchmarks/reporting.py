"""Results as JSON and Markdown, with the machine described and nothing of its paths or names."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "instructions": [f for f in ("avx2", "avx512f", "avx512_vnni", "sha_ni") if f in flags],
        "memory_gib": round(memory),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


Rows = Sequence[Mapping[str, Any]]


def write(
    name: str,
    *,
    title: str,
    command: str,
    figures: dict[str, Any],
    note: str,
    tables: Mapping[str, Rows] | None = None,
) -> None:
    """Write results/<name>.json and .md, and print the Markdown.

    Args:
        tables: by their headings, for what a list of figures cannot show; all rows of one have the same keys.
    """
    RESULTS.mkdir(exist_ok=True)
    on = machine()
    result: dict[str, Any] = {"title": title, "command": command, "machine": on, "figures": figures}
    if tables:
        result["tables"] = tables
    (RESULTS / f"{name}.json").write_text(json.dumps({**result, "note": note}, indent=2) + "\n")
    rows = "\n".join(f"| {key.replace('_', ' ')} | {_shown(value)} |" for key, value in figures.items())
    text = (
        f"# {title}\n\n| figure | value |\n| --- | --- |\n{rows}\n\n"
        f"{''.join(_table(*one) for one in (tables or {}).items())}{note}\n\n"
        f"Machine: {on['cores']} cores of {on['processor']} ({', '.join(on['instructions'])}), "
        f"{on['memory_gib']} GiB; Python {on['python']}, PyTorch {on['torch']}.\n\nAgain: `{command}`\n"
    )
    (RESULTS / f"{name}.md").write_text(text)
    print(text)


def _table(heading: str, rows: Rows) -> str:
    lines = [" | ".join(rows[0]), " | ".join("---" for _ in rows[0])]
    for row in rows:
        lines.append(" | ".join(f"{one:,}" if isinstance(one, int) else _shown(one) for one in row.values()))
    return f"## {heading}\n\n" + "\n".join(f"| {line} |" for line in lines) + "\n\n"


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, list):
        return ", ".join(_shown(item) for item in value)
    return str(value)
