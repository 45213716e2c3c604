"""Tables with a row a document: Parquet and JSON lines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sabiprep.dataset import PackedDataset
from sabiprep.handover.chunks import Chunk
from sabiprep.handover.folder import NewFolder
from sabiprep.handover.forms import Write, id_type, lists, shard_name
from sabiprep.handover.texts import Texts, texts_of
from sabiprep.roles import Role

_NAMES = ("source", "task", "lang", "split", "file")


def _schema(dataset: PackedDataset) -> Any:
    """Returns the columns of a table."""
    weights = [("weight", pa.float32())] if dataset.weighted else []
    return pa.schema(
        [
            ("text", pa.string()),
            ("input_ids", pa.list_(id_type(dataset))),
            ("loss_mask", pa.list_(pa.bool_())),
            *((name, pa.string()) for name in _NAMES),
            ("byte", pa.int64()),
            ("row", pa.int64()),
            ("copy", pa.int32()),
            ("document", pa.int32()),
            ("window", pa.int32()),
            *weights,
        ]
    )


def _texts(chunk: Chunk, texts: Texts) -> list[str]:
    """Returns the text of each document, without the BOS and EOS that the configuration put."""
    kept_N = chunk.roles_N != Role.CONTROL
    before_N = np.concatenate(([0], np.cumsum(kept_N)))
    ends_D = np.cumsum(chunk.lengths_D)
    return texts.decode(chunk.ids_N[kept_N], before_N[ends_D] - before_N[ends_D - chunk.lengths_D])


def _described(chunk: Chunk, split: str) -> dict[str, list[Any]]:
    """Returns the columns that say where each document comes from."""
    places = chunk.places()
    weights = chunk.batch.get("doc_weights")
    return {
        "source": [place.source.name for place in places],
        "task": [place.source.task for place in places],
        "lang": [place.source.lang for place in places],
        "split": [split] * len(places),
        "file": [place.file for place in places],
        "byte": [place.byte for place in places],
        "row": [place.row for place in places],
        "copy": [place.copy for place in places],
        "document": [place.part for place in places],
        "window": [place.window for place in places],
        **({} if weights is None else {"weight": weights.tolist()}),
    }


class ParquetForm:
    """Parquet files, compressed by zstd; a row group a chunk."""

    def __init__(self, dataset: PackedDataset, folder: NewFolder) -> None:
        """Begins without files."""
        self._folder = folder
        self._texts = texts_of(dataset)
        self._schema = _schema(dataset)

    @contextmanager
    def shard(self, split: str, index: int, count: int) -> Iterator[Write]:
        """Yields the writer of a Parquet file; see `Form`."""
        with (
            self._folder.file(shard_name(split, index, count, "parquet")) as file,
            pq.ParquetWriter(
                file, self._schema, compression="zstd", use_dictionary=list(_NAMES)
            ) as writer,
        ):

            def write(chunk: Chunk) -> None:
                writer.write_batch(self._batch(chunk, split))

            yield write

    def _batch(self, chunk: Chunk, split: str) -> Any:
        """Returns the documents of a chunk as a record batch."""
        ids, mask = self._schema.field("input_ids").type.value_type, pa.bool_()
        described = _described(chunk, split)
        columns = [
            pa.array(_texts(chunk, self._texts), pa.string()),
            lists(chunk.lengths_D, chunk.ids_N, ids),
            lists(chunk.lengths_D, chunk.mask_N, mask),
            *(
                pa.array(values, self._schema.field(name).type)
                for name, values in described.items()
            ),
        ]
        return pa.record_batch(columns, schema=self._schema)

    def finish(self) -> None:
        """Does nothing: the files describe themselves."""


class JsonlForm:
    """JSON lines, an object a document."""

    def __init__(self, dataset: PackedDataset, folder: NewFolder) -> None:
        """Begins without files."""
        self._folder = folder
        self._texts = texts_of(dataset)
        self._names = _schema(dataset).names
        self._encoder = msgspec.json.Encoder()

    @contextmanager
    def shard(self, split: str, index: int, count: int) -> Iterator[Write]:
        """Yields the writer of a file of lines; see `Form`."""
        with self._folder.file(shard_name(split, index, count, "jsonl")) as file:

            def write(chunk: Chunk) -> None:
                file.write(self._encoder.encode_lines(list(self._objects(chunk, split))))

            yield write

    def _objects(self, chunk: Chunk, split: str) -> Iterator[dict[str, Any]]:
        """Yields the documents of a chunk."""
        ids, mask = chunk.ids_N.tolist(), chunk.mask_N.tolist()
        ends = np.cumsum(chunk.lengths_D).tolist()
        spans = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
        columns = zip(
            _texts(chunk, self._texts),
            (ids[span] for span in spans),
            (mask[span] for span in spans),
            *_described(chunk, split).values(),
            strict=True,
        )
        return (dict(zip(self._names, values, strict=True)) for values in columns)

    def finish(self) -> None:
        """Does nothing: the files describe themselves."""
