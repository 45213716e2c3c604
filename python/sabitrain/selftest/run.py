"""Tests the machine: ``python -m sabitrain selftest [--device D] [--out FILE] [--seconds S]``.

The cells run in the order of their importance, each part of a cell by itself, until the time is
over. Each result is written at once, and a table at the end says what held.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NamedTuple, NoReturn

import tyro

from sabiprep.errors import OutputError
from sabitrain.config import DeviceConfig
from sabitrain.selftest.record import Record

if TYPE_CHECKING:
    from sabitrain.selftest.bench import Bench, Part

DESCRIPTION = """\
Test whether training holds what it promises on this machine, and how fast it is: a line of JSON for
each result, and a table at the end. docs/gpu.md says how to read them."""

# The end, and a part that takes longer than it said, need some of the time.
_SHARE_FOR_THE_END = 0.04
_MOST_SECONDS = 86_400


class Cell(NamedTuple):
    """A cell of the self-test.

    Attributes:
        letter: The letter of the cell; a cell whose parts differ in importance has it again.
        title: What it is about.
        parts: The module and the function that lists its parts.
    """

    letter: str
    title: str
    parts: str


CELLS: tuple[Cell, ...] = (
    Cell("a", "runs, stopped and resumed", "sabitrain.selftest.runs:parts"),
    Cell("b", "attention is right", "sabitrain.selftest.attention:exactness"),
    Cell("g", "bf16 against float64", "sabitrain.selftest.numerics:eager_parts"),
    Cell("d", "steps", "sabitrain.selftest.steps:first_parts"),
    Cell("h", "one step, by kernel", "sabitrain.selftest.profile:parts"),
    Cell("e", "memory within 23.2 GB", "sabitrain.selftest.memory:first_parts"),
    Cell("f", "attention, how fast", "sabitrain.selftest.attention:speed"),
    Cell("d", "steps", "sabitrain.selftest.steps:large_parts"),
    Cell("g", "bf16 against float64", "sabitrain.selftest.numerics:compiled_parts"),
    Cell("c", "the loss", "sabitrain.selftest.loss:parts"),
    Cell("d", "steps", "sabitrain.selftest.steps:other_parts"),
    Cell("e", "memory within 23.2 GB", "sabitrain.selftest.memory:other_parts"),
)
"""The cells, the most important first."""


@dataclass(frozen=True)
class Options:
    """The options of a self-test."""

    device: Annotated[str, tyro.conf.arg(metavar="auto|cpu|cuda|cuda:N")] = "auto"
    """The device to test; auto takes a GPU if there is one. On a CPU all sizes are small: that
    tries the self-test, not the machine."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("selftest.jsonl")
    """The file for the results; one that is there is replaced."""
    seconds: float = 240.0
    """The time after which the test ends, wherever it is."""
    only: Annotated[tuple[str, ...], tyro.conf.arg(metavar="LETTER ...")] = ()
    """The cells to run, by their letters; all where none is named."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Tests the machine and returns the exit code: 0 if everything that ran held, 1 if not.

    Raises:
        ConfigError: If the device is none.
        OutputError: If the file cannot be written.
        TrainError: If the GPU that is asked for cannot be used.
        SystemExit: If the command line is wrong (2), or asked for help (0).
    """
    began = time.monotonic()
    options = tyro.cli(
        Options, prog="python -m sabitrain selftest", args=arguments, description=DESCRIPTION
    )
    letters = [cell.letter for cell in CELLS]
    unknown = [name for name in options.only if name not in letters]
    if unknown:
        _refuse(f"there is no cell {unknown[0]!r}, only {' '.join(sorted({*letters}))}")
    if not 0 < options.seconds <= _MOST_SECONDS:
        _refuse(f"--seconds must be above 0 and up to {_MOST_SECONDS}, not {options.seconds:g}")
    DeviceConfig(device=options.device)
    # Only now: help and mistakes need not wait for torch.
    from sabitrain.device import choose_device, use_fast_products
    from sabitrain.selftest.bench import Bench
    from sabitrain.selftest.machine import facts

    device = choose_device(options.device, print)
    # As a run has it.
    use_fast_products(device)
    cells = [cell for cell in CELLS if not options.only or cell.letter in options.only]
    end = began + options.seconds
    bench = Bench(device, end - _SHARE_FOR_THE_END * options.seconds)
    try:
        with Record(options.out, {cell.letter: cell.title for cell in cells}) as record:
            machine = facts(device)
            record.write("machine", **machine, seconds=options.seconds)
            print(f"{machine['device']}, torch {machine['torch']}: results go to {options.out}")
            return _Test(bench, record, cells, end).run()
    except BlockingIOError as error:
        raise OutputError(
            "another self-test writes it", file=str(options.out), remedy="name another --out"
        ) from error
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", file=str(options.out)) from error


