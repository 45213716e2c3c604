"""The rows of each step: pure functions of the seed, the step and the datasets' fingerprints.

Dimensions: D datasets, R rows of a step.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from sabiprep.dataset import PackedDataset
from sabitrain.data.datasets import Datasets
from sabitrain.data.rows import RowSource
from sabitrain.data.settings import Mix, MixSchedule

# Steps of an irrational that fills [0, 1) evenly, however many are taken: the golden ratio's
# fractional part.
_GOLDEN = (math.sqrt(5) - 1) / 2


class Order(Protocol):
    """The rows of every step of a run.

    Attributes:
        rows_per_step: Rows of a step.
    """

    rows_per_step: int

    def epoch(self, step: int) -> float:
        """Returns the rows taken once ``step`` steps are, as a share of all there are."""

    def repeats(self, step: int) -> list[float]:
        """Returns the passes over each dataset once ``step`` steps are taken."""

    def step(self, step: int) -> npt.NDArray[np.int64]:
        """Returns the rows of a step, counted from 0: int64[rows_per_step]."""


class RowStream:
    """The rows of a split without end: epochs follow each other, each in an order of its own.

    The row at a place is a pure function of the key and the place. Every row comes once an epoch.

    Attributes:
        rows: Rows of an epoch.
    """

    def __init__(self, rows: int, key: str) -> None:
        """Orders ``rows`` rows, at least one; ``key`` names the order."""
        self.rows = rows
        self._key = key
        self._epochs: dict[int, npt.NDArray[np.int64]] = {}

    def take(self, begin: int, end: int) -> npt.NDArray[np.int64]:
        """Returns the rows at places ``begin`` to below ``end``: int64[end - begin]."""
        epochs, places = np.divmod(np.arange(begin, end), self.rows)
        # A step may begin in one epoch and end in a later one.
        needed = range(begin // self.rows, -(-end // self.rows))
        # The orders of the epochs at hand are kept: making one takes longer than a step.
        self._epochs = {
            epoch: self._epochs[epoch]
            if epoch in self._epochs
            else shuffled(self.rows, f"{self._key} {epoch}")
            for epoch in needed
        }
        taken = [self._epochs[epoch][places[epochs == epoch]] for epoch in needed]
        # The empty array makes a result even where no row is asked for.
        return np.concatenate([np.empty(0, np.int64), *taken])


class RowOrder:
    """The order of one dataset, an `Order`.

    The rows left over at the end of an epoch begin the step that the next one completes.

    Attributes:
        rows: Rows of the training split.
        rows_per_step: Rows of a step.
    """

    def __init__(self, dataset: RowSource, rows_per_step: int, seed: int) -> None:
        """Orders the training split of ``dataset``, which must have a row."""
        self.rows = len(dataset.train)
        self.rows_per_step = rows_per_step
        self._stream = RowStream(self.rows, f"sabitrain rows {seed} {dataset.fingerprint}")

    def epoch(self, step: int) -> float:
        """Returns the passes over the split completed once ``step`` steps are."""
        return step * self.rows_per_step / self.rows

    def repeats(self, step: int) -> list[float]:
        """Returns the passes over the one dataset there is."""
        return [self.epoch(step)]

    def step(self, step: int) -> npt.NDArray[np.int64]:
        """Returns the rows of a step, counted from 0: int64[rows_per_step]."""
        return self._stream.take(step * self.rows_per_step, (step + 1) * self.rows_per_step)


class MixedOrder:
    """The order of a mixture, an `Order`.

    Each dataset gives its rows as `RowStream` orders them: each exactly once in each of its epochs.
    How many rows of a step each dataset gives follows the weights by systematic sampling: the
    interval [0, R) is cut in proportion, and a dataset gives a row for each of the points u, u + 1,
    u + 2 ... in its part, where u goes on by the golden ratio from step to step. So a step's counts
    are within one of the exact shares. Where the weights stay, their sums over steps stay as close
    as the logarithm of the steps; where they change, the sums may drift a little further.

    Attributes:
        rows: Training rows of all datasets.
        rows_per_step: R.
    """

    def __init__(
        self,
        parts: Sequence[PackedDataset],
        fingerprint: str,
        rows_per_step: int,
        seed: int,
        steps: int,
        mix: Mix,
    ) -> None:
        """Orders the training rows of a mixture for a run of ``steps`` steps.

        Args:
            parts: The datasets, each with a row to train on.
            fingerprint: The fingerprint of the mixture.
            rows_per_step: R.
            seed: The seed of the order.
            steps: The horizon over which the mix changes.
            mix: The weights of the datasets.
        """
        sizes = [len(part.train) for part in parts]
        self.rows, self.rows_per_step = sum(sizes), rows_per_step
        self._key = f"sabitrain mix {seed} {fingerprint}"
        self._firsts = np.cumsum([0, *sizes[:-1]])
        self._streams = [
            RowStream(size, f"sabitrain rows {seed} {part.fingerprint}")
            for size, part in zip(sizes, parts, strict=True)
        ]
        # Systematic sampling: count the points start + golden * step + 1, 2, ... below each edge.
        start = int.from_bytes(hashlib.sha256(self._key.encode()).digest()[:4], "little") / 2**32
        shares = mix_of_steps(steps, mix.weights, mix.weights_at_end, mix.schedule)
        edges = np.minimum(np.cumsum(shares, axis=1) * rows_per_step, rows_per_step)
        edges[:, -1] = rows_per_step  # lest rounding loses the last row
        offsets = (start + _GOLDEN * np.arange(steps)) % 1.0
        counts = np.diff(np.floor(edges + offsets[:, None]).astype(np.int64), axis=1, prepend=0)
        # Where each dataset is before each step, so that a step needs none before it.
        self._taken = np.concatenate(
            (np.zeros((1, len(sizes)), np.int64), np.cumsum(counts, axis=0))
        )

    def epoch(self, step: int) -> float:
        """Returns the rows taken once ``step`` steps are, as a share of all there are."""
        return step * self.rows_per_step / self.rows

    def repeats(self, step: int) -> list[float]:
        """Returns the passes over each dataset once ``step`` steps are taken."""
        return [
            taken / stream.rows
            for taken, stream in zip(self._taken[step].tolist(), self._streams, strict=True)
        ]

    def step(self, step: int) -> npt.NDArray[np.int64]:
        """Returns the rows of a step, of all datasets in a mixed order: int64[R]."""
        taken = [
            first + stream.take(begin, end)
            for first, stream, begin, end in zip(
                self._firsts,
                self._streams,
                self._taken[step].tolist(),
                self._taken[step + 1].tolist(),
                strict=True,
            )
        ]
        # Shuffled, lest each micro-batch has the rows of one dataset.
        return np.concatenate(taken)[shuffled(self.rows_per_step, f"{self._key} {step}")]


def make_order(data: Datasets, mix: Mix, rows_per_step: int, seed: int, steps: int) -> Order:
    """Returns the order of the rows of a run of ``steps`` steps."""
    if len(data.parts) == 1:
        return RowOrder(data.parts[0], rows_per_step, seed)
    return MixedOrder(data.parts, data.rows.fingerprint, rows_per_step, seed, steps, mix)


def mix_of_steps(
    steps: int, begin: Sequence[float], end: Sequence[float] | None, along: MixSchedule
) -> npt.NDArray[np.float64]:
    """Returns the share of each dataset at each step: float64[steps, D].

    Args:
        steps: The steps.
        begin: The weights at the first step.
        end: The weights at the last step; None keeps them.
        along: The curve between the two.
    """
    first = np.asarray(begin, np.float64) / sum(begin)
    last = first if end is None else np.asarray(end, np.float64) / sum(end)
    # The last step has the weights of the end exactly; a run of one step has those of the start.
    progress = np.arange(steps) / max(1, steps - 1)
    if along == "cosine":
        progress = (1 - np.cos(np.pi * progress)) / 2
    return first + progress[:, None] * (last - first)


def shuffled(count: int, key: str) -> npt.NDArray[np.int64]:
    """Returns a permutation of ``range(count)``, int64[count], that depends on ``key`` alone.

    The permutation is the same in every version of NumPy. NumPy promises the raw stream of a bit
    generator for good, but not the results of ``Generator.permutation`` (NEP 19): so the numbers
    are drawn raw and sorted.
    """
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "little")
    return np.argsort(np.random.Philox(key=seed).random_raw(count), kind="stable")
