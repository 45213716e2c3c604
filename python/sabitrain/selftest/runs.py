"""Runs from a corpus to answers, as anyone begins them: stopped, resumed, and the same bits again.

Each run is a process of its own, on a small corpus that is packed first.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sabitrain
from sabiprep.errors import SabiprepError
from sabitrain.selftest.bench import Bench, Outcome, Part
from sabitrain.selftest.data import write_corpus

# Stopped after so many steps, by a look at the record every so many seconds.
_STOP_AFTER = 3
_LOOK_EVERY = 0.02
_MOST_SECONDS = 150.0


def parts(bench: Bench) -> Sequence[Part]:
    """Returns the parts: each goes on from the one before it."""
    runs = _Runs(bench)
    return (
        Part("packed", 5, runs.pack),
        Part("stopped by SIGTERM", 60, runs.stop),
        Part("resumed to its end", 40, runs.resume),
        Part("deterministic, twice", 20, runs.repeat),
    )


class _Runs:
    """The runs, and the dataset that they share."""

    def __init__(self, bench: Bench) -> None:
        """Keeps its argument; a GPU takes more steps, for they end sooner than they are seen."""
        self._bench = bench
        self._steps = 40 if bench.small else 400
        self._repeated: dict[str, subprocess.Popen[bytes]] = {}

    def pack(self) -> Outcome:
        """Writes a corpus, trains a tokenizer on it, and packs it."""
        import sabiprep

        corpus = self._bench.folder / "corpus"
        write_corpus(corpus)
        tokenizer = corpus / "tokenizer.json"
        try:
            sabiprep.train_tokenizer(corpus, tokenizer, 320)
        except SabiprepError as error:
            # The core is missing: a machine may train without it.
            if isinstance(error.__cause__, ImportError):
                return Outcome(None, why=error.message)
            raise
        sabiprep.pack(corpus, self._data, sabiprep.PackOptions(tokenizer=tokenizer))
        manifest = json.loads((self._data / "manifest.json").read_text("utf-8"))
        return Outcome(bool(manifest), {"bytes": _size(self._data)})

    def stop(self) -> Outcome:
        """Begins a run, and ends it by SIGTERM after a few steps."""
        if not self._data.exists():
            return Outcome(None, why="no dataset was packed")
        # Beside the others, whose seconds go to imports and to the compiler.
        for name in ("once", "again"):
            self._repeated[name] = self._begin(name, "--deterministic", steps=30)
        began = time.monotonic()
        run = self._begin("run", "--compile", "off" if self._bench.small else "auto")
        try:
            lines = self._until_stepping(run)
            waited = time.monotonic() - began
            run.send_signal(signal.SIGTERM)
            code = self._end(run)
        finally:
            self._drop(run)
        done = _steps_of(_record(self._bench.folder / "run"))
        numbers = {"seconds_to_step": waited, "steps": done, "exit_code": code}
        if not lines and run.returncode == -signal.SIGTERM:
            return Outcome(None, numbers, "there was no time for its first steps")
        if code != 0 or not lines:
            return Outcome(False, numbers, self._last_words("run"))
        if done >= self._steps:
            return Outcome(None, numbers, "it was at its end before the signal came")
        return Outcome(True, numbers)

    def resume(self) -> Outcome:
        """Goes on with the stopped run to its end, and reads what it left."""
        folder = self._bench.folder / "run"
        before = _steps_of(_record(folder)) if folder.exists() else 0
        if not before:
            return Outcome(None, why="no run was stopped")
        run = self._start("run", "--run", str(folder), "--resume")
        try:
            code = self._end(run)
        finally:
            self._drop(run)
        lines = _record(folder)
        losses = [line["loss"] for line in lines if line["kind"] == "train"]
        first, last = (statistics.mean(part) for part in (losses[:5], losses[-5:]))
        kinds = {line["kind"] for line in lines}
        if code is None:
            return Outcome(None, {"steps": _steps_of(lines)}, "there was no time for its end")
        numbers = {
            "exit_code": code,
            "steps": _steps_of(lines),
            "first_loss": first,
            "last_loss": last,
            "compiled": lines[0].get("compiled"),
        }
        faults = [
            *([] if code == 0 else [self._last_words("run")]),
            *([] if _steps_of(lines) == self._steps else ["it did not reach its last step"]),
            *([] if _resumed_at(lines) == before else ["it did not go on where it was stopped"]),
            *(f"no {kind} line" for kind in ("validation", "answer", "end") if kind not in kinds),
            *([] if last < first else ["the loss did not fall"]),
            *([] if (folder / "checkpoint" / "config.json").exists() else ["no checkpoint"]),
        ]
        return Outcome(not faults, numbers, "; ".join(faults) or None)

    def repeat(self) -> Outcome:
        """Compares the weights of two runs under ``--deterministic``, begun beside the others."""
        if not self._repeated:
            return Outcome(None, why="they were not begun")
        try:
            codes = {name: self._end(run) for name, run in self._repeated.items()}
        finally:
            for run in self._repeated.values():
                self._drop(run)
        if None in codes.values():
            return Outcome(None, why="there was no time for their end")
        for name, code in codes.items():
            if code != 0:
                return Outcome(False, {"exit_code": code}, self._last_words(name))
        weights = [self._bench.folder / name / "checkpoint" / "model.safetensors" for name in codes]
        first, second = (hashlib.sha256(file.read_bytes()).hexdigest() for file in weights)
        same = first == second
        return Outcome(same, {"sha256": first}, None if same else "the weights differ")

    @property
    def _data(self) -> Path:
        """The packed dataset."""
        return self._bench.folder / "data"

    def _begin(self, name: str, *options: str, steps: int | None = None) -> subprocess.Popen[bytes]:
        """Begins a run in a folder of its own."""
        shape = ("64", "2", "96") if self._bench.small else ("256", "4", "768")
        return self._start(
            name,
            *("--data", str(self._data), "--run", str(self._bench.folder / name)),
            *("--device", str(self._bench.device), "--max-steps", str(steps or self._steps)),
            *("--model.width", shape[0], "--model.heads", shape[1], "--model.mlp-width", shape[2]),
            *("--log-every", "1", "--eval-every", "0", "--answers", "2", "--max-new-tokens", "8"),
            *(("--threads", "1", "--model.layers", "2") if self._bench.small else ()),
            *options,
        )

    def _start(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        """Starts the trainer, its output in a file."""
        # The children find the package where this process found it.
        root = str(Path(sabitrain.__file__).parents[1])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        with (self._bench.folder / f"{name}.log").open("ab") as log:
            run = subprocess.Popen(
                [sys.executable, "-m", "sabitrain", *words],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            )
        self._bench.children.append(run)
        return run

    def _until_stepping(self, run: subprocess.Popen[bytes]) -> list[dict[str, Any]]:
        """Waits until a run has taken a few steps; returns its record, empty if it ended before."""
        over = time.monotonic() + self._patience()
        while time.monotonic() < over:
            lines = _record(self._bench.folder / "run")
            if _steps_of(lines) >= _STOP_AFTER:
                return lines
            if run.poll() is not None:
                return []
            time.sleep(_LOOK_EVERY)
        return []

    def _end(self, run: subprocess.Popen[bytes]) -> int | None:
        """Waits for the end of a run; returns its exit code, None if it has not ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return run.wait(self._patience())
        return None

    def _drop(self, run: subprocess.Popen[bytes]) -> None:
        """Ends a run that has not ended."""
        if run.poll() is None:
            run.kill()
            run.wait()
        self._bench.children.remove(run)

    def _patience(self) -> float:
        """Returns the seconds that a run is waited for."""
        return max(1.0, min(self._bench.left(), _MOST_SECONDS))

    def _last_words(self, name: str) -> str:
        """Returns the end of a run's output."""
        lines = (self._bench.folder / f"{name}.log").read_text("utf-8", "replace").split("\n")
        return " ".join(" ".join(lines[-6:]).split())[-300:] or "it said nothing"


def _record(run: Path) -> list[dict[str, Any]]:
    """Returns the whole lines of a run's record so far."""
    file = run / "metrics.jsonl"
    if not file.exists():
        return []
    whole, _, _ = file.read_text("utf-8").rpartition("\n")
    return [json.loads(line) for line in whole.split("\n") if line]


def _steps_of(lines: Sequence[dict[str, Any]]) -> int:
    """Returns the last step of a record; 0 if there is none."""
    return max((line["step"] for line in lines if line["kind"] == "train"), default=0)


def _resumed_at(lines: Sequence[dict[str, Any]]) -> int | None:
    """Returns the step from which a record was gone on with; None if it was not."""
    return next((line["step"] for line in lines if line["kind"] == "resume"), None)


def _size(folder: Path) -> int:
    """Returns the bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
