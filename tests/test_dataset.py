"""The loader against a slow, obvious oracle: Python lists made from the documents that were
written.
"""

from __future__ import annotations

import json
import multiprocessing
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sabiprep.block import block_of
from sabiprep.dataset import open_dataset
from sabiprep.errors import DatasetError
from support.dataset_rows import (
    DTYPES,
    EOS,
    OF_WEIGHTS,
    PAD,
    assert_same,
    datasets,
    expected_batch,
    expected_row,
    some_documents,
    written,
)
from support.dataset_rows import out as out
from support.dataset_writer import (
    first_fit,
    row_columns,
    shard_schema,
    write_manifest,
)


@settings(deadline=None, max_examples=60)
@given(datasets(), st.data())
def test_rows_and_batches_are_those_of_the_oracle(
    arguments: dict[str, Any], data: st.DataObject
) -> None:
    with written(arguments) as dataset:
        for name, documents in (
            ("train", arguments["documents"]),
            ("validation", arguments["validation"]),
        ):
            split, rows = dataset[name], first_fit(documents, arguments["seq_len"])
            assert len(split) == len(rows)
            for i, row in enumerate(rows):
                expected = expected_row(row, arguments["seq_len"])
                assert_same(split[i], expected)
                assert_same(split[i - len(rows)], expected)
            n_targets = [expected_row(row, arguments["seq_len"])["n_targets"] for row in rows]
            assert split.n_targets.tolist() == n_targets
            assert split.n_targets.dtype == np.int32
            wanted = data.draw(
                st.lists(st.integers(-len(rows), len(rows) - 1), max_size=6)
                if rows
                else st.just([])
            )
            batch = split.batch(wanted)
            if wanted:
                assert_same(batch, expected_batch([rows[i] for i in wanted], arguments["seq_len"]))
            assert {field: batch[field].dtype for field in DTYPES} == DTYPES  # type: ignore[literal-required]
            assert {batch[field].dtype for field in OF_WEIGHTS if field in batch} <= {
                np.dtype(np.float32)
            }  # type: ignore[literal-required]
            assert batch["input_ids"].shape == (len(wanted), arguments["seq_len"])


def test_a_dataset_has_the_values_of_its_manifest(out: Path) -> None:
    dataset = open_dataset(str(out))
    assert (dataset.path, dataset.tokenizer_path) == (out, out / "tokenizer.json")
    assert (dataset.seq_len, dataset.vocab_size) == (16, 10)
    assert (dataset.bos_id, dataset.eos_id, dataset.pad_id) == (None, EOS, PAD)
    assert [(source.id, source.name, source.task, source.lang) for source in dataset.sources] == [
        (0, "source-0", "task-0", "yor"),
        (1, "source-1", "task-1", "yor"),
    ]
    assert dataset.manifest == json.loads((out / "manifest.json").read_bytes())
    assert dataset.fingerprint == dataset.manifest["sha256"]
    assert (dataset.train.name, dataset.validation.name) == ("train", "validation")
    assert dataset["train"] is dataset.train and dataset["validation"] is dataset.validation
    assert "6 rows" in repr(dataset)
    with pytest.raises(DatasetError, match="no split 'test'"):
        dataset["test"]


def test_a_split_is_a_sequence(out: Path) -> None:
    split = open_dataset(out).train
    assert [row["record_ids"][0] for row in split] == [0, 2, 4, 6, 8, 10]  # type: ignore[attr-defined]
    assert split[np.int64(2)]["record_ids"].tolist() == [4, 5]
    for index in (6, -7, 10**30):
        with pytest.raises(IndexError, match="of a split of 6 rows"):
            split[index]
        with pytest.raises(IndexError):
            split.batch([0, index])
    not_indices: tuple[Any, ...] = (0.5, "0", slice(2))
    for wrong in not_indices:
        with pytest.raises(TypeError):
            split[wrong]
    assert split.batch(np.array([1, 1], np.int32))["record_ids"].tolist() == [2, 3, 2, 3]


def test_arrays_are_the_callers_own(out: Path) -> None:
    split = open_dataset(out).train
    row = split[0]
    for name in DTYPES:
        row[name][:] = 0  # type: ignore[literal-required]
    assert split[0]["input_ids"].tolist()[:6] == [5, 6, 7, 8, 9, EOS]
    with pytest.raises(ValueError, match="read-only"):
        split.n_targets[0] = 0


