"""The held-out rows to validate on: an order whose every beginning is a stratified sample.

Dimensions: R rows of the split, S sources, G groups of sources, N tokens of some rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sabitrain.data.batches import micro_batches
from sabitrain.data.masking import documents_of
from sabitrain.data.order import shuffled
from sabitrain.data.rows import Rows, RowSource
from sabitrain.stopping import GoOn

_ROWS_AT_ONCE = 256


def sample_rows(
    dataset: RowSource, split: Rows, count: int, seed: int, go_on: GoOn | None = None
) -> npt.NDArray[np.int64] | None:
    """Chooses the rows to validate on: int64[rows], the same for the same dataset and seed.

    The rows hold a target of every task in every language that has a target in the split, even
    where that takes more rows than ``count``; then, as far as ``count`` allows, of every source.
    The rest comes in proportion: a row's stratum is the rarest source with a target in it, and each
    stratum has its share of the sample to within one row. The rows of any beginning of the result
    are such a sample too.

    Args:
        dataset: The dataset, with its sources.
        split: A split of the dataset.
        count: Rows wanted; 0, or as many as the split has, for all of them in their order.
        seed: The seed that decides the sample.
        go_on: The question asked between batches of rows.

    Returns:
        The rows, or None if ``go_on`` said no.

    Raises:
        DatasetError: If a shard is damaged.
    """
    if count == 0 or count >= len(split):
        return np.arange(len(split))
    present_RS = _sources_of_rows(split, len(dataset.sources), go_on)
    if present_RS is None:
        return None
    # Ties are broken by a random order: rows of a dataset may stand in an order of their own.
    order_R = shuffled(len(split), f"sabitrain validation {seed} {dataset.fingerprint}")
    pairs = [(source.task, source.lang) for source in dataset.sources]
    in_pair_RG = np.stack(
        [present_RS[:, [other == pair for other in pairs]].any(1) for pair in sorted(set(pairs))],
        axis=1,
    )
    # Every task in every language comes first, then every source, then the rest by shares.
    needed = _cover(in_pair_RG, order_R, [])
    count = max(count, len(needed))
    chosen = _cover(present_RS, order_R, needed)[:count]
    by_stratum = _by_stratum(present_RS, order_R)
    rest = by_stratum[~np.isin(by_stratum, chosen)]
    return np.concatenate((np.array(chosen, np.int64), rest))[:count]


def all_fit_the_run(held_out_rows: int, trained_rows: int) -> bool:
    """Returns whether a run without ``--hours`` ends with a validation of all held-out rows.

    A row takes at most about as long to validate as to train on, so that such a validation is a
    fraction of the run.
    """
    return held_out_rows <= trained_rows


def _sources_of_rows(split: Rows, sources: int, go_on: GoOn | None) -> npt.NDArray[np.bool_] | None:
    """Finds which sources have a target in which row: bool[R, S]; None if ``go_on`` said no."""
    present_RS = np.zeros((len(split), sources), np.bool_)
    first = 0
    for rows in micro_batches(split, range(len(split)), _ROWS_AT_ONCE):
        if first and go_on is not None and not go_on(first, len(split)):
            return None
        mask_N = rows["loss_mask"].reshape(-1)
        document_M = documents_of(rows)[mask_N]
        # Within a batch a mixture keeps consecutive rows in their order.
        present_RS[first + rows["doc_rows"][document_M], rows["source_ids"][document_M]] = True
        first += len(rows["n_targets"])
    return present_RS


def _cover(
    present_RG: npt.NDArray[np.bool_], order_R: npt.NDArray[np.int64], chosen: Sequence[int]
) -> list[int]:
    """Returns ``chosen`` and a row for each group without a row among them.

    The row is the first of its group in the order; the rarest group comes first.
    """
    rows = list(chosen)
    counts_G = present_RG.sum(0)
    # A row of a rare group often holds a common one too, which then needs no row of its own.
    for group in np.argsort(counts_G, kind="stable").tolist():
        if counts_G[group] and not present_RG[rows, group].any():
            rows.append(int(order_R[present_RG[order_R, group].argmax()]))
    return rows


def _by_stratum(
    present_RS: npt.NDArray[np.bool_], order_R: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Orders all rows so that each beginning has its share of every stratum: int64[R].

    The shares hold to within one row.
    """
    counts_S = present_RS.sum(0)
    # Sources that a row does not hold count as the most frequent, so `argmin` passes over them.
    rarest_R = np.where(present_RS, counts_S, counts_S.max(initial=0) + 1).argmin(1)
    stratum_R = np.where(present_RS.any(1), rarest_R, -1)[order_R]
    # Each stratum is spread evenly over [0, 1); sorting by place then mixes the strata.
    place_R = np.empty(len(order_R))
    for stratum in np.unique(stratum_R):
        of_it = stratum_R == stratum
        size = int(of_it.sum())
        place_R[of_it] = (np.arange(size) + 0.5) / size
    return order_R[np.argsort(place_R, kind="stable")]
