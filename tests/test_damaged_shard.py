"""Shards that are missing, damaged or forged: each is refused by what is wrong."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sabiprep.dataset import open_dataset
from sabiprep.errors import DatasetError
from support.dataset_rows import EOS, PAD, refused, some_documents
from support.dataset_rows import out as out
from support.dataset_writer import (
    Document,
    role_runs,
    row_columns,
    shard_schema,
    target_only_mask,
    write_dataset,
    write_manifest,
)


def test_a_missing_shard_is_refused(out: Path) -> None:
    (out / "train" / "shard-00001.arrow").unlink()
    refused(out, "cannot be read: No such file", file="train/shard-00001.arrow")


def test_a_truncated_shard_is_refused(out: Path) -> None:
    path = out / "train" / "shard-00001.arrow"
    path.write_bytes(path.read_bytes()[:-1])
    refused(out, "bytes, where the manifest says", file="train/shard-00001.arrow")


def replace_shard(out: Path, content: bytes) -> None:
    """Put other bytes in the place of the second training shard, and make the manifest agree on
    their number.
    """
    (out / "train" / "shard-00001.arrow").write_bytes(content)
    manifest = json.loads((out / "manifest.json").read_bytes())
    manifest["splits"]["train"]["shards"][1]["bytes"] = len(content)
    write_manifest(out, manifest)


def shard_bytes(schema: pa.Schema, *batches: list[dict[str, Any]]) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema))
    content: bytes = sink.getvalue().to_pybytes()
    return content


COLUMNS = row_columns(some_documents(2), 16, EOS, PAD)


@pytest.mark.parametrize("content", [b"", b"ARROW1", b"not an arrow file" * 40])
def test_a_shard_that_is_not_arrow_is_refused(out: Path, content: bytes) -> None:
    replace_shard(out, content)
    refused(out, "not a readable Arrow file", file="train/shard-00001.arrow")


@pytest.mark.parametrize("sizes", [[2, 2], [2], [1, 1, 1], [2, 1, 1], [], [1, 2]])
def test_a_shard_with_other_rows_than_its_manifest_says_is_refused(
    out: Path, sizes: list[int]
) -> None:
    """The shard has three rows, in record batches of two and one."""
    replace_shard(out, shard_bytes(shard_schema(16), *([COLUMNS] * size for size in sizes)))
    refused(out, "record batch", file="train/shard-00001.arrow")


def test_a_record_batch_of_other_rows_in_the_middle_is_refused(tmp_path: Path) -> None:
    """Opening a dataset looks at the last batch only; the others are checked when they are read."""
    out = write_dataset(
        tmp_path / "out",
        some_documents(12),
        seq_len=16,
        vocab_size=10,
        eos_id=EOS,
        pad_id=PAD,
        rows_per_batch=2,
    )
    content = shard_bytes(shard_schema(16), [COLUMNS] * 2, [COLUMNS] * 3, [COLUMNS] * 2)
    (out / "train" / "shard-00000.arrow").write_bytes(content)
    manifest = json.loads((out / "manifest.json").read_bytes())
    manifest["splits"]["train"]["shards"][0]["bytes"] = len(content)
    write_manifest(out, manifest)
    split = open_dataset(out).train
    assert split[1]["n_targets"] == split[4]["n_targets"] == 6
    with pytest.raises(DatasetError, match="record batch 1 is not 2 rows"):
        split[2]


def schemas_that_are_wrong() -> dict[str, pa.Schema]:
    schema = shard_schema(16)
    order = list(schema)
    as_list = schema.set(0, pa.field("input_ids", pa.list_(pa.uint16()), nullable=False))
    return {
        "columns": pa.schema(order[:-1]),
        "columns input_ids": pa.schema([order[0], order[2], order[1], *order[3:]]),
        r"column input_ids .* uint16\[16\]": shard_schema(8),
        r"column input_ids .* where": shard_schema(16, "uint32"),
        "column input_ids is list<": as_list,
        r"column record_ids .* uint64\[\]": schema.set(
            6, pa.field("record_ids", pa.list_(pa.int64()))
        ),
        r"column n_targets .* makes it int32\n": schema.set(
            8, pa.field("n_targets", pa.list_(pa.int32()))
        ),
    }


@pytest.mark.parametrize("message", schemas_that_are_wrong())
def test_a_shard_with_another_schema_is_refused(out: Path, message: str) -> None:
    replace_shard(out, shard_bytes(schemas_that_are_wrong()[message]))
    refused(out, message, file="train/shard-00001.arrow")


def test_nulls_are_refused_and_other_item_names_are_not(out: Path) -> None:
    fields = [pa.field(field.name, field.type, nullable=True) for field in shard_schema(16)]
    fields[2] = pa.field("seq_lengths", pa.list_(pa.field("element", pa.int32())))
    replace_shard(out, shard_bytes(pa.schema(fields), [COLUMNS] * 2, [COLUMNS]))
    assert open_dataset(out).train[5]["n_targets"] == 6
    replace_shard(
        out, shard_bytes(pa.schema(fields), [COLUMNS] * 2, [{**COLUMNS, "n_targets": None}])
    )
    refused(out, "without nulls", file="train/shard-00001.arrow")


@pytest.mark.parametrize(
    "change",
    [
        {"seq_lengths": [6, 16]},
        {"seq_lengths": [-6, 18]},
        {"seq_lengths": [12, 0]},
        {"seq_lengths": [12]},
        {"seq_lengths": []},
        {"segment_lengths": [13], "segment_roles": [1]},
        {"segment_lengths": [14, -2], "segment_roles": [1, 2]},
        {"segment_roles": [1]},
        {"source_ids": [0]},
        {"record_ids": [0, 1, 2]},
        {"doc_parts": []},
    ],
)
def test_a_row_whose_lengths_contradict_each_other_is_refused(
    out: Path, change: dict[str, Any]
) -> None:
    replace_shard(out, shard_bytes(shard_schema(16), [COLUMNS, {**COLUMNS, **change}], [COLUMNS]))
    split = open_dataset(out).train
    assert split.batch([3, 5])["n_targets"].tolist() == [6, 6]
    with pytest.raises(DatasetError, match="row 1 is damaged") as caught:
        split.batch([3, 4, 5])
    assert caught.value.file is not None and caught.value.file.endswith("train/shard-00001.arrow")


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_a_flipped_bit_gives_a_row_or_a_dataset_error(data: st.DataObject) -> None:
    """Whatever byte of a shard is damaged, nothing but a `DatasetError` comes out."""
    arguments = {
        "documents": some_documents(5),
        "seq_len": 16,
        "vocab_size": 10,
        "rows_per_batch": 2,
    }
    with tempfile.TemporaryDirectory() as folder:
        out = write_dataset(Path(folder) / "out", eos_id=EOS, pad_id=PAD, **arguments)  # type: ignore[arg-type]
        path = out / "train" / "shard-00000.arrow"
        content = bytearray(path.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(
            st.sampled_from([1, 16, 128, 255])
        )
        path.write_bytes(content)
        try:
            with open_dataset(out) as dataset:
                for row in dataset.train:  # type: ignore[attr-defined]
                    assert (
                        len(row["input_ids"]) == len(row["roles"]) == len(row["position_ids"]) == 16
                    )
                assert len(dataset.train.n_targets) == 3
        except DatasetError as error:
            assert error.file and error.remedy


def test_the_writer_stores_runs() -> None:
    """The writer is the other half of every test here: its run-lengths are its roles."""
    document = Document(range(7), [1, 1, 2, 3, 3, 3, 0])
    assert role_runs(document) == [(2, 1), (1, 2), (3, 3), (1, 0)]
    assert target_only_mask(Document([3, 4, EOS], [3, 3, 0]), EOS) == [False, True, True]
    assert target_only_mask(Document([EOS, 4, EOS, 5], [0, 3, 0, 3]), EOS) == [
        False,
        True,
        False,
        True,
    ]
