"""The optimizers, the parameters that each takes, and clipping."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from sabitrain.models.architecture import CausalModel
from sabitrain.optim.eight_bits import FEWEST, AdamW8bit
from sabitrain.optim.settings import OptimConfig, Optimizer


def make_optimizers(
    model: nn.Module, units: Sequence[nn.Module], config: OptimConfig
) -> list[torch.optim.Optimizer]:
    """Makes AdamW for everything, or another for the matrices of the units and AdamW for the rest.

    AdamW (arXiv:1711.05101) is fused into one kernel. Muon (Jordan et al., 2024) makes each update
    of a matrix nearly orthogonal; scaled by 0.2 sqrt(longer side) it is as large as AdamW's, so
    both share a rate and a weight decay (Liu et al., arXiv:2502.16982, section 2.2). AdamW in 8
    bits takes the matrices of the units alone as well: the states of an embedding are too uneven
    for it (arXiv:2110.02861, section 2.3). Norms never decay.

    Args:
        model: The model, on the device to train on.
        units: The units of the model (`sabitrain.models.architecture.CausalModel.units`).
        config: The settings.

    Raises:
        SabiprepError: If ``bitsandbytes`` is needed and not installed.
    """
    groups = parameter_groups(model, units, config.weight_decay, config.factors())
    optimizers: list[torch.optim.Optimizer] = []
    betas = config.beta1, config.beta2
    # Taken out, so that AdamW below takes the rest alone.
    taken = [] if config.name == "adamw" else _take_matrices(groups, config.name)
    if config.name == "muon" and taken:
        optimizers.append(
            SkippingMuon(
                taken, lr=config.lr, momentum=config.momentum, adjust_lr_fn="match_rms_adamw"
            )
        )
    if config.name == "adamw8bit" and taken:
        optimizers.append(AdamW8bit(taken, lr=config.lr, betas=betas, eps=config.eps))
    if groups:
        optimizers.append(
            torch.optim.AdamW(
                list(groups.values()), lr=config.lr, betas=betas, eps=config.eps, fused=True
            )
        )
    # A run on the CPU must set up no CUDA, whatever GPU is there.
    if next(model.parameters()).device.type == "cpu":
        for optimizer in optimizers:
            _leave_gpus_alone(optimizer)
    return optimizers


def states_in_8_bits(config: OptimConfig, model: CausalModel) -> int | None:
    """Returns how many trained parameters have their states in 8 bits; None for no such optimizer.

    Args:
        config: The settings.
        model: The model.
    """
    if config.name != "adamw8bit":
        return None
    taken = _take_matrices(parameter_groups(model, model.units(), 0.0), config.name)
    return sum(int(one.numel()) for group in taken for _, one in group["params"])


def _take_matrices(groups: dict[str, dict[str, Any]], name: Optimizer) -> list[dict[str, Any]]:
    """Takes the parameters out of groups that Muon, or AdamW in 8 bits, is to train."""
    fewest = FEWEST if name == "adamw8bit" else 0
    taken = []
    for key in [key for key, group in groups.items() if group["group"] == "matrices"]:
        group = groups.pop(key)
        for is_taken in (True, False):
            params = [one for one in group["params"] if (one[1].numel() >= fewest) is is_taken]
            if params and is_taken:
                taken.append({**group, "params": params})
            elif params:
                groups[key] = {**group, "params": params}
    return taken


def _leave_gpus_alone(optimizer: torch.optim.Optimizer) -> None:
    """Has an optimizer on the CPU ask no GPU whether it is capturing a graph.

    Since torch 2.15 optimizers ask any GPU of the machine, which sets up CUDA there.
    """
    for check in ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check"):
        if hasattr(optimizer, check):
            setattr(optimizer, check, lambda: None)


class SkippingMuon(torch.optim.Muon):
    """Muon with a step that the device can have change nothing, as fused AdamW's step.

    `skip_where` sets the verdict for both. A copy of a matrix and of its momentum is kept during
    its step, one pair at a time.
    """

    found_inf: torch.Tensor | None = None

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Takes one step; with ``found_inf``, ``closure`` must be None."""
        if self.found_inf is None:
            return super().step(closure)  # type: ignore[no-untyped-call]
        if closure is not None:
            raise ValueError("a step that may be skipped takes no closure")
        skip, groups = self.found_inf > 0, self.param_groups
        try:
            for group in groups:
                for parameter in group["params"]:
                    if parameter.grad is None:
                        continue
                    # Muon has no kernel that could read the verdict: its step is taken, and undone.
                    before = parameter.clone()
                    momentum = (
                        self.state[parameter]
                        .get("momentum_buffer", torch.zeros_like(before))
                        .clone()
                    )
                    # One matrix alone, so that no more than one copy is held at a time.
                    self.param_groups = [{**group, "params": [parameter]}]
                    super().step()  # type: ignore[no-untyped-call]
                    parameter.copy_(torch.where(skip, before, parameter))
                    after = self.state[parameter]["momentum_buffer"]
                    after.copy_(torch.where(skip, momentum, after))
        finally:
            self.param_groups = groups


