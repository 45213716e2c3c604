"""Tiny packed datasets with something to learn, and a tiny model's configuration, for the trainer's tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dataset_writer import CONTROL, DATA, TARGET, TEMPLATE, Document, write_dataset
from sabiprep.dataset import PackedDataset, open_dataset
from sabitrain.config import BatchConfig, ModelConfig, OptimConfig, TrainConfig

EOS, PAD, BOS, COPY, LABEL, ANSWER = range(6)
FIRST_WORD, WORDS = 6, 14
VOCAB_SIZE = FIRST_WORD + WORDS
SOURCES = [
    {"name": "copying", "task": "copy", "lang": "yor"},
    {"name": "labels", "task": "label", "lang": "hau"},
    {"name": "text", "task": "text", "lang": "ibo"},
]


def copy_document(rng: np.random.Generator, record: int) -> Document:
    """``<copy> a b <answer> a b EOS``, of one to three words."""
    words = rng.integers(FIRST_WORD, VOCAB_SIZE, rng.integers(1, 4)).tolist()
    ids = [COPY, *words, ANSWER, *words, EOS]
    return Document(ids, [TEMPLATE, *[DATA] * len(words), TEMPLATE, *[TARGET] * len(words), CONTROL], 0, record)


def label_document(rng: np.random.Generator, record: int) -> Document:
    """``<label> a b <answer> x EOS``: x is the first or the second word there is, by which half a is of."""
    words = rng.integers(FIRST_WORD, VOCAB_SIZE, 2).tolist()
    label = FIRST_WORD + int(words[0] >= FIRST_WORD + WORDS // 2)
    return Document([LABEL, *words, ANSWER, label, EOS], [TEMPLATE, DATA, DATA, TEMPLATE, TARGET, CONTROL], 1, record)


def text_document(rng: np.random.Generator, record: int) -> Document:
    """Plain text: every token is a target, the first one untrained."""
    words = rng.integers(FIRST_WORD, VOCAB_SIZE, rng.integers(2, 6)).tolist()
    return Document([*words, EOS], [*[TARGET] * len(words), CONTROL], 2, record)


def documents(count: int, seed: int, kinds: str = "clt") -> list[Document]:
    """``count`` documents of these kinds in turn: c(opy), l(abel), t(ext)."""
    rng = np.random.default_rng(seed)
    make = {"c": copy_document, "l": label_document, "t": text_document}
    return [make[kinds[record % len(kinds)]](rng, record) for record in range(count)]


def write_tiny(path: Path, train: int = 60, held_out: int = 12, kinds: str = "clt", **options: Any) -> PackedDataset:
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
