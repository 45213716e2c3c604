"""Batches: which rows make which step, and those rows as tensors.

Dimensions: B rows, T tokens of a row, N = B * T tokens of the rows laid end to end, S segments
(documents and paddings), M predictions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sabiprep.dataset import BatchDict, PackedDataset, Split
from sabiprep.errors import DatasetError
from sabitrain.config import Compute
from sabitrain.data.masking import Masking

# Predictions and segments are padded to a multiple of this, so that compiled code and kernels see
# few lengths.
PAD_TO = 256


@dataclass(frozen=True)
class Batch:
    """Some rows, laid end to end, and what is trained from them.

    Attributes:
        ids_N: int64[N].
        positions_N: int64[N], from 0 in each segment.
        cu_seqlens: int32[S + 1]: where each segment starts, and N; S is a multiple of `PAD_TO`,
            empty segments last.
        max_seqlen: Tokens of the longest segment.
        predict_at_M: int64[M]: the positions that predict, each the one before its target. M is a
            multiple of `PAD_TO` too, never 0: places that are left predict from position 0, with
            weight 0. Under ``compute="dense"`` it is every position.
        targets_M: int64[M]: what they are to predict.
        weights_M: float64[M]: what each prediction counts for.
        targets: Predictions that count for something. They come first, but under
            ``compute="dense"``.
        tokens: Tokens of documents, without padding.
    """

    ids_N: Tensor
    positions_N: Tensor
    cu_seqlens: Tensor
    max_seqlen: int
    predict_at_M: Tensor
    targets_M: Tensor
    weights_M: Tensor
    targets: int
    tokens: int

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device; to a GPU from pinned memory, so that the copy runs beside the
        computation.
        """
        return (
            self
            if device.type == "cpu"
            else self._map(lambda tensor: tensor.to(device, non_blocking=True))
        )

    def pin(self) -> Batch:
        """The same batch in page-locked memory."""
        return self._map(Tensor.pin_memory)

    def _map(self, of: Callable[[Tensor], Tensor]) -> Batch:
        changed = {
            name: of(value) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return Batch(**{**vars(self), **changed})


@dataclass(frozen=True)
class Step:
    """The micro-batches of an optimizer step; all weights together sum to one, if there are any.

    Attributes:
        batches: The micro-batches.
        tokens: Tokens of their documents, without padding.
        targets: Predictions that count for something.
    """

    batches: list[Batch]
    tokens: int
    targets: int


def make_batch(
    rows: BatchDict, weights_N: npt.NDArray[np.float64 | np.bool_], compute: Compute = "full"
) -> Batch:
    """Rows from the loader as one batch on the CPU.

    Args:
        rows: The rows.
        weights_N: What predicting each token counts for.
        compute: ``"dense"`` predicts at every position, whether it counts or not.

    Raises:
        DatasetError: If the first token of a document counts: nothing of its own document could
            predict it.
    """
    ids_N = rows["input_ids"].reshape(-1)
    positions_N = rows["position_ids"].reshape(-1)
    # Of booleans places are found several times as fast as of floats, and what they count for is
    # known.
    counted_at = np.flatnonzero(weights_N if weights_N.dtype == np.bool_ else weights_N != 0)
    counted = len(counted_at)
    if weights_N[rows["cu_seqlens"][:-1]].any():
        raise DatasetError(
            "the first token of a document is a target", remedy="pack the dataset again"
        )
    if compute == "dense":
        predict_at_M, targets_M = np.arange(len(ids_N)), np.append(ids_N[1:], 0)
        weights_M = np.zeros(len(ids_N))
        weights_M[counted_at - 1] = weights_N[counted_at]
    else:
        places = _round_up(max(1, counted))
        predict_at_M, targets_M, weights_M = (
            np.zeros(places, np.int64),
            np.zeros(places, np.int64),
            np.zeros(places),
        )
        np.subtract(counted_at, 1, out=predict_at_M[:counted])
        ids_N.take(
            counted_at, out=targets_M[:counted], mode="clip"
        )  # the other modes copy once more
        weights_M[:counted] = 1 if weights_N.dtype == np.bool_ else weights_N[counted_at]
    cu_seqlens = np.full(_round_up(len(rows["cu_seqlens"]) - 1) + 1, len(ids_N), np.int32)
    cu_seqlens[: len(rows["cu_seqlens"])] = rows["cu_seqlens"]
    return Batch(
        ids_N=torch.from_numpy(ids_N),
        positions_N=torch.from_numpy(positions_N),
        cu_seqlens=torch.from_numpy(cu_seqlens),
        max_seqlen=rows["max_seqlen"],
        predict_at_M=torch.from_numpy(predict_at_M),
        targets_M=torch.from_numpy(targets_M),
        weights_M=torch.from_numpy(weights_M),
        targets=counted,
        tokens=int(rows["seq_lengths"].sum()),
    )


def make_step(
    split: Split,
    rows: Sequence[int] | npt.NDArray[np.int64],
    at_once: int,
    masking: Masking,
    compute: Compute = "full",
) -> Step:
    """The micro-batches of a step over ``rows``, at most ``at_once`` each, normalised together.

    Dividing each micro-batch by its own total would weigh a token by how few targets stand beside
    it; the step's total makes the gradient the same however the step is cut.

    Raises:
        DatasetError: If a shard is damaged.
    """
    batches = [
        make_batch(read, masking.weights(read), compute)
        for read in micro_batches(split, rows, at_once)
    ]
    # In NumPy, which shares the memory: torch would wake its threads, and a loader is to make do
    # with one.
    total = sum(float(batch.weights_M.numpy().sum()) for batch in batches) or 1.0
    for batch in batches:
        np.divide(batch.weights_M.numpy(), total, out=batch.weights_M.numpy())
    return Step(
        batches,
        tokens=sum(batch.tokens for batch in batches),
        targets=sum(batch.targets for batch in batches),
    )


class RowStream:
    """The rows of a split without end: epochs follow each other without a gap, each in an order of
    its own.

    Which row comes at a place is a pure function of the key and the place, and every row comes once
    an epoch.
    """

    def __init__(self, rows: int, key: str) -> None:
        """Order ``rows`` rows, at least one; ``key`` names the order."""
        self.rows = rows
        self._key = key
        self._epochs: dict[int, npt.NDArray[np.int64]] = {}

    def take(self, begin: int, end: int) -> npt.NDArray[np.int64]:
        """The rows at places ``begin`` to below ``end``: int64[end - begin]."""
        epochs, places = np.divmod(np.arange(begin, end), self.rows)
        needed = range(begin // self.rows, -(-end // self.rows))
        # The orders of the epochs at hand are kept: making one takes longer than a step.
        self._epochs = {
            epoch: self._epochs[epoch]
            if epoch in self._epochs
            else shuffled(self.rows, f"{self._key} {epoch}")
            for epoch in needed
        }
        parts = [self._epochs[epoch][places[epochs == epoch]] for epoch in needed]
        return np.concatenate([np.empty(0, np.int64), *parts])


class RowOrder:
    """Which rows each step takes: a pure function of seed, step and the dataset's fingerprint.

    The rows left over at the end of an epoch begin the step that the next one completes.
    """

    def __init__(self, dataset: PackedDataset, rows_per_step: int, seed: int) -> None:
        """Order the training split of ``dataset``, which must have a row."""
        self.rows = len(dataset.train)
        self.rows_per_step = rows_per_step
        self._stream = RowStream(self.rows, f"sabitrain rows {seed} {dataset.fingerprint}")

    def epoch(self, step: int) -> float:
        """The passes over the split completed once ``step`` steps are."""
        return step * self.rows_per_step / self.rows

    def step(self, step: int) -> npt.NDArray[np.int64]:
        """The rows of a step, counted from 0: int64[rows_per_step]."""
        return self._stream.take(step * self.rows_per_step, (step + 1) * self.rows_per_step)


def shuffled(count: int, key: str) -> npt.NDArray[np.int64]:
    """A permutation of ``range(count)`` that depends on ``key`` alone, in every version of NumPy.

    NumPy promises the raw stream of a bit generator for good, but not what
    ``Generator.permutation`` makes of it (NEP 19): so the numbers are drawn raw and sorted.
    """
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "little")
    return np.argsort(np.random.Philox(key=seed).random_raw(count), kind="stable")


def micro_batches(
    split: Split, rows: Sequence[int] | npt.NDArray[np.int64], at_once: int
) -> Iterator[BatchDict]:
    """``rows`` of a split in their order, at most ``at_once`` at a time."""
    for first in range(0, len(rows), at_once):
        yield split.batch(rows[first : first + at_once])


def _round_up(count: int) -> int:
    """The next multiple of `PAD_TO`."""
    return -(-count // PAD_TO) * PAD_TO
