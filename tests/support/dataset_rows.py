"""Datasets of any documents, and the rows and batches that the loader must give of them."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from sabiprep.dataset import PackedDataset, open_dataset
from sabiprep.errors import DatasetError
from support.dataset_writer import (
    Document,
    target_only_mask,
    write_dataset,
    write_manifest,
)

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
OF_WEIGHTS = ("doc_weights", "loss_weights")
"""The arrays of a dataset with weights, all float32."""


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
    weighted = any(document.weight is not None for document in documents)
    of_tokens = [document.weight for document in documents for _ in document.ids]
    of_tokens += [0.0] * (seq_len - len(of_tokens))
    return {
        **(
            {
                "doc_weights": [document.weight for document in documents],
                "loss_weights": [
                    weight if trained else 0.0
                    for weight, trained in zip(of_tokens, mask, strict=True)
                ],
            }
            if weighted
            else {}
        ),
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
    if each and "doc_weights" in each[0]:
        stacked, joined = [*stacked, "loss_weights"], [*joined, "doc_weights"]
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
    weights = draw(st.sampled_from([st.none(), st.floats(0, 2.0**99, width=32)]))
    of_any = documents_of(seq_len, id_limit).flatmap(
        lambda document: weights.map(lambda weight: document._replace(weight=weight))
    )
    return {
        "seq_len": seq_len,
        "documents": draw(st.lists(of_any, max_size=14)),
        "validation": draw(st.lists(of_any, max_size=3)),
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


def refused(path: Path, message: str, *, file: str = "manifest.json") -> None:
    """The dataset is refused with this message, the file's name and a remedy."""
    with pytest.raises(DatasetError, match=message) as caught:
        open_dataset(path)
    assert caught.value.file is not None and caught.value.file.endswith(file)
    assert caught.value.remedy


def resigned(out: Path, change: dict[str, Any]) -> None:
    """Change the manifest, and sign it again."""
    write_manifest(out, {**json.loads((out / "manifest.json").read_bytes()), **change})
