"""Batches: the rows of a step as tensors.

Dimensions: B rows, T tokens of a row, N = B * T tokens of the rows laid end to end, S segments
(documents and paddings), M predictions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sabiprep.dataset import BatchDict
from sabiprep.errors import DatasetError
from sabitrain.data.masking import Masking
from sabitrain.data.rows import Rows
from sabitrain.data.settings import Compute

# Predictions and segments are padded to a multiple of these, so that compiled code and kernels see
# few lengths. Each empty segment costs the backward pass of flash attention the workspace of 128
# tokens (`sabitrain.attention.flash.workspace_bytes`).
PAD_TO = 256
PAD_SEGMENTS_TO = 64


@dataclass(frozen=True)
class Batch:
    """Some rows, laid end to end, and the predictions that are trained on them.

    Attributes:
        ids_N: int64[N].
        positions_N: int64[N], from 0 in each segment.
        cu_seqlens: int32[S + 1]: where each segment starts, and N; S is a multiple of
            `PAD_SEGMENTS_TO`, empty segments last.
        max_seqlen: Tokens of the longest segment.
        predict_at_M: int64[M]: the positions that predict, each right before its target. M is a
            multiple of `PAD_TO`, never 0: places to spare predict from position 0, with
            weight 0. Under ``compute="dense"`` every position predicts.
        targets_M: int64[M]: the ids to predict.
        weights_M: float64[M]: the weight of each prediction in the loss.
        targets: Predictions with a weight that is not 0. They come first, except under
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
        """Returns the batch on a device.

        From pinned memory the copy to a GPU runs beside the computation.
        """
        return (
            self
            if device.type == "cpu"
            else self._map(lambda tensor: tensor.to(device, non_blocking=True))
        )

    def pin(self) -> Batch:
        """Returns the batch in page-locked memory."""
        return self._map(Tensor.pin_memory)

    def _map(self, of: Callable[[Tensor], Tensor]) -> Batch:
        """Returns the batch with ``of`` applied to each tensor."""
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
        targets: Predictions of a weight that is not 0.
    """

    batches: list[Batch]
    tokens: int
    targets: int


def make_batch(
    rows: BatchDict, weights_N: npt.NDArray[np.float64 | np.bool_], compute: Compute = "full"
) -> Batch:
    """Makes one batch of rows from the loader, on the CPU.

    Args:
        rows: The rows.
        weights_N: The weight of each token's prediction: float64[N] or bool[N].
        compute: ``"dense"`` predicts at every position, whatever its weight.

    Raises:
        DatasetError: If the first token of a document has a weight: nothing of its own document
            could predict it.
    """
    ids_N = rows["input_ids"].reshape(-1)
    # Finding the true booleans is several times as fast as finding floats that are not 0.
    counted_at = np.flatnonzero(weights_N if weights_N.dtype == np.bool_ else weights_N != 0)
    # A prediction across a document's edge would learn from another document.
    if weights_N[rows["cu_seqlens"][:-1]].any():
        raise DatasetError(
            "the first token of a document is a target", remedy="pack the dataset again"
        )
    predict = _predict_everywhere if compute == "dense" else _predict_counted
    predict_at_M, targets_M, weights_M = predict(ids_N, weights_N, counted_at)
    # Empty segments at the end make few different lengths, so that little is compiled again.
    segments = padded_segments(len(rows["cu_seqlens"]) - 1)
    cu_seqlens = np.full(segments + 1, len(ids_N), np.int32)
    cu_seqlens[: len(rows["cu_seqlens"])] = rows["cu_seqlens"]
    return Batch(
        ids_N=torch.from_numpy(ids_N),
        positions_N=torch.from_numpy(rows["position_ids"].reshape(-1)),
        cu_seqlens=torch.from_numpy(cu_seqlens),
        max_seqlen=rows["max_seqlen"],
        predict_at_M=torch.from_numpy(predict_at_M),
        targets_M=torch.from_numpy(targets_M),
        weights_M=torch.from_numpy(weights_M),
        targets=len(counted_at),
        tokens=int(rows["seq_lengths"].sum()),
    )


_Predictions = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]


def _predict_everywhere(
    ids_N: npt.NDArray[np.int64],
    weights_N: npt.NDArray[np.float64 | np.bool_],
    counted_at: npt.NDArray[np.int64],
) -> _Predictions:
    """Returns positions, targets and weights of a prediction at every position.

    Args:
        ids_N: int64[N], the tokens.
        weights_N: float64[N] or bool[N], the weight of each token's prediction.
        counted_at: The tokens with a weight that is not 0.
    """
    weights_M = np.zeros(len(ids_N))
    # A token is predicted at the position before it; the last position has no target.
    weights_M[counted_at - 1] = weights_N[counted_at]
    return np.arange(len(ids_N)), np.append(ids_N[1:], 0), weights_M


def _predict_counted(
    ids_N: npt.NDArray[np.int64],
    weights_N: npt.NDArray[np.float64 | np.bool_],
    counted_at: npt.NDArray[np.int64],
) -> _Predictions:
    """Returns positions, targets and weights of the counted tokens, padded to `PAD_TO`.

    The arguments are those of `_predict_everywhere`.
    """
    counted = len(counted_at)
    places = padded_predictions(counted)
    predict_at_M, targets_M = np.zeros(places, np.int64), np.zeros(places, np.int64)
    weights_M = np.zeros(places)
    # Into the arrays themselves: a copy of each would take a large part of the loader's time.
    np.subtract(counted_at, 1, out=predict_at_M[:counted])
    # With "clip" NumPy writes to `out` directly; the other modes copy once more.
    ids_N.take(counted_at, out=targets_M[:counted], mode="clip")
    weights_M[:counted] = 1 if weights_N.dtype == np.bool_ else weights_N[counted_at]
    return predict_at_M, targets_M, weights_M


def make_step(
    split: Rows,
    rows: Sequence[int] | npt.NDArray[np.int64],
    at_once: int,
    masking: Masking,
    compute: Compute = "full",
) -> Step:
    """Makes the micro-batches of a step, normalised together.

    Dividing each micro-batch by its own total would weigh a token by how few targets stand beside
    it. The total of the step makes the gradient the same however the step is cut.

    Args:
        split: The split to read.
        rows: The rows of the step.
        at_once: Most rows of a micro-batch.
        masking: The weight of each prediction.
        compute: The computation to leave out (`make_batch`).

    Raises:
        DatasetError: If a shard is damaged.
    """
    batches = [
        make_batch(read, masking.weights(read), compute)
        for read in micro_batches(split, rows, at_once)
    ]
    # In NumPy, on the same memory: torch would wake its threads, and the loader has one.
    # A step without targets divides by one: its weights stay 0.
    total = sum(float(batch.weights_M.numpy().sum()) for batch in batches) or 1.0
    for batch in batches:
        np.divide(batch.weights_M.numpy(), total, out=batch.weights_M.numpy())
    return Step(
        batches,
        tokens=sum(batch.tokens for batch in batches),
        targets=sum(batch.targets for batch in batches),
    )


def micro_batches(
    split: Rows, rows: Sequence[int] | npt.NDArray[np.int64], at_once: int
) -> Iterator[BatchDict]:
    """Reads ``rows`` of a split in their order, at most ``at_once`` at a time, without labels."""
    for first in range(0, len(rows), at_once):
        yield split.batch(rows[first : first + at_once], labels=False)


def padded_predictions(targets: int) -> int:
    """Returns the predictions of a batch of so many targets: a multiple of `PAD_TO`.

    One multiple at least, so that a batch without targets needs no case of its own.
    """
    return -(-max(1, targets) // PAD_TO) * PAD_TO


def padded_segments(segments: int) -> int:
    """Returns the segments of a batch, empty ones at its end: a multiple of `PAD_SEGMENTS_TO`."""
    return -(-segments // PAD_SEGMENTS_TO) * PAD_SEGMENTS_TO