def skip_where(optimizers: Sequence[torch.optim.Optimizer], skip: torch.Tensor) -> None:
    """Has the next step leave parameters and states as they are, to the bit, if ``skip`` is 1.

    No code waits for the device.

    Args:
        optimizers: The optimizers.
        skip: float32[], 1 or 0, on the device.
    """
    # Fused AdamW reads this attribute in its kernel: torch made it for scaled gradients.
    for optimizer in optimizers:
        optimizer.found_inf = skip  # type: ignore[attr-defined]


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the parameters of a model that are trained, by name."""
    if isinstance(model, CausalModel):
        return model.trained()
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def parameter_groups(
    model: nn.Module,
    units: Sequence[nn.Module],
    weight_decay: float,
    factors: Mapping[str, float] = MappingProxyType({}),
) -> dict[str, dict[str, Any]]:
    """Returns the trained parameters of each group, by the group's name, with their weight decay.

    ``matrices`` holds the matrices of the units, ``embedding`` all other matrices (embedding and
    head), and ``norms`` the vectors. A group without parameters is left out; parameters with a
    factor of the learning rate have groups of their own.

    Args:
        model: The model.
        units: The units of the model.
        weight_decay: The decay of all but the norms.
        factors: The factor of the learning rate by pattern of names; the first that matches counts.
    """
    in_units = {parameter for unit in units for parameter in unit.parameters()}
    groups: dict[str, dict[str, Any]] = {}
    for kind in ("matrices", "embedding", "norms"):
        for factor in dict.fromkeys((1.0, *factors.values())):
            groups[kind if factor == 1.0 else f"{kind} {factor}"] = {
                "params": [],
                "weight_decay": 0.0 if kind == "norms" else weight_decay,
                "group": kind,
                **({} if factor == 1.0 else {"factor": factor}),
            }
    for name, parameter in trained_parameters(model).items():
        of_rank_2 = "matrices" if parameter in in_units else "embedding"
        kind = of_rank_2 if parameter.ndim == 2 else "norms"
        matches = (value for pattern, value in factors.items() if fnmatchcase(name, pattern))
        factor = next(matches, 1.0)
        groups[kind if factor == 1.0 else f"{kind} {factor}"]["params"].append((name, parameter))
    return {name: group for name, group in groups.items() if group["params"]}


def set_learning_rate(optimizers: Sequence[torch.optim.Optimizer], rate: float) -> None:
    """Has the next step use ``rate``, times the factor of each group."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("factor", 1.0)


def clip_gradient(model: nn.Module, largest: float) -> torch.Tensor:
    """Scales a gradient longer than ``largest`` to that norm, and returns the norm before it.

    The norm is a scalar on the device. ``largest`` 0 never scales. The gradient belongs to the mean
    loss of a step, so ``largest`` does not depend on the number of targets.
    """
    # With an infinite bound torch computes the norm all the same, which the guard needs.
    trained = trained_parameters(model).values()
    return nn.utils.clip_grad_norm_(trained, largest if largest > 0 else math.inf)
