"""The model: its shape, its start, and what a segment can see."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from sabitrain.config import PRESETS, ModelConfig
from sabitrain.data.batches import make_step
from sabitrain.data.masking import Masking
from sabitrain.models.architecture import CausalModel, make_model
from sabitrain.models.rotary import frequencies, rotary_tables, rotate
from support.train.tiny import VOCAB_SIZE, write_tiny

CONFIG = ModelConfig(layers=3, width=32, heads=4, kv_heads=2, mlp_width=48, context=64)


@pytest.fixture
def model() -> CausalModel:
    torch.manual_seed(0)
    return make_model(CONFIG, VOCAB_SIZE)


def batch_of(dataset):
    return make_step(dataset.train, range(3), 3, Masking(dataset.sources)).batches[0]


def hidden(model: CausalModel, batch, ids=None, at=None) -> torch.Tensor:
    ids = batch.ids_N if ids is None else ids
    with torch.no_grad():
        return model(ids, batch.positions_N, batch.cu_seqlens, batch.max_seqlen, at)


@pytest.mark.parametrize("wanted", [None, [40, 3, 70, 3, 95]])
def test_a_document_is_untouched_by_the_others_and_by_padding(model, tmp_path, wanted):
    dataset = write_tiny(tmp_path)
    batch = batch_of(dataset)
    at = None if wanted is None else torch.tensor(wanted)
    before = hidden(model, batch, at=at)
    changed = torch.zeros(len(batch.ids_N), dtype=torch.bool)
    changed[int(batch.cu_seqlens[1]) : int(batch.cu_seqlens[2])] = True
    if at is not None:
        changed[32:64] = True
    ids = torch.where(changed, (batch.ids_N + 1) % VOCAB_SIZE, batch.ids_N)
    after = hidden(model, batch, ids, at)
    changed = changed if at is None else changed[at]
    assert changed.any() and not changed.all()
    assert torch.equal(before[~changed], after[~changed])
    assert not torch.equal(before[changed], after[changed])


def test_a_document_in_a_row_is_what_it_is_alone(model, tmp_path):
    batch = batch_of(write_tiny(tmp_path))
    together = hidden(model, batch)
    for start, end in itertools.pairwise(batch.cu_seqlens.unique().tolist()):
        ids = batch.ids_N[start:end]
        with torch.no_grad():
            alone = model(
                ids, torch.arange(end - start), torch.tensor([0, end - start]).int(), end - start
            )
        torch.testing.assert_close(together[start:end], alone, rtol=1e-5, atol=1e-5)


def test_a_token_sees_no_later_one(model):
    ids = torch.arange(12) % VOCAB_SIZE
    bounds = torch.tensor([0, 12]).int()
    before = model(ids, torch.arange(12), bounds, 12)
    ids[7] = 0
    after = model(ids, torch.arange(12), bounds, 12)
    assert torch.equal(before[:7], after[:7])
    assert not torch.equal(before[7], after[7])


def test_the_projections_of_a_norm_keep_one_copy_of_its_output_in_bf16(model, tmp_path):
    """Each of them made and kept a copy of its own: three for attention, two for the MLP."""
    batch, outputs, kept = batch_of(write_tiny(tmp_path)), {}, {}
    for name, module in model.named_modules():
        if name.endswith("layernorm"):
            module.register_forward_hook(
                lambda _, __, out, name=name: outputs.update({name: out.bfloat16()})
            )

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16),
    ):
        model(batch.ids_N, batch.positions_N, batch.cu_seqlens, batch.max_seqlen)
    assert len(outputs) == 2 * CONFIG.layers
    for name, narrow in outputs.items():
        copies = sum(
            tensor.dtype == torch.bfloat16
            and tensor.shape == narrow.shape
            and torch.equal(tensor, narrow)
            for tensor in kept.values()
        )
        assert copies == 1, name


def test_initial_weights():
    torch.manual_seed(0)
    config = ModelConfig(layers=2, width=256, heads=4, kv_heads=4, mlp_width=512, init_std=0.03)
    for name, parameter in make_model(config, 500).named_parameters():
        if parameter.ndim == 1:
            assert torch.equal(parameter, torch.ones_like(parameter)), name
        else:
            writes = "o_proj" in name or "down_proj" in name
            assert parameter.std().item() == pytest.approx(0.03 / (2 if writes else 1), rel=0.03), (
                name
            )


def test_rotation_is_of_halves_and_keeps_relative_angles():
    config = ModelConfig(width=16, heads=2, kv_heads=2, context=32, rope_theta=100.0)
    cos, sin = rotary_tables(frequencies(config.head_size, config.rope_theta), config.context)
    x, y = torch.randn(1, 2, 8, dtype=torch.float64), torch.randn(1, 2, 8, dtype=torch.float64)

    def slowly(vector: torch.Tensor, position: int) -> torch.Tensor:
        out = vector.clone()
        for i in range(4):
            angle = position * 100.0 ** (-2 * i / 8)
            first, second = vector[..., i], vector[..., i + 4]
            out[..., i] = first * math.cos(angle) - second * math.sin(angle)
            out[..., i + 4] = second * math.cos(angle) + first * math.sin(angle)
        return out

    def quickly(vector: torch.Tensor, position: int) -> torch.Tensor:
        return rotate(vector, cos[position], sin[position])

    torch.testing.assert_close(quickly(x, 19), slowly(x, 19), rtol=1e-5, atol=1e-5)
    products = [(quickly(x, 3 + shift) * quickly(y, 9 + shift)).sum().item() for shift in (0, 20)]
    assert products[0] == pytest.approx(products[1], abs=1e-4)


def test_presets_have_the_size_of_their_name():
    sizes = {}
    for name, preset in PRESETS.items():
        with torch.device("meta"):
            sizes[name] = make_model(ModelConfig(**preset.get("model", {})), 50_000).n_parameters()
    assert 110e6 < sizes["125m"] < 140e6
    assert 330e6 < sizes["350m"] < 370e6
    assert 0.9e9 < sizes["1b"] < 1.2e9
    with torch.device("meta"):
        assert make_model(ModelConfig(), 4_000).n_parameters() < 2e6
