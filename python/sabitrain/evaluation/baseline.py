"""The baseline of a validation: the cost of targets predicted by their frequency alone.

Dimensions: S sources, G groups (a task in a language), V vocabulary, M tokens.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sabitrain.data.batches import micro_batches
from sabitrain.data.masking import CONTROL, documents_of
from sabitrain.data.order import shuffled
from sabitrain.data.rows import Rows, RowSource
from sabitrain.evaluation.scores import TargetLoss
from sabitrain.stopping import GoOn

# Training rows that tokens are counted in, at most: a sample of so many says as much as all of a
# larger dataset.
MOST_ROWS = 1 << 14
_ROWS_AT_ONCE = 256


class Unigram:
    """A unigram model of target tokens for each task in each language.

    Of a group (a task in a language) with c(t) occurrences of token t among N target tokens, T of
    them distinct::

        p(t) = (c(t) + T q(t)) / (N + T)

    This is Witten-Bell smoothing (Witten and Bell 1991, "The zero-frequency problem", method C, as
    interpolated by Chen and Goodman 1998, "An empirical study of smoothing techniques for language
    modeling", section 2.4). q comes from the n target tokens of all groups together, with one added
    to the count of each of the V tokens of the vocabulary (Laplace): q(t) = (c_all(t) + 1) / (n +
    V).

    The EOS that closes a document is never counted and costs nothing: the baseline knows the end of
    each answer, so that a label of one token costs as much as the choice among labels alone. A
    trained model that is no better reads nothing from its context. A better model may owe the
    difference to the earlier tokens of the answer, not to the prompt.
    """

    def __init__(self, dataset: RowSource) -> None:
        """Describes the groups of a dataset; nothing is counted yet."""
        pairs = [(source.task, source.lang) for source in dataset.sources]
        groups = sorted(set(pairs))
        self._group_of_S = np.array([groups.index(pair) for pair in pairs], np.int64)
        self._vocabulary = dataset.vocab_size
        # The tokens of each group, as group * V + token in order, and their counts: a dense table
        # would be mostly zeros, since most tokens do not occur in most groups.
        self._keys, self._counts = np.empty(0, np.int64), np.empty(0, np.int64)
        self._totals_G: npt.NDArray[np.float64] = np.zeros(len(groups))
        self._distinct_G: npt.NDArray[np.float64] = np.zeros(len(groups))
        self._smoothed_V: npt.NDArray[np.float64] = np.full(
            self._vocabulary, 1 / max(1, self._vocabulary)
        )

    def count(self, split: Rows, rows: npt.NDArray[np.int64], go_on: GoOn | None = None) -> bool:
        """Counts the targets in some rows; returns False, the counts useless, if ``go_on`` said no.

        Raises:
            DatasetError: If a shard is damaged.
        """
        done = 0
        for batch in micro_batches(split, rows, _ROWS_AT_ONCE):
            if done and go_on is not None and not go_on(done, len(rows)):
                return False
            counted_N = batch["loss_mask"].reshape(-1) & (batch["roles"].reshape(-1) != CONTROL)
            source_M = batch["source_ids"][documents_of(batch)[counted_N]]
            keys = self._keys_of(source_M, batch["input_ids"].reshape(-1)[counted_N])
            # Merged batch by batch, which bounds the memory by the distinct tokens.
            self._keys, places = np.unique(np.concatenate((self._keys, keys)), return_inverse=True)
            weights = np.concatenate((self._counts, np.ones(len(keys), np.int64)))
            self._counts = np.bincount(places, weights, len(self._keys)).astype(np.int64)
            done += len(batch["n_targets"])
        self._settle()
        return True

    def _settle(self) -> None:
        """Derives from the counts the terms of the probabilities."""
        groups, tokens = np.divmod(self._keys, self._vocabulary)
        self._totals_G = np.bincount(groups, self._counts, len(self._totals_G)).astype(np.float64)
        self._distinct_G = np.bincount(groups, minlength=len(self._totals_G)).astype(np.float64)
        all_V = np.bincount(tokens, self._counts, self._vocabulary)
        self._smoothed_V = (all_V + 1) / (all_V.sum() + self._vocabulary)

    def nats(
        self, source_M: npt.NDArray[np.uint16], ids_M: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        """Returns the cost of target tokens, none of them a closing EOS: float64[M].

        Args:
            source_M: The source of each token.
            ids_M: The tokens.
        """
        keys_M, group_M = self._keys_of(source_M, ids_M), self._group_of_S[source_M]
        counts_M = np.zeros(len(keys_M))
        if len(self._keys):
            # A key beyond the last would point past the end; the comparison below rejects it.
            at_M = np.searchsorted(self._keys, keys_M).clip(max=len(self._keys) - 1)
            counts_M = np.where(self._keys[at_M] == keys_M, self._counts[at_M], 0)
        # A group that never occurred has q alone.
        distinct_M = np.maximum(self._distinct_G[group_M], 1)
        probability_M = (counts_M + distinct_M * self._smoothed_V[ids_M]) / (
            self._totals_G[group_M] + distinct_M
        )
        costs_M: npt.NDArray[np.float64] = -np.log(probability_M)
        return costs_M

    def _keys_of(
        self, source_M: npt.NDArray[np.uint16], ids_M: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        keys_M: npt.NDArray[np.int64] = self._group_of_S[source_M] * self._vocabulary + ids_M
        return keys_M


def train_unigram(dataset: RowSource, go_on: GoOn | None = None) -> Unigram | None:
    """Returns the baseline of a dataset, counted in its training split.

    A split of more than `MOST_ROWS` rows gives a sample of that size, the same each time. Returns
    None if ``go_on`` said no.

    Raises:
        DatasetError: If a shard is damaged.
    """
    rows = np.arange(len(dataset.train))
    if len(rows) > MOST_ROWS:
        rows = np.sort(shuffled(len(rows), f"sabitrain baseline {dataset.fingerprint}")[:MOST_ROWS])
    unigram = Unigram(dataset)
    return unigram if unigram.count(dataset.train, rows, go_on) else None


def unigram_baseline(dataset: RowSource) -> TargetLoss | None:
    """Returns the loss of `Unigram` on the targets of the whole validation split.

    The loss is in nats per target, closing EOS included at no cost. Returns None if there is no
    target to validate on.

    Raises:
        DatasetError: If a shard is damaged.
    """
    unigram = train_unigram(dataset)
    assert unigram is not None  # nothing ended it
    nats, targets = 0.0, 0
    for rows in micro_batches(dataset.validation, range(len(dataset.validation)), _ROWS_AT_ONCE):
        mask_N = rows["loss_mask"].reshape(-1)
        counted_N = mask_N & (rows["roles"].reshape(-1) != CONTROL)
        source_M = rows["source_ids"][documents_of(rows)[counted_N]]
        nats += float(unigram.nats(source_M, rows["input_ids"].reshape(-1)[counted_N]).sum())
        targets += int(mask_N.sum())
    return TargetLoss(nats / targets, targets) if targets else None
