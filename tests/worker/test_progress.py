from __future__ import annotations

import io
import json
import math

import pytest
from rich.console import Console

from trainer.worker.progress import JsonReporter, RoundProgress, TextReporter, duration, progress_line
from trainer.worker.round import _SmoothLoss


def progress(step: int, *, loss: float = 2.5) -> RoundProgress:
    return RoundProgress(
        task=1,
        round=2,
        step=step,
        steps=100,
        loss=loss,
        tokens_per_second=12345.6,
        eta_seconds=95.0,
        earned=1_500_000_000_000_000_000,
    )


def test_json_reporter_writes_one_object_a_line_with_exact_amounts() -> None:
    stream = io.StringIO()
    reporter = JsonReporter(stream)
    reporter.say("claimed", "Claimed.\nReally.", task=1, state_root=b"\x01" * 32, loss=float("nan"))
    reporter.progress(progress(3, loss=float("inf")))
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (first["event"], first["task"], first["text"]) == ("claimed", 1, "Claimed.\nReally.")
    assert (first["state_root"], first["loss"]) == ("0x" + "01" * 32, None)
    assert (second["event"], second["step"], second["loss"]) == ("progress", 3, None)
    assert second["earned"] == "1500000000000000000"


def test_json_reporter_shows_progress_seldom_and_the_last_step_always() -> None:
    stream = io.StringIO()
    reporter = JsonReporter(stream, interval=1000.0)
    for step in (1, 2, 3, 100):
        reporter.progress(progress(step))
    assert [json.loads(line)["step"] for line in stream.getvalue().splitlines()] == [1, 100]


def test_text_reporter_prints_literally_without_a_terminal() -> None:
    stream = io.StringIO()
    reporter = TextReporter(Console(file=stream, width=200))
    reporter.say("waiting", "Task 1: [bold]not markup[/bold].")
    reporter.progress(progress(100))
    said, shown = stream.getvalue().splitlines()
    assert "[bold]not markup[/bold]" in said
    assert "Task 1 round 2: step 100/100, loss 2.5000, 12,346 tokens/s, 1 min 35 s to go, 1.5 earned" in shown


def test_text_reporter_on_a_terminal_shows_a_bar_and_takes_it_away() -> None:
    stream = io.StringIO()
    reporter = TextReporter(Console(file=stream, force_terminal=True, width=120))
    with reporter:
        reporter.progress(progress(50))
        assert reporter._bar is not None
        assert reporter._bar.tasks[0].completed == 50
    assert reporter._bar is None
    assert "task 1 round 2" in stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (185, "3 min 05 s"), (7800, "2 h 10 min"), (-1, "0 s")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_progress_line_short_leaves_out_the_place() -> None:
    assert progress_line(progress(3), short=True).startswith("3/100, loss")


def test_smooth_loss_follows_the_losses_without_their_noise() -> None:
    smooth = _SmoothLoss()
    assert smooth.add(4.0, steps=2) == 4.0
    noisy = [smooth.add(3.0 + (0.5 if step % 4 == 0 else -0.5), steps=step) for step in range(4, 400, 2)]
    assert all(abs(value - 3.0) < 0.1 for value in noisy[60:])
    assert math.isnan(smooth.add(math.nan, steps=400))
