"""Stops a run from outside: the first SIGINT or SIGTERM asks it to end after the batch at hand."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, Self

GoOn = Callable[[int, int], bool]
"""A question between batches, with the work done and the whole work; a no ends the work."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SECONDS_TO_SAY_IT = 1.0


class _EndedAtOnce(KeyboardInterrupt):
    """Raised by a signal inside `StopRequest.ends_at_once`."""


class StopRequest:
    """Listens for Ctrl-C and SIGTERM inside a ``with``, and remembers that one came.

    The first signal is acknowledged at once by a line, whatever the run is computing: Python writes
    to a pipe as the signal comes (`signal.set_wakeup_fd`), and a thread says the line. A second
    Ctrl-C is a `KeyboardInterrupt`, wherever the run is. Only a process's main thread can listen;
    in another thread, signals are left to the program around.

    Attributes:
        signal: The name of the signal that came, as ``SIGTERM``; None before that.
    """

    def __init__(self) -> None:
        """Listens to nothing yet."""
        self.signal: str | None = None
        self._noted = self._raises = False
        self._before: dict[signal.Signals, Any] = {}
        self._say: Callable[[str], None] = _print
        self._said = threading.Event()
        self._thread: threading.Thread | None = None
        self._pipe = (-1, -1)
        self._wakeup_before = -1

    def is_requested(self) -> bool:
        """Returns whether a signal came: long work asks this between its batches."""
        return self._noted

    def say_by(self, say: Callable[[str], None]) -> None:
        """Has ``say`` show the line that acknowledges a signal; before that it is printed."""
        self._say = say

    def wait_until_said(self) -> None:
        """Waits (a second at most) for the line about the signal, so that lines come in order."""
        if self._noted:
            self._said.wait(_SECONDS_TO_SAY_IT)

    @contextlib.contextmanager
    def ends_at_once(self) -> Iterator[None]:
        """Has the first signal end the work inside the ``with``, at any statement.

        The work must be safe to leave half done. An error after the signal is dropped: Ctrl-C
        reaches a compiler that runs beside, too.
        """
        self._raises = True
        try:
            yield
        except _EndedAtOnce:
            pass
        except Exception:
            if not self._noted:
                raise
        finally:
            self._raises = False

    def __enter__(self) -> Self:
        """Begins to listen."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._before[number] = signal.signal(number, self._note)
            self._pipe = os.pipe()
            # A signal handler must never wait: Python asks for a pipe that does not.
            os.set_blocking(self._pipe[1], False)
            self._wakeup_before = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
            self._thread = threading.Thread(
                target=self._acknowledge, name="sabitrain-signals", daemon=True
            )
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Puts back the handlers of before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._thread is not None:
            signal.set_wakeup_fd(self._wakeup_before)
            reading, writing = self._pipe
            # The thread then reads the end of the pipe.
            os.close(writing)
            # Not for ever: a console may be stuck.
            self._thread.join(_SECONDS_TO_SAY_IT)
            if not self._thread.is_alive():
                os.close(reading)
            self._thread = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal: remembers the first, and raises on a second Ctrl-C."""
        if self._noted and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self._noted:
            self.signal, self._noted = signal.Signals(number).name, True
            if self._raises:
                raise _EndedAtOnce

    def _acknowledge(self) -> None:
        """Says the line for the first signal that the pipe names; ends with the pipe."""
        while numbers := os.read(self._pipe[0], 64):
            asked = [number for number in numbers if number in _SIGNALS]
            if asked and not self._said.is_set():
                # A console that is gone is no reason to die.
                with contextlib.suppress(OSError, ValueError):
                    self._say(
                        f"{signal.Signals(asked[0]).name}: "
                        "the run ends after the batch at hand and saves; "
                        "Ctrl-C once more ends it at once"
                    )
                self._said.set()


def _print(line: str) -> None:
    print(line, flush=True)
