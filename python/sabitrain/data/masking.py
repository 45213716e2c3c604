"""Masking strategies: the weight of each token's prediction, from the loss mask and stored roles.

The same packed rows serve every strategy; nothing is packed again. Weights are not normalised here:
a step divides by the total of all its micro-batches (`sabitrain.data.batches.make_step`).

A new strategy is a function, a line of `STRATEGIES` and a word of `sabitrain.data.settings.Loss`.

Dimensions: B rows, T tokens of a row, N = B * T tokens of the rows laid end to end, S segments, D
documents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sabiprep.dataset import BatchDict, SourceInfo
from sabitrain.data.settings import Loss, MaskingConfig, WeighBy

# The roles that are no target: the trainer imports the loader of sabiprep, not its vocabulary for
# people.
CONTROL, TEMPLATE, DATA = 0, 1, 2


def loss_mask(rows: BatchDict) -> npt.NDArray[np.bool_]:
    """Returns the loss mask of the rows itself: bool[N]."""
    mask_N: npt.NDArray[np.bool_] = rows["loss_mask"].reshape(-1)
    return mask_N


def all_but_first(rows: BatchDict) -> npt.NDArray[np.bool_]:
    """Returns the tokens of documents that a token of their document precedes: bool[N]."""
    found_N = np.repeat(_document_of_segments(rows) >= 0, np.diff(rows["cu_seqlens"]))
    found_N[rows["cu_seqlens"][:-1]] = False
    return found_N


def not_from_templates(rows: BatchDict) -> npt.NDArray[np.bool_]:
    """Returns `all_but_first` without the text that templates spell: bool[N]."""
    found_N = all_but_first(rows)
    found_N &= rows["roles"].reshape(-1) != TEMPLATE
    return found_N


def prompt_tokens(rows: BatchDict) -> npt.NDArray[np.bool_]:
    """Returns the tokens of prompts that a token of their document precedes: bool[N]."""
    # 0 and 1 for the two roles of prompts; control tokens wrap around to 255: one comparison
    # instead of two.
    kind_N = rows["roles"].reshape(-1) - np.uint8(TEMPLATE)
    found_N: npt.NDArray[np.bool_] = kind_N <= DATA - TEMPLATE
    found_N[rows["cu_seqlens"][:-1]] = False
    return found_N


def prompt_data(rows: BatchDict) -> npt.NDArray[np.bool_]:
    """Returns `prompt_tokens` without the text that templates spell: bool[N]."""
    found_N = prompt_tokens(rows)
    found_N &= rows["roles"].reshape(-1) != TEMPLATE
    return found_N


@dataclass(frozen=True)
class Strategy:
    """The tokens that a loss trains.

    Attributes:
        trained: The tokens of weight 1: bool[N], perhaps the loss mask of the rows itself.
        prompt: The tokens of weight ``prompt_weight``: bool[N].
    """

    trained: Callable[[BatchDict], npt.NDArray[np.bool_]]
    prompt: Callable[[BatchDict], npt.NDArray[np.bool_]]


STRATEGIES: Mapping[Loss, Strategy] = {
    "target": Strategy(loss_mask, prompt_tokens),
    "full": Strategy(all_but_first, prompt_tokens),
    "template-masked": Strategy(not_from_templates, prompt_data),
}


@dataclass(frozen=True)
class Masking:
    """A strategy for one dataset.

    The weights that a dataset has for its documents multiply those of the strategy.

    Attributes:
        sources: The dataset's sources.
        loss: The strategy, by its name in `STRATEGIES`.
        prompt_weight: The weight of a token of a prompt; None leaves it to the strategy.
        task_weights: Factors of every token's weight by task; 1 where a task is not named.
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
        """Returns the weight of each token's prediction: float64[N], 0 on padding and first tokens.

        Weights of 1 and 0 alone are bool[N], perhaps the loss mask itself: booleans take a fraction
        of the time.
        """
        strategy = STRATEGIES[self.loss]
        trained_N = strategy.trained(rows)
        scaled = self.task_weights or self.weigh_by == "example" or "doc_weights" in rows
        if self.prompt_weight is None and not scaled:
            return trained_N
        # A copy: the mask belongs to the rows.
        weights_N = trained_N.astype(np.float64)
        if self.prompt_weight is not None:
            weights_N[strategy.prompt(rows)] = self.prompt_weight
        if scaled:
            weights_N *= np.repeat(self._scales(rows, weights_N), np.diff(rows["cu_seqlens"]))
        return weights_N

    def _scales(
        self, rows: BatchDict, weights_N: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        """Returns the factor of the weights of each segment: float64[S]."""
        scales_S = np.ones(len(rows["cu_seqlens"]) - 1)
        if self.weigh_by == "example":
            sums_S = np.add.reduceat(weights_N, rows["cu_seqlens"][:-1])
            # A segment without a weight has nothing to divide.
            scales_S /= np.where(sums_S > 0, sums_S, 1)
        if self.task_weights:
            of_source = np.array(
                [self.task_weights.get(source.task, 1.0) for source in self.sources]
            )
            # The 0 at the end is for padding, whose document is -1.
            scales_S *= np.append(of_source[rows["source_ids"]], 0)[_document_of_segments(rows)]
        if "doc_weights" in rows:
            scales_S *= np.append(rows["doc_weights"], 0)[_document_of_segments(rows)]
        return scales_S


def masking_of(config: MaskingConfig, sources: Sequence[SourceInfo]) -> Masking:
    """Returns the strategy that a configuration asks for, for a dataset of these sources."""
    return Masking(
        sources, config.loss, config.prompt_weight, config.weight_of_task(), config.weigh_by
    )


def documents_of(rows: BatchDict) -> npt.NDArray[np.int64]:
    """Returns the document of each token, by its place among the rows' documents: int64[N].

    It is -1 on padding.
    """
    return np.repeat(_document_of_segments(rows), np.diff(rows["cu_seqlens"]))


def _document_of_segments(rows: BatchDict) -> npt.NDArray[np.int64]:
    """Returns the document that each segment is, as `documents_of` numbers them: int64[S]."""
    starts, seq_len = rows["cu_seqlens"][:-1], rows["input_ids"].shape[1]
    # The documents of a row are its first segments, in order; its padding, if any, is one more.
    row_of_S = starts // seq_len
    first_of_B = np.searchsorted(row_of_S, np.arange(len(rows["n_targets"])))
    documents_B = np.bincount(rows["doc_rows"], minlength=len(rows["n_targets"]))
    is_document_S = np.arange(len(starts)) - first_of_B[row_of_S] < documents_B[row_of_S]
    return np.where(is_document_S, is_document_S.cumsum() - 1, -1)
