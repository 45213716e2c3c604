"""Several packed datasets as one: their rows and their sources, one dataset after the other."""

from __future__ import annotations

import hashlib
import operator
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from sabiprep.dataset import BatchDict, PackedDataset, Place, Split, batch_of
from sabiprep.errors import DatasetError


class MixedRows:
    """The rows of several splits, one split after the other."""

    def __init__(self, splits: Sequence[Split], seq_len: int, first_sources: Sequence[int]) -> None:
        """Lays splits end to end.

        Args:
            splits: The splits, with rows of ``seq_len`` tokens.
            seq_len: Tokens of a row.
            first_sources: The index of the first source of each split's dataset among all.
        """
        self._splits, self._seq_len, self._first_sources = splits, seq_len, first_sources
        self._ends = list(accumulate(len(split) for split in splits))

    def __len__(self) -> int:
        """Returns the number of rows."""
        return self._ends[-1]

    @property
    def n_targets(self) -> npt.NDArray[np.int32]:
        """The targets of every row: int32[rows]."""
        return np.concatenate([split.n_targets for split in self._splits])

    def batch(self, indices: Iterable[SupportsIndex], labels: bool = True) -> BatchDict:
        """Returns the rows at ``indices``, dataset by dataset, in their order within each.

        Args:
            indices: The rows, counted from 0.
            labels: Whether to make ``labels``.

        Raises:
            IndexError: If there is no such row.
            DatasetError: If a shard is damaged there.
        """
        found = self._find(indices)
        # All rows at once, which makes one array of each column rather than joining several.
        batch = batch_of([place for places in found for place in places], self._seq_len, labels)
        first_source_B = np.repeat(
            np.array(self._first_sources, np.uint16), [len(places) for places in found]
        )
        batch["source_ids"] += first_source_B[batch["doc_rows"]]
        return batch

    def _find(self, indices: Iterable[SupportsIndex]) -> list[list[Place]]:
        """Returns the places of the rows, split by split."""
        rows_of: list[list[int]] = [[] for _ in self._splits]
        for row in map(operator.index, indices):
            if not 0 <= row < len(self):
                raise IndexError(f"row {row} of a split of {len(self)} rows")
            # Right of equal ends, so that an empty split is passed over.
            split = bisect_right(self._ends, row)
            rows_of[split].append(row - self._ends[split] + len(self._splits[split]))
        return [split.find(rows) for split, rows in zip(self._splits, rows_of, strict=True)]


class Mixture:
    """Several datasets of one tokenizer and one row length as one `sabitrain.data.rows.RowSource`.

    Attributes:
        path: The folder of the first dataset.
        manifest: The manifest of the first dataset.
        fingerprint: The sha256 of the fingerprints of all datasets.
        seq_len: Tokens in a row.
        vocab_size: Largest id of the tokenizer + 1.
        bos_id: The token that opens each document, if one does.
        eos_id: The token that closes a document.
        pad_id: The token that fills a row up.
        sources: The sources of all datasets, numbered on.
        tokenizer_path: The file of the tokenizer that all share.
        train: The training splits, one after the other.
        validation: The validation splits, one after the other.
    """

    def __init__(self, parts: Sequence[PackedDataset]) -> None:
        """Joins datasets.

        Raises:
            DatasetError: If they do not fit together.
        """
        first = parts[0]
        for part in parts[1:]:
            _check_fit(part, first)
        # The datasets share a tokenizer, so the first one speaks for all.
        self._parts = parts
        self.path, self.manifest, self.tokenizer_path = (
            first.path,
            first.manifest,
            first.tokenizer_path,
        )
        self.seq_len, self.vocab_size = first.seq_len, first.vocab_size
        self.bos_id, self.eos_id, self.pad_id = first.bos_id, first.eos_id, first.pad_id
        self.fingerprint = hashlib.sha256(
            " ".join(part.fingerprint for part in parts).encode()
        ).hexdigest()
        # Ids of sources begin at 0 in every dataset; here each dataset goes on from the one before.
        starts = [0, *accumulate(len(part.sources) for part in parts)][:-1]
        self.sources = [
            replace(source, id=start + source.id)
            for start, part in zip(starts, parts, strict=True)
            for source in part.sources
        ]
        self.train = MixedRows([part.train for part in parts], self.seq_len, starts)
        self.validation = MixedRows([part.validation for part in parts], self.seq_len, starts)

    def place(self, source_id: int, record_id: int) -> str:
        """Returns the place of a record in words: its dataset, its file and the byte in the file.

        Args:
            source_id: The source, numbered over all datasets.
            record_id: The record.

        Raises:
            IndexError: If there is no such source.
        """
        first = 0
        for part in self._parts:
            if source_id < first + len(part.sources):
                return f"{part.path}: {part.place(source_id - first, record_id)}"
            first += len(part.sources)
        raise IndexError(f"source {source_id} of {first}")


def _check_fit(part: PackedDataset, first: PackedDataset) -> None:
    """Raises `DatasetError` unless a dataset can be mixed with the first."""
    for what, theirs, own in (
        ("rows of another length", first.seq_len, part.seq_len),
        ("another vocabulary", first.vocab_size, part.vocab_size),
        ("ids of another width", first.manifest["id_dtype"], part.manifest["id_dtype"]),
        (
            "another tokenizer",
            first.manifest["tokenizer"]["sha256"],
            part.manifest["tokenizer"]["sha256"],
        ),
        ("other control tokens", _controls(first), _controls(part)),
    ):
        _require_same(theirs, own, what, part.path, first.path)


def _controls(dataset: PackedDataset) -> tuple[int | None, ...]:
    """Returns the ids of BOS, EOS and padding."""
    return dataset.bos_id, dataset.eos_id, dataset.pad_id


def _require_same(
    theirs: object, own: object, what: str, path: Path | str, first: Path | str
) -> None:
    """Raises `DatasetError` unless two values are the same."""
    if theirs != own:
        raise DatasetError(
            f"has {what} than {first}: {own} and {theirs}",
            file=str(path),
            remedy="pack both with the same settings",
        )
