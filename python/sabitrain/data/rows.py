"""The source of a run's rows: one packed dataset or a mixture of several, behind one protocol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, SupportsIndex

import numpy as np
import numpy.typing as npt

from sabiprep.dataset import BatchDict, SourceInfo


class Rows(Protocol):
    """The rows of a split, numbered from 0."""

    def __len__(self) -> int:
        """Returns the number of rows."""

    @property
    def n_targets(self) -> npt.NDArray[np.int32]:
        """The targets of every row: int32[rows]."""

    def batch(self, indices: Iterable[SupportsIndex], labels: bool = True) -> BatchDict:
        """Returns the rows at ``indices``; of a mixture, dataset by dataset.

        Args:
            indices: The rows.
            labels: Whether to make ``labels``.

        Raises:
            IndexError: If there is no such row.
            DatasetError: If a shard is damaged there.
        """


class RowSource(Protocol):
    """The datasets of a run as one: `sabiprep.PackedDataset` or `sabitrain.data.mixture.Mixture`.

    The properties have the meaning and the names of `sabiprep.PackedDataset`.
    """

    @property
    def path(self) -> Path | str:
        """The folder or the URL, for messages; a mixture gives that of its first dataset."""

    @property
    def fingerprint(self) -> str:
        """The sha256 that changes with anything in the rows."""

    @property
    def manifest(self) -> Mapping[str, Any]:
        """The manifest; a mixture gives the manifest of its first dataset."""

    @property
    def seq_len(self) -> int:
        """Tokens in a row."""

    @property
    def vocab_size(self) -> int:
        """Largest id of the tokenizer + 1."""

    @property
    def bos_id(self) -> int | None:
        """The token that opens each document, if one does."""

    @property
    def eos_id(self) -> int:
        """The token that closes a document."""

    @property
    def pad_id(self) -> int:
        """The token that fills a row up."""

    @property
    def sources(self) -> Sequence[SourceInfo]:
        """The sources, by id."""

    @property
    def tokenizer_path(self) -> Path:
        """The tokenizer's file."""

    @property
    def train(self) -> Rows:
        """The training split."""

    @property
    def validation(self) -> Rows:
        """The validation split; it may have no row."""

    def place(self, source_id: int, record_id: int) -> str:
        """Returns the place of a record in words: its file and the byte in the file.

        Raises:
            DatasetError: If a dataset has no such source, or no such input of it.
        """