def _refuse(message: str) -> NoReturn:
    """Ends the process as a wrong command line does."""
    print(f"sabitrain: {message}", file=sys.stderr)
    raise SystemExit(2)


class _Stopped(KeyboardInterrupt):
    """Raised by SIGTERM."""


def _stop(number: int, frame: FrameType | None) -> None:
    """Ends the part at hand, as Ctrl-C does."""
    raise _Stopped


class _Test:
    """A self-test under way."""

    def __init__(self, bench: Bench, record: Record, cells: Sequence[Cell], end: float) -> None:
        """Keeps its arguments.

        Args:
            bench: The bench.
            record: The record.
            cells: The cells to run, in order.
            end: The time, by `time.monotonic`, at which the process ends even if a part hangs.
        """
        self._bench, self._record, self._cells = bench, record, cells
        self._at_hand = (cells[0].letter, cells[0].title)
        # Held by whoever ends the test.
        self._ending = threading.Lock()
        self._watchdog = threading.Timer(max(0.0, end - time.monotonic()), self._end_at_once)
        self._watchdog.daemon = True

    def run(self) -> int:
        """Runs the cells and returns the exit code."""
        self._watchdog.start()
        stopped: int | None = None
        before = signal.signal(signal.SIGTERM, _stop)
        try:
            for cell in self._cells:
                for part in self._parts(cell):
                    self._measure(cell, part)
        except KeyboardInterrupt as error:
            by_sigterm = isinstance(error, _Stopped)
            stopped = 143 if by_sigterm else 130
            reason = f"stopped by {'SIGTERM' if by_sigterm else 'Ctrl-C'}"
            self._record.unfinished(*self._at_hand, reason)
        finally:
            # The console may be gone, and the disk full: nothing is left behind nevertheless.
            with self._ending:
                self._watchdog.cancel()
                self._bench.clear_away()
            signal.signal(signal.SIGTERM, before)
        print(f"\n{self._record.table()}", flush=True)
        return stopped if stopped is not None else 0 if self._record.held else 1

    def _parts(self, cell: Cell) -> Sequence[Part]:
        """Returns the parts of a cell; none, and a line in the record, if they cannot be listed."""
        self._at_hand = (cell.letter, cell.title)
        try:
            module, _, name = cell.parts.partition(":")
            listed: Callable[[Bench], Sequence[Part]] = getattr(
                importlib.import_module(module), name
            )
            return listed(self._bench)
        except Exception as error:
            self._failed(error, 0.0)
            return ()

    def _measure(self, cell: Cell, part: Part) -> None:
        """Measures a part, and writes its result."""
        self._at_hand = (cell.letter, part.name)
        left = self._bench.left()
        # On a CPU all parts are small.
        needed = 1.0 if self._bench.small else part.seconds
        if needed > left:
            why = f"it takes up to {needed:.0f} s, and {max(0.0, left):.0f} s are left"
            self._record.unfinished(*self._at_hand, why)
            return
        began = time.monotonic()
        try:
            outcome = part.measure()
        except Exception as error:
            self._failed(error, time.monotonic() - began)
        else:
            self._record.result(
                *self._at_hand,
                outcome.held,
                outcome.why,
                time.monotonic() - began,
                outcome.numbers,
            )
        # Out of the `except`, whose error holds on to the tensors of the part.
        try:
            self._bench.tidy()
        except Exception as error:
            # After an error of CUDA itself, every later call fails.
            self._failed(error, 0.0)

    def _failed(self, error: Exception, seconds: float) -> None:
        """Writes that the part at hand failed by an error."""
        from sabitrain.selftest.bench import described

        self._record.result(*self._at_hand, False, described(error), seconds, {})

    def _end_at_once(self) -> None:
        """Ends the process when its time is over: a part takes too long, or hangs."""
        if not self._ending.acquire(blocking=False):
            return
        try:
            self._record.unfinished(*self._at_hand, "it was at work when the time was over")
            self._bench.clear_away()
            print(f"\n{self._record.table()}", flush=True)
        finally:
            # Nothing less ends a thread that waits for a kernel.
            os._exit(1)
