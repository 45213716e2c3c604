"""The command line's streams and signals: terminals, pipes, progress, Ctrl-C."""

from __future__ import annotations

import os
import pty
import shlex
import signal
from pathlib import Path

import pytest

import sabiprep
from sabiprep import PackReport
from sabiprep.progress import PHASES, ProgressLines
from support.command import process
from support.files import files_of
from support.small_corpus import make_it_last

# Streams and signals


def test_piped_output_is_plain(corpus: Path, tmp_path: Path) -> None:
    packing = process("pack", corpus, tmp_path / "out", env={**os.environ, "COLUMNS": "60"})
    out, err = packing.communicate()
    assert packing.returncode == 0
    assert "\x1b" not in out + err and "\r" not in out + err
    assert max(map(len, out.splitlines())) > 80  # the width of no terminal counts
    assert set(err.splitlines()) <= set(PHASES.values())
    out, err = process("inspect", tmp_path / "out").communicate()
    assert "\x1b" not in out and "⟦t+|" in out and err == ""


def on_terminal(*arguments: object, **environment: str) -> str:
    """What a command writes to a terminal, stdout and stderr together."""
    ours, theirs = pty.openpty()
    clean = {
        name: value
        for name, value in os.environ.items()
        if name not in ("NO_COLOR", "FORCE_COLOR", "CI")
    }
    env = {**clean, "TERM": "xterm-256color", "COLUMNS": "100", **environment}
    running = process(*arguments, stdin=theirs, stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    content = b""
    while True:
        try:
            more = os.read(ours, 65536)
        except OSError:  # Linux: the other end was closed
            break
        if not more:
            break
        content += more
    os.close(ours)
    assert running.wait() == 0
    return content.decode()


def test_a_terminal_gets_colours_and_a_bar_unless_it_wants_none(
    corpus: Path, tmp_path: Path
) -> None:
    shown = on_terminal("pack", corpus, tmp_path / "out")
    assert "\x1b[1m" in shown and "task, source" in shown
    assert any(phase in shown for phase in PHASES.values())
    shown = on_terminal("inspect", tmp_path / "out")
    assert "\x1b[36m" in shown and "⟦" not in shown
    shown = on_terminal("inspect", tmp_path / "out", NO_COLOR="1")
    assert "\x1b[36m" not in shown and "⟦p|" in shown
    shown = on_terminal("inspect", tmp_path / "out", TERM="dumb")
    assert "\x1b" not in shown and "⟦p|" in shown


def test_a_reader_that_leaves_is_no_error(packed: PackReport) -> None:
    for arguments in (["inspect", packed.out], ["--help"], ["pack", "--help"]):
        running = process(*arguments)
        assert running.stdout is not None and running.stderr is not None
        running.stdout.close()
        assert running.stderr.read() == ""
        assert running.wait() == 0
        running.stderr.close()


def test_a_reader_of_progress_that_leaves_stops_the_work(corpus: Path, tmp_path: Path) -> None:
    make_it_last(corpus)
    packing = process("pack", corpus, tmp_path / "out")
    assert packing.stdout is not None and packing.stderr is not None
    packing.stderr.close()
    out = packing.stdout.read()
    packing.stdout.close()
    assert (packing.wait(), out) == (1, "")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_an_encoding_without_the_letters_is_no_error(packed: PackReport) -> None:
    running = process("inspect", packed.out, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    out, err = running.communicate()
    assert running.returncode == 0 and err == ""
    assert r"\u27e6p|" in out


@pytest.mark.parametrize(
    ("sent", "code", "name"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")]
)
def test_a_signal_stops_the_work_and_says_how_to_go_on(
    corpus: Path, tmp_path: Path, sent: signal.Signals, code: int, name: str
) -> None:
    make_it_last(corpus)
    arguments = [
        "pack",
        str(corpus),
        str(tmp_path / "out 1"),
        "--threads",
        "1",
        "--split-bytes",
        "20000",
    ]
    packing = process(*arguments)
    assert packing.stderr is not None
    assert packing.stderr.readline() == f"{PHASES['map']}\n"
    packing.send_signal(sent)
    out, err = packing.communicate()
    to_go_on = shlex.join(["sabiprep", *arguments, "--resume"])
    assert (packing.returncode, out, err) == (
        code,
        "",
        f"sabiprep: stopped by {name}\nTo go on: {to_go_on}\n",
    )
    assert not (tmp_path / "out 1" / "manifest.json").exists()

    again = process(*arguments)
    assert "--resume" in again.communicate()[1] and again.returncode == 1
    going_on = process(*shlex.split(to_go_on)[1:])
    out, err = going_on.communicate()
    assert going_on.returncode == 0, err
    sabiprep.pack(corpus, tmp_path / "at once")
    assert files_of(tmp_path / "out 1") == files_of(tmp_path / "at once")


def test_lines_of_progress_are_few(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("sabiprep.progress.time.monotonic", lambda: now)
    told = ProgressLines()
    for tick in range(241):
        now = tick * 0.05
        told("map", tick * 10, tick * 1_000_000, 240_000_000, tick * 100)
    told("reduce", 2400, 5, 10, 24_000)
    now += 6
    told("reduce", 2400, 7, 10, 24_000)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert lines[0] == PHASES["map"] and lines[3] == PHASES["reduce"]
    assert lines[1].startswith(f"{PHASES['map']}: 4") and lines[1].endswith("MB/s · 10,000 tokens")
    assert "1,000 records · 20.0 MB/s" in lines[1]
    assert lines[4] == f"{PHASES['reduce']}: 70% · 7 rows"


def test_lines_of_a_plan_that_takes_long_had_nothing_behind_the_colon(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    times = [0.0]
    monkeypatch.setattr("sabiprep.progress.time.monotonic", lambda: times[-1])
    told = ProgressLines()
    for seconds in (0.0, 6.0, 12.0):
        times.append(seconds)
        told("plan", 0, 0, 0, 0)
    plan = PHASES["plan"]
    assert capsys.readouterr().err.splitlines() == [f"{plan}: 6 s", f"{plan}: 12 s"]
