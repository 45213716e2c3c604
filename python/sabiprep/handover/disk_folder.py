"""Folders that ``datasets.load_from_disk`` reads, made without `datasets`.

Such a folder is a `DatasetDict`: a folder a split with Arrow streams, and two JSON files that
describe them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from sabiprep.dataset import PackedDataset
from sabiprep.handover.chunks import Chunk
from sabiprep.handover.folder import NewFolder
from sabiprep.handover.forms import Write, id_type, lists


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of lists: the type of its values, and its array of a chunk."""

    of: Any
    array: Callable[[Chunk], Any]


def rows_for_trl(dataset: PackedDataset, folder: NewFolder) -> DiskFolder:
    """Returns the form for TRL: a row a row, without its padding, and the lengths of documents.

    ``DataCollatorForLanguageModeling(padding_free=True)`` makes positions of ``seq_lengths``.
    """
    ids, labels, lengths = id_type(dataset), pa.int64(), pa.int32()
    return DiskFolder(
        dataset,
        folder,
        {
            "input_ids": _Column(ids, lambda chunk: lists(chunk.row_lengths_R, chunk.ids_N, ids)),
            "labels": _Column(
                labels, lambda chunk: lists(chunk.row_lengths_R, chunk.labels_N, labels)
            ),
            "seq_lengths": _Column(
                lengths, lambda chunk: lists(chunk.documents_R, chunk.lengths_D, lengths)
            ),
        },
    )


def tokenized_documents(dataset: PackedDataset, folder: NewFolder) -> DiskFolder:
    """Returns the form of pretokenized data for axolotl and LLaMA-Factory: a row a document.

    Both keep apart what is in different rows, and what they pack of them.
    """
    ids, labels, ones = id_type(dataset), pa.int64(), pa.int8()
    return DiskFolder(
        dataset,
        folder,
        {
            "input_ids": _Column(ids, lambda chunk: lists(chunk.lengths_D, chunk.ids_N, ids)),
            "attention_mask": _Column(
                ones,
                lambda chunk: lists(chunk.lengths_D, np.ones(len(chunk.ids_N), np.int8), ones),
            ),
            "labels": _Column(labels, lambda chunk: lists(chunk.lengths_D, chunk.labels_N, labels)),
        },
    )


class DiskFolder:
    """A folder for ``load_from_disk`` under construction."""

    def __init__(
        self, dataset: PackedDataset, folder: NewFolder, columns: Mapping[str, _Column]
    ) -> None:
        """Begins without splits."""
        self._dataset = dataset
        self._folder = folder
        self._columns = columns
        self._files: dict[str, list[str]] = {}

    @contextmanager
    def shard(self, split: str, index: int, count: int) -> Iterator[Write]:
        """Yields the writer of an Arrow stream; see `Form`."""
        name = f"data-{index:05d}-of-{count:05d}.arrow"
        self._files.setdefault(split, []).append(name)
        schema = pa.schema([(name, pa.list_(column.of)) for name, column in self._columns.items()])
        with (
            self._folder.file(f"{split}/{name}") as file,
            pa.ipc.new_stream(file, schema) as stream,
        ):

            def write(chunk: Chunk) -> None:
                arrays = [column.array(chunk) for column in self._columns.values()]
                stream.write_batch(pa.record_batch(arrays, schema=schema))

            yield write

    def finish(self) -> None:
        """Writes the JSON files of each split, and the list of splits."""
        for split, files in self._files.items():
            self._folder.write_json(f"{split}/state.json", self._state(split, files))
            self._folder.write_json(f"{split}/dataset_info.json", self._info())
        self._folder.write_json("dataset_dict.json", {"splits": list(self._files)})

    def _state(self, split: str, files: list[str]) -> dict[str, Any]:
        """Returns the content of ``state.json``."""
        # The library names cached results by it: another content needs another one.
        known = f"{self._dataset.fingerprint} {split} {' '.join(self._columns)}"
        return {
            "_data_files": [{"filename": name} for name in files],
            "_fingerprint": hashlib.sha256(known.encode()).hexdigest()[:16],
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": split,
        }

    def _info(self) -> dict[str, Any]:
        """Returns the content of ``dataset_info.json``."""
        # "Sequence" is the word of every version of the library; since 4.0 it also says "List".
        features = {
            name: {"feature": {"dtype": str(column.of), "_type": "Value"}, "_type": "Sequence"}
            for name, column in self._columns.items()
        }
        return {
            "citation": "",
            "description": "",
            "features": features,
            "homepage": "",
            "license": "",
        }
