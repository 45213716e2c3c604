"""What people see: a view redrawn in place on a terminal, lines elsewhere, and a terminal that is
left as it was.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from sabitrain.config_file import to_toml
from sabitrain.evaluation.scores import Evaluation, Score, SourceScore, TargetLoss
from sabitrain.monitoring.clock import Clock
from sabitrain.monitoring.console import Console as PlainConsole
from sabitrain.monitoring.console import LiveConsole, open_console
from sabitrain.monitoring.score_table import elide
from sabitrain.monitoring.step_metrics import summarise
from sabitrain.trainer import run_training
from support.train.runs import environment, step_metrics
from support.train.tiny import tiny_config, write_tiny

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"
# What tells rich what it is shown on, whatever that is.
SWITCHES = ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")


def terminal(width: int = 120) -> Console:
    """A terminal that keeps what it is sent."""
    return Console(
        file=io.StringIO(),
        force_terminal=True,
        force_interactive=True,
        color_system=None,
        legacy_windows=False,
        record=True,
        width=width,
        height=40,
        soft_wrap=True,
    )


def sent(console: Console) -> str:
    """All that went to a console."""
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


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


def score(loss: float, prompt: float | None) -> Score:
    return Score(
        loss,
        1_000,
        0.25,
        None if prompt is None else 0.5,
        None if prompt is None else TargetLoss(prompt, 10),
    )


@pytest.mark.parametrize("width", [120, 40])
def test_a_validation_is_a_table(width):
    pairs = {
        "copy": {"hau": score(1.5, 5.5), "yor": score(2.5, 6.5)},
        "label": {"yor": score(3.5, 7.5)},
        "text": {"ibo": score(4.5, None)},
    }
    tasks = {
        "copy": score(1.25, 5.25),
        "label": pairs["label"]["yor"],
        "text": pairs["text"]["ibo"],
    }
    languages = {"hau": pairs["copy"]["hau"], "ibo": pairs["text"]["ibo"], "yor": score(2.25, 6.25)}
    console = terminal(width)
    PlainConsole(console, Clock(10)).validation(
        20, Evaluation(score(1.125, 5.125), tasks, languages, pairs)
    )
    title, above, names, rule, *rows = sent(console).splitlines()
    assert title == "validation at step 20: target loss 1.1250"
    assert above.split() == ["target", "tokens", "answers", "bits", "per", "prompt"]
    assert names.split() == [
        "task",
        "language",
        "targets",
        "loss",
        "baseline",
        "right",
        "right",
        "byte",
        "loss",
    ]
    assert set(rule) == {"─"}
    assert [row.split() for row in rows] == [
        ["copy", "hau", "1,000", "1.5000", "25.0%", "0.500", "5.5000"],
        ["copy", "yor", "1,000", "2.5000", "25.0%", "0.500", "6.5000"],
        ["label", "yor", "1,000", "3.5000", "25.0%", "0.500", "7.5000"],
        ["text", "ibo", "1,000", "4.5000", "25.0%"],
        [],
        ["copy", "all", "1,000", "1.2500", "25.0%", "0.500", "5.2500"],
        ["all", "yor", "1,000", "2.2500", "25.0%", "0.500", "6.2500"],
        ["all", "all", "1,000", "1.1250", "25.0%", "0.500", "5.1250"],
    ]


def wide_score(targets: int) -> Score:
    return Score(10.1234, targets, 1.0, 12.345, TargetLoss(10.5, 3), 10.9999, 55, 0.625)


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("targets", [99, 12_345_678])
def test_long_names_are_cut_and_nothing_wraps(width, targets):
    """Every line fits, every number stands whole, whatever the names; where there is room they do
    too.
    """
    task, language, score = "headline-generation-from-the-body", "yor-Latn-NG", wide_score(targets)
    sources = {
        name: SourceScore(**vars(score), task=task, language="hau") for name in ("news-a", "news-b")
    }
    pairs = {task: {"hau": score, language: score}}
    console = terminal(width)
    found = Evaluation(
        score, {task: score}, {"hau": score, language: score}, pairs, sources, 128, 1_054
    )
    PlainConsole(console, Clock(10)).validation(20, found)
    title, _, names, rule, *rows = sent(console).splitlines()
    assert title == "validation at step 20: target loss 10.1234 (128 of 1,054 held-out rows)"
    assert all(len(line) <= width for line in (names, rule, *rows))
    numbers = [f"{targets:,}", "10.1234", "10.9999", "100.0%", "62.5%", "12.345", "10.5000"]
    rows = [row.split() for row in rows if row.strip()]
    assert [row[-7:] for row in rows] == [numbers] * 6
    assert [row[:-7][0][:3] for row in rows] == ["hea", "new", "new", "hea", "hea", "all"]
    assert ("…" in rows[0][0]) == (width == 80)
    if width == 120:
        assert rows[0][:2] == [task, "hau"] and rows[3][:2] == [task, language]


def test_names_are_cut_in_their_middle():
    assert elide("translate", 9) == "translate"
    assert elide("translate-eng-yor", 9) == "transl…or"
    assert [elide("ọjọ́-ẹ̀kọ́-ńlá", width) for width in (1, 2)] == ["…", "ọ…"]


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


@pytest.fixture
def data(tmp_path) -> Path:
    return write_tiny(tmp_path / "data").path


def test_lines_and_file_say_the_same(data, tmp_path, capsys):
    run_training(tiny_config(data, tmp_path / "run", max_steps=2, log_every=1, eval_every=0))
    lines = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    for step, line in zip([line for line in lines if line["kind"] == "train"], shown, strict=True):
        assert f"loss {step['loss']:.4f}  lr {step['lr']:.2e}" in line
        assert f"{step['targets_per_second']:,.0f} targets/s" in line
        assert (
            f"{step['memory_bytes'] / 1e9:.2f} GB, data wait {step['data_wait']:.1%}, ETA 0:00:0"
            in line
        )
        assert (
            step["memory_bytes"] > 10**8 and 0 <= step["data_wait"] < 1 and step["eta_seconds"] >= 0
        )


class Terminal:
    """A command that runs in a terminal of its own, and what it has shown there."""

    def __init__(self, run: Path, data: Path, **options: object) -> None:
        file = run.with_suffix(".toml")
        file.write_text(
            to_toml(tiny_config(data, run, threads=1, eval_every=0, **options)), encoding="utf-8"
        )
        self._end, other = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sabitrain", "--config", str(file)],
            stdout=other,
            stderr=other,
            env={name: value for name, value in environment().items() if name not in SWITCHES}
            | {"TERM": "xterm"},
        )
        os.close(other)
        self.shown = ""

    def read(self, until: str | None = None) -> None:
        """Read until something is shown, or until the command has ended."""
        with contextlib.suppress(OSError):  # how Linux says that the other end is closed
            while (until is None or until not in self.shown) and (
                part := os.read(self._end, 65_536)
            ):
                self.shown += part.decode(errors="replace")

    def wait(self) -> int:
        """Read to the end, and give the exit code."""
        self.read()
        os.close(self._end)
        return self.process.wait()


def test_a_run_in_a_terminal(data, tmp_path):
    terminal = Terminal(tmp_path / "run", data, max_steps=4)
    assert terminal.wait() == 0
    assert HIDE in terminal.shown and terminal.shown.rindex(HIDE) < terminal.shown.rindex(SHOW)
    below = terminal.shown[terminal.shown.rindex("step 4 of 4") :]
    assert below.index("data wait") < below.index("saved ") < below.index("held-out target loss")
    assert "step 4/4" not in terminal.shown
    assert (
        terminal.shown.index("saving")
        < terminal.shown.index("validating")
        < terminal.shown.index("validation at")
    )


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 0)]
)
def test_a_run_that_is_ended_leaves_a_cursor(data, tmp_path, number, code):
    terminal = Terminal(tmp_path / "run", data, max_steps=1_000_000)
    terminal.read(until="data wait")
    terminal.process.send_signal(number)
    assert terminal.wait() == code
    assert terminal.shown.rindex(HIDE) < terminal.shown.rindex(SHOW)
    assert ("go on with: python -m sabitrain" in terminal.shown) == (code == 0)
