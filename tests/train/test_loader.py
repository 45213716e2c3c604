"""Steps as the loader makes them, against an oracle that goes document by document and token by
token.
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sabitrain.data.batches import PAD_SEGMENTS_TO, PAD_TO, Batch
from sabitrain.data.datasets import open_datasets
from sabitrain.data.loader import Loader
from sabitrain.data.masking import Masking
from support.dataset_writer import (
    CONTROL,
    DATA,
    TARGET,
    TEMPLATE,
    Document,
    first_fit,
    target_only_mask,
    write_dataset,
)

EOS, PAD = 1, 2
TASKS = ["copy", "label"]
SOURCES = [{"name": task, "task": task, "lang": "yor"} for task in TASKS]


def weights_of(document: Document, masking: Masking) -> list[float]:
    """What predicting each token of a document counts for, before the step is normalised."""
    weights = []
    for i, (role, trained) in enumerate(
        zip(document.roles, target_only_mask(document, EOS), strict=True)
    ):
        weight = float(trained) if masking.loss == "target" else 1.0
        if role in (TEMPLATE, DATA) and masking.prompt_weight is not None:
            weight = masking.prompt_weight
        if role == TEMPLATE and masking.loss == "template-masked":
            weight = 0.0
        weights.append(weight if i > 0 else 0.0)
    if masking.weigh_by == "example" and sum(weights) > 0:
        weights = [weight / sum(weights) for weight in weights]
    return [weight * masking.task_weights.get(TASKS[document.source_id], 1.0) for weight in weights]


def batch_of(
    rows: list[list[Document]], seq_len: int, masking: Masking, compute: str
) -> dict[str, Any]:
    """A micro-batch of these rows: the fields of `Batch`, in Python's lists; the weights not
    normalised.
    """
    ids: list[int] = []
    positions: list[int] = []
    bounds = [0]
    predictions: list[tuple[int, int, float]] = []
    for row in rows:
        padding = seq_len - sum(len(document.ids) for document in row)
        for document in row:
            for i, (token, weight) in enumerate(
                zip(document.ids, weights_of(document, masking), strict=True)
            ):
                if weight != 0:
                    predictions.append((len(ids) - 1, token, weight))
                ids.append(token)
                positions.append(i)
            bounds.append(len(ids))
        if padding:
            ids += [PAD] * padding
            positions += range(padding)
            bounds.append(len(ids))
    counted = len(predictions)
    if compute == "dense":
        weight_at = {at: weight for at, _, weight in predictions}
        predictions = [
            (at, ids[at + 1] if at + 1 < len(ids) else 0, weight_at.get(at, 0.0))
            for at in range(len(ids))
        ]
    else:
        predictions += [(0, 0, 0.0)] * (max(1, -(-counted // PAD_TO)) * PAD_TO - counted)
    segments = len(bounds) - 1
    return {
        "ids_N": ids,
        "positions_N": positions,
        "cu_seqlens": bounds + [len(ids)] * (-segments % PAD_SEGMENTS_TO),
        "max_seqlen": max(end - begin for begin, end in itertools.pairwise(bounds)),
        "predict_at_M": [at for at, _, _ in predictions],
        "targets_M": [token for _, token, _ in predictions],
        "weights_M": [weight for _, _, weight in predictions],
        "targets": counted,
        "tokens": sum(len(document.ids) for row in rows for document in row),
    }


def step_of(
    datasets: list[list[list[Document]]],
    rows: list[int],
    micro_rows: int,
    seq_len: int,
    masking: Masking,
    compute: str,
) -> list[dict[str, Any]]:
    """The micro-batches of a step over rows that are numbered over all datasets, their weights
    summing to one.
    """
    of_all = [(dataset, row) for dataset, rows_of in enumerate(datasets) for row in rows_of]
    batches = []
    for first in range(0, len(rows), micro_rows):
        # A micro-batch has its rows dataset by dataset.
        chosen = sorted(
            (of_all[row] for row in rows[first : first + micro_rows]), key=lambda place: place[0]
        )
        batches.append(batch_of([row for _, row in chosen], seq_len, masking, compute))
    total = sum(sum(batch["weights_M"]) for batch in batches) or 1.0
    for batch in batches:
        batch["weights_M"] = [weight / total for weight in batch["weights_M"]]
    return batches


def assert_same(got: Batch, want: dict[str, Any]) -> None:
    for name, value in vars(got).items():
        if name == "weights_M":
            np.testing.assert_allclose(value.numpy(), want[name], rtol=1e-12, atol=0)
        else:
            assert (value.tolist() if isinstance(value, torch.Tensor) else value) == want[name], (
                name
            )


@st.composite
def documents(draw: st.DrawFn, seq_len: int) -> Document:
    """A document of runs of roles, closed by EOS or not, at times filling its row, at times of one
    token.
    """
    length = draw(st.one_of(st.integers(1, seq_len), st.just(seq_len)))
    ids = draw(st.lists(st.integers(3, 40), min_size=length, max_size=length))
    roles: list[int] = []
    while len(roles) < length:
        roles += [draw(st.sampled_from([CONTROL, TEMPLATE, DATA, TARGET]))] * draw(
            st.integers(1, 9)
        )
    if draw(st.booleans()):
        ids[-1], roles[length - 1] = EOS, CONTROL
    return Document(ids, roles[:length], draw(st.integers(0, 1)), draw(st.integers(0, 99)))


@st.composite
def maskings(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "loss": draw(st.sampled_from(["target", "full", "template-masked"])),
        "prompt_weight": draw(st.sampled_from([None, None, 0.0, 0.25, 1.0])),
        "task_weights": draw(st.sampled_from([{}, {"copy": 3.0}, {"label": 0.0}])),
        "weigh_by": draw(st.sampled_from(["token", "example"])),
    }


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_steps_are_those_of_a_loop_over_tokens(data: st.DataObject) -> None:
    seq_len = data.draw(st.sampled_from([12, 64]))
    written = data.draw(
        st.lists(st.lists(documents(seq_len), min_size=1, max_size=8), min_size=1, max_size=3),
        label="datasets",
    )
    micro_rows, compute = (
        data.draw(st.integers(1, 4)),
        data.draw(st.sampled_from(["dense", "head", "full"])),
    )
    datasets = [first_fit(of_one, seq_len) for of_one in written]
    row = st.integers(0, sum(len(rows) for rows in datasets) - 1)
    steps = data.draw(
        st.lists(st.lists(row, min_size=1, max_size=6), min_size=1, max_size=3), label="steps"
    )
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / str(i) for i in range(len(written))]
        for path, of_one in zip(paths, written, strict=True):
            write_dataset(
                path,
                of_one,
                seq_len=seq_len,
                vocab_size=41,
                eos_id=EOS,
                pad_id=PAD,
                sources=SOURCES,
                rows_per_batch=data.draw(st.integers(1, 3)),
                shards=data.draw(st.integers(1, 2)),
            )
        with open_datasets(paths) as opened:
            dataset = opened.rows
            masking = Masking(dataset.sources, **data.draw(maskings(), label="masking"))
            rows_of_step = [np.array(rows) for rows in steps].__getitem__
            with Loader(
                dataset.train, rows_of_step, len(steps), micro_rows, masking, compute
            ) as loader:
                for number, rows in enumerate(steps):
                    step = loader.step(number)
                    expected = step_of(datasets, rows, micro_rows, seq_len, masking, compute)
                    for got, want in zip(step.batches, expected, strict=True):
                        assert_same(got, want)
                    assert step.tokens == sum(want["tokens"] for want in expected)
                    assert step.targets == sum(want["targets"] for want in expected)
