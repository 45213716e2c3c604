"""The unigram baseline, by hand and as a distribution."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from sabiprep.dataset import open_dataset
from sabitrain.config import ModelConfig
from sabitrain.evaluation import baseline as baseline_module
from sabitrain.evaluation.baseline import train_unigram, unigram_baseline
from sabitrain.evaluation.evaluate import evaluate_split
from sabitrain.models.architecture import make_model
from support.dataset_writer import Document, write_dataset
from support.train.tiny import (
    SOURCES,
    VOCAB_SIZE,
    documents,
    write_tiny,
)


def targets_of(seed: int, count: int) -> list[tuple[int, int | None]]:
    """The source and the token of every target, None for the EOS that closes a document."""
    return [
        (document.source_id, token if role == 3 else None)
        for document in documents(count, seed)
        for i, (token, role) in enumerate(zip(document.ids, document.roles, strict=True))
        if i > 0 and role in (0, 3)
    ]


@pytest.mark.parametrize("train", [50, 2, 0])
def test_the_baseline_by_hand(tmp_path, train):
    """Two sources of one task and language are one group; of few documents, or none, some tokens
    were never seen.
    """
    sources = [
        {**source, "task": "t", "lang": lang} for source, lang in zip(SOURCES, "aba", strict=True)
    ]
    dataset = write_tiny(tmp_path, train=train, held_out=20, sources=sources)
    seen: dict[str, Counter[int]] = {"a": Counter(), "b": Counter()}
    for source, token in targets_of(0, train):
        if token is not None:
            seen["aba"[source]][token] += 1
    everywhere = seen["a"] + seen["b"]
    nats = []
    for source, token in targets_of(1, 20):
        if token is None:
            nats.append(0.0)
            continue
        counts = seen["aba"[source]]
        q = (everywhere[token] + 1) / (sum(everywhere.values()) + VOCAB_SIZE)
        types = len(counts) or 1
        nats.append(-math.log((counts[token] + types * q) / (sum(counts.values()) + types)))
    baseline = unigram_baseline(dataset)
    assert baseline is not None
    assert (baseline.loss, baseline.targets) == (pytest.approx(sum(nats) / len(nats)), len(nats))
    model = make_model(
        ModelConfig(layers=1, width=16, heads=2, kv_heads=2, mlp_width=24, context=64), VOCAB_SIZE
    )
    evaluation = evaluate_split(
        model, dataset, dataset.validation, 2, baseline=train_unigram(dataset)
    )
    assert evaluation is not None and evaluation.total.baseline == pytest.approx(baseline.loss)
    costs = [cost for cost, (source, _) in zip(nats, targets_of(1, 20), strict=True) if source == 1]
    assert evaluation.languages["b"].baseline == pytest.approx(sum(costs) / len(costs))


def test_the_baseline_is_a_distribution_and_of_a_sample_of_many_rows(tmp_path, monkeypatch):
    dataset = write_tiny(tmp_path, train=300)
    monkeypatch.setattr(baseline_module, "MOST_ROWS", 4)
    one, other = train_unigram(dataset), train_unigram(dataset)
    assert one is not None and other is not None
    for source in range(3):
        nats = one.nats(np.full(VOCAB_SIZE, source, np.uint16), np.arange(VOCAB_SIZE))
        assert np.exp(-nats).sum() == pytest.approx(1)
        assert (
            nats.tolist()
            == other.nats(np.full(VOCAB_SIZE, source, np.uint16), np.arange(VOCAB_SIZE)).tolist()
        )
    assert int(one._counts.sum()) < 4 * 32


def test_labels_by_chance_are_no_better_than_the_baseline(tmp_path):
    """Labels that no prompt tells: knowing their shares, and that EOS follows, is what the baseline
    knows.
    """
    rng = np.random.default_rng(0)

    def flips(count: int) -> list[Document]:
        return [
            Document(
                [4, *rng.integers(6, 20, 3).tolist(), 5, int(rng.integers(6, 8)), 0],
                [1, 2, 2, 2, 1, 3, 0],
                1,
                i,
            )
            for i in range(count)
        ]

    train, held_out = flips(400), flips(200)
    dataset = open_dataset(
        write_dataset(
            tmp_path,
            train,
            validation=held_out,
            sources=SOURCES,
            seq_len=32,
            vocab_size=VOCAB_SIZE,
            eos_id=0,
            pad_id=1,
        )
    )
    baseline = unigram_baseline(dataset)
    assert baseline is not None and baseline.targets == 400
    assert baseline.loss == pytest.approx(math.log(2) / 2, abs=0.01)
