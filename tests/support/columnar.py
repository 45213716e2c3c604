"""Tables of every type, their records as Python sees them, and what packing makes of a file."""

from __future__ import annotations

import datetime as dt
import decimal
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sabiprep.dataset import open_dataset
from support import packer
from support.strategies import tokenizer_json

NAMES = ["id", "text", "answer", "pair", "tags", "when"]
SEGMENTS = [{"prompt": "{{ id }} {{ text }}|{{ pair.en }}|"}, {"target": "{{ answer }}"}]


def table_of(count: int) -> pa.Table:
    """A table as people have them: some texts are null or empty, one column is nested."""
    rows = range(count)
    return pa.table(
        {
            "id": pa.array(rows, pa.int32()),
            "text": [None if n % 7 == 3 else f"ọ̀rọ̀ {n} " + "x" * (n % 40) for n in rows],
            "unused": [f"never shown {n}" * 3 for n in rows],
            "answer": [["yes", "no", ""][n % 3] for n in rows],
            "pair": [None if n % 11 == 5 else {"en": f"word {n}", "yo": "ọ"} for n in rows],
            "tags": [[f"t{k}" for k in range(n % 4)] for n in rows],
        }
    )


def every_type() -> pa.Table:
    """A table with a column of each type that has a text, five rows each, nulls among them."""
    utc = dt.UTC
    day, moment = dt.date(2024, 2, 29), dt.datetime(2024, 2, 29, 23, 59, 59, 1)
    texts = ["a", "", None, "ẹ́\n", "z" * 30]
    whole = [1, -2, None, 0, 127]
    floats = [0.1, -2.5, None, 1e30, 0.0]
    return pa.table(
        {
            "utf8": pa.array(texts, pa.string()),
            "large": pa.array(texts, pa.large_string()),
            "view": pa.array(texts, pa.string_view()),
            "coded": pa.array(texts, pa.string()).dictionary_encode(),
            "coded_ints": pa.array(whole, pa.int64()).dictionary_encode(),
            "flag": pa.array([True, False, None, True, False]),
            "nothing": pa.nulls(5),
            "i8": pa.array(whole, pa.int8()),
            "i16": pa.array(whole, pa.int16()),
            "i64": pa.array([2**62, -(2**62), None, 0, 1], pa.int64()),
            "u8": pa.array([1, 2, None, 0, 255], pa.uint8()),
            "u32": pa.array([1, 2, None, 0, 2**32 - 1], pa.uint32()),
            "u64": pa.array([2**64 - 1, 2, None, 0, 1], pa.uint64()),
            "f16": pa.array(
                [None if f is None else np.float16(min(f, 6e4)) for f in floats], pa.float16()
            ),
            "f32": pa.array(floats, pa.float32()),
            "f64": pa.array([*floats[:4], math.nan], pa.float64()),
            "small": pa.array(
                [decimal.Decimal("1.50"), None, decimal.Decimal("-0.05")] + [None] * 2
            ),
            "wide": pa.array(
                [None if f is None else decimal.Decimal(f) for f in whole], pa.decimal256(50, 7)
            ),
            "date": pa.array([day, None, dt.date(1, 1, 1), dt.date(9999, 12, 31), day]),
            "seconds": pa.array(
                [moment.replace(microsecond=0), None] + [moment.replace(microsecond=0)] * 3,
                pa.timestamp("s"),
            ),
            "micros": pa.array(
                [moment, None, moment, moment, dt.datetime(1969, 1, 1)], pa.timestamp("us")
            ),
            "utc": pa.array(
                [moment.replace(tzinfo=utc)] * 5, pa.timestamp("ms", "UTC"), safe=False
            ),
            "zoned": pa.array([moment.replace(tzinfo=utc)] * 5, pa.timestamp("us", "+01:00")),
            "clock": pa.array([dt.time(1, 2, 3, 4), None, dt.time(0), dt.time(23), dt.time(1)]),
            "list": pa.array([["a", None], [], None, ["b"], ["c", "d"]]),
            "large_list": pa.array([[1], [], None, [2, 3], [4]], pa.large_list(pa.int16())),
            "fixed": pa.array([[1, 2], None, [3, 4], [5, 6], [7, 8]], pa.list_(pa.int8(), 2)),
            "structs": pa.array(
                [[{"a": 1, "b": {"c": "x"}}], [], None, [{"a": None, "b": None}], []]
            ),
            "struct": pa.array(
                [
                    {"a": "x", "n": 1},
                    {"a": None, "n": 2},
                    None,
                    {"a": "y", "n": 3},
                    {"a": "", "n": 4},
                ]
            ),
            "deep": pa.array([[[["x"]]], [], None, [[]], [[[]]]]),
            "map": pa.array(
                [[("k", 1)], [], None, [("a", 2), ("b", None)], []],
                pa.map_(pa.string(), pa.int32()),
            ),
            "map_of_lists": pa.array(
                [[("k", ["v"])], [], None, [], []], pa.map_(pa.string(), pa.list_(pa.string()))
            ),
        }
    )


