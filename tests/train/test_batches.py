"""Batches: every row once an epoch, in an order that is a pure function, and tensors that are what
the rows say.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sabiprep.errors import DatasetError
from sabitrain.data.batches import PAD_SEGMENTS_TO, PAD_TO, make_batch, make_step, micro_batches
from sabitrain.data.masking import Masking
from sabitrain.data.order import RowOrder, shuffled
from support.train.tiny import SOURCES, any_rows, write_tiny

TASKS = [source["task"] for source in SOURCES]


class Rows:
    """What the order wants of a dataset."""

    def __init__(self, rows: int, fingerprint: str = "print") -> None:
        self.train = range(rows)
        self.fingerprint = fingerprint


@given(rows=st.integers(1, 50), per_step=st.integers(1, 70), seed=st.integers(0, 9))
def test_every_row_exactly_once_an_epoch(rows, per_step, seed):
    order = RowOrder(Rows(rows), per_step, seed)
    steps = -(-3 * rows // per_step)
    stream = np.concatenate([order.step(step) for step in range(steps)])
    for epoch in range(3):
        assert sorted(stream[epoch * rows : (epoch + 1) * rows]) == list(range(rows))
    assert order.epoch(steps) == pytest.approx(len(stream) / rows)


@given(
    rows=st.integers(1, 50),
    per_step=st.integers(1, 70),
    steps=st.lists(st.integers(0, 40), min_size=1),
)
def test_a_step_does_not_depend_on_those_asked_for_before(rows, per_step, steps):
    order = RowOrder(Rows(rows), per_step, 0)
    for step in steps:
        assert np.array_equal(order.step(step), RowOrder(Rows(rows), per_step, 0).step(step))


def test_the_order_changes_with_seed_epoch_and_dataset():
    def first_epochs(seed: int, fingerprint: str) -> list[list[int]]:
        order = RowOrder(Rows(100, fingerprint), 100, seed)
        return [order.step(0).tolist(), order.step(1).tolist()]

    orders = [*first_epochs(0, "a"), *first_epochs(1, "a"), *first_epochs(0, "b")]
    assert len({tuple(order) for order in orders}) == len(orders)


def test_the_order_is_the_same_in_every_version():
    assert shuffled(8, "golden").tolist() == [1, 3, 2, 4, 5, 0, 7, 6]


def test_a_batch_is_its_rows_end_to_end(tmp_path):
    split = write_tiny(tmp_path).train
    rows = [3, 0, 2]
    read = split.batch(rows)
    batch = make_batch(read, read["loss_mask"].reshape(-1) * 0.5)
    ids, targets, predict_at, positions, bounds, tokens = [], [], [], [], [0], 0
    for index in rows:
        row = split[index]
        for at, label in enumerate(row["labels"].tolist()):
            if label != -100:
                predict_at.append(len(ids) + at - 1)
                targets.append(label)
        bounds += [len(ids) + end for end in row["cu_seqlens"].tolist()[1:]]
        positions += row["position_ids"].tolist()
        ids += row["input_ids"].tolist()
        tokens += int(row["seq_lengths"].sum())
    assert batch.ids_N.tolist() == ids
    assert batch.positions_N.tolist() == positions
    assert batch.cu_seqlens.tolist() == bounds + [len(ids)] * (PAD_SEGMENTS_TO + 1 - len(bounds))
    padding = [0] * (PAD_TO - len(targets))
    assert batch.predict_at_M.tolist() == predict_at + padding
    assert batch.targets_M.tolist() == targets + padding
    assert batch.weights_M.tolist() == [0.5] * len(targets) + padding
    assert batch.targets == len(targets)
    assert batch.max_seqlen == max(np.diff(bounds))
    assert batch.tokens == tokens < len(ids)
    assert batch.cu_seqlens.dtype == torch.int32 and batch.ids_N.dtype == torch.int64
    assert batch.to(torch.device("cpu")) is batch


@given(rows=any_rows(seq_len=288), compute=st.sampled_from(["dense", "head", "full"]))
def test_predictions_and_segments_are_padded_with_what_counts_for_nothing(rows, compute):
    weights_N = rows["loss_mask"].reshape(-1) * 2.0
    batch = make_batch(rows, weights_N, compute)
    places = len(batch.predict_at_M)
    assert places == (
        weights_N.size if compute == "dense" else max(1, -(-batch.targets // PAD_TO)) * PAD_TO
    )
    counted = batch.weights_M > 0
    assert batch.targets == int(counted.sum()) == int(rows["loss_mask"].sum())
    learnt_at = np.flatnonzero(weights_N)
    assert batch.predict_at_M[counted].tolist() == (learnt_at - 1).tolist()
    assert batch.targets_M[counted].tolist() == rows["input_ids"].reshape(-1)[learnt_at].tolist()
    assert (len(batch.cu_seqlens) - 1) % PAD_SEGMENTS_TO == 0
    assert batch.cu_seqlens.unique().tolist() == rows["cu_seqlens"].tolist()


def test_a_target_that_nothing_precedes_is_refused(tmp_path):
    rows = write_tiny(tmp_path).train.batch([0, 1])
    rows["loss_mask"][1, 0] = True
    with pytest.raises(DatasetError, match="first token of a document"):
        make_batch(rows, rows["loss_mask"].reshape(-1) * 1.0)


def test_the_weights_of_a_step_sum_to_one(tmp_path):
    dataset = write_tiny(tmp_path)
    for masking in (
        Masking(dataset.sources),
        Masking(dataset.sources, "full", 0.1, {"copy": 2.0}, "example"),
    ):
        step = make_step(dataset.train, [4, 1, 3, 0, 2], 2, masking)
        assert sum(batch.weights_M.sum().item() for batch in step.batches) == pytest.approx(1.0)
        assert [len(batch.ids_N) for batch in step.batches] == [64, 64, 32]
        assert step.targets == sum(batch.targets for batch in step.batches)
        assert step.tokens == sum(batch.tokens for batch in step.batches)
    nothing = make_step(
        dataset.train, [0, 1], 1, Masking(dataset.sources, task_weights=dict.fromkeys(TASKS, 0.0))
    )
    assert nothing.targets == 0 and not any(batch.weights_M.any() for batch in nothing.batches)


def test_micro_batches_cut_a_step_in_order(tmp_path):
    split = write_tiny(tmp_path).train
    cut = [len(rows["n_targets"]) for rows in micro_batches(split, [4, 1, 3, 0, 2], 2)]
    assert cut == [2, 2, 1]
    together = np.concatenate(
        [rows["input_ids"] for rows in micro_batches(split, [4, 1, 3, 0, 2], 2)]
    )
    assert np.array_equal(together, split.batch([4, 1, 3, 0, 2])["input_ids"])
