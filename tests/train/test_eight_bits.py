"""AdamW in 8 bits, beside that of ``bitsandbytes``: steps, states, skipping, resuming, the plan."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from sabiprep.errors import SabiprepError
from sabitrain.config import ModelConfig, OptimConfig
from sabitrain.memory import MicroBatch, memory_of
from sabitrain.models.architecture import make_model
from sabitrain.optim import eight_bits
from sabitrain.optim.eight_bits import AdamW8bit
from sabitrain.optim.optimizers import make_optimizers
from sabitrain.planning import describe
from sabitrain.trainer import run_training
from support.train import tear
from support.train.bases import damaged_copy, from_base, make_base
from support.train.tiny import VOCAB_SIZE, tiny_config, write_tiny

SETTINGS = {"lr": 1e-2, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
# Its largest matrices have 12,288 numbers, its smallest 2,048.
SHAPE = ModelConfig(layers=2, width=64, heads=4, kv_heads=2, mlp_width=192, context=64)


@pytest.fixture
def data(tmp_path) -> Path:
    return write_tiny(tmp_path / "data").path


@pytest.mark.parametrize("at_once", [2048, 2**23])
def test_its_steps_and_states_are_those_of_bitsandbytes(at_once, monkeypatch):
    import bitsandbytes

    monkeypatch.setattr(eight_bits, "_AT_ONCE", at_once)
    random = torch.Generator().manual_seed(0)
    ours, theirs, wide = (nn.Parameter(torch.ones(70, 101)) for _ in range(3))
    start = ours.detach().clone()
    optimizers = (
        AdamW8bit([ours], **SETTINGS),
        bitsandbytes.optim.AdamW8bit([theirs], **SETTINGS),
        torch.optim.AdamW([wide], **SETTINGS),
    )
    for _ in range(20):
        gradient = torch.randn(70, 101, generator=random)
        for parameter, optimizer in zip((ours, theirs, wide), optimizers, strict=True):
            parameter.grad = gradient.clone()
            optimizer.step()
    # Sums are rounded otherwise, which a code may show.
    assert ((ours - theirs).abs() > 1e-5).float().mean() < 0.001
    state, expected = optimizers[0].state[ours], optimizers[1].state[theirs]
    for name, number in (("mean", 1), ("square", 2)):
        apart = state[name] != expected[f"state{number}"]
        assert apart.float().mean() < 0.001
        torch.testing.assert_close(state[f"{name}_scale"], expected[f"absmax{number}"])
    # As AdamW in full, but for what 8 bits lose.
    moved = (wide - start).abs().mean()
    assert 0 < (ours - wide).abs().mean() < 0.05 * moved


def test_large_matrices_of_the_blocks_are_in_8_bits_and_the_rest_in_32():
    model = make_model(SHAPE, 100)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    config = OptimConfig(name="adamw8bit", rates=("*.0.mlp.*=0.5",))
    found = {}
    names = {parameter: name for name, parameter in model.named_parameters()}
    for optimizer in make_optimizers(model, model.units(), config):
        optimizer.step()
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                nbytes = sum(value.nbytes for value in optimizer.state[parameter].values())
                found[names[parameter]] = nbytes / parameter.numel(), group.get("factor", 1.0)
    assert found.keys() == set(names.values())
    for parameter, name in names.items():
        per_number, factor = found[name]
        small = ".layers." not in name or parameter.numel() < 4096
        assert per_number > 7.9 if small else per_number < 2.1, name
        assert factor == (0.5 if ".0.mlp." in name else 1.0)
    assert {name for name, (size, _) in found.items() if size > 7} >= {
        "model.embed_tokens.weight",
        "model.layers.0.self_attn.k_proj.weight",
    }


@pytest.mark.parametrize("train", ["all", "lora"])
def test_a_resumed_run_is_the_whole_one(data, tmp_path, train, monkeypatch):
    monkeypatch.setattr("sabitrain.optim.optimizers.FEWEST", 1)
    base = make_base(data, tmp_path / "base")
    options = {"train": train, "optim": OptimConfig(lr=1e-2, name="adamw8bit")}
    run_training(from_base(data, tmp_path / "run", base, **options))
    copy = damaged_copy(tmp_path / "run", tmp_path / "copy")
    run_training(from_base(data, copy, base, resume=True, **options))
    assert tear.outcome(copy) == tear.outcome(tmp_path / "run")


def test_the_plan_counts_its_states():
    sizes = {}
    for name in ("adamw", "adamw8bit"):
        config = tiny_config("data", "run", model=SHAPE, optim=OptimConfig(name=name))
        sizes[name] = memory_of(config, VOCAB_SIZE, MicroBatch(64, 32, 4)).optimizer
    model = make_model(SHAPE, VOCAB_SIZE)
    held = sum(
        parameter.numel()
        for unit in model.units()
        for parameter in unit.parameters()
        if parameter.numel() >= 4096
    )
    # 2 bytes and 8 a block of 256 in the place of 8.
    assert sizes["adamw"] - sizes["adamw8bit"] == pytest.approx(held * (6 - 8 / 256), rel=0.05)


def test_nothing_said_that_no_matrix_was_large_enough_for_8_bits(data, tmp_path, capsys):
    optim = OptimConfig(name="adamw8bit")
    tiny = tiny_config(data, tmp_path / "tiny", optim=optim)
    large = tiny_config(data, tmp_path / "large", optim=optim, model=SHAPE)
    run_training(tiny)
    said = capsys.readouterr().out
    planned = [" ".join(describe(config).split()) for config in (tiny, large)]
    for text in (" ".join(said.split()), planned[0]):
        assert "states of 0 of " in text and "adamw8bit is adamw here" in text
    held = 2 * (3 * 64 * 192 + 2 * 64 * 64)
    assert f"states of {held:,} of " in planned[1] and "is adamw here" not in planned[1]
    assert "in 8 bits" not in describe(tiny_config(data, tmp_path / "run"))


def test_without_its_package_it_is_refused(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    config = tiny_config(data, tmp_path / "run", optim=OptimConfig(name="adamw8bit"))
    with pytest.raises(SabiprepError, match="adamw8bit needs the package bitsandbytes") as caught:
        run_training(config)
    assert "sabiprep[quant]" in str(caught.value.remedy)
    assert not (tmp_path / "run").exists()
