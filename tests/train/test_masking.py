"""Masking strategies against plain loops over tokens, and the rules that hold between them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sabiprep.dataset import SourceInfo
from sabitrain.data.masking import Masking, documents_of
from support.train.tiny import SOURCES, any_rows, write_tiny

INFOS = [
    SourceInfo(i, source["name"], source["task"], source["lang"])
    for i, source in enumerate(SOURCES)
]
WEIGHTS = {"copy": 3.0, "text": 0.0}


def slowly(rows, loss, prompt_weight, task_weights, weigh_by) -> list[float]:
    """The oracle: document by document, token by token."""
    seq_len = rows["input_ids"].shape[1]
    weights, place, document = [0.0] * rows["input_ids"].size, 0, 0
    for row, count in enumerate(np.bincount(rows["doc_rows"]).tolist()):
        place = row * seq_len
        for _ in range(count):
            length, task = (
                int(rows["seq_lengths"][document]),
                INFOS[rows["source_ids"][document]].task,
            )
            of_tokens = []
            for i in range(length):
                role = int(rows["roles"][row, place + i - row * seq_len])
                trained = bool(rows["loss_mask"][row, place + i - row * seq_len])
                weight = {"target": float(trained), "full": 1.0, "template-masked": 1.0}[loss]
                if role in (1, 2) and prompt_weight is not None:
                    weight = prompt_weight
                if role == 1 and loss == "template-masked":
                    weight = 0.0
                of_tokens.append(weight if i > 0 else 0.0)
            if weigh_by == "example" and sum(of_tokens) > 0:
                of_tokens = [weight / sum(of_tokens) for weight in of_tokens]
            of_document = float(rows["doc_weights"][document]) if "doc_weights" in rows else 1.0
            for i, weight in enumerate(of_tokens):
                weights[place + i] = weight * task_weights.get(task, 1.0) * of_document
            place, document = place + length, document + 1
    return weights


@given(
    rows=any_rows(),
    loss=st.sampled_from(["target", "full", "template-masked"]),
    prompt_weight=st.sampled_from([None, 0.0, 0.1, 1.0]),
    task_weights=st.sampled_from([{}, WEIGHTS]),
    weigh_by=st.sampled_from(["token", "example"]),
)
def test_weights_are_those_of_a_loop_over_tokens(rows, loss, prompt_weight, task_weights, weigh_by):
    strategy = (loss, prompt_weight, task_weights, weigh_by)
    got = Masking(INFOS, *strategy).weights(rows)
    assert got.dtype in (np.float64, np.bool_)
    np.testing.assert_allclose(got, slowly(rows, *strategy), rtol=1e-12, atol=0)


@given(rows=any_rows())
def test_documents_of_tokens(rows):
    document_N = documents_of(rows)
    assert (document_N >= 0).sum() == rows["seq_lengths"].sum() and document_N.min() >= -1
    for document, (row, length) in enumerate(
        zip(rows["doc_rows"], rows["seq_lengths"], strict=True)
    ):
        at = np.flatnonzero(document_N == document)
        assert len(at) == length and at[-1] - at[0] == length - 1
        assert set(at // rows["input_ids"].shape[1]) == {row}


def test_the_strategies_on_a_real_dataset(tmp_path):
    """Copy, label and text documents as packed: what each strategy learns of them, in tokens."""
    dataset = write_tiny(tmp_path)
    rows = dataset.train.batch(range(len(dataset.train)))
    tokens, documents = int(rows["seq_lengths"].sum()), len(rows["seq_lengths"])
    template = int((rows["roles"] == 1).sum()) - int(
        ((rows["roles"] == 1) & (rows["position_ids"] == 0)).sum()
    )
    targets = int(rows["n_targets"].sum())

    def total(**strategy: object) -> float:
        return float(Masking(dataset.sources, **strategy).weights(rows).sum())

    assert total() == targets
    assert total(loss="full") == tokens - documents
    assert total(loss="template-masked") == tokens - documents - template
    assert total(prompt_weight=0.5) == pytest.approx(targets + 0.5 * (tokens - documents - targets))
    assert total(weigh_by="example") == pytest.approx(documents)
    of_tasks = np.bincount(rows["source_ids"], minlength=3) @ [3.0, 1.0, 0.0]
    assert total(weigh_by="example", task_weights=WEIGHTS) == pytest.approx(of_tasks)
