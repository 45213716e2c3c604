"""What is left out changes nothing: loss and gradients of every way to compute them, against all
logits by autograd.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sabitrain.config import ModelConfig
from sabitrain.data.batches import PAD_TO, make_batch
from sabitrain.models import loss as loss_module
from sabitrain.models.architecture import CausalModel, make_model
from sabitrain.models.loss import predicting_states, target_losses, weighted_loss
from support.train.tiny import VOCAB_SIZE, any_rows, random_rows

SHAPES = [
    ModelConfig(layers=1, width=8, heads=2, kv_heads=2, mlp_width=12, context=1024),
    ModelConfig(layers=3, width=12, heads=3, kv_heads=1, mlp_width=8, context=1024),
    ModelConfig(layers=2, width=16, heads=4, kv_heads=2, mlp_width=24, context=1024),
]


def trained_model(shape: ModelConfig, seed: int) -> CausalModel:
    torch.manual_seed(seed)
    model = make_model(shape, VOCAB_SIZE).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 1.0 if parameter.ndim == 1 else 0.0, 0.5)
    return model


def reference(
    model: CausalModel, rows, weights_N, z_loss: float
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The oracle: logits everywhere, each label's loss times its weight, gradients by autograd."""
    batch = make_batch(rows, weights_N)
    bounds = torch.from_numpy(rows["cu_seqlens"])
    logits = F.linear(
        model(batch.ids_N, batch.positions_N, bounds, batch.max_seqlen), model.head_VC
    )
    losses = (
        F.cross_entropy(logits[:-1], batch.ids_N[1:], reduction="none")
        + z_loss * logits[:-1].logsumexp(-1) ** 2
    )
    loss = (losses * torch.from_numpy(weights_N)[1:]).sum()
    return loss, torch.autograd.grad(loss, list(model.parameters()))


def computed(
    model: CausalModel, rows, weights_N, z_loss: float, compute
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    batch = make_batch(rows, weights_N, compute)
    loss, _ = weighted_loss(predicting_states(model, batch, compute), model.head_VC, batch, z_loss)
    return loss, torch.autograd.grad(loss, list(model.parameters()))


@settings(max_examples=80, deadline=None)
@given(
    rows=any_rows(),
    shape=st.sampled_from(SHAPES),
    compute=st.sampled_from(["dense", "head", "full"]),
    z_loss=st.sampled_from([0.0, 0.01]),
    seed=st.integers(0, 1000),
)
def test_loss_and_every_gradient_equal_those_of_all_logits(rows, shape, compute, z_loss, seed):
    model = trained_model(shape, seed)
    mask_N = rows["loss_mask"].reshape(-1)
    weights_N = mask_N * torch.rand(len(mask_N), dtype=torch.float64).numpy()
    want, want_gradients = reference(model, rows, weights_N, z_loss)
    got, gradients = computed(model, rows, weights_N, z_loss, compute)
    torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-13)
    for ours, theirs in zip(gradients, want_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    if not mask_N.any():
        assert got == 0 and not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("compute", ["dense", "head", "full"])
def test_logits_in_chunks_are_the_same(monkeypatch, compute):
    model = trained_model(SHAPES[2], 0)
    rows = random_rows(0, 2, 512, 200, 0.5)
    weights_N = (rows["position_ids"].reshape(-1) > 0).astype(float)
    batch = make_batch(rows, weights_N, compute)
    want, gradients = computed(model, rows, weights_N, 0.01, compute)
    losses, _ = target_losses(
        predicting_states(model, batch, compute), model.head_VC, batch.targets_M
    )
    monkeypatch.setattr(loss_module, "MAX_LOGITS", 1)
    chunks = list(loss_module._chunks(len(batch.targets_M), VOCAB_SIZE))
    assert len(chunks) == -(-len(batch.targets_M) // PAD_TO) > 1
    got, in_chunks = computed(model, rows, weights_N, 0.01, compute)
    torch.testing.assert_close(got, want)
    for ours, theirs in zip(in_chunks, gradients, strict=True):
        torch.testing.assert_close(ours, theirs)
    again, _ = target_losses(
        predicting_states(model, batch, compute), model.head_VC, batch.targets_M
    )
    torch.testing.assert_close(again, losses)


def test_what_is_left_out_is_not_computed():
    """The last block's MLP and the final norm see as many rows as there are predictions."""
    model, seen = trained_model(SHAPES[1], 0), {}
    for name in (
        "model.layers.1.mlp",
        "model.layers.2.mlp",
        "model.layers.2.self_attn.o_proj",
        "model.norm",
    ):
        model.get_submodule(name).register_forward_hook(
            lambda _, inputs, __, name=name: seen.update({name: len(inputs[0])})
        )
    rows = random_rows(0, 1, 1024, 40, 0.5)
    weights_N = (rows["position_ids"].reshape(-1) == 1).astype(float)
    batch = make_batch(rows, weights_N)
    predicting_states(model, batch)
    everything = len(batch.ids_N)
    assert seen.pop("model.layers.1.mlp") == everything
    assert set(seen.values()) == {len(batch.predict_at_M)} and len(batch.predict_at_M) < everything
    predicting_states(model, batch, "head")
    assert set(seen.values()) == {everything}
