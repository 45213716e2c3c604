"""The bytes of text in targets, by which losses of different tokenizers are compared.

Dimensions: S sources, N tokens of some rows laid end to end, R runs of targets.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sabiprep.dataset import BatchDict
from sabitrain.data.masking import CONTROL, documents_of
from sabitrain.data.rows import RowSource
from sabitrain.data.tokenizer import open_tokenizer


class TargetBytes:
    """A counter of the bytes of targets, which remembers the rows it has counted."""

    def __init__(self, dataset: RowSource) -> None:
        """Opens the tokenizer of a dataset to count by.

        Raises:
            DatasetError: If it cannot be read, or is not the one the dataset was packed with.
        """
        self._tokenizer = open_tokenizer(dataset)
        self._sources = len(dataset.sources)
        self._known: dict[tuple[int, ...], npt.NDArray[np.int64]] = {}

    def of(self, rows: BatchDict, numbers: tuple[int, ...] | None = None) -> npt.NDArray[np.int64]:
        """Counts the bytes of text (UTF-8) in the targets of each source in some rows: int64[S].

        The bytes of a run of targets are the bytes that it adds to the text of the earlier tokens
        of its document; control tokens have no text. A character cut by the edge of a run (the edge
        of a window of a longer document, say) counts as the bytes of its decoded form.

        Args:
            rows: The rows.
            numbers: The key to remember the counts by; None remembers nothing.
        """
        if numbers is None:
            return self._count(rows)
        if numbers not in self._known:
            self._known[numbers] = self._count(rows)
        return self._known[numbers]

    def _count(self, rows: BatchDict) -> npt.NDArray[np.int64]:
        """Returns the counts of `of`, computed anew."""
        ids_N, positions_N = rows["input_ids"].reshape(-1), rows["position_ids"].reshape(-1)
        text_N = rows["roles"].reshape(-1) != CONTROL
        # First tokens of documents are never targets, so no run goes on from one document to the
        # next.
        target_N = np.concatenate(([False], rows["loss_mask"].reshape(-1) & text_N, [False]))
        begins_R, ends_R = np.flatnonzero(np.diff(target_N)).reshape(-1, 2).T
        firsts_R = begins_R - positions_N[begins_R]
        # Each run with and without its own tokens: a token's bytes depend on the tokens before it.
        texts = [
            ids_N[first:edge][text_N[first:edge]].tolist()
            for edges_R in (begins_R, ends_R)
            for first, edge in zip(firsts_R.tolist(), edges_R.tolist(), strict=True)
        ]
        decoded = self._tokenizer.decode_batch(texts, skip_special_tokens=False)
        before_R, after_R = np.array([len(text.encode()) for text in decoded], np.int64).reshape(
            2, -1
        )
        bytes_S = np.zeros(self._sources, np.int64)
        # Not `+=`, which would count a source once however many runs it has.
        np.add.at(bytes_S, rows["source_ids"][documents_of(rows)[begins_R]], after_R - before_R)
        return bytes_S
