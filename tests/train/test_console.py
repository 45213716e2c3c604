"""What people see: a view redrawn in place on a terminal, lines elsewhere, and a terminal that is
left as it was.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
import time

import pytest
from rich.console import Console

from sabitrain.monitoring.clock import Clock
from sabitrain.monitoring.console import Console as PlainConsole
from sabitrain.monitoring.console import LiveConsole, open_console
from sabitrain.monitoring.step_metrics import summarise
from support.train.runs import step_metrics
from support.train.terminals import HIDE, SHOW, SWITCHES, sent, terminal


def cells(drawing: str) -> dict[str, str]:
    """The figures of a drawing by what stands above them."""
    found = {}
    _, *rows = (line for line in drawing.splitlines() if line.strip())
    for names, values in zip(rows[::2], rows[1::2], strict=True):
        found |= zip(*(re.split(r" {2,}", line.strip()) for line in (names, values)), strict=True)
    return found


@pytest.mark.parametrize("width", [120, 60])
def test_the_live_view_has_every_figure(width):
    console, clock = terminal(width), Clock(2_000)
    view = LiveConsole(console, clock)
    view.step(1)
    assert "step 1 of 2,000" in sent(console) and "loss" not in sent(console)
    view.step_metrics(summarise([step_metrics(targets=600, step=40, peak=1e10)]), 3)
    view.settle()
    drawing = console.export_text()
    drawing = drawing[drawing.rindex("step 40 of 2,000") :]
    assert re.match(r"step 40 of 2,000 +[━╸]* +ETA unknown", drawing)
    assert cells(drawing) == {
        "loss": "2.0000",
        "targets/s": "1,200",
        "tokens/s": "2,400",
        "executed": "MFU 60.0%",
        "skipped": "25.0%",
        "memory": "1.25 GB",
        "data wait": "10.0%",
        "epoch": "0.25",
        "lr": "1.00e-03",
        "gradient": "0.75",
        "steps skipped": "3",
    }


def test_the_live_view_counts_down(monkeypatch):
    console, clock = terminal(), Clock(10)
    monkeypatch.setattr(Clock, "seconds_left", 3723.4)
    with LiveConsole(console, clock) as view:
        view.step_metrics(summarise([step_metrics(step=4)]), 0)
    last = sent(console)[sent(console).rindex("step 4 of 10") :]
    assert "ETA 1:02:03" in last and "0.01 TFLOP/s" in last and "steps skipped" not in last


def test_lines_stay_above_the_live_view():
    console = terminal()
    with LiveConsole(console, Clock(10)) as view:
        view.step(1)
        view.say("a checkpoint was written")
    text = console.export_text()
    assert text.index("a checkpoint was written") < text.rindex("step 1 of 10")
    assert not view._live.is_started


def test_the_live_view_says_what_takes_a_while():
    console = terminal()
    with LiveConsole(console, Clock(10)) as view:
        view.between_steps("saving")
        assert sent(console) == "", "there is nothing to say it beside"
        view.step_metrics(summarise([step_metrics(step=2)]), 0)
        view.between_steps("validating")
        assert re.search(r"ETA unknown +validating", sent(console))
        view.step_metrics(summarise([step_metrics(step=4)]), 0)
        view.step(5)
    assert "validating" not in sent(console)[sent(console).rindex("step 5 of 10") :]


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, ValueError])
def test_the_cursor_is_never_hidden_for_long(error):
    console = terminal()
    with (
        contextlib.suppress(KeyboardInterrupt, ValueError),
        LiveConsole(console, Clock(10)) as view,
    ):
        view.step(1)
        shown = sent(console)
        assert shown.index(HIDE) < shown.index(SHOW) < shown.index("step 1"), (
            "shown again before anything is drawn"
        )
        assert shown.count(HIDE) == 1
        if error is not None:
            raise error
    assert sent(console).count(HIDE) == 1
    assert sent(console).endswith(f"\n{SHOW}")


def test_elsewhere_there_are_plain_lines():
    file = io.StringIO()
    with PlainConsole(Console(file=file, soft_wrap=True), Clock(2_000)) as view:
        view.step(39)
        view.step_metrics(summarise([step_metrics(targets=600, step=40, peak=1e10)]), 0)
        view.step_metrics(summarise([step_metrics(targets=600, step=50)]), 2)
    utilisation, rest = "MFU 60.0%", "25% skipped, 1.25 GB, data wait 10.0%, ETA 1:02:03"
    line = "epoch  0.25  loss 2.0000  lr 1.00e-03  grad  0.75  2,400 tokens/s, 1,200 targets/s"
    assert file.getvalue().splitlines() == [
        f"step   40/2000  {line}, {utilisation}, {rest}",
        f"step   50/2000  {line}, 0.01 TFLOP/s, {rest}, 2 steps skipped",
    ]


def test_the_view_suits_where_it_goes(monkeypatch):
    assert type(open_console(Clock(1))) is PlainConsole, "pytest's output is no terminal"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for name in SWITCHES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert type(open_console(Clock(1))) is LiveConsole
    monkeypatch.setenv("TERM", "dumb")
    assert type(open_console(Clock(1))) is PlainConsole


def test_what_takes_a_while_is_told_now_and_then(monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    file = io.StringIO()
    view = PlainConsole(Console(file=file, soft_wrap=True), Clock(10))
    now += 60
    view.between_steps("validating")
    for seconds, done in ((9, 64), (10, 128), (15, 256), (21, 1_024)):
        now = 160.0 + seconds
        view.progress("validating", done, 1_054, "rows")
    assert file.getvalue().splitlines() == [
        "validating 128 of 1,054 rows",
        "validating 1,024 of 1,054 rows",
    ]
    console = terminal(80)
    with LiveConsole(console, Clock(2_000)) as live:
        live.progress("validating", 128, 1_054, "rows")
        now += 0.1
        live.progress("validating", 129, 1_054, "rows")
        now += 0.2
        live.progress("validating", 130, 1_054, "rows")
    drawn = sent(console)
    assert re.search(r"step 0 of 2,000 +ETA unknown +validating 128 of 1,054 rows", drawn), (
        "on one line"
    )
    assert "validating 129" not in drawn and "validating 130 of 1,054 rows" in drawn
    now += 60
    live.progress("answering", 5, 64, "tokens")
    assert sent(console).splitlines()[-1].endswith("answering 5 of 64 tokens")
