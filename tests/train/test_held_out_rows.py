"""The rows to validate on: every task in every language, in proportion, the same each time."""

from __future__ import annotations

import numpy as np

from sabiprep.dataset import PackedDataset, Split
from sabitrain.data.held_out import sample_rows
from sabitrain.data.masking import documents_of
from support.dataset_writer import Document
from support.train.tiny import (
    copy_document,
    label_document,
    text_document,
    write_tiny,
)


def pairs_in(dataset: PackedDataset, split: Split, rows: list[int]) -> set[tuple[str, str, str]]:
    """The tasks, languages and sources that have a target in some rows."""
    batch = split.batch(rows)
    sources = batch["source_ids"][documents_of(batch)[batch["loss_mask"].reshape(-1)]]
    return {
        (dataset.sources[s].task, dataset.sources[s].lang, dataset.sources[s].name)
        for s in set(sources.tolist())
    }


def test_a_sample_has_every_task_and_language_and_is_the_same_each_time(tmp_path):
    """Hundreds of documents of one source, three of another, one of a third: those are in however
    small the sample.
    """
    rng = np.random.default_rng(3)
    held_out = [copy_document(rng, i) for i in range(600)]
    held_out[100:400:100] = [label_document(rng, i) for i in range(3)]
    held_out[450] = text_document(rng, 0)
    dataset = write_tiny(tmp_path, validation=held_out)
    split = dataset.validation
    every = pairs_in(dataset, split, list(range(len(split))))
    samples = {}
    for count in (1, 8, 40):
        rows = sample_rows(dataset, split, count, 7)
        assert rows is not None and rows.tolist() == sample_rows(dataset, split, count, 7).tolist()
        samples[count] = rows.tolist()
        assert len(set(samples[count])) == len(samples[count]) == max(2, count), (
            "two rows hold all three sources"
        )
        assert pairs_in(dataset, split, samples[count]) == every
    assert samples[40][:8] == samples[8] and samples[8][:2] == samples[1]
    assert samples[40] != sample_rows(dataset, split, 40, 8).tolist()
    for count in (0, len(split), len(split) + 1):
        assert sample_rows(dataset, split, count, 7).tolist() == list(range(len(split)))
    assert sample_rows(dataset, split, 5, 7, lambda done, of: False) is not None, (
        "one batch of rows has no pause"
    )


def test_a_sample_is_in_proportion(tmp_path):
    """Rows of one document each: a third are labels, so of any sample too, to within one row."""
    rng = np.random.default_rng(4)
    roles = [1, *[2] * 20, 1, 3, 0]
    held_out = [
        Document(
            [3, *rng.integers(6, 20, 20).tolist(), 5, 6, 0], roles, int(source % 3 == 0), source
        )
        for source in range(90)
    ]
    dataset = write_tiny(tmp_path, validation=held_out)
    assert len(dataset.validation) == 90
    for count in (9, 31, 60):
        rows = sample_rows(dataset, dataset.validation, count, 0)
        assert rows is not None
        labels = int((dataset.validation.batch(rows.tolist())["source_ids"] == 1).sum())
        assert abs(labels - count / 3) <= 1
