"""Rows of a split as flat arrays without padding, a bounded number of tokens at a time.

Dimensions: R rows, T tokens of a row, D documents, N tokens of the documents.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sabiprep.dataset import BatchDict, PackedDataset
from sabiprep.doc_id import DocId
from sabiprep.manifest import SourceInfo

TOKENS_AT_ONCE = 1 << 19
"""Tokens of a chunk, or those of one row: some 20 MB with everything that is made of them."""


class Place(NamedTuple):
    """The place of a document's record, and the number of the document in it.

    Attributes:
        source: The source.
        file: The input, as the manifest names it.
        byte: The offset of the record in the input; None in a file of columns.
        row: The row of the record in a file of columns, from 0; None elsewhere.
        copy: The index of the copy of the record.
        part: The index among the documents of the record.
        window: The index among the windows of a text longer than a row.
    """

    source: SourceInfo
    file: str
    byte: int | None
    row: int | None
    copy: int
    part: int
    window: int


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows of a split.

    Attributes:
        dataset: The dataset.
        first: The index of the first row in its split.
        batch: The rows as the loader gives them, padding included.
    """

    dataset: PackedDataset
    first: int
    batch: BatchDict

    @cached_property
    def row_lengths_R(self) -> npt.NDArray[np.int64]:
        """The tokens of each row, padding left out."""
        sums_R = np.zeros(self.rows, np.int64)
        np.add.at(sums_R, self.batch["doc_rows"], self.batch["seq_lengths"])
        return sums_R

    @cached_property
    def documents_R(self) -> npt.NDArray[np.int64]:
        """The number of documents of each row."""
        return np.bincount(self.batch["doc_rows"], minlength=self.rows)

    @cached_property
    def _kept_RT(self) -> npt.NDArray[np.bool_]:
        """The tokens that are of a document."""
        kept_RT: npt.NDArray[np.bool_] = (
            np.arange(self.dataset.seq_len) < self.row_lengths_R[:, None]
        )
        return kept_RT

    @cached_property
    def ids_N(self) -> npt.NDArray[np.int64]:
        """The ids of the documents, end to end."""
        return self.batch["input_ids"][self._kept_RT]

    @cached_property
    def mask_N(self) -> npt.NDArray[np.bool_]:
        """Whether each token is trained."""
        return self.batch["loss_mask"][self._kept_RT]

    @cached_property
    def labels_N(self) -> npt.NDArray[np.int64]:
        """The ids where they are trained, -100 elsewhere."""
        return self.batch["labels"][self._kept_RT]

    @cached_property
    def roles_N(self) -> npt.NDArray[np.uint8]:
        """The role of each token."""
        return self.batch["roles"][self._kept_RT]

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.batch["n_targets"])

    @property
    def lengths_D(self) -> npt.NDArray[np.int32]:
        """The tokens of each document."""
        return self.batch["seq_lengths"]

    def places(self) -> list[Place]:
        """Returns the place of each document.

        Raises:
            DatasetError: If the manifest has no such input.
        """
        return [
            _place(self.dataset, *of)
            for of in zip(
                self.batch["source_ids"].tolist(),
                self.batch["record_ids"].tolist(),
                self.batch["doc_parts"].tolist(),
                strict=True,
            )
        ]


def chunks_of(dataset: PackedDataset, split: str, rows: range) -> Iterator[Chunk]:
    """Yields the rows of a split, chunk by chunk.

    Raises:
        DatasetError: If a shard is damaged there.
    """
    at_once = max(1, TOKENS_AT_ONCE // dataset.seq_len)
    for first in range(rows.start, rows.stop, at_once):
        batch = dataset[split].batch(range(first, min(first + at_once, rows.stop)))
        yield Chunk(dataset, first, batch)


def _place(dataset: PackedDataset, source_id: int, record_id: int, doc_part: int) -> Place:
    """Returns the place of a document."""
    document = DocId.unpack(source_id, record_id, doc_part)
    record = document.record
    inputs = dataset.manifest["sources"][source_id]["inputs"]
    if record.input >= len(inputs):
        dataset.place(source_id, record_id)  # which raises, and says why
    source = dataset.sources[source_id]
    in_columns = source.format in ("parquet", "arrow")
    return Place(
        source,
        inputs[record.input],
        None if in_columns else record.offset,
        record.offset if in_columns else None,
        document.copy,
        document.part,
        document.window,
    )
