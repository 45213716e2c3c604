"""Arrow files, streams and Feather: the records are those of pyarrow, each with its row."""

from __future__ import annotations

import gzip
import io
import re
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import feather

from sabiprep import InputError, SabiprepError
from support.columnar import SEGMENTS, arrow, every_type, json_lines, make, parquet, table_of

number = count()
TABLE = table_of(200)
WAYS: dict[str, dict[str, Any]] = {
    "file": {},
    "batches": {"rows": 17},
    "stream": {"stream": True},
    "stream of batches": {"stream": True, "rows": 17},
    "lz4": {"compression": "lz4"},
    "zstd": {"compression": "zstd", "rows": 50},
    "old": {"stream": True, "use_legacy_format": True},
    "old file": {"use_legacy_format": True, "rows": 30},
    "fourth": {"metadata_version": pa.ipc.MetadataVersion.V4},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("suffix", ["arrow", "arrow.gz"])
def test_a_file_packs_to_the_documents_of_its_records_as_json(
    tmp_path: Path, way: str, suffix: str
) -> None:
    expected = make(tmp_path / "json", {"a.jsonl": json_lines(TABLE)})
    content = arrow(TABLE, **WAYS[way])
    content = gzip.compress(content) if suffix.endswith("gz") else content
    made = make(tmp_path / "arrow", {f"a.{suffix}": content}, threads=2, split_bytes=3000)
    assert made.in_order == expected.in_order and len(made.documents) > 80
    assert made.source["drops"] == expected.source["drops"]
    rows = [(example["reason"], example["row"]) for example in made.source["examples"]]
    lines = [(example["reason"], example["line"]) for example in expected.source["examples"]]
    assert rows == lines


@pytest.mark.parametrize("compression", ["uncompressed", "lz4", "zstd"])
def test_feather_is_an_arrow_file(tmp_path: Path, compression: Any) -> None:
    sink = io.BytesIO()
    feather.write_feather(TABLE, sink, compression=compression, chunksize=40)
    expected = make(tmp_path / "json", {"a.jsonl": json_lines(TABLE)})
    made = make(tmp_path / "feather", {"a.feather": sink.getvalue()})
    assert made.in_order == expected.in_order


@pytest.mark.parametrize("way", [{}, {"stream": True, "compression": "lz4"}])
def test_every_type_is_shown_as_its_json(tmp_path: Path, way: dict[str, Any]) -> None:
    table = every_type()
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([2, 5]), pa.array(["a", "b"]))
    table = table.append_column("runs", runs)
    views = pa.array([["a"], [], None, ["b", "c"], [None]], pa.list_view(pa.string()))
    table = table.append_column("views", views)
    for shown in ["{{ NAME }}", "{{ NAME | string }}"]:
        for name in table.column_names:
            segments = [{"target": f"{name}: {shown.replace('NAME', name)}"}]
            column = table.select([name])
            folder = tmp_path / str(next(number))
            options: dict[str, Any] = {"segments": segments, "duplicates": "keep"}
            try:
                expected = make(folder / "j", {"a.jsonl": json_lines(column)}, **options)
            except InputError as error:
                with pytest.raises(InputError, match=re.escape(error.message[:20])):
                    make(folder / "a", {"a.arrow": arrow(column, **way)}, **options)
                continue
            made = make(folder / "a", {"a.arrow": arrow(column, **way)}, **options)
            assert made.in_order == expected.in_order, name
            assert made.source["drops"] == expected.source["drops"], name


def test_what_has_no_text_is_named_by_its_column(tmp_path: Path) -> None:
    table = pa.table(
        {
            "raw": pa.array([b"a"]),
            "inner": pa.array([{"raw": b"a", "text": "x"}]),
            "age": pa.array([1], pa.duration("s")),
            "year": pa.array([10**15], pa.timestamp("s")),
        }
    )
    for field, what in [
        ("raw", "field 'raw' is binary, not text"),
        ("inner.raw", "field 'inner.raw' is binary, not text"),
        ("age", "field 'age' is a duration, not text"),
        ("year", "field 'year' is a time outside of the years"),
    ]:
        with pytest.raises(InputError, match=what):
            make(
                tmp_path / field,
                {"a.arrow": arrow(table)},
                segments=[{"target": f"{{{{ {field} }}}}"}],
            )
    segments = [{"target": "{{ inner.text }}"}]
    for name, content in {
        "a.arrow": arrow(table),
        "a.parquet": parquet(table.drop("year")),
    }.items():
        assert len(make(tmp_path / name, {name: content}, segments=segments).documents) == 1


