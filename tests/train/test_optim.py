"""The optimizers: which parameters each takes, decay, Muon's updates, clipping."""

from __future__ import annotations

import pytest
import torch

from sabitrain.config import ModelConfig, OptimConfig
from sabitrain.models.architecture import CausalModel, make_model
from sabitrain.optim.optimizers import (
    clip_gradient,
    make_optimizers,
    parameter_groups,
    set_learning_rate,
)

SHAPE = ModelConfig(layers=2, width=16, heads=2, kv_heads=1, mlp_width=40, context=8)


@pytest.fixture
def model() -> CausalModel:
    torch.manual_seed(0)
    model = make_model(SHAPE, 30)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    return model


def test_every_parameter_is_in_the_group_of_its_name(model):
    groups = parameter_groups(model, model.units(), 0.1)
    names = {group: [name for name, _ in of["params"]] for group, of in groups.items()}
    assert sorted(name for of_group in names.values() for name in of_group) == sorted(
        name for name, _ in model.named_parameters()
    )
    assert names["embedding"] == ["model.embed_tokens.weight"]
    assert all("norm" in name for name in names["norms"]) and len(names["norms"]) == 5
    assert all(".layers." in name and name.endswith("_proj.weight") for name in names["matrices"])
    assert {group: of["weight_decay"] for group, of in groups.items()} == {
        "matrices": 0.1,
        "embedding": 0.1,
        "norms": 0.0,
    }


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_norms_do_not_decay(model, name):
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for optimizer in make_optimizers(
        model, model.units(), OptimConfig(name=name, lr=0.1, weight_decay=0.5)
    ):
        optimizer.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(
            parameter.detach(), before[name] * (0.95 if parameter.ndim == 2 else 1.0)
        )


def test_muon_takes_the_matrices_and_adamw_the_rest(model):
    """A matrix's update is nearly orthogonal, of a size with AdamW's; the rest moves as under AdamW
    alone.
    """
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    moved = {}
    for kind in ("adamw", "muon"):
        for name, parameter in model.named_parameters():
            parameter.data.copy_(before[name])
            parameter.grad = gradients[name].clone()
        for optimizer in make_optimizers(
            model, model.units(), OptimConfig(name=kind, lr=0.1, weight_decay=0.0)
        ):
            optimizer.step()
        moved[kind] = {
            name: parameter.detach() - before[name] for name, parameter in model.named_parameters()
        }
    for name, update in moved["muon"].items():
        if "_proj" in name:
            singular = torch.linalg.svdvals(update / (-0.1 * 0.2 * max(update.shape) ** 0.5))
            assert singular.min() > 0.4 and singular.max() < 1.5, name
            assert (update * gradients[name]).sum() < 0, name
        else:
            assert torch.equal(update, moved["adamw"][name]), name


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_the_rate_is_set_everywhere(model, name):
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizers = make_optimizers(model, model.units(), OptimConfig(name=name))
    set_learning_rate(optimizers, 0.0)
    for optimizer in optimizers:
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize(("largest", "after"), [(1.0, 1.0), (10.0, 5.0), (0.0, 5.0)])
def test_clipping(largest, after):
    model = torch.nn.Linear(2, 1, bias=False)
    model.weight.grad = torch.tensor([[3.0, 4.0]])
    assert clip_gradient(model, largest).item() == pytest.approx(5.0)
    assert model.weight.grad.norm().item() == pytest.approx(after, rel=1e-5)
