"""The time of a run: the seconds of all its sessions, and the seconds that are left."""

from __future__ import annotations

import time
from collections import deque

# Intervals that the pace is of: enough of them to hold a validation or a checkpoint now and then.
INTERVALS = 20


class Clock:
    """Counts the seconds of a run, and reckons how many are left.

    Steps, tokens and epochs are one stop, since all of them are known in steps beforehand; hours
    are another.

    Attributes:
        steps: Optimizer steps of the whole run.
        seconds_to_save: Seconds that the last checkpoint took; 0 as long as there is none.
    """

    def __init__(
        self, steps: int, hours: float | None = None, step: int = 0, seconds: float = 0.0
    ) -> None:
        """Goes on counting at the steps and seconds that earlier sessions took of the run.

        Args:
            steps: Optimizer steps of the whole run.
            hours: When it is stopped, however many it has taken by then; None for never.
            step: Steps taken so far.
            seconds: Seconds that they took.
        """
        self.steps = steps
        self.seconds_to_save = 0.0
        self._limit = None if hours is None else 3600 * hours
        self._began = time.monotonic() - seconds
        self._marks = deque([(step, seconds)], INTERVALS + 1)

    @property
    def seconds(self) -> float:
        """Seconds of the run so far."""
        return time.monotonic() - self._began

    def is_over(self) -> bool:
        """Returns whether the time budget (``--hours``) is used up."""
        return self._limit is not None and self.seconds >= self._limit

    @property
    def seconds_to_limit(self) -> float | None:
        """Seconds until its hours are over, below 0 after that; None where it has no such limit."""
        return None if self._limit is None else self._limit - self.seconds

    @property
    def seconds_a_step(self) -> float | None:
        """The pace of the last marks; None if there are too few.

        Whatever lies between the marks counts.
        """
        (first, began), (last, ended) = self._marks[0], self._marks[-1]
        return None if last == first else (ended - began) / (last - first)

    def mark(self, step: int) -> None:
        """Notes that ``step`` steps, more than at the last mark, are taken."""
        self._marks.append((step, self.seconds))

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the first stop, at the pace of the last marks; None if it is unknown.

        Whatever lies between the marks counts, since validations and checkpoints come again.
        """
        pace, limit = self.seconds_a_step, self.seconds_to_limit
        if pace is None:
            return None
        last, ended = self._marks[-1]
        left = ended + (self.steps - last) * pace - self.seconds
        return max(0.0, left if limit is None else min(left, limit))
