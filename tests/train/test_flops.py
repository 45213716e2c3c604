"""FLOPs against torch's own counter, which sees every matrix product, and is told what attention
takes.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sabitrain.config import PRESETS, ModelConfig
from sabitrain.data.batches import Step, make_batch
from sabitrain.device import peak_flops
from sabitrain.models.architecture import Work, architecture_of, make_model
from sabitrain.models.flops import step_flops
from sabitrain.models.loss import predicting_states, weighted_loss
from support.train.tiny import VOCAB_SIZE, random_rows

SHAPE = ModelConfig(layers=3, width=16, heads=4, kv_heads=2, mlp_width=24, context=1024)


@pytest.mark.parametrize("compute", ["dense", "head", "full"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("recompute", [False, True])
def test_every_product_is_counted_as_often_as_it_is_executed(compute, share, recompute):
    rows = random_rows(1, 2, 1024, 100, share)
    batch = make_batch(rows, rows["loss_mask"].reshape(-1) * 1.0, compute)
    model = make_model(SHAPE, VOCAB_SIZE)
    model.recompute(recompute)
    pairs = sum(
        query + 1
        for start, end in itertools.pairwise(rows["cu_seqlens"].tolist())
        for query in range(end - start)
    )
    scores_and_values = 2 * 2 * pairs * SHAPE.width
    of_attention = {
        torch.ops.sabitrain.document_attention: lambda *_, **__: scores_and_values,
        torch.ops.sabitrain.document_attention_backward: lambda *_, **__: 2 * scores_and_values,
    }
    with FlopCounterMode(display=False, custom_mapping=of_attention) as counter:
        weighted_loss(predicting_states(model, batch, compute), model.head_VC, batch)[0].backward()
    flops = step_flops(SHAPE, VOCAB_SIZE, Step([batch, batch], 0, 0), compute, recompute)
    assert flops.executed == 2 * counter.get_total_flops()
    assert (flops.skipped == 0) == (compute == "dense")
    assert (
        flops.dense
        == step_flops(SHAPE, VOCAB_SIZE, Step([batch, batch], 0, 0), "dense", recompute).executed
    )


@pytest.mark.parametrize(("share", "saved"), [(0.5, 0.178), (0.7, 0.25), (0.9, 0.32)])
def test_what_is_saved_at_125m_with_a_vocabulary_of_52k(share, saved):
    """The shares expected of the design; documents of 128 tokens."""
    shape = ModelConfig(**PRESETS["125m"]["model"])
    tokens, lengths = 32_768, torch.full((256,), 128)
    dense, full = (
        architecture_of("llama").training_flops(
            shape, 52_000, Work(tokens, round(tokens * (1 - share)), lengths, compute)
        )
        for compute in ("dense", "full")
    )
    assert 1 - full / dense == pytest.approx(saved, abs=0.004)


def test_a_peak_needs_a_source(monkeypatch):
    assert peak_flops(torch.device("cpu")) is None
    for name, peak in (
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
    ):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _, name=name: name)
        assert peak_flops(torch.device("cuda")) == peak
