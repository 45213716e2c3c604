"""The console of a run: redrawn in place on a terminal, plain lines elsewhere."""

from __future__ import annotations

import datetime
import math
import sys
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.cells import cell_len
from rich.columns import Columns
from rich.console import Console as RichConsole
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import Segments
from rich.table import Table
from rich.text import Text

from sabitrain.evaluation.generate import Answer
from sabitrain.evaluation.scores import Evaluation, TargetLoss
from sabitrain.monitoring.clock import Clock
from sabitrain.monitoring.score_table import score_table
from sabitrain.monitoring.step_metrics import Summary

TABLE_WIDTH = 80
"""Columns that tables may take at least, whatever they are shown on."""
_SECONDS_BETWEEN_DRAWINGS = 0.25
_SECONDS_BETWEEN_LINES = 10
_BAR_WIDTH = 40


def open_console(clock: Clock) -> Console:
    """Returns the console that suits standard output.

    A terminal that cannot be redrawn (``TERM=dumb``) gets lines too.
    """
    rich = RichConsole(highlight=False, markup=False, emoji=False, soft_wrap=True)
    return LiveConsole(rich, clock) if rich.is_interactive else Console(rich, clock)


class Console:
    """Plain lines, each of which stays; a context manager that closes the console at its end."""

    def __init__(self, rich: RichConsole, clock: Clock) -> None:
        """Shows on ``rich`` a run that ``clock`` times."""
        self._rich, self._clock = rich, clock
        self._told = time.monotonic()

    def say(self, line: str, style: str = "") -> None:
        """Shows a line."""
        self._rich.print(Text(line, style))

    def step(self, step: int) -> None:
        """Notes that ``step`` steps are under way or done."""

    def between_steps(self, doing: str) -> None:
        """Notes that something else is being done for a while, before the next step."""
        self._told = time.monotonic()

    def progress(self, doing: str, done: int, of: int, unit: str) -> None:
        """Shows now and then, in a line, how much of a long work is done."""
        if time.monotonic() - self._told >= _SECONDS_BETWEEN_LINES:
            self._told = time.monotonic()
            self.say(_progress(doing, done, of, unit))

    def step_metrics(self, summary: Summary, not_taken: int) -> None:
        """Shows the metrics of the steps since the last line.

        Args:
            summary: The metrics.
            not_taken: The steps skipped so far, over the whole run.
        """
        last, steps = summary.last, self._clock.steps
        parts = (
            f"{summary.tokens_per_second:,.0f} tokens/s",
            f"{summary.targets_per_second:,.0f} targets/s",
            _utilisation(summary),
            f"{summary.skipped:.0%} skipped",
            _gigabytes(last.memory_bytes),
            f"data wait {summary.data_wait:.1%}",
            f"ETA {_duration(last.eta_seconds)}",
            *([f"{not_taken} steps skipped"] if not_taken else []),
        )
        self.say(
            f"step {last.step:{len(str(steps))}}/{steps}  epoch {last.epoch:5.2f}  "
            f"loss {_decimals(summary.loss, 4)}  lr {last.lr:.2e}  "
            f"grad {_decimals(last.grad_norm, 2):>5}  {', '.join(parts)}"
        )

    def validation(self, step: int, evaluation: Evaluation, change: float | None = None) -> None:
        """Shows a validation after ``step`` steps, and the loss's change since the first step."""
        rows, held_out = evaluation.rows, evaluation.held_out_rows
        sample = f" ({rows:,} of {held_out:,} held-out rows)" if rows < held_out else ""
        self.say(
            f"validation at step {step}: target loss {evaluation.total.loss:.4f}"
            f"{_since(change)}{sample}",
            "bold",
        )
        # On a narrower terminal lines of the table wrap, which reads better than shreds of names.
        width = max(self._rich.width, TABLE_WIDTH)
        options = self._rich.options.update(width=width)
        self._rich.print(
            Segments(self._rich.render(score_table(evaluation, width), options)), end=""
        )

    def eval_data(self, step: int, name: str, evaluation: Evaluation, change: float | None) -> None:
        """Shows the scores of another dataset after ``step`` steps, in a line."""
        total = evaluation.total
        bits = "" if total.bits_per_byte is None else f", {total.bits_per_byte:.3f} bits per byte"
        self.say(f"{name} at step {step}: target loss {total.loss:.4f}{_since(change)}{bits}")

    def answers(self, answers: Sequence[Answer]) -> None:
        """Shows held-out prompts and the model's answers."""
        for answer in answers:
            self.say("")
            self.say(f"[{answer.task}] {_one_line(answer.prompt)}", "dim")
            self.say(f"  expected: {_one_line(answer.expected)}")
            mark = "exact" if answer.exact else "not exact"
            self.say(
                f"  produced: {_one_line(answer.produced)}  ({mark})",
                "green" if answer.exact else "yellow",
            )
        if answers:
            self.say("")
            exact = Counter(answer.task for answer in answers if answer.exact)
            asked = Counter(answer.task for answer in answers)
            tasks = ", ".join(f"{task} {exact[task]}/{asked[task]}" for task in sorted(asked))
            self.say(
                f"{exact.total()} of {asked.total()} held-out answers are exact ({tasks})", "bold"
            )

    def end(self, evaluation: Evaluation | None, baseline: TargetLoss | None) -> None:
        """Shows the final loss beside the baseline's."""
        if evaluation is None or baseline is None:
            self.say(
                "held-out target loss: none, since the dataset has no validation targets", "bold"
            )
            return
        # A model above the baseline reads nothing from its context, which must be seen.
        side = "below" if evaluation.total.loss < baseline.loss else "NOT below"
        self.say(
            f"held-out target loss {evaluation.total.loss:.4f}, {side} the unigram-of-targets "
            f"baseline {baseline.loss:.4f} (nats per target, {baseline.targets:,} targets)",
            "bold",
        )

    def settle(self) -> None:
        """Notes that training is over: only lines are still to come."""

    def __enter__(self) -> Self:
        """Returns the console."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leaves the terminal as it was, however the run ended."""
        self.settle()