def test_the_dictionaries_of_a_stream_may_grow_and_change(tmp_path: Path) -> None:
    words = [["a", "b"], ["a", "b", "c"], ["d"]]
    batches = [
        pa.record_batch({"w": pa.DictionaryArray.from_arrays(list(range(len(part))), part)})
        for part in words
    ]
    for deltas in [True, False]:
        sink = io.BytesIO()
        options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=deltas)
        with pa.ipc.new_stream(sink, batches[0].schema, options=options) as writer:
            for batch in batches:
                writer.write_batch(batch)
        for split_bytes in [1, None]:
            made = make(
                tmp_path / f"{deltas}-{split_bytes}",
                {"a.arrow": sink.getvalue()},
                segments=[{"target": "{{ w }}"}],
                split_bytes=split_bytes,
                duplicates="keep",
            )
            expected = [[*word.encode()] for part in words for word in part]
            assert len(made.documents) == len(expected)


def test_the_output_depends_on_neither_threads_nor_splits(tmp_path: Path) -> None:
    files = {"a.arrow": arrow(TABLE, rows=9), "b.arrow": arrow(table_of(50), stream=True)}
    first = make(tmp_path / "first", files)
    for nth, (threads, split_bytes) in enumerate([(2, 1), (1, 700), (4, 10_000)]):
        other = make(tmp_path / str(nth), files, threads=threads, split_bytes=split_bytes)
        assert other.documents == first.documents
        ours, theirs = (
            tmp_path / side / "out" / "train" / "shard-00000.arrow" for side in ["first", str(nth)]
        )
        assert ours.read_bytes() == theirs.read_bytes()


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    file, stream = arrow(TABLE, rows=50), arrow(TABLE, rows=50, stream=True)
    two = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    for nth, (name, content, what) in enumerate(
        [
            ("a.arrow", file[:-1], "truncated"),
            ("a.arrow", file[: len(file) // 2], "truncated"),
            ("a.arrow", stream[: len(stream) // 2], "truncated"),
            ("a.arrow.gz", gzip.compress(file[: len(file) // 2]), "truncated"),
            ("a.arrow.gz", gzip.compress(stream[: len(stream) // 2]), "truncated"),
            ("a.arrow", b"", "neither an Arrow file nor"),
            ("a.arrow", b"ARROW1\0\0", "truncated"),
            ("a.arrow", b"text\n", "neither an Arrow file nor"),
            ("a.feather", b"FEA1" + b"\0" * 40, "Feather of the first version"),
            ("a.arrow", parquet(TABLE), "is Parquet"),
            ("a.json", file, "is Arrow"),
            ("a.arrow", arrow(TABLE.slice(0, 0)), "no training document"),
            ("a.arrow", arrow(pa.table({})), "no training document"),
            ("a.arrow", arrow(two), "two columns are named"),
        ]
    ):
        with pytest.raises(SabiprepError, match=what) as raised:
            make(tmp_path / str(nth), {name: content})
        assert raised.value.remedy


def test_a_stream_under_any_name_is_told_by_its_content(tmp_path: Path) -> None:
    for stream in [True, False]:
        made = make(tmp_path / str(stream), {"data.bin": arrow(TABLE, stream=stream)})
        assert len(made.documents) > 80


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_no_damage_ends_in_anything_but_an_error(tmp_path: Path, data: st.DataObject) -> None:
    table = table_of(20)
    if data.draw(st.booleans()):
        table = table.append_column("coded", table["answer"].dictionary_encode())
    options = WAYS[data.draw(st.sampled_from(["file", "stream", "lz4", "zstd"]))]
    content = bytearray(arrow(table, **options))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1)):
        content[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    segments = data.draw(
        st.sampled_from([SEGMENTS, [{"target": "{{ tags }} {{ pair | string }}"}]])
    )
    try:
        make(tmp_path / str(next(number)), {"a.arrow": bytes(content)}, segments=segments)
    except SabiprepError as error:
        assert error.remedy or error.file
        assert type(error).__name__ != "InternalError"
