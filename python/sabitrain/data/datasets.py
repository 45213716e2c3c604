"""The packed datasets of a run, opened together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from sabiprep.dataset import PackedDataset, open_dataset
from sabiprep.errors import SabiprepError
from sabitrain.data.mixture import Mixture
from sabitrain.data.rows import RowSource


class Datasets:
    """The datasets of a run and their rows as one; usable in ``with``, which closes them.

    Attributes:
        parts: The datasets.
        rows: Their rows as one: the only dataset itself, or a `Mixture`.
    """

    def __init__(self, parts: Sequence[PackedDataset]) -> None:
        """Joins datasets, at least one.

        Raises:
            DatasetError: If they do not fit together.
        """
        self.parts = tuple(parts)
        self.rows: RowSource = parts[0] if len(parts) == 1 else Mixture(parts)

    def fetch_ahead(self) -> None:
        """Begins to fetch the shards of datasets in object stores, dataset by dataset."""
        for part in self.parts:
            part.fetch_ahead()

    def close(self) -> None:
        """Closes the datasets."""
        for part in self.parts:
            part.close()

    def __enter__(self) -> Self:
        """Returns the datasets, closed at the end of the ``with``."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the datasets."""
        self.close()


def open_datasets(paths: Sequence[Path]) -> Datasets:
    """Opens the packed datasets at ``paths``, at least one.

    Raises:
        DatasetError: If one cannot be opened, or they do not fit together.
    """
    parts: list[PackedDataset] = []
    try:
        for path in paths:
            parts.append(open_dataset(path))
        return Datasets(parts)
    # Those that were opened before the error are closed: their files would stay mapped.
    except SabiprepError:
        for part in parts:
            part.close()
        raise
