"""Packed datasets that a run is scored on and never trained on: ``--eval-data``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sabiprep.dataset import PackedDataset, open_dataset
from sabiprep.errors import ConfigError, DatasetError, TrainError
from sabiprep.tokenizer_file import read_tokenizer
from sabitrain.data.datasets import Datasets
from sabitrain.data.rows import Rows
from sabitrain.data.tokenizer import check_same_tokenizer


@dataclass(frozen=True)
class EvalData:
    """A dataset to score a model on.

    Attributes:
        name: Its name, for the record and the console.
        dataset: The dataset.
        rows: The rows to score: those held out; all rows where none is held out.
    """

    name: str
    dataset: PackedDataset
    rows: Rows


@contextlib.contextmanager
def open_eval_data(
    entries: tuple[str, ...], data: Datasets, context: int
) -> Iterator[list[EvalData]]:
    """Opens the datasets of ``--eval-data``, closed at the end of the ``with``.

    Args:
        entries: ``OUT`` or ``NAME=OUT``, each.
        data: The datasets that are trained on.
        context: The longest row that the model takes.

    Raises:
        ConfigError: If two have one name.
        DatasetError: If one cannot be opened, has no target, was packed with another tokenizer, or
            would be scored on rows that are trained on.
        TrainError: If its rows are longer than the model takes.
    """
    with contextlib.ExitStack() as held:
        found: list[EvalData] = []
        for entry in entries:
            name, path = name_and_path(entry)
            if any(other.name == name for other in found):
                raise ConfigError(
                    f"two datasets of --eval-data are called {name!r}",
                    remedy="give them names: --eval-data NAME=OUT",
                )
            dataset = held.enter_context(open_dataset(path))
            found.append(EvalData(name, dataset, _rows_of(dataset, data)))
            _check(dataset, data, context)
        yield found


def name_and_path(entry: str) -> tuple[str, Path]:
    """Returns the name and the folder of ``OUT`` or ``NAME=OUT``; the folder's name by default."""
    name, equals, path = entry.partition("=")
    # A path may hold an equals sign itself, behind a folder.
    if not equals or "/" in name:
        return Path(entry).resolve().name, Path(entry)
    return name, Path(path)


def _rows_of(dataset: PackedDataset, data: Datasets) -> Rows:
    """Returns the rows to score."""
    if len(dataset.validation):
        return dataset.validation
    if any(part.fingerprint == dataset.fingerprint for part in data.parts):
        raise DatasetError(
            "is trained on, and holds out no row to score",
            file=str(dataset.path),
            remedy="pack it with --validation, or leave it out of --eval-data",
        )
    return dataset.train


def _check(dataset: PackedDataset, data: Datasets, context: int) -> None:
    """Refuses a dataset that the model cannot be scored on."""
    if len(dataset.validation) + len(dataset.train) == 0:
        raise DatasetError(
            "there is no row to score",
            file=str(dataset.path),
            remedy="pack it with more records, or leave it out of --eval-data",
        )
    if dataset.seq_len > context:
        raise TrainError(
            f"its rows have {dataset.seq_len} tokens, the model's context {context}",
            file=str(dataset.path),
            remedy="pack it with a smaller --seq-len",
        )
    check_same_tokenizer(dataset, read_tokenizer(data.rows), str(data.rows.path))
