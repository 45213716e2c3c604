"""Parquet: the records are those of pyarrow, each with its row; what lies is refused."""

from __future__ import annotations

import gzip
import re
import struct
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sabiprep
from sabiprep import InputError, SabiprepError
from support import packer
from support.columnar import SEGMENTS, every_type, json_lines, make, parquet, table_of
from support.peak_memory import needs_proc, peak_of
from support.strategies import tokenizer_json

MIB = 1 << 20
number = count()
TABLE = table_of(200)
WAYS: dict[str, dict[str, Any]] = {
    "snappy": {"compression": "snappy"},
    "zstd": {"compression": "zstd"},
    "gzip": {"compression": "gzip", "data_page_version": "2.0"},
    "lz4": {"compression": "lz4"},
    "brotli": {"compression": "brotli"},
    "none": {"compression": "none", "use_dictionary": False},
    "none-2": {"compression": "none", "data_page_version": "2.0"},
    "groups": {"row_group_size": 17},
    "pages": {"data_page_size": 64, "write_batch_size": 8, "use_dictionary": False},
    "pages-2": {
        "data_page_size": 64,
        "write_batch_size": 8,
        "data_page_version": "2.0",
        "compression": "zstd",
    },
    "delta": {
        "use_dictionary": False,
        "column_encoding": {"text": "DELTA_BYTE_ARRAY", "answer": "DELTA_LENGTH_BYTE_ARRAY"},
    },
    "index": {"write_page_index": True, "write_page_checksum": True},
    "no schema": {"store_schema": False},
    "old": {"version": "1.0", "use_compliant_nested_type": False},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_file_packs_to_the_documents_of_its_records_as_json(tmp_path: Path, way: str) -> None:
    expected = make(tmp_path / "json", {"a.jsonl": json_lines(TABLE)})
    made = make(tmp_path / "parquet", {"a.parquet": parquet(TABLE, **WAYS[way])})
    assert made.in_order == expected.in_order and len(made.documents) > 80
    assert made.source["drops"] == expected.source["drops"]
    assert made.source["records"] == 200
    rows = [row for row, record in enumerate(TABLE.to_pylist()) if kept(record)]
    assert list(made.documents) == rows
    whys = [(example["reason"], example["row"]) for example in made.source["examples"]]
    lines = [(example["reason"], example["line"]) for example in expected.source["examples"]]
    assert whys == lines


def kept(record: dict[str, Any]) -> bool:
    return bool(record["text"] is not None and record["pair"] and record["answer"])


@pytest.mark.parametrize("store_schema", [True, False])
def test_every_type_is_shown_as_its_json(tmp_path: Path, store_schema: bool) -> None:
    table = every_type()
    if not store_schema:
        # Without the writer's types, these are read as others.
        table = table.drop_columns(["seconds", "zoned"])
    for way, shown in {"plain": "{{ NAME }}", "jinja": "{{ NAME | string }}"}.items():
        for name in table.column_names:
            segments = [{"target": f"{name}: {shown.replace('NAME', name)}"}]
            column = table.select([name])
            folder = tmp_path / f"{way}-{name}"
            options: dict[str, Any] = {"segments": segments, "duplicates": "keep"}
            try:
                expected = make(folder / "j", {"a.jsonl": json_lines(column)}, **options)
            except InputError as error:
                with pytest.raises(InputError, match=re.escape(error.message[:20])):
                    make(folder / "p", {"a.parquet": parquet(column)}, **options)
                continue
            content = parquet(column, store_schema=store_schema)
            made = make(folder / "p", {"a.parquet": content}, **options)
            assert made.in_order == expected.in_order, name
            assert made.source["drops"] == expected.source["drops"], name


def test_fields_inside_of_structs_and_what_a_template_may_do(tmp_path: Path) -> None:
    table = every_type()
    segments = [
        {"prompt": "{{ struct.n }}{% for item in list %}[{{ item }}]{% endfor %}{{ map }}"},
        {"target": " {{ record['utf8'] }} {{ structs | length }}"},
    ]
    expected = make(tmp_path / "j", {"a.jsonl": json_lines(table)}, segments=segments)
    made = make(tmp_path / "p", {"a.parquet": parquet(table)}, segments=segments)
    assert made.in_order == expected.in_order and made.documents


def test_the_output_depends_on_neither_threads_nor_splits(tmp_path: Path) -> None:
    content = parquet(TABLE, row_group_size=13)
    files = {"a.parquet": content, "b.parquet": parquet(table_of(50))}
    first = make(tmp_path / "first", files)
    for nth, (threads, split_bytes) in enumerate([(2, 1), (1, 700), (4, 10_000)]):
        other = make(tmp_path / str(nth), files, threads=threads, split_bytes=split_bytes)
        assert other.documents == first.documents
        for name in ["train/shard-00000.arrow"]:
            ours, theirs = (tmp_path / side / "out" / name for side in ["first", str(nth)])
            assert ours.read_bytes() == theirs.read_bytes()
    assert max(first.documents) >> 40 == 1


def test_a_dropped_row_is_named_by_its_row(tmp_path: Path) -> None:
    table = pa.table({"q": ["a", "b", None], "a": ["1", "", "2"], "raw": [b"\xff", b"", None]})
    segments = [{"prompt": "{{ q }}"}, {"target": "{{ a }}"}]
    made = make(tmp_path / "a", {"a.parquet": parquet(table)}, segments=segments)
    assert [row for row, _ in made.whys] == [3, 2]
    text = str(sabiprep.open_dataset(tmp_path / "a" / "out").manifest["sources"][0]["examples"])
    assert "'row': 3" in text and "'line'" not in text
    with pytest.raises(InputError, match=r"a.parquet, row 1: missing field"):
        make(tmp_path / "b", {"a.parquet": parquet(table.slice(2))}, segments=segments)
    segments = [{"prompt": "{{ q }}"}, {"target": "{{ raw }}"}]
    with pytest.raises(InputError, match="field 'raw' is binary, not text"):
        make(tmp_path / "c", {"a.parquet": parquet(table)}, segments=segments)
    with pytest.raises(InputError, match=r"a.parquet, row 1.*tokens, a row holds"):
        make(
            tmp_path / "d",
            {"a.parquet": parquet(pa.table({"q": ["x " * 3000], "a": ["y"]}))},
            segments=[{"prompt": "{{ q }}"}, {"target": "{{ a }}"}],
            overflow="error",
        )


def test_a_row_of_more_than_16_mib_is_malformed(tmp_path: Path) -> None:
    table = pa.table({"q": ["a", "x" * (17 * MIB), "b"], "a": ["1", "2", "3"]})
    segments = [{"prompt": "{{ q }}|"}, {"target": "{{ a }}"}]
    made = make(tmp_path, {"a.parquet": parquet(table)}, segments=segments)
    assert list(made.documents) == [0, 2]
    assert made.whys == [(2, "field 'q' is longer than 16 MiB")]


def test_files_whose_columns_differ(tmp_path: Path) -> None:
    files = {
        "a.parquet": parquet(pa.table({"q": ["a"], "a": ["1"]})),
        "b.parquet": parquet(pa.table({"a": ["2"], "other": [1]})),
        "c.parquet": parquet(pa.table({"q": [3], "a": ["3"], "z": [[1]]})),
    }
    segments = [{"prompt": "{{ q }}|"}, {"target": "{{ a }}"}]
    made = make(tmp_path, files, segments=segments)
    assert made.source["drops"] == {"missing field": 1}
    assert made.source["examples"][0]["file"] == "b.parquet"
    assert made.whys[0] == (1, "field 'q' is missing (fields: a, other)")
    assert len(made.documents) == 2


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    content = parquet(table_of(20))
    size = struct.pack("<I", 1 << 30)
    empty = pa.table({"text": pa.array([], pa.string())})
    for nth, (name, bytes_, what) in enumerate(
        [
            ("a.parquet", content[:-1], "truncated"),
            ("a.parquet", content[: len(content) // 2], "truncated"),
            ("a.parquet", content[:-8] + size + b"PAR1", "metadata"),
            ("a.parquet", content[:-4] + b"PARE", "encrypted"),
            ("a.parquet", b"PARE" + content[4:], "encrypted"),
            ("a.parquet", b'{"text": "a"}\n', "is not Parquet"),
            ("a.parquet", b"", "is not Parquet"),
            ("a.parquet", b"PAR1", "is not Parquet"),
            ("a.parquet.gz", gzip.compress(content), "inside of another compression"),
            ("a.parquet", gzip.compress(content), "gzip"),
            ("a.json", content, "is Parquet"),
            ("a.parquet", parquet(empty), "no records|no training document"),
            ("a.parquet", parquet(pa.table({})), "no records|no training document"),
        ]
    ):
        with pytest.raises(SabiprepError, match=what) as raised:
            make(tmp_path / str(nth), {name: bytes_})
        assert raised.value.remedy


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    with pytest.raises(InputError, match="two columns are named 'text'"):
        make(tmp_path, {"a.parquet": parquet(table)})


def test_a_file_under_any_name_is_told_by_its_content(tmp_path: Path) -> None:
    made = make(tmp_path / "a", {"data.bin": parquet(TABLE)})
    assert len(made.documents) > 80
    made = make(tmp_path / "b", {"a.json": parquet(TABLE)}, format="parquet")
    assert len(made.documents) > 80


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_no_damage_ends_in_anything_but_an_error(tmp_path: Path, data: st.DataObject) -> None:
    way = data.draw(st.sampled_from(["snappy", "gzip", "none-2", "pages", "pages-2", "brotli"]))
    content = bytearray(parquet(table_of(30), **WAYS[way]))
    # Much of what can break is near the end.
    near = st.integers(max(0, len(content) - 900), len(content) - 1)
    for place in data.draw(st.lists(near | st.integers(0, len(content) - 1), min_size=1)):
        content[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    segments = data.draw(
        st.sampled_from([SEGMENTS, [{"target": "{{ tags }} {{ pair | string }}"}]])
    )
    try:
        make(tmp_path / str(next(number)), {"a.parquet": bytes(content)}, segments=segments)
    except SabiprepError as error:
        assert error.remedy or error.file
        assert type(error).__name__ != "InternalError"


@needs_proc
def test_a_file_that_unpacks_to_much_takes_little_memory(tmp_path: Path) -> None:
    # 1 GiB of text that a dictionary holds once, and columns of zeros that take no room.
    rows = 1024
    table = pa.table(
        {
            "a": [f"answer {n}" for n in range(rows)],
            "q": pa.array(["x" * MIB] * rows).dictionary_encode(),
            "n": pa.array([[0] * 10_000] * rows, pa.list_(pa.int32())),
        }
    )
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "a.parquet").write_bytes(parquet(table, compression="zstd"))
    assert (corpus / "a.parquet").stat().st_size < MIB
    (corpus / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    # A filter needs all fields.
    described = {"name": "a", "files": ["a.parquet"], "segments": [{"target": "{{ a | trim }}"}]}
    packer.write_config(corpus, [described], pack={"seq_len": 1024, "max_bad_fraction": 1.0})
    tokenizer = str(corpus / "tokenizer.json")
    assert peak_of(corpus, tmp_path / "out", tokenizer=tokenizer, threads=1) >> 20 < 400
