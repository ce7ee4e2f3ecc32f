"""A fleet in one table, and in lines of JSON."""

from __future__ import annotations

import io
import json

from rich.console import Console

from trainer.fleet.orders import Report
from trainer.fleet.show import JsonFleet, TextFleet, fleet_table, summary

TOKEN = 10**18
PROGRESS = {"task": 3, "round": 1, "step": 40, "steps": 100, "loss": 2.5, "tokens_per_second": 1234.0}
REPORTS = [
    Report(name="ann", incarnation="a", machine="one", state="working", process=7, starts=2, progress=PROGRESS),
    Report(name="ben", incarnation="b", machine="two", state="working", starts=1, submitted=2, earned=3 * TOKEN // 2),
    Report(name="cho", incarnation="", machine="", state="placing"),
]


def test_summary_adds_up_all_workers() -> None:
    whole = summary(REPORTS)
    assert (whole["training"], whole["tokens_per_second"], whole["rounds_submitted"]) == (1, 1234.0, 2)
    assert (whole["earned"], whole["starts"]) == ("1500000000000000000", 3)
    assert [one["member"] for one in whole["workers"]] == ["ann", "ben", "cho"]
    assert whole["workers"][0]["step"] == 40
    assert whole["workers"][1]["step"] is None


def test_table_has_a_line_for_each_worker_and_one_of_totals() -> None:
    stream, diverged = io.StringIO(), {**PROGRESS, "loss": None}
    last = Report(name="dee", incarnation="", machine="one", state="working", progress=diverged)
    Console(file=stream, width=120).print(fleet_table([*REPORTS, last]))
    lines = [" ".join(line.split()) for line in stream.getvalue().splitlines()]
    assert lines[0] == "worker machine state task round step loss tokens/s rounds earned starts"
    assert lines[1] == "ann one training 3 1 40/100 2.5000 1,234 0 0 2"
    assert lines[2] == "ben two waiting 2 1.5 1"
    assert lines[3] == "cho placing 0 0 0"
    assert lines[4] == "dee one training 3 1 40/100 not finite 1,234 0 0 0"
    assert lines[5] == "TOTAL 2 training 2,468 2 1.5 3"


def test_json_fleet_repeats_what_workers_said_and_the_whole_now_and_then() -> None:
    stream = io.StringIO()
    reporter = JsonFleet(stream, interval=0.0)
    said = {"event": "submitted", "member": "ben", "text": "Submitted.", "round": 4}
    reporter.show([Report(name="ben", incarnation="b", machine="two", state="working", news=((1, said),))])
    reporter.over(REPORTS)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert lines[0] == said
    assert [line["event"] for line in lines] == ["submitted", "fleet", "fleet-finished"]
    assert lines[2]["rounds_submitted"] == 2


def test_text_fleet_puts_names_before_sentences() -> None:
    stream = io.StringIO()
    reporter = TextFleet(Console(file=stream, width=120))
    said = ((1, {"event": "submitted", "text": "Submitted [round] 4."}), (2, {"event": "quiet", "text": ""}))
    reporter.show([Report(name="ben", incarnation="b", machine="two", state="working", news=said)])
    reporter.over(REPORTS)
    lines = stream.getvalue().splitlines()
    assert lines[0].split(maxsplit=1)[1] == "ben          Submitted [round] 4."
    assert lines[1].startswith("worker")
    assert len(lines) == 1 + 1 + 3 + 1
