"""Masking strategies: what predicting each token counts for, from the loss mask and the stored
roles.

The same packed rows serve every strategy; nothing is packed again. Weights are not normalised here:
a step divides by the total of all its micro-batches (`sabitrain.data.batches.make_step`).

Dimensions: B rows, T tokens of a row, N = B * T tokens of the rows laid end to end, S segments, D
documents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sabiprep.dataset import BatchDict, SourceInfo
from sabitrain.config import Loss, TrainConfig, WeighBy

# The roles that are no target: the trainer imports the loader of sabiprep, not its vocabulary for
# people.
CONTROL, TEMPLATE, DATA = 0, 1, 2


@dataclass(frozen=True)
class Masking:
    """A strategy for one dataset.

    Attributes:
        sources: The dataset's sources.
        loss: Which tokens count: ``"target"`` those of the loss mask, ``"full"`` every token of a
            document but its first, ``"template-masked"`` the same without template text.
        prompt_weight: What a token of a prompt counts for (of roles template and data; under
            ``"template-masked"`` of role data); None leaves it to ``loss``.
        task_weights: What every token of a task is multiplied by; 1 where a task is not named.
        weigh_by: ``"token"``, or ``"example"``: the weights of a document are divided by their sum,
            so that each document counts the same whatever its length. A window of a split record is
            a document.
    """

    sources: Sequence[SourceInfo]
    loss: Loss = "target"
    prompt_weight: float | None = None
    task_weights: Mapping[str, float] = field(default_factory=dict)
    weigh_by: WeighBy = "token"

    def weights(self, rows: BatchDict) -> npt.NDArray[np.float64 | np.bool_]:
        """What predicting each token of ``rows`` counts for: float64[N], 0 on padding and on first
        tokens.

        Where each counts for 1 or 0 it is bool[N], which takes a fraction of the time; it may be
        the loss mask itself.
        """
        counted_N = rows["loss_mask"].reshape(-1) if self.loss == "target" else _learnable(rows)
        if self.loss == "template-masked":
            counted_N &= rows["roles"].reshape(-1) != TEMPLATE
        scaled = self.task_weights or self.weigh_by == "example"
        if self.prompt_weight is None and not scaled:
            return counted_N
        weights_N = counted_N.astype(np.float64)
        if self.prompt_weight is not None:
            template_N = (
                rows["roles"].reshape(-1) == TEMPLATE
                if self.loss == "template-masked"
                else np.False_
            )
            weights_N[prompt_tokens(rows) & ~template_N] = self.prompt_weight
        if scaled:
            weights_N *= np.repeat(self._scales(rows, weights_N), np.diff(rows["cu_seqlens"]))
        return weights_N

    def _scales(
        self, rows: BatchDict, weights_N: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        """What the weights of each segment are multiplied by: float64[S]."""
        scales_S = np.ones(len(rows["cu_seqlens"]) - 1)
        if self.weigh_by == "example":
            sums_S = np.add.reduceat(weights_N, rows["cu_seqlens"][:-1])
            scales_S /= np.where(sums_S > 0, sums_S, 1)
        if self.task_weights:
            of_source = np.array(
                [self.task_weights.get(source.task, 1.0) for source in self.sources]
            )
            scales_S *= np.append(of_source[rows["source_ids"]], 0)[_document_of_segments(rows)]
        return scales_S


def masking_of(config: TrainConfig, sources: Sequence[SourceInfo]) -> Masking:
    """Returns the strategy that a configuration asks for, for a dataset of these sources."""
    return Masking(
        sources, config.loss, config.prompt_weight, config.weight_of_task(), config.weigh_by
    )


def prompt_tokens(rows: BatchDict) -> npt.NDArray[np.bool_]:
    """Tokens of prompts that something of their document precedes: bool[N]."""
    kind_N = rows["roles"].reshape(-1) - np.uint8(
        TEMPLATE
    )  # 0 and 1 for the two of them, anything else for the rest
    found_N: npt.NDArray[np.bool_] = kind_N <= DATA - TEMPLATE
    found_N[rows["cu_seqlens"][:-1]] = False
    return found_N


def documents_of(rows: BatchDict) -> npt.NDArray[np.int64]:
    """The document that each token belongs to, as an index into what `BatchDict` holds of them; -1
    on padding.
    """
    return np.repeat(_document_of_segments(rows), np.diff(rows["cu_seqlens"]))


def _learnable(rows: BatchDict) -> npt.NDArray[np.bool_]:
    """Tokens of documents that something of their document precedes: bool[N]."""
    learnable_N = np.repeat(_document_of_segments(rows) >= 0, np.diff(rows["cu_seqlens"]))
    learnable_N[rows["cu_seqlens"][:-1]] = False
    return learnable_N


def _document_of_segments(rows: BatchDict) -> npt.NDArray[np.int64]:
    """The document that each segment is, as `documents_of` gives it: int64[S]."""
    starts, seq_len = rows["cu_seqlens"][:-1], rows["input_ids"].shape[1]
    # The documents of a row are its first segments, in order; its padding, if any, is one more.
    row_of_S = starts // seq_len
    first_of_B = np.searchsorted(row_of_S, np.arange(len(rows["n_targets"])))
    documents_B = np.bincount(rows["doc_rows"], minlength=len(rows["n_targets"]))
    is_document_S = np.arange(len(starts)) - first_of_B[row_of_S] < documents_B[row_of_S]
    return np.where(is_document_S, is_document_S.cumsum() - 1, -1)
