"""Runs on a terminal of their own: lines and file say the same, the cursor is left."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sabitrain.config_file import to_toml
from sabitrain.trainer import run_training
from support.train.runs import environment
from support.train.terminals import HIDE, SHOW, SWITCHES
from support.train.tiny import tiny_config, write_tiny


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
