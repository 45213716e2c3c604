"""Masking strategies: what predicting each token counts for, from the loss mask and the stored roles.

The same packed rows serve every strategy; nothing is packed again. Weights are not normalised here: a step divides by
the total of all its micro-batches (`sabitrain.data.make_step`).

Dimensions: B rows, T tokens of a row, N = B * T tokens of the rows laid end to end, S segments, D documents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sabiprep.dataset import BatchDict, SourceInfo
from sabitrain.config import Loss, WeighBy

CONTROL, TEMPLATE, DATA = (
    0,
    1,
    2,
)  # roles that are no target (the trainer imports the loader of sabiprep, not its vocabulary for people)


@dataclass(frozen=True)
class Masking:
    """A strategy for one dataset.

    Attributes:
        sources: The dataset's sources.
        loss: Which tokens count: ``"target"`` those of the loss mask, ``"full"`` every token of a document but its
            first, ``"template-masked"`` the same without template text.
        prompt_weight: What a token of a prompt counts for (of roles template and data; under ``"template-masked"`` of
            role data); None leaves it to ``loss``.
        task_weights: What every token of a task is multiplied by; 1 where a task is not named.
        weigh_by: ``"token"``, or ``"example"``: the weights of a document are divided by their sum, so that each
            document counts the same whatever its length. A window of a split record is a document.
    """

    sources: Sequence[SourceInfo]
    loss: Loss = "target"
    prompt_weight: float | None = None
    task_weights: Mapping[str, float] = field(default_factory=dict)
    weigh_by: WeighBy = "token"

    def weights(self, rows: BatchDict) -> npt.NDArray[np.float64 | np.bool_]:
        """What predicting each token of ``rows`` counts for: float64[N], 0 on padding and on first tokens.

        Where only the loss mask decides it is that mask, bool[N].
        """
        counted_N = rows["loss_mask"].reshape(-1)
        if self.loss == "target" and self.prompt_weight is None and self.weigh_by == "token" and not self.task_weights:
            return counted_N
        document_N = documents_of(rows)
        if self.loss != "target":
            counted_N = (document_N >= 0) & (rows["position_ids"].reshape(-1) > 0)
        weights_N = counted_N.astype(np.float64)
        if self.prompt_weight is not None:
            weights_N[prompt_tokens(rows)] = self.prompt_weight
        if self.loss == "template-masked":
            weights_N[rows["roles"].reshape(-1) == TEMPLATE] = 0
        if self.task_weights or self.weigh_by == "example":
            weights_N *= np.append(self._scales(rows, weights_N, document_N), 0)[document_N]
        return weights_N

    def _scales(
        self, rows: BatchDict, weights_N: npt.NDArray[np.float64], document_N: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        """What the weights of each document are multiplied by: float64[D]."""
        scales_D = np.ones(len(rows["seq_lengths"]))
        if self.weigh_by == "example":
            inside_N = document_N >= 0
            sums_D = np.bincount(document_N[inside_N], weights_N[inside_N], len(scales_D))
            scales_D /= np.where(sums_D > 0, sums_D, 1)
        if self.task_weights:
            of_source = np.array([self.task_weights.get(source.task, 1.0) for source in self.sources])
            scales_D *= of_source[rows["source_ids"]]
        return scales_D


def prompt_tokens(rows: BatchDict) -> npt.NDArray[np.bool_]:
    """Tokens of prompts that something of their document precedes: bool[N]."""
    roles_N = rows["roles"].reshape(-1)
    found_N: npt.NDArray[np.bool_] = ((roles_N == TEMPLATE) | (roles_N == DATA)) & (
        rows["position_ids"].reshape(-1) > 0
    )
    return found_N


def documents_of(rows: BatchDict) -> npt.NDArray[np.int64]:
    """The document that each token belongs to, as an index into what `BatchDict` holds of them; -1 on padding."""
    starts, seq_len = rows["cu_seqlens"][:-1], rows["input_ids"].shape[1]
    # The documents of a row are its first segments, in order; its padding, if any, is one more.
    row_of_S = starts // seq_len
    first_of_B = np.searchsorted(row_of_S, np.arange(len(rows["n_targets"])))
    documents_B = np.bincount(rows["doc_rows"], minlength=len(rows["n_targets"]))
    is_document_S = np.arange(len(starts)) - first_of_B[row_of_S] < documents_B[row_of_S]
    of_S = np.where(is_document_S, is_document_S.cumsum() - 1, -1)
    return np.repeat(of_S, np.diff(rows["cu_seqlens"]))