def plain(value: Any) -> Any:
    """A value of `to_pylist` as JSON has it."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, np.floating):
        return float(value)
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    return value


def json_lines(table: pa.Table) -> bytes:
    """The records of a table as JSON Lines."""
    return b"".join(
        json.dumps(plain(record), ensure_ascii=False).encode() + b"\n"
        for record in table.to_pylist()
    )


def parquet(table: pa.Table, **options: Any) -> bytes:
    """A table as the bytes of a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def arrow(
    table: pa.Table, *, stream: bool = False, rows: int | None = None, **options: Any
) -> bytes:
    """A table as the bytes of an Arrow file or stream, in batches of at most ``rows`` rows."""
    sink = io.BytesIO()
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    with new(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=rows)
    return sink.getvalue()


class Made:
    """What packing made of some files.

    Attributes:
        documents: The ids and the loss mask of each document, by its record's id.
        source: The source's entry in the manifest.
    """

    def __init__(self, out: Path, manifest: dict[str, Any]) -> None:
        """Reads the dataset in ``out``."""
        self.source: dict[str, Any] = manifest["sources"][0]
        documents: dict[int, tuple[list[int], list[bool]]] = {}
        with open_dataset(out) as dataset:
            for index in range(len(dataset.train)):
                row = dataset.train[index]
                ends = row["cu_seqlens"].tolist()
                for nth, record in enumerate(row["record_ids"].tolist()):
                    span = slice(ends[nth], ends[nth + 1])
                    assert record not in documents
                    documents[record] = (
                        row["input_ids"][span].tolist(),
                        row["loss_mask"][span].tolist(),
                    )
        self.documents = dict(sorted(documents.items()))

    @property
    def in_order(self) -> list[tuple[list[int], list[bool]]]:
        """The documents, by record."""
        return list(self.documents.values())

    @property
    def whys(self) -> list[tuple[int, str]]:
        """The row of each dropped record that is named, and why it was dropped."""
        return [(example["row"], example["why"]) for example in self.source["examples"]]


def make(
    folder: Path,
    files: Mapping[str, bytes],
    *,
    patterns: Sequence[str] | None = None,
    segments: Sequence[Mapping[str, str]] = SEGMENTS,
    threads: int = 1,
    split_bytes: int | None = None,
    **source: Any,
) -> Made:
    """Packs files that are the only ones of their corpus, and reads what came of them."""
    corpus, out = folder / "corpus", folder / "out"
    for name, content in files.items():
        (corpus / name).parent.mkdir(parents=True, exist_ok=True)
        (corpus / name).write_bytes(content)
    tokenizer = corpus / "tokenizer.json"
    tokenizer.write_text(tokenizer_json("bytes"), "utf-8")
    described = {"name": "file", "files": list(patterns or files), "segments": list(segments)}
    packer.write_config(
        corpus, [{**described, **source}], pack={"seq_len": 1024, "max_bad_fraction": 1.0}
    )
    manifest = packer.pack(
        corpus, out, tokenizer=tokenizer, threads=threads, split_bytes=split_bytes
    )
    return Made(out, manifest)