def test_arrays_outlive_the_dataset_and_closing_is_not_the_end(out: Path) -> None:
    with open_dataset(out) as dataset:
        before = dataset.train[3]
    (out / "train" / "shard-00000.arrow").rename(out / "moved")
    assert before["record_ids"].tolist() == [6, 7]
    dataset.close()
    with pytest.raises(DatasetError, match="a shard that cannot be read"):
        dataset.train[0]
    (out / "moved").rename(out / "train" / "shard-00000.arrow")
    assert dataset.train[0]["record_ids"].tolist() == [0, 1]


def test_a_pickled_dataset_reads_the_same_rows(out: Path) -> None:
    dataset = open_dataset(out)
    assert dataset.train.n_targets.sum() == 33
    dataset.train[0]
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.fingerprint == dataset.fingerprint
    assert_same(
        copy.train[4],
        {name: np.asarray(value).tolist() for name, value in dataset.train[4].items()},
    )
    alone = pickle.loads(pickle.dumps(dataset.train))
    assert alone.n_targets.tolist() == dataset.train.n_targets.tolist()


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_a_dataset_is_read_after_a_fork(out: Path) -> None:
    dataset = open_dataset(out)
    dataset.train[0]
    queue = multiprocessing.get_context("fork").SimpleQueue()
    child = multiprocessing.get_context("fork").Process(
        target=_report_row_0, args=(dataset.train, queue)
    )
    child.start()
    child.join()
    assert queue.get() == ([0, 1], child.pid), (
        "the child maps the file anew for a block that was not found before"
    )
    assert dataset.train[5]["record_ids"].tolist() == [10]


def _report_row_0(split: Any, queue: Any) -> None:
    known, other = split[0], split[2]
    assert len(other["record_ids"]) > 0
    queue.put((known["record_ids"].tolist(), split._shards[0]._mapped[0]))


def test_the_shards_are_mapped_not_read(out: Path) -> None:
    dataset = open_dataset(out)
    block = dataset.train._shards[0].block(0)
    for view in (
        block.ids,
        block.mask_bits,
        block.documents.columns["record_ids"],
        block.runs.columns["segment_roles"],
    ):
        assert view.readonly and not np.asarray(view).flags.owndata


@pytest.mark.parametrize("seq_len", [12, 16, 64])
def test_views_mind_where_arrays_start_in_their_buffers(seq_len: int) -> None:
    rows = [
        row_columns(row, seq_len, EOS, PAD) for row in first_fit(some_documents(9), seq_len)
    ] * 3
    batch = pa.RecordBatch.from_pylist(rows, schema=shard_schema(seq_len))
    for part in (batch, batch.slice(1), batch.slice(2, 1), batch.slice(1, 3).slice(1)):
        block = block_of(part, seq_len)
        mask_bits_RK = np.asarray(block.mask_bits).reshape(part.num_rows, -1)
        bits = np.unpackbits(mask_bits_RK, axis=1, count=seq_len, bitorder="little")
        for i, row in enumerate(part.to_pylist()):
            assert block.ids[i * seq_len : (i + 1) * seq_len].tolist() == row["input_ids"]
            assert bits[i].astype(bool).tolist() == row["loss_mask"]
            assert block.n_targets[i] == row["n_targets"]
            assert block.padding[i] == seq_len - sum(row["seq_lengths"])
            for bounds, columns in (block.documents, block.runs):
                for name, values in columns.items():
                    assert values[bounds[i] : bounds[i + 1]].tolist() == row[name]
        assert len(block.n_targets) == len(block.padding) == block.sound == part.num_rows
        assert len(block.ids) == seq_len * part.num_rows


def test_runs_without_the_extension_and_imports_no_torch(out: Path) -> None:
    program = (
        "import sys; sys.modules['sabiprep._core'] = None; "
        "from sabiprep.dataset import open_dataset; "
        "print(len(open_dataset(sys.argv[1]).train), 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(out)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["6", "False"]


@pytest.mark.parametrize(
    ("config", "place"),
    [
        ({"source": [{"format": "parquet"}]}, "a.jsonl, row 8"),
        ({"source": [{"format": "csv"}]}, "a.jsonl at byte 7"),
        ({"source": [{}]}, "a.jsonl at byte 7"),
        ({"source": []}, "a.jsonl at byte 7"),
        ({"source": 1}, "a.jsonl at byte 7"),
        ({}, "a.jsonl at byte 7"),
    ],
)
def test_a_place_is_a_byte_where_the_settings_name_no_format(out, config, place):
    manifest = json.loads((out / "manifest.json").read_text("utf-8"))
    manifest["sources"][0]["inputs"] = ["a.jsonl"]
    write_manifest(out, {**manifest, "config": config})
    with open_dataset(out) as dataset:
        assert dataset.place(0, 7) == place
