"""The optimizers, which parameters each takes, and clipping."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from sabitrain.config import OptimConfig


def make_optimizers(model: nn.Module, config: OptimConfig) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or Muon for the matrices of the blocks and AdamW for the rest.

    AdamW (arXiv:1711.05101) is fused into one kernel. Muon (Jordan et al., 2024) makes each update of a matrix nearly
    orthogonal; scaled by 0.2 sqrt(longer side) it is as large as AdamW's, so both share a rate and a weight decay (Liu
    et al., arXiv:2502.16982, section 2.2). Norms never decay.
    """
    groups = parameter_groups(model, config.weight_decay)
    optimizers: list[torch.optim.Optimizer] = []
    if config.name == "muon":
        matrices = [groups.pop("matrices")]
        optimizers.append(
            torch.optim.Muon(matrices, lr=config.lr, momentum=config.momentum, adjust_lr_fn="match_rms_adamw")
        )
    betas = config.beta1, config.beta2
    optimizers.append(torch.optim.AdamW(list(groups.values()), lr=config.lr, betas=betas, eps=config.eps, fused=True))
    return optimizers


def parameter_groups(model: nn.Module, weight_decay: float) -> dict[str, dict[str, Any]]:
    """The named parameters of each group, by its name, with their weight decay.

    ``matrices`` are the projections of the blocks, ``embedding`` is the embedding, which is the head too, and ``norms``
    are the vectors.
    """
    groups: dict[str, dict[str, Any]] = {
        name: {"params": [], "weight_decay": 0.0 if name == "norms" else weight_decay, "group": name}
        for name in ("matrices", "embedding", "norms")
    }
    for name, parameter in model.named_parameters():
        of_rank_2 = "embedding" if "embed_tokens" in name else "matrices"
        group = of_rank_2 if parameter.ndim == 2 else "norms"
        groups[group]["params"].append((name, parameter))
    return groups


def set_learning_rate(optimizers: Sequence[torch.optim.Optimizer], rate: float) -> None:
    """Use ``rate`` in the next step."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate


def clip_gradient(model: nn.Module, largest: float) -> torch.Tensor:
    """Scale the whole gradient down to norm ``largest`` if it is longer (0: never), and return its norm before that.

    The gradient is that of the step's mean loss, so ``largest`` means the same whatever the number of targets.
    """
    return nn.utils.clip_grad_norm_(model.parameters(), largest if largest > 0 else math.inf)
