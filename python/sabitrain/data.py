"""Batches: which rows make which step, and those rows as tensors.

Dimensions: N tokens of a batch's rows laid end to end, S segments (documents and paddings), M targets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sabiprep.dataset import BatchDict, PackedDataset, Split
from sabiprep.errors import DatasetError


@dataclass(frozen=True)
class Batch:
    """Some rows, laid end to end.

    Attributes:
        ids_N: int64[N].
        positions_N: int64[N], from 0 in each segment.
        cu_seqlens: int32[S + 1]: where each segment starts, and N.
        max_seqlen: Tokens of the longest segment.
        predict_at_M: int64[M]: the positions that predict a target, each the one before it.
        targets_M: int64[M]: the targets.
        tokens: Tokens of documents, without padding.
    """

    ids_N: Tensor
    positions_N: Tensor
    cu_seqlens: Tensor
    max_seqlen: int
    predict_at_M: Tensor
    targets_M: Tensor
    tokens: int

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device; to a GPU from pinned memory, so that the copy runs beside the computation."""
        if device.type != "cuda":
            return self
        moved = {
            name: value.pin_memory().to(device, non_blocking=True)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return Batch(**{**vars(self), **moved})


def make_batch(rows: BatchDict) -> Batch:
    """Rows from the loader as one batch on the CPU.

    Raises:
        DatasetError: If the first token of a document is a target: nothing of its own document could predict it.
    """
    labels_N = rows["labels"].reshape(-1)
    positions_N = rows["position_ids"].reshape(-1)
    targets_at = np.flatnonzero(labels_N >= 0)
    if not positions_N[targets_at].all():
        raise DatasetError("the first token of a document is a target", remedy="pack the dataset again")
    return Batch(
        ids_N=torch.from_numpy(rows["input_ids"].reshape(-1)),
        positions_N=torch.from_numpy(positions_N),
        cu_seqlens=torch.from_numpy(rows["cu_seqlens"]),
        max_seqlen=rows["max_seqlen"],
        predict_at_M=torch.from_numpy(targets_at - 1),
        targets_M=torch.from_numpy(labels_N[targets_at]),
        tokens=int(rows["seq_lengths"].sum()),
    )


class RowOrder:
    """Which rows each step takes: a pure function of seed, step and the dataset's fingerprint.

    Epochs follow each other without a gap, each in an order of its own: the rows left over at the end of one begin
    the step that the next one completes, so every row is taken exactly once an epoch.
    """

    def __init__(self, dataset: PackedDataset, rows_per_step: int, seed: int) -> None:
        """Order the training split of ``dataset``, which must have a row."""
        self.rows = len(dataset.train)
        self.rows_per_step = rows_per_step
        self._key = f"sabitrain rows {seed} {dataset.fingerprint}"
        self._epochs: dict[int, npt.NDArray[np.int64]] = {}

    def epoch(self, step: int) -> float:
        """The passes over the split completed once ``step`` steps are."""
        return step * self.rows_per_step / self.rows

    def step(self, step: int) -> npt.NDArray[np.int64]:
        """The rows of a step, counted from 0: int64[rows_per_step]."""
        at = np.arange(step * self.rows_per_step, (step + 1) * self.rows_per_step)
        epochs, places = np.divmod(at, self.rows)
        needed = range(int(epochs[0]), int(epochs[-1]) + 1)
        self._epochs = {
            epoch: self._epochs[epoch] if epoch in self._epochs else self._shuffle(epoch) for epoch in needed
        }
        return np.concatenate([self._epochs[epoch][places[epochs == epoch]] for epoch in needed])

    def _shuffle(self, epoch: int) -> npt.NDArray[np.int64]:
        """The order of one epoch."""
        return shuffled(self.rows, f"{self._key} {epoch}")


def shuffled(count: int, key: str) -> npt.NDArray[np.int64]:
    """A permutation of ``range(count)`` that depends on ``key`` alone, in every version of NumPy.

    NumPy promises the raw stream of a bit generator for good, but not what ``Generator.permutation`` makes of it
    (NEP 19): so the numbers are drawn raw and sorted.
    """
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "little")
    return np.argsort(np.random.Philox(key=seed).random_raw(count), kind="stable")


def micro_batches(split: Split, rows: Sequence[int] | npt.NDArray[np.int64], at_once: int) -> Iterator[BatchDict]:
    """``rows`` of a split in their order, at most ``at_once`` at a time."""
    for first in range(0, len(rows), at_once):
        yield split.batch(rows[first : first + at_once])
