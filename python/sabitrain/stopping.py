"""Stopping a run from outside: the first SIGINT or SIGTERM asks it to end after the step at hand."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class StopRequest:
    """Listens for Ctrl-C and SIGTERM inside a ``with``, and remembers that one came.

    A second Ctrl-C is a `KeyboardInterrupt` at once, wherever the run is. Only a process's main thread can listen; in
    another, signals are left to the program around.

    Attributes:
        signal: The name of the signal that came, as ``SIGTERM``; None as long as none did.
    """

    def __init__(self) -> None:
        """Listen to nothing yet."""
        self.signal: str | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        """Listen."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put back what was there before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name
