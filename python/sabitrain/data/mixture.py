"""Several packed datasets as one, and how the rows of a run are drawn from them.

A mixture has the rows of its datasets one after the other, and their sources likewise. Its weights
are shares of the rows of a step; they may go from one mix to another over the run, along a line or
half a cosine.

Dimensions: D datasets, R rows of a step.
"""

from __future__ import annotations

import hashlib
import math
import operator
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from sabiprep.dataset import BatchDict, PackedDataset, Place, Split, batch_of, open_dataset
from sabiprep.errors import DatasetError
from sabitrain.config import MixSchedule, TrainConfig, parse_mix
from sabitrain.data.batches import RowOrder, RowStream, shuffled

# Steps of an irrational that fills [0, 1) evenly, however many are taken: the golden ratio's
# fractional part.
_GOLDEN = (math.sqrt(5) - 1) / 2


class MixedSplit(Split):
    """The rows of several splits, one split after the other."""

    def __init__(
        self, name: str, splits: Sequence[Split], seq_len: int, first_sources: Sequence[int]
    ) -> None:
        """Lay splits end to end; the sources of each are numbered from its entry of
        ``first_sources``.
        """
        self.name = name
        self._seq_len = seq_len
        self._splits = splits
        self._first_sources = first_sources
        self._ends = list(accumulate(len(split) for split in splits))

    def __len__(self) -> int:
        """The number of rows."""
        return self._ends[-1]

    @property
    def n_targets(self) -> npt.NDArray[np.int32]:
        """The targets of every row."""
        return np.concatenate([split.n_targets for split in self._splits])

    def batch(self, indices: Iterable[SupportsIndex]) -> BatchDict:
        """The rows at ``indices`` (counted from 0), dataset by dataset, in their order within each.

        Raises:
            IndexError: If there is no such row.
            DatasetError: If a shard is damaged there.
        """
        found = self._find(indices)
        batch = batch_of([place for places in found for place in places], self._seq_len)
        first_source_B = np.repeat(
            np.array(self._first_sources, np.uint16), [len(places) for places in found]
        )
        batch["source_ids"] += first_source_B[batch["doc_rows"]]
        return batch

    def find(self, indices: Iterable[SupportsIndex]) -> list[Place]:
        """Where the rows at ``indices`` are, in the order that `batch` has them in.

        Raises:
            IndexError: If there is no such row.
            DatasetError: If a shard is damaged there.
        """
        return [place for places in self._find(indices) for place in places]

    def _find(self, indices: Iterable[SupportsIndex]) -> list[list[Place]]:
        """Where the rows of each split are."""
        rows_of: list[list[int]] = [[] for _ in self._splits]
        for row in map(operator.index, indices):
            if not 0 <= row < len(self):
                raise IndexError(f"row {row} of a split of {len(self)} rows")
            split = bisect_right(self._ends, row)
            rows_of[split].append(row - self._ends[split] + len(self._splits[split]))
        return [split.find(rows) for split, rows in zip(self._splits, rows_of, strict=True)]


class Mixture(PackedDataset):
    """Several datasets of one tokenizer and one row length as one, usable in ``with``.

    Attributes:
        parts: The datasets.
    """

    def __init__(self, parts: Sequence[PackedDataset]) -> None:
        """Join datasets.

        Raises:
            DatasetError: If they do not fit together.
        """
        first = parts[0]
        for part in parts[1:]:
            for what, name in (
                ("rows of another length", "seq_len"),
                ("another vocabulary", "vocab_size"),
            ):
                _require_same(
                    getattr(first, name), getattr(part, name), what, part.path, first.path
                )
            width, other_width = first.manifest["id_dtype"], part.manifest["id_dtype"]
            _require_same(width, other_width, "ids of another width", part.path, first.path)
            one, other = first.manifest["tokenizer"]["sha256"], part.manifest["tokenizer"]["sha256"]
            _require_same(one, other, "another tokenizer", part.path, first.path)
            controls, others = ((data.bos_id, data.eos_id, data.pad_id) for data in (first, part))
            _require_same(controls, others, "other control tokens", part.path, first.path)
        self.__dict__.update(
            {name: value for name, value in vars(first).items() if not name.startswith("_")}
        )
        self.parts = list(parts)
        self.fingerprint = hashlib.sha256(
            " ".join(part.fingerprint for part in parts).encode()
        ).hexdigest()
        starts = np.cumsum([0, *(len(part.sources) for part in parts)]).tolist()
        self.sources = [
            replace(source, id=start + source.id)
            for start, part in zip(starts, parts, strict=False)
            for source in part.sources
        ]
        self._splits = {
            name: MixedSplit(name, [part[name] for part in parts], self.seq_len, starts[:-1])
            for name in ("train", "validation")
        }

    def place(self, source_id: int, record_id: int) -> str:
        """Where a record of a source, numbered over all datasets, is: its dataset, its file, and
        the byte in it.
        """
        first = 0
        for part in self.parts:
            if source_id < first + len(part.sources):
                return f"{part.path}: {part.place(source_id - first, record_id)}"
            first += len(part.sources)
        raise IndexError(f"source {source_id} of {first}")

    def close(self) -> None:
        """Close the datasets."""
        for part in self.parts:
            part.close()


