"""Adapters on a base in 4 or 8 bits: products, gradients, runs, what they leave, and the plan."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sabitrain
from sabiprep.errors import ConfigError, SabiprepError
from sabitrain.__main__ import main
from sabitrain.checkpoints.adapter import load_adapted
from sabitrain.checkpoints.pretrained import load_pretrained, open_pretrained
from sabitrain.config import ModelConfig, OptimConfig, TrainConfig
from sabitrain.data.batches import make_batch
from sabitrain.memory import MicroBatch, memory_of
from sabitrain.models.architecture import make_model
from sabitrain.models.loss import predicting_states, weighted_loss
from sabitrain.models.quantised import QuantisedLinear, quantise
from sabitrain.partial.settings import LoraConfig, PartialConfig
from sabitrain.partial.trained import set_trained
from sabitrain.planning import describe
from sabitrain.trainer import run_training
from support.train import tear
from support.train.bases import damaged_copy, from_base, make_base, weights
from support.train.families import FAMILIES, VOCAB_SIZE
from support.train.runs import read
from support.train.tiny import random_rows, write_tiny

CPU = torch.device("cpu")
# The levels of NF4 (arXiv:2305.14314, appendix E).
NF4 = """
-1.0 -0.6961928009986877 -0.5250730514526367 -0.39491748809814453 -0.28444138169288635
-0.18477343022823334 -0.09105003625154495 0.0 0.07958029955625534 0.16093020141124725
0.24611230194568634 0.33791524171829224 0.44070982933044434 0.5626170039176941 0.7229568362236023
1.0
"""
SHAPE = ModelConfig(layers=3, width=64, heads=4, kv_heads=2, mlp_width=96, context=1024)


@pytest.fixture
def data(tmp_path) -> Path:
    return write_tiny(tmp_path / "data").path


def config_of(data: Path, run: Path, base: Path, bits: int | None, **options: object):
    lora = LoraConfig(rank=4, alpha=16.0, bits=bits, **options.pop("lora", {}))
    optim = OptimConfig(lr=2e-2)
    return from_base(data, run, base, **{"train": "lora", "lora": lora, "optim": optim, **options})


def in_blocks(weight_OI: torch.Tensor, bits: int) -> torch.Tensor:
    """The weight as it is after quantising, written a second time: a loop over blocks."""
    if bits == 8:
        largest = weight_OI.abs().amax(1, keepdim=True)
        return (weight_OI / largest * 127).round() * largest / 127
    levels = torch.tensor([float(level) for level in NF4.split()])
    out = torch.empty_like(weight_OI).flatten()
    flat = weight_OI.flatten()
    for first in range(0, len(flat), 64):
        block = flat[first : first + 64]
        scaled = block / block.abs().max()
        out[first : first + 64] = (
            levels[(scaled[:, None] - levels).abs().argmin(1)] * block.abs().max()
        )
    return out.view_as(weight_OI)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("bias", [False, True])
def test_products_and_gradients_are_those_of_the_quantised_weight(bits, bias):
    torch.manual_seed(bits)
    layer = nn.Linear(96, 80, bias=bias)
    held = QuantisedLinear(layer, bits, CPU)
    expected = in_blocks(layer.weight.detach(), bits)
    apart = (held.weight - expected).abs() / expected.abs().max()
    # Scales of 4 bits are quantised too; 8 bits are rounded in halves, some to the next level.
    assert apart.max() <= (0.01 if bits == 4 else 1.1 / 127)
    assert bits == 4 or (apart > 0.001).float().mean() < 0.02
    assert 0.5 / 2**bits < (held.weight - layer.weight).abs().max() / layer.weight.abs().max()
    x = torch.randn(5, 96, requires_grad=True)
    y = torch.randn(5, 80)
    (held(x) * y).sum().backward()
    grad, x.grad = x.grad, None
    dense = F.linear(x, held.weight, layer.bias)
    torch.testing.assert_close(held(x), dense)
    (dense * y).sum().backward()
    torch.testing.assert_close(grad, x.grad)
    with torch.autocast("cpu", torch.bfloat16):
        assert held(x).dtype == torch.bfloat16


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("bits", [4, 8])
def test_the_blocks_matrices_are_quantised_and_nothing_else(data, tmp_path, family, bits):
    model = load_pretrained(open_pretrained(make_base(data, tmp_path / "base", family)))
    count = model.n_parameters()
    before = {name: value.clone() for name, value in model.named_parameters()}
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    quantise(model.units(), bits)
    held = {n: m for n, m in model.named_modules() if isinstance(m, QuantisedLinear)}
    assert sorted(held) == [name for name in sorted(linear) if ".layers." in name]
    rest = dict(model.named_parameters())
    assert before.keys() - rest.keys() == {f"{name}.weight" for name in held}
    assert all(torch.equal(value, before[name]) for name, value in rest.items())
    assert model.n_parameters() == count


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("recompute", [False, True])
def test_an_adapter_has_the_gradients_that_it_has_on_the_widened_base(bits, dora, recompute):
    rows = random_rows(1, 2, 64, 20, 0.5)
    batch = make_batch(rows, rows["loss_mask"].reshape(-1) / 50)
    found = []
    for held in (True, False):
        torch.manual_seed(0)
        model = make_model(SHAPE, VOCAB_SIZE)
        if not held:
            for unit in model.units():
                for module in unit.modules():
                    if isinstance(module, nn.Linear):
                        widened = QuantisedLinear(module, bits, CPU).weight
                        module.weight.data = widened
        torch.manual_seed(1)
        lora = LoraConfig(rank=3, dora=dora, bits=bits if held else None)
        set_trained(model, PartialConfig(train="lora", lora=lora))
        for name, value in model.trained().items():
            if "lora_B" in name:
                value.data.normal_(generator=torch.Generator().manual_seed(len(name)))
        model.recompute(recompute)
        hidden = predicting_states(model, batch)
        loss = weighted_loss(hidden, model.head_VC, batch)[0]
        loss.backward()
        found.append((loss.detach(), {n: v.grad for n, v in model.trained().items()}))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("bits", "dora"), [(4, False), (8, True)])
def test_a_resumed_run_is_the_whole_one_and_the_base_stays(data, tmp_path, bits, dora):
    base = make_base(data, tmp_path / "base")
    before = (base / "model.safetensors").read_bytes()
    options = {"lora": {"dora": dora}}
    run_training(config_of(data, tmp_path / "run", base, bits, **options))
    copy = damaged_copy(tmp_path / "run", tmp_path / "copy")
    options = {"lora": {"dora": dora}}
    run_training(config_of(data, copy, base, bits, resume=True, **options))
    assert tear.outcome(copy) == tear.outcome(tmp_path / "run")
    assert (base / "model.safetensors").read_bytes() == before
    start = read(tmp_path / "run")[0]
    plain = load_pretrained(open_pretrained(base)).n_parameters()
    assert start["parameters"] == plain + start["trained_parameters"]
    noted = json.loads((tmp_path / "run" / "checkpoint" / "base.json").read_text())
    assert noted["bits"] == bits
    with pytest.raises(ConfigError, match=r"lora"):
        other = config_of(data, copy, base, 12 - bits, resume=True, lora={"dora": dora})
        run_training(other)


# peft asks transformers by an older name.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_peft_loads_the_adapter_and_merge_makes_it_whole_on_the_base_as_it_is(
    data, tmp_path, capsys
):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = make_base(data, tmp_path / "base", "qwen2")
    folder = run_training(config_of(data, tmp_path / "run", base, 4)).checkpoint
    ids = torch.randint(0, VOCAB_SIZE, (1, 9), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        theirs = AutoModelForCausalLM.from_pretrained(base)
        before = theirs(ids).logits
        expected = PeftModel.from_pretrained(theirs, folder).eval()(ids).logits
        assert (expected - before).abs().max() > 0.1
        capsys.readouterr()
        assert main(["merge", str(folder), str(tmp_path / "whole")]) == 0
        assert "on its base in 4 bits" in capsys.readouterr().out
        whole = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")(ids).logits
    torch.testing.assert_close(whole, expected, rtol=2e-5, atol=2e-5)
    assert set(weights(tmp_path / "whole")) == set(weights(base))
    merged, _ = load_adapted(folder)
    loaded = sabitrain.load_checkpoint(folder)
    for model in (merged, loaded):
        assert not any(isinstance(module, QuantisedLinear) for module in model.modules())


def test_compiled_blocks_are_one_graph_each(tmp_path):
    # Without held-out rows, whose graphs have no gradients: each takes seconds.
    data = write_tiny(tmp_path / "data", held_out=0).path
    base = make_base(data, tmp_path / "base", "qwen3")
    losses = []
    for compiles in ("off", "on"):
        options = {"max_steps": 2, "answers": 0, "compile": compiles}
        run_training(config_of(data, tmp_path / compiles, base, 4, **options))
        lines = read(tmp_path / compiles)
        losses.append([line["loss"] for line in lines if line["kind"] == "train"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize("bits", [4, 8])
def test_the_plan_holds_what_the_layers_hold(bits):
    config = TrainConfig(data=("x",), run=Path("run"), train="lora", model=SHAPE)
    size = MicroBatch(256, 100, 4)
    planned = {}
    for own in (None, bits):
        lora = LoraConfig(rank=4, bits=own)
        planned[own] = memory_of(replace(config, lora=lora), VOCAB_SIZE, size)
    model = make_model(SHAPE, VOCAB_SIZE)
    set_trained(model, PartialConfig(train="lora", lora=LoraConfig(rank=4, bits=bits)))
    tensors = {t.data_ptr(): t for t in (*model.parameters(), *model.buffers())}.values()
    # The allocator hands out multiples of 512 bytes.
    assert planned[bits].parameters == sum(-(-tensor.nbytes // 512) * 512 for tensor in tensors)
    linear = [m for m in model.modules() if isinstance(m, QuantisedLinear)]
    count = sum(layer.in_features * layer.out_features for layer in linear)
    # 4 bits and 8.5 for each block of 64; 8 bits and a float32 a row.
    small = sum(
        part.nbytes
        for layer in linear
        for name, part in layer.named_buffers()
        if name not in ("table", "mean_scale", "scales_of_scales")
    )
    rows = sum(layer.out_features for layer in linear)
    assert small == (count // 2 + count // 64 if bits == 4 else count + 4 * rows)
    assert planned[None].parameters - planned[bits].parameters > count * (16 - bits) / 8 - 2**16
    assert planned[bits].gradients == planned[None].gradients


def test_the_plan_has_room_for_the_widened_matrix():
    """A matrix far larger than everything else that a step holds."""
    wide = replace(SHAPE, layers=1, mlp_width=65_536)
    config = TrainConfig(
        data=("x",),
        run=Path("run"),
        train="lora",
        model=wide,
        recompute="on",
        lora=LoraConfig(rank=1, bits=4, targets=("q_proj",)),
    )
    held = memory_of(config, VOCAB_SIZE, MicroBatch(64, 1, 2), recompute=True)
    assert held.total - held.reserve - held.parameters > 2 * 64 * 65_536


def test_plan_says_it_without_a_gpu(data, tmp_path):
    base = make_base(data, tmp_path / "base")
    text = [describe(config_of(data, tmp_path / "run", base, bits)) for bits in (None, 4)]
    # All but the memory and its micro-batch is the same.
    assert text[0].splitlines()[0] == text[1].splitlines()[0]
    assert "TFLOP a step" in text[1]


def test_what_cannot_be_is_refused_before_anything_is_left(data, tmp_path, monkeypatch):
    base = make_base(data, tmp_path / "base")
    with pytest.raises(ConfigError, match=r"base of --train lora, not of --train all(.|\n)*leave"):
        from_base(data, tmp_path / "a", base, lora=LoraConfig(bits=4))
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    with pytest.raises(SabiprepError, match=r"lora.bits needs the package bitsandbytes") as caught:
        run_training(config_of(data, tmp_path / "a", base, 4))
    assert "sabiprep[quant]" in str(caught.value.remedy)
    assert not (tmp_path / "a").exists()
