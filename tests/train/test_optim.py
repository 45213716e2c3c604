"""The optimizer: the schedule as a function of the step, decay on matrices only, clipping."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sabitrain.config import ModelConfig, OptimConfig
from sabitrain.model import Llama
from sabitrain.optim import clip_gradient, learning_rate, make_optimizer


@given(steps=st.integers(1, 300), warmup=st.floats(0, 0.9), floor=st.floats(0, 1))
def test_the_rate_rises_once_and_falls_to_the_floor(steps, warmup, floor):
    config = OptimConfig(lr=2.0, warmup=warmup, floor=floor)
    rates = [learning_rate(config, step, steps) for step in range(steps)]
    peak = rates.index(max(rates))
    assert all(0 < rate <= 2.0 or floor == 0 for rate in rates)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert all(later <= earlier + 1e-12 for earlier, later in zip(rates[peak:], rates[peak + 1 :], strict=False))
    assert max(rates) == pytest.approx(2.0)
    if peak < steps - 1 and warmup * steps < steps - 2:
        assert rates[-1] == pytest.approx(2.0 * floor)


def test_the_schedule_by_hand():
    config = OptimConfig(lr=1.0, warmup=0.4, floor=0.2)
    rates = [learning_rate(config, step, 10) for step in range(10)]
    assert rates[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert rates[9] == pytest.approx(0.2)
    assert learning_rate(config, 7, 10) == pytest.approx(0.2 + 0.8 * (1 + math.cos(math.pi * 3 / 5)) / 2)


def test_norms_do_not_decay():
    model = Llama(ModelConfig(layers=1, width=8, heads=2, kv_heads=2, mlp_width=8, context=8), 10)
    optimizer = make_optimizer(model, OptimConfig(lr=0.1, weight_decay=0.5))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), before[name] * (0.95 if parameter.ndim == 2 else 1.0))


@pytest.mark.parametrize(("largest", "after"), [(1.0, 1.0), (10.0, 5.0), (0.0, 5.0)])
def test_clipping(largest, after):
    model = torch.nn.Linear(2, 1, bias=False)
    model.weight.grad = torch.tensor([[3.0, 4.0]])
    assert clip_gradient(model, largest).item() == pytest.approx(5.0)
    assert model.weight.grad.norm().item() == pytest.approx(after, rel=1e-5)