def open_datasets(paths: Sequence[Path]) -> PackedDataset:
    """The packed dataset at a path, or several as a `Mixture`.

    Raises:
        DatasetError: If one cannot be opened, or they do not fit together.
    """
    datasets: list[PackedDataset] = []
    try:
        datasets += [open_dataset(path) for path in paths]
        return datasets[0] if len(datasets) == 1 else Mixture(datasets)
    except DatasetError:
        for dataset in datasets:
            dataset.close()
        raise


class MixedOrder:
    """Which rows each step takes of a mixture: a pure function of the seed, the step and the
    datasets' fingerprints.

    Of each dataset the rows come as `sabitrain.data.batches.RowStream` has them: each exactly once in each
    of its epochs. How many of a step are whose follows the weights by systematic sampling: the
    interval [0, R) is cut in proportion, and a dataset has a row for each of the points u, u + 1, u
    + 2 ... in its part, where u goes on by the golden ratio from step to step. So a step's counts
    are within one of the exact shares, and where the weights stay, their sums over steps stay as
    close as the logarithm of the steps; where they change, the sums may drift a little further.
    """

    def __init__(
        self,
        mixture: Mixture,
        rows_per_step: int,
        seed: int,
        steps: int,
        weights: Sequence[float],
        weights_at_end: Sequence[float] | None = None,
        along: MixSchedule = "linear",
    ) -> None:
        """Order the training rows of ``mixture`` for a run of ``steps`` steps.

        Args:
            mixture: The datasets, each with a row to train on.
            rows_per_step: R.
            seed: Decides the order.
            steps: The horizon over which the mix changes.
            weights: The weight of each dataset, in any unit: at the first step, if they change.
            weights_at_end: The weights at the last step; None keeps them as they are.
            along: How they go from the former to the latter.
        """
        self.rows, self.rows_per_step = len(mixture.train), rows_per_step
        self._key = f"sabitrain mix {seed} {mixture.fingerprint}"
        sizes = [len(part.train) for part in mixture.parts]
        self._firsts = np.cumsum([0, *sizes[:-1]])
        self._streams = [
            RowStream(size, f"sabitrain rows {seed} {part.fingerprint}")
            for size, part in zip(sizes, mixture.parts, strict=True)
        ]
        start = int.from_bytes(hashlib.sha256(self._key.encode()).digest()[:4], "little") / 2**32
        shares = mix_of_steps(steps, weights, weights_at_end, along)
        edges = np.minimum(np.cumsum(shares, axis=1) * rows_per_step, rows_per_step)
        edges[:, -1] = rows_per_step
        offsets = (start + _GOLDEN * np.arange(steps)) % 1.0
        counts = np.diff(np.floor(edges + offsets[:, None]).astype(np.int64), axis=1, prepend=0)
        self._taken = np.concatenate(
            (np.zeros((1, len(sizes)), np.int64), np.cumsum(counts, axis=0))
        )

    def epoch(self, step: int) -> float:
        """The rows taken once ``step`` steps are, as a share of all there are."""
        return step * self.rows_per_step / self.rows

    def repeats(self, step: int) -> list[float]:
        """The passes over each dataset once ``step`` steps are taken."""
        return [
            taken / stream.rows
            for taken, stream in zip(self._taken[step].tolist(), self._streams, strict=True)
        ]

    def step(self, step: int) -> npt.NDArray[np.int64]:
        """The rows of a step, counted from 0, of all datasets in a mixed order: int64[R]."""
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
        return np.concatenate(taken)[shuffled(self.rows_per_step, f"{self._key} {step}")]


Order = RowOrder | MixedOrder


def make_order(
    dataset: PackedDataset, config: TrainConfig, rows_per_step: int, steps: int
) -> Order:
    """The order of the rows that a configuration asks for."""
    if not isinstance(dataset, Mixture):
        return RowOrder(dataset, rows_per_step, config.seed)
    weights, at_end = parse_mix(config.data, config.data_end)
    return MixedOrder(
        dataset,
        rows_per_step,
        config.seed,
        steps,
        list(weights.values()),
        at_end,
        config.data_schedule,
    )


def mix_of_steps(
    steps: int, begin: Sequence[float], end: Sequence[float] | None, along: MixSchedule
) -> npt.NDArray[np.float64]:
    """The share of each dataset at each step: float64[steps, D]."""
    first = np.asarray(begin, np.float64) / sum(begin)
    last = first if end is None else np.asarray(end, np.float64) / sum(end)
    progress = np.arange(steps) / max(1, steps - 1)
    if along == "cosine":
        progress = (1 - np.cos(np.pi * progress)) / 2
    return first + progress[:, None] * (last - first)


def _require_same(one: object, other: object, what: str, path: Path, first: Path) -> None:
    if one != other:
        raise DatasetError(
            f"has {what} than {first}: {other} and {one}",
            file=str(path),
            remedy="pack both with the same settings",
        )
