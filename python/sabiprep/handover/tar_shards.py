"""Tar shards for WebDataset: one sample a row, its arrays as ``.npy``, its documents as JSON."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice, repeat
from typing import Any

import msgspec
import numpy as np

from sabiprep.dataset import PackedDataset
from sabiprep.handover.chunks import Chunk, Place
from sabiprep.handover.folder import NewFolder
from sabiprep.handover.forms import Write


class TarShards:
    """Tar files ``SPLIT-000000.tar`` and so on, one a shard."""

    def __init__(self, dataset: PackedDataset, folder: NewFolder) -> None:
        """Begins without files."""
        self._folder = folder
        self._ids: Any = np.int32 if dataset.vocab_size <= 1 << 31 else np.int64

    @contextmanager
    def shard(self, split: str, index: int, count: int) -> Iterator[Write]:
        """Yields the writer of a tar file; see `Form`."""
        with (
            self._folder.file(f"{split}-{index:06d}.tar") as file,
            tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar,
        ):

            def write(chunk: Chunk) -> None:
                for name, content in self._members(chunk, split):
                    # A fresh entry has no time and no owner, so that equal rows are equal bytes.
                    entry = tarfile.TarInfo(name)
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))

            yield write

    def _members(self, chunk: Chunk, split: str) -> Iterator[tuple[str, bytes]]:
        """Yields the files of each row; T tokens of each array are padding where it has any."""
        places, lengths = iter(chunk.places()), iter(chunk.lengths_D.tolist())
        weights = iter(chunk.batch.get("doc_weights", np.empty(0)).tolist() or repeat(None))
        ids_RT = chunk.batch["input_ids"].astype(self._ids)
        positions_RT = chunk.batch["position_ids"].astype(np.int32)
        for row, documents in enumerate(chunk.documents_R.tolist()):
            key = f"{split}-{chunk.first + row:09d}"
            own = list(islice(lengths, documents))
            yield f"{key}.input_ids.npy", _npy(ids_RT[row])
            yield f"{key}.labels.npy", _npy(chunk.batch["labels"][row])
            yield f"{key}.position_ids.npy", _npy(positions_RT[row])
            yield f"{key}.seq_lengths.npy", _npy(np.array(own, np.int32))
            if "loss_weights" in chunk.batch:
                yield f"{key}.loss_weights.npy", _npy(chunk.batch["loss_weights"][row])
            described = map(_described, islice(places, documents), own, weights)
            yield f"{key}.json", msgspec.json.encode({"documents": list(described)})

    def finish(self) -> None:
        """Does nothing: the files describe themselves."""


def _npy(array: Any) -> bytes:
    """Returns an array as a file of NumPy."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _described(place: Place, tokens: int, weight: float | None) -> dict[str, Any]:
    """Returns a document in words; its weight only where the dataset has weights."""
    described = {
        "source": place.source.name,
        "task": place.source.task,
        "lang": place.source.lang,
        "file": place.file,
        "byte": place.byte,
        "row": place.row,
        "copy": place.copy,
        "document": place.part,
        "window": place.window,
        "tokens": tokens,
    }
    return described if weight is None else {**described, "weight": weight}
