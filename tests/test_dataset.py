"""The loader against a slow, obvious oracle: Python lists made from the documents that were
written.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_writer import (
    Document,
    first_fit,
    role_runs,
    row_columns,
    shard_schema,
    target_only_mask,
    write_dataset,
    write_manifest,
)
from sabiprep.block import block_of
from sabiprep.dataset import PackedDataset, open_dataset
from sabiprep.errors import DatasetError

EOS, PAD = 1, 2
DTYPES = {
    "input_ids": np.int64,
    "labels": np.int64,
    "loss_mask": np.bool_,
    "position_ids": np.int64,
    "cu_seqlens": np.int32,
    "roles": np.uint8,
    "seq_lengths": np.int32,
    "source_ids": np.uint16,
    "record_ids": np.uint64,
    "doc_parts": np.uint32,
}


def expected_row(documents: list[Document], seq_len: int) -> dict[str, Any]:
    """What the loader must give for a row of these documents."""
    ids: list[int] = []
    mask: list[bool] = []
    roles: list[int] = []
    positions: list[int] = []
    boundaries = [0]
    for document in documents:
        ids += document.ids
        roles += document.roles
        mask += target_only_mask(document, EOS)
        positions += range(len(document.ids))
        boundaries.append(len(ids))
    padding = seq_len - len(ids)
    if padding > 0:
        ids += [PAD] * padding
        roles += [0] * padding
        mask += [False] * padding
        positions += range(padding)
        boundaries.append(seq_len)
    return {
        "input_ids": ids,
        "labels": [token if trained else -100 for token, trained in zip(ids, mask, strict=True)],
        "loss_mask": mask,
        "position_ids": positions,
        "cu_seqlens": boundaries,
        "roles": roles,
        "seq_lengths": [len(document.ids) for document in documents],
        "source_ids": [document.source_id for document in documents],
        "record_ids": [document.record_id for document in documents],
        "doc_parts": [document.part for document in documents],
        "n_targets": sum(mask),
    }


def expected_batch(rows: list[list[Document]], seq_len: int) -> dict[str, Any]:
    """What the loader must give for a batch of these rows."""
    each = [expected_row(row, seq_len) for row in rows]
    boundaries = [0]
    for i, row in enumerate(each):
        boundaries += [i * seq_len + end for end in row["cu_seqlens"][1:]]
    stacked = ["input_ids", "labels", "loss_mask", "position_ids", "roles", "n_targets"]
    joined = ["seq_lengths", "source_ids", "record_ids", "doc_parts"]
    return {
        **{name: [row[name] for row in each] for name in stacked},
        **{name: [value for row in each for value in row[name]] for name in joined},
        "cu_seqlens": boundaries,
        "doc_rows": [i for i, row in enumerate(rows) for _ in row],
        "max_seqlen": max((b - a for a, b in itertools.pairwise(boundaries)), default=0),
    }


def assert_same(got: Mapping[str, Any], expected: dict[str, Any]) -> None:
    assert got.keys() == expected.keys()
    for name, value in got.items():
        assert (value.tolist() if isinstance(value, np.ndarray) else value) == expected[name], name


@st.composite
def documents_of(draw: st.DrawFn, seq_len: int, id_limit: int) -> Document:
    """A document of role runs, closed by EOS or not, at times filling its row."""
    length = draw(st.one_of(st.integers(2, seq_len), st.just(seq_len)))
    ids = draw(st.lists(st.integers(0, id_limit - 1), min_size=length, max_size=length))
    cuts = draw(st.lists(st.integers(0, 3), min_size=length, max_size=length))
    roles = [3 if cut else 1 + i % 2 for i, cut in enumerate(cuts)]
    if draw(st.booleans()):
        ids[-1], roles[-1] = EOS, 0
    return Document(
        ids,
        roles,
        draw(st.integers(0, 2)),
        draw(st.sampled_from([0, 7, 3 << 40 | 123, 2**64 - 1])),
        draw(st.sampled_from([0, 1 << 24 | 2 << 16 | 3, 2**32 - 1])),
    )


@st.composite
def datasets(draw: st.DrawFn) -> dict[str, Any]:
    """The arguments of `write_dataset`, with a row length that is not a whole number of bytes of
    mask bits at times.
    """
    seq_len = draw(st.sampled_from([8, 12, 64]))
    id_dtype = draw(st.sampled_from(["uint16", "uint32"]))
    id_limit = 2**16 if id_dtype == "uint16" else 2**32
    return {
        "seq_len": seq_len,
        "documents": draw(st.lists(documents_of(seq_len, id_limit), max_size=14)),
        "validation": draw(st.lists(documents_of(seq_len, id_limit), max_size=3)),
        "rows_per_batch": draw(st.integers(1, 4)),
        "shards": draw(st.integers(1, 3)),
        "id_dtype": id_dtype,
        "vocab_size": id_limit,
        "tokenizer_json": "{}",
    }


@contextmanager
def written(arguments: dict[str, Any]) -> Iterator[PackedDataset]:
    with tempfile.TemporaryDirectory() as folder:
        path = write_dataset(Path(folder) / "out", eos_id=EOS, pad_id=PAD, **arguments)
        with open_dataset(path) as dataset:
            yield dataset


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
            assert batch["input_ids"].shape == (len(wanted), arguments["seq_len"])


def some_documents(count: int = 11) -> list[Document]:
    """Documents that do not fill their rows of 16, two to a row."""
    return [Document([5, 6, 7, 8, 9, EOS], [1, 1, 2, 3, 3, 0], i % 2, i) for i in range(count)]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A dataset of 6 training rows in 2 shards, and 1 of validation."""
    return write_dataset(
        tmp_path / "out",
        some_documents(),
        seq_len=16,
        vocab_size=10,
        eos_id=EOS,
        pad_id=PAD,
        rows_per_batch=2,
        shards=2,
        validation=some_documents(1),
    )


