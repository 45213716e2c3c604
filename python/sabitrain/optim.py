"""The optimizer: AdamW, its learning rate at each step, and clipping."""

from __future__ import annotations

import math

import torch
from torch import nn

from sabitrain.config import OptimConfig


def make_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW (arXiv:1711.05101) with weight decay on matrices only, fused into one kernel."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps, fused=True)


def learning_rate(config: OptimConfig, step: int, steps: int) -> float:
    """The learning rate of ``step``, counted from 0, of a run of ``steps``.

    It rises in a line to ``lr`` over the first ``warmup * steps`` steps, and falls along half a cosine to
    ``floor * lr`` at the last (arXiv:1608.03983, without restarts).
    """
    warmup = math.ceil(config.warmup * steps)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - 1 - warmup))
    share = config.floor + (1 - config.floor) * (1 + math.cos(math.pi * progress)) / 2
    return config.lr * share


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Use ``rate`` in the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def clip_gradient(model: nn.Module, largest: float) -> torch.Tensor:
    """Scale the whole gradient down to norm ``largest`` if it is longer (0: never), and return its norm before that.

    The gradient is that of the step's mean loss, so ``largest`` means the same whatever the number of targets.
    """
    return nn.utils.clip_grad_norm_(model.parameters(), largest if largest > 0 else math.inf)
