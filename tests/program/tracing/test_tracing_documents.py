"""The documents list what is supported."""

import re
from pathlib import Path

from trainer.program.tracing import elementwise, lowering
from trainer.program.tracing.training import RULE_MODULES

PAGE = Path(__file__).resolve().parents[3] / "docs/tracing.md"


def test_the_page_lists_exactly_the_operators_that_are_supported() -> None:
    assert RULE_MODULES
    rules = {*elementwise.RULES, *lowering.RULES}
    supported = {str(rule).split(".")[1] if "." in str(rule) else "getitem" for rule in rules}
    table = PAGE.read_text().split("| ATen | becomes |")[1].split("\n\n")[0]
    listed = {name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert listed == supported
