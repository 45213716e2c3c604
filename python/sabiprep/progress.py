"""Progress of a command on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from sabiprep.api import Progress
from sabiprep.terminal import console_for

SECONDS_BETWEEN_LINES = 5.0

PHASES = {
    "plan": "reading the plan",
    "map": "reading and tokenizing",
    "reduce": "packing rows",
    "verify": "verifying rows",
    "train": "training the tokenizer",
    "export": "writing rows",
}


@contextmanager
def show_progress() -> Iterator[Progress]:
    """Yields a `Progress` that shows the work on stderr until the end of the ``with``."""
    console = console_for(sys.stderr)
    if not console.is_terminal:
        yield ProgressLines()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[counts]}"),
    )
    # Refreshed by the callback alone, so that no thread is started; it goes away when the work is
    # done.
    with Bar(
        *columns, TimeElapsedColumn(), console=console, auto_refresh=False, transient=True
    ) as bar:
        yield ProgressBar(bar)


class _Phase:
    """The current phase: its name, its start and its speed."""

    def __init__(self) -> None:
        self.name = ""
        self.started = 0.0

    def enter(self, name: str) -> bool:
        """Returns whether ``name`` is a new phase."""
        if name == self.name:
            return False
        self.name = name
        self.started = time.monotonic()
        return True

    def counts(self, records: int, done: int, tokens: int) -> str:
        """Returns ``1,234 records · 5.6 MB/s · 78,900 tokens``, or ``1,234 rows``.

        The former is for phases that read bytes.
        """
        if self.name == "plan":
            return ""
        if self.name not in ("map", "train"):
            return f"{done:,} rows"
        seconds = time.monotonic() - self.started
        parts = [f"{records:,} records"]
        if seconds > 0:
            parts.append(f"{done / 1e6 / seconds:,.1f} MB/s")
        if tokens:
            parts.append(f"{tokens:,} tokens")
        return " · ".join(parts)

    def elapsed(self) -> str:
        """Returns how long the phase takes already, where there is nothing to count."""
        return f"{time.monotonic() - self.started:.0f} s"


class ProgressBar:
    """A bar on a terminal, one for each phase."""

    def __init__(self, bar: Bar) -> None:
        """Draws with ``bar``, which the caller enters and leaves."""
        self._bar = bar
        self._phase = _Phase()
        self._task: TaskID | None = None

    def __call__(self, phase: str, records: int, done: int, total: int, tokens: int, /) -> None:
        """Draws the bar as it stands; see `sabiprep.api.Progress`."""
        if self._phase.enter(phase) or self._task is None:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(PHASES[phase], counts="")
        counts = self._phase.counts(records, done, tokens)
        # Compressed inputs give more bytes than their files have.
        self._bar.update(self._task, completed=done, total=max(done, total) or None, counts=counts)
        self._bar.refresh()


class ProgressLines:
    """A line when a phase begins, and another every few seconds."""

    def __init__(self) -> None:
        """Begins with no phase."""
        self._phase = _Phase()
        self._next = 0.0

    def __call__(self, phase: str, records: int, done: int, total: int, tokens: int, /) -> None:
        """Prints a line if one is due; see `sabiprep.api.Progress`."""
        now = time.monotonic()
        begins = self._phase.enter(phase)
        if not begins and now < self._next:
            return
        self._next = now + SECONDS_BETWEEN_LINES
        if begins and phase == "plan":
            return  # over in no time, unless it is not
        line = PHASES[phase]
        if not begins:
            percent = f"{min(1.0, done / total):.0%}" if total else ""
            counts = self._phase.counts(records, done, tokens)
            line += ": " + (" · ".join(filter(None, (percent, counts))) or self._phase.elapsed())
        print(line, file=sys.stderr, flush=True)
