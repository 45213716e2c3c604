"""The steps of a run, read ahead: while one is computed, a thread makes the next."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from sabitrain.data.batches import Batch, Step, make_step
from sabitrain.data.masking import Masking
from sabitrain.data.rows import Rows
from sabitrain.data.settings import Compute

# Half of the largest block that counts, 32 MB: glibc keeps up to twice as much.
_LARGE_BLOCK = 16 << 20


class Loader:
    """Makes steps, in memory that a GPU can read by itself if asked to; usable in ``with``.

    A step is a pure function of its number: reading ahead changes nothing.

    Attributes:
        waited: Seconds that `step` has kept its caller waiting.
    """

    def __init__(
        self,
        split: Rows,
        rows_of_step: Callable[[int], npt.NDArray[np.int64]],
        steps: int,
        micro_rows: int,
        masking: Masking,
        compute: Compute = "full",
        pin: bool = False,
    ) -> None:
        """Prepares to read; nothing is read yet.

        Args:
            split: The split to read.
            rows_of_step: The rows of each step, counted from 0.
            steps: Steps of the run; nothing is read after the last.
            micro_rows: Most rows of a micro-batch.
            masking: The weight of each prediction.
            compute: The computation to leave out (`sabitrain.data.batches.make_batch`).
            pin: Whether to lay batches in page-locked memory.
        """
        self.waited = 0.0
        self._split, self._rows_of_step, self._steps = split, rows_of_step, steps
        self._micro_rows, self._masking, self._compute, self._pin = (
            micro_rows,
            masking,
            compute,
            pin,
        )
        keep_freed_memory()
        # One thread: the next step is enough, and more would take time from the computation.
        self._thread = ThreadPoolExecutor(1, "sabitrain-loader")
        self._ahead: dict[int, Future[Step]] = {}

    def step(self, step: int) -> Step:
        """Returns a step, counted from 0, and begins the step after it.

        Raises:
            DatasetError: If a shard is damaged.
        """
        began = time.perf_counter()
        # The first step of a session, and one after a skipped batch, was not read ahead.
        coming = self._ahead.pop(step, None) or self._thread.submit(self._make, step)
        if step + 1 < self._steps:
            self._ahead = {
                step + 1: self._ahead.get(step + 1) or self._thread.submit(self._make, step + 1)
            }
        made = coming.result()
        self.waited += time.perf_counter() - began
        return made

    def largest_batch(self, step: int) -> Batch:
        """Returns the micro-batch of a step, counted from 0, that has the most predictions.

        Raises:
            DatasetError: If a shard is damaged.
        """
        batches = self._made(self._rows_of_step(step)).batches
        return max(batches, key=lambda batch: (len(batch.ids_N), len(batch.predict_at_M)))

    def cut(self, micro_rows: int) -> None:
        """Has the next step be cut into micro-batches of at most ``micro_rows`` rows."""
        self._micro_rows = micro_rows
        self._ahead.clear()

    def _make(self, step: int) -> Step:
        return self._made(self._rows_of_step(step))

    def _made(self, rows: npt.NDArray[np.int64]) -> Step:
        made = make_step(self._split, rows, self._micro_rows, self._masking, self._compute)
        return replace(made, batches=[batch.pin() for batch in made.batches]) if self._pin else made

    def __enter__(self) -> Self:
        """Returns the loader, its thread ended with the ``with``."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends the thread, once it has made the step at hand."""
        self._thread.shutdown(cancel_futures=True)


def keep_freed_memory() -> None:
    """Has the C library keep the memory that one step frees for the next.

    glibc returns free memory at the top of its heap to the system, so that each step would have its
    pages made anew: a quarter of its time. The larger the largest block that glibc has seen come
    and go (mallopt(3), ``M_MMAP_THRESHOLD``), the less it returns, so this function allocates one
    large block and frees it. Nothing is written to the block, so it takes no memory.
    """
    np.empty(_LARGE_BLOCK, np.uint8)