def test_attributes(out: Path) -> None:
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


def test_pickled(out: Path) -> None:
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
def test_used_after_a_fork(out: Path) -> None:
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
        "from sabiprep.dataset import open_dataset; print(len(open_dataset(sys.argv[1]).train), 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(out)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["6", "False"]


def refused(path: Path, message: str, *, file: str = "manifest.json") -> None:
    """The dataset is refused with this message, the file's name and a remedy."""
    with pytest.raises(DatasetError, match=message) as caught:
        open_dataset(path)
    assert caught.value.file is not None and caught.value.file.endswith(file)
    assert caught.value.remedy


def resigned(out: Path, change: dict[str, Any]) -> None:
    """Change the manifest, and sign it again."""
    write_manifest(out, {**json.loads((out / "manifest.json").read_bytes()), **change})


def test_no_manifest_is_an_unfinished_dataset(out: Path, tmp_path: Path) -> None:
    (out / "manifest.json").unlink()
    refused(out, "written last, and is missing", file="out")
    refused(tmp_path / "nowhere", "no such folder", file="nowhere")
    refused(out / "tokenizer.json", "no such folder", file="tokenizer.json")
    with pytest.raises(DatasetError, match="sabiprep pack CORPUS"):
        open_dataset(out)


def test_an_unreadable_manifest(out: Path) -> None:
    (out / "manifest.json").unlink()
    (out / "manifest.json").mkdir()
    refused(out, "cannot be read")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[" * 100_000], ids=["empty", "cut", "bytes", "deep"]
)
def test_a_manifest_that_is_not_json(out: Path, content: bytes) -> None:
    (out / "manifest.json").write_bytes(content)
    refused(out, "not a JSON file")


@pytest.mark.parametrize(
    "content", [b"[]", b"null", b"{}", b'{"format": "other", "format_version": 1}']
)
def test_a_foreign_manifest(out: Path, content: bytes) -> None:
    (out / "manifest.json").write_bytes(content)
    refused(out, "not the manifest of a packed dataset")


@pytest.mark.parametrize("version", [2, 0, None, "1"])
def test_another_format_version(out: Path, version: Any) -> None:
    resigned(out, {"format_version": version})
    refused(out, "reads version 1")


def test_an_altered_manifest(out: Path) -> None:
    path = out / "manifest.json"
    content = path.read_bytes()
    for altered in (
        content.replace(b'"seed": 0', b'"seed": 1'),
        content + b"\n",
        content.replace(b'"sha256"', b'"sha257"', 1),
        content.replace(json.loads(content)["sha256"].encode(), b"0" * 64),
        content.replace(json.loads(content)["sha256"].encode(), b""),
    ):
        path.write_bytes(altered)
        refused(out, "does not hold")


@pytest.mark.parametrize(
    "change",
    [
        {"seq_len": None},
        {"seq_len": 0},
        {"id_dtype": "uint8"},
        {"tokenizer": {}},
        {"tokenizer": None},
        {"sources": [{}]},
        {"splits": {}},
        {"splits": {"train": {"rows": 3, "shards": []}, "validation": {"rows": 0, "shards": []}}},
    ],
)
def test_a_signed_manifest_that_cannot_be_right(out: Path, change: dict[str, Any]) -> None:
    resigned(out, change)
    refused(out, "a field is missing or cannot be right")


def test_a_missing_shard(out: Path) -> None:
    (out / "train" / "shard-00001.arrow").unlink()
    refused(out, "cannot be read: No such file", file="train/shard-00001.arrow")


def test_a_truncated_shard(out: Path) -> None:
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
def test_a_shard_that_is_not_arrow(out: Path, content: bytes) -> None:
    replace_shard(out, content)
    refused(out, "not a readable Arrow file", file="train/shard-00001.arrow")


@pytest.mark.parametrize("sizes", [[2, 2], [2], [1, 1, 1], [2, 1, 1], [], [1, 2]])
def test_a_shard_with_other_rows(out: Path, sizes: list[int]) -> None:
    """The shard has three rows, in record batches of two and one."""
    replace_shard(out, shard_bytes(shard_schema(16), *([COLUMNS] * size for size in sizes)))
    refused(out, "record batch", file="train/shard-00001.arrow")


def test_a_record_batch_of_other_rows_in_the_middle(tmp_path: Path) -> None:
    """Only the last batch is looked at when the dataset is opened; the others when they are read."""
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
def test_a_shard_with_another_schema(out: Path, message: str) -> None:
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
def test_a_row_whose_lengths_contradict_each_other(out: Path, change: dict[str, Any]) -> None:
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
