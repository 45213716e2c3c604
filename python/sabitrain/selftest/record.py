"""The record of a self-test: a line of JSON for each part, and the table at the end."""

from __future__ import annotations

import fcntl
import json
import math
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from sabiprep.terminal import harmless

WIDTH = 80
"""Columns of the table."""


class _Line(NamedTuple):
    """A result, or a part that was not finished.

    Attributes:
        name: The name of the part.
        held: Whether it held; None if it only measured.
        finished: Whether it ended.
        seconds: The seconds it took.
        why: The fault or the reason.
    """

    name: str
    held: bool | None
    finished: bool
    seconds: float
    why: str


class Record:
    """The record, a file that is replaced. Usable in ``with``, which closes it.

    Two threads may write: the one that measures, and the one that ends a test that hangs.
    """

    def __init__(self, file: Path, cells: Mapping[str, str]) -> None:
        """Begins a record.

        Args:
            file: The file.
            cells: The titles of the cells that run, by their letters.
        """
        self._file = file.open("a", encoding="utf-8")
        # Two tests that write over each other would leave no file that can be read.
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._file.truncate(0)
        self._lock = threading.Lock()
        self._titles = cells
        self._lines: dict[str, list[_Line]] = {letter: [] for letter in cells}

    def write(self, kind: str, **facts: Any) -> None:
        """Writes a line, there even if the process is killed right after."""
        line = json.dumps({"kind": kind, **_plain(facts)}, ensure_ascii=False)
        with self._lock:
            self._file.write(line + "\n")
            self._file.flush()

    def result(
        self,
        cell: str,
        name: str,
        held: bool | None,
        why: str | None,
        seconds: float,
        numbers: Mapping[str, Any],
    ) -> None:
        """Writes the result of a part, and prints what it came to."""
        self._lines[cell].append(_Line(name, held, True, seconds, why or ""))
        self.write(
            "result",
            cell=cell,
            name=name,
            held=held,
            why=why,
            **{"took_seconds": round(seconds, 2), **numbers},
        )
        word = {True: "held", False: "FAILED", None: "measured" if numbers else "left out"}[held]
        shown = [f"{key} {_short(value)}" for key, value in numbers.items() if _is_shown(value)]
        rest = why if why else ", ".join(shown)
        _print(f"{word:<8} {cell} {name}: {rest}")

    def unfinished(self, cell: str, name: str, why: str) -> None:
        """Writes that a part was not begun, or not finished."""
        self._lines[cell].append(_Line(name, None, False, 0.0, why))
        self.write("unfinished", cell=cell, name=name, why=why)
        _print(f"not done {cell} {name}: {why}")

    @property
    def held(self) -> bool:
        """Whether something ran, and all of it held."""
        verdicts = [line.held for lines in self._lines.values() for line in lines if line.finished]
        return bool(verdicts) and False not in verdicts

    def table(self) -> str:
        """Returns the table: a line for each cell, `WIDTH` columns at most."""
        rows = [f"{'cell':<28}{'held':>9}{'seconds':>9}  remark"]
        for letter, title in sorted(self._titles.items()):
            lines = self._lines[letter]
            seconds = sum(line.seconds for line in lines)
            rows.append(
                _cut(f"{letter} {title:<26}{_count(lines):>9}{seconds:>9.0f}  {_remark(lines)}")
            )
        return "\n".join(row.rstrip() for row in rows)

    def __enter__(self) -> Self:
        """Returns the record."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the file."""
        self._file.close()


def _count(lines: Sequence[_Line]) -> str:
    """Returns how many of the parts that check something held."""
    checked = [line.held for line in lines if line.held is not None]
    if checked:
        return f"{sum(checked)} of {len(checked)}"
    return "measured" if any(line.finished for line in lines) else "-"


def _remark(lines: Sequence[_Line]) -> str:
    """Returns the first fault, or else what was not done, or the reason for no check."""
    for line in lines:
        if line.held is False:
            return f"{line.name}: {line.why}"
    missed = [line for line in lines if not line.finished]
    if missed:
        names = ", ".join(line.name for line in missed)
        return f"not done: {names}"
    if not lines:
        return "not done"
    return next((line.why for line in lines if line.held is None and line.why), "")


def _plain(value: Any) -> Any:
    """Returns a value in the types of JSON, which knows neither NaN nor infinity."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _is_shown(value: Any) -> bool:
    """Returns whether a number belongs on the console."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(value: float) -> str:
    """Returns a number in a few characters."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def _print(line: str) -> None:
    """Prints one line of the table's width."""
    text = harmless(" ".join(line.split()) if "\n" in line else line)
    print(_cut(text), flush=True)


def _cut(text: str) -> str:
    """Returns a text of the table's width at most."""
    return text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"
