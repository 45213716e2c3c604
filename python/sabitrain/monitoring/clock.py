"""The time of a run: the seconds of all its sessions, and the seconds that are left."""

from __future__ import annotations

import time
from collections import deque

# The pace is a mean over this many intervals: enough to hold a validation or a checkpoint at times.
INTERVALS = 20


class Clock:
    """Counts the seconds of a run, and estimates the seconds that are left.

    A run stops after its steps, into which tokens and epochs are converted beforehand, or after its
    hours.

    Attributes:
        steps: Optimizer steps of the whole run.
        seconds_to_save: Seconds that the last checkpoint took; 0 before the first.
    """

    def __init__(
        self, steps: int, hours: float | None = None, step: int = 0, seconds: float = 0.0
    ) -> None:
        """Goes on counting at the steps and seconds that earlier sessions took of the run.

        Args:
            steps: Optimizer steps of the whole run.
            hours: The hours after which the run stops at any step; None for no limit.
            step: Steps taken so far.
            seconds: Seconds that these steps took.
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
        """Seconds until the hours are over, below 0 after that; None without ``hours``."""
        return None if self._limit is None else self._limit - self.seconds

    @property
    def seconds_a_step(self) -> float | None:
        """The seconds of a step, over the last marks; None before there are two.

        Validations and checkpoints between the marks count, since they come again.
        """
        (first, began), (last, ended) = self._marks[0], self._marks[-1]
        return None if last == first else (ended - began) / (last - first)

    def mark(self, step: int) -> None:
        """Notes that ``step`` steps, more than at the last mark, are taken."""
        self._marks.append((step, self.seconds))

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the run stops, at the pace of the last marks; None if that is unknown."""
        pace, limit = self.seconds_a_step, self.seconds_to_limit
        if pace is None:
            return None
        # From the last mark, so that the estimate counts down between marks.
        last, ended = self._marks[-1]
        left = ended + (self.steps - last) * pace - self.seconds
        return max(0.0, left if limit is None else min(left, limit))
