"""Tiny packed datasets with something to learn, and a tiny model's configuration, for the trainer's
tests.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from sabiprep.dataset import BatchDict, PackedDataset, open_dataset
from sabitrain.config import BatchConfig, ModelConfig, OptimConfig, TrainConfig
from support.dataset_writer import CONTROL, DATA, TARGET, TEMPLATE, Document, write_dataset

EOS, PAD, BOS, COPY, LABEL, ANSWER = range(6)
FIRST_WORD, WORDS = 6, 14
VOCAB_SIZE = FIRST_WORD + WORDS
SOURCES = [
    {"name": "copying", "task": "copy", "lang": "yor"},
    {"name": "labels", "task": "label", "lang": "hau"},
    {"name": "text", "task": "text", "lang": "ibo"},
]

# What a run's metrics have that is another each time.
TIMES = {
    "seconds",
    "tokens_per_second",
    "targets_per_second",
    "flops_per_second",
    "dense_equivalent_flops_per_second",
    "memory_bytes",
    "data_wait",
    "eta_seconds",
}


def copy_document(rng: np.random.Generator, record: int) -> Document:
    """``<copy> a b <answer> a b EOS``, of one to three words."""
    words = rng.integers(FIRST_WORD, VOCAB_SIZE, rng.integers(1, 4)).tolist()
    ids = [COPY, *words, ANSWER, *words, EOS]
    return Document(
        ids, [TEMPLATE, *[DATA] * len(words), TEMPLATE, *[TARGET] * len(words), CONTROL], 0, record
    )


def label_document(rng: np.random.Generator, record: int) -> Document:
    """``<label> a b <answer> x EOS``: x is the first or the second word there is, by which half a
    is of.
    """
    words = rng.integers(FIRST_WORD, VOCAB_SIZE, 2).tolist()
    label = FIRST_WORD + int(words[0] >= FIRST_WORD + WORDS // 2)
    return Document(
        [LABEL, *words, ANSWER, label, EOS],
        [TEMPLATE, DATA, DATA, TEMPLATE, TARGET, CONTROL],
        1,
        record,
    )


def text_document(rng: np.random.Generator, record: int) -> Document:
    """Plain text: every token is a target, the first one untrained."""
    words = rng.integers(FIRST_WORD, VOCAB_SIZE, rng.integers(2, 6)).tolist()
    return Document([*words, EOS], [*[TARGET] * len(words), CONTROL], 2, record)


def documents(count: int, seed: int, kinds: str = "clt") -> list[Document]:
    """``count`` documents of these kinds in turn: c(opy), l(abel), t(ext)."""
    rng = np.random.default_rng(seed)
    make = {"c": copy_document, "l": label_document, "t": text_document}
    return [make[kinds[record % len(kinds)]](rng, record) for record in range(count)]


def write_tiny(
    path: Path, train: int = 60, held_out: int = 12, kinds: str = "clt", **options: Any
) -> PackedDataset:
    """A packed dataset of such documents, in rows of 32 tokens that have padding here and there."""
    arguments: dict[str, Any] = {
        "seq_len": 32,
        "vocab_size": VOCAB_SIZE,
        "eos_id": EOS,
        "pad_id": PAD,
        "sources": SOURCES,
        "validation": documents(held_out, 1, kinds),
        **options,
    }
    return open_dataset(write_dataset(path, documents(train, 0, kinds), **arguments))


def tiny_config(data: Path, run: Path, **options: Any) -> TrainConfig:
    """A run of a few quick steps on the CPU."""
    arguments: dict[str, Any] = {
        "model": ModelConfig(layers=2, width=16, heads=4, kv_heads=2, mlp_width=24, context=64),
        "batch": BatchConfig(tokens=128, micro_tokens=128),
        "optim": OptimConfig(lr=1e-2),
        "max_steps": 4,
        "eval_every": 2,
        "answers": 3,
        "device": "cpu",
        **options,
    }
    return TrainConfig(data=data, run=run, **arguments)


def rows_of(
    rows: list[list[Document]], seq_len: int, mask: Callable[[Document], list[bool]]
) -> BatchDict:
    """What the loader gives for rows of these documents, put together token by token."""
    tokens: dict[str, list[Any]] = {name: [] for name in ("ids", "mask", "positions", "roles")}
    bounds = [0]
    for row in rows:
        padding = seq_len - sum(len(document.ids) for document in row)
        segments = [(d.ids, mask(d), d.roles) for d in row]
        if padding:
            segments.append(([PAD] * padding, [False] * padding, [CONTROL] * padding))
        for ids, trained, roles in segments:
            tokens["ids"] += ids
            tokens["mask"] += trained
            tokens["roles"] += roles
            tokens["positions"] += range(len(ids))
            bounds.append(bounds[-1] + len(ids))
    ids, trained, positions, roles = (
        np.array(tokens[name]).reshape(len(rows), seq_len) for name in tokens
    )
    flat = [document for row in rows for document in row]
    return {
        "input_ids": ids,
        "labels": np.where(trained, ids, -100),
        "loss_mask": trained,
        "position_ids": positions,
        "cu_seqlens": np.array(bounds, np.int32),
        "roles": roles.astype(np.uint8),
        "seq_lengths": np.array([len(document.ids) for document in flat], np.int32),
        "source_ids": np.array([document.source_id for document in flat], np.uint16),
        "record_ids": np.array([document.record_id for document in flat], np.uint64),
        "doc_parts": np.array([document.part for document in flat], np.uint32),
        "doc_rows": np.array([i for i, row in enumerate(rows) for _ in row], np.int32),
        "n_targets": trained.sum(1).astype(np.int32),
        "max_seqlen": int(np.diff(bounds).max()),
    } | (
        {"doc_weights": np.array([document.weight for document in flat], np.float32)}
        if flat and flat[0].weight is not None
        else {}
    )


def random_rows(
    seed: int, count: int, seq_len: int, longest: int, share: float, weighted: bool = False
) -> BatchDict:
    """Rows of random documents, ``share`` of their tokens trained, padded here and there."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        row: list[Document] = []
        left = seq_len
        while left and (not row or rng.random() < 0.99):
            length = int(rng.integers(1, min(longest, left) + 1))
            ids, roles = (
                rng.integers(0, VOCAB_SIZE, length).tolist(),
                rng.integers(0, 4, length).tolist(),
            )
            weight = float(rng.integers(0, 9)) / 4 if weighted else None
            row.append(Document(ids, roles, int(rng.integers(0, len(SOURCES))), weight=weight))
            left -= length
        rows.append(row)
    return rows_of(
        rows, seq_len, lambda d: [i > 0 and rng.random() < share for i in range(len(d.ids))]
    )


def any_rows(seq_len: int = 32) -> st.SearchStrategy[BatchDict]:
    """Rows of documents of any lengths, roles, sources and masks; at times nothing is trained."""
    return st.builds(
        random_rows,
        seed=st.integers(0, 2**32 - 1),
        count=st.integers(1, 4),
        seq_len=st.just(seq_len),
        longest=st.sampled_from([2, 7, seq_len]),
        share=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
        weighted=st.booleans(),
    )