class LiveConsole(Console):
    """On a terminal: progress and the latest metrics, redrawn below all other lines.

    The steps redraw it, not a thread. The last drawing stays once the console is settled. The
    cursor is never hidden, so that not even ``kill -9`` leaves a terminal without a cursor.
    """

    def __init__(self, rich: RichConsole, clock: Clock) -> None:
        """Shows on ``rich``, a terminal, a run that ``clock`` times.

        Nothing is drawn before a step is taken.
        """
        super().__init__(rich, clock)
        self._step, self._doing, self._not_taken, self._drawn = 0, "", 0, -math.inf
        self._settled = False
        self._summary: Summary | None = None
        self._live = Live(
            console=rich,
            auto_refresh=False,
            redirect_stdout=False,
            # Messages that go to a file are to stay there.
            redirect_stderr=sys.stderr.isatty(),
            get_renderable=self._drawing,
        )

    def step(self, step: int) -> None:
        """Draws that ``step`` steps are under way or done, unless the last drawing is too fresh."""
        self._step, self._doing = step, ""
        if time.monotonic() - self._drawn >= _SECONDS_BETWEEN_DRAWINGS:
            self._draw()

    def between_steps(self, doing: str) -> None:
        """Shows beside the bar, until the next step, that something else is being done."""
        super().between_steps(doing)
        self._doing = doing
        if self._live.is_started:
            self._draw()

    def progress(self, doing: str, done: int, of: int, unit: str) -> None:
        """Shows beside the bar how much of a work is done; once settled, in lines."""
        if self._settled:
            super().progress(doing, done, of, unit)
        elif time.monotonic() - self._drawn >= _SECONDS_BETWEEN_DRAWINGS:
            self._doing = _progress(doing, done, of, unit)
            self._draw()

    def step_metrics(self, summary: Summary, not_taken: int) -> None:
        """Draws the latest metrics at once."""
        self._step, self._summary, self._not_taken = summary.last.step, summary, not_taken
        self._draw()

    def settle(self) -> None:
        """Draws a last time, and nothing in place after that."""
        self._doing, self._settled = "", True
        self._live.stop()

    def _draw(self) -> None:
        if not self._live.is_started:
            self._live.start()
            # rich hides the cursor as it starts.
            self._rich.show_cursor(True)
        self._live.refresh()
        self._drawn = time.monotonic()

    def _drawing(self) -> RenderableType:
        """Returns a line with a bar, and the latest metrics in columns below it."""
        steps = self._clock.steps
        taken, left = (
            f"step {self._step:,} of {steps:,}",
            f"ETA {_duration(self._clock.seconds_left)}",
        )
        bar = Table.grid(padding=(0, 2))
        for _ in range(4):
            bar.add_column(no_wrap=True, overflow="ellipsis")
        # The bar takes the room that the words leave, a gap of two columns before each.
        room = self._rich.width - sum(2 + cell_len(text) for text in (taken, left, self._doing))
        bar.add_row(
            Text(taken),
            ProgressBar(steps, self._step, max(1, min(_BAR_WIDTH, room))),
            Text(left),
            Text(self._doing, "italic"),
        )
        # Before the first metrics there is nothing but the bar.
        if self._summary is None:
            return bar
        cells = [
            Text.assemble((f"{name}\n", "dim"), value)
            for name, value in self._cells(self._summary).items()
        ]
        return Group(bar, Columns(cells, padding=(0, 3)))

    def _cells(self, summary: Summary) -> dict[str, str]:
        """Returns the metrics by their names."""
        last = summary.last
        cells = {
            "loss": _decimals(summary.loss, 4),
            "targets/s": f"{summary.targets_per_second:,.0f}",
            "tokens/s": f"{summary.tokens_per_second:,.0f}",
            "executed": _utilisation(summary),
            "skipped": f"{summary.skipped:.1%}",
            "memory": _gigabytes(last.memory_bytes),
            "data wait": f"{summary.data_wait:.1%}",
            "epoch": f"{last.epoch:.2f}",
            "lr": f"{last.lr:.2e}",
            "gradient": _decimals(last.grad_norm, 2),
        }
        return cells | ({"steps skipped": f"{self._not_taken:,}"} if self._not_taken else {})


def _since(change: float | None) -> str:
    """Returns the change of a loss since before the first step, in words."""
    return "" if change is None else f" ({change:+.4f} since step 0)"


def _progress(doing: str, done: int, of: int, unit: str) -> str:
    """Returns how much of a work is done, in words."""
    return f"{doing} {done:,} of {of:,} {unit}"


def _utilisation(summary: Summary) -> str:
    """Returns the operations a second, as a share of the device's peak if that is known."""
    return (
        f"{summary.flops_per_second / 1e12:.2f} TFLOP/s"
        if summary.mfu is None
        else f"MFU {summary.mfu:.1%}"
    )


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"


def _duration(seconds: float | None) -> str:
    """Returns hours, minutes and seconds, and days if need be."""
    return "unknown" if seconds is None else str(datetime.timedelta(seconds=round(seconds)))


def _decimals(value: float | None, digits: int) -> str:
    """Returns a number with so many digits after the point, or ``none`` where there is none."""
    return "none" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _one_line(text: str) -> str:
    """Returns a text on one line, its line breaks visible."""
    return text.replace("\r", "\\r").replace("\n", "\\n").strip()
