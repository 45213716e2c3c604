"""Frozen matrices held in bf16 where steps compute in bf16: half of the memory, and no copies.

Products in bf16 narrow their weights anyway, so no step computes otherwise. But checkpoints hold
whole models: a matrix is narrowed only if that loses no bit of it, or if no checkpoint holds it.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from sabitrain.models.architecture import CausalModel
from sabitrain.models.quantised import QuantisedLinear


def narrow_frozen(model: CausalModel, lossless: bool | None = None) -> bool:
    """Holds the frozen matrices of a model in bf16, and returns whether there are any.

    Args:
        model: The model, whose trained parameters are chosen.
        lossless: Whether that loses no bit of any matrix, where they have no numbers; by default,
            each is looked at.
    """
    narrowed = False
    for module, weight in _frozen(model):
        # A lookup narrows nothing by itself, and DoRA measures rows in float32.
        adapted = model.adapters is not None and not model.adapters.dora
        only_multiplied = isinstance(module, nn.Linear) and adapted
        narrow = weight.detach().bfloat16()
        if not only_multiplied:
            keeps = narrow.to(weight.dtype).equal(weight) if lossless is None else lossless
            if not keeps:
                continue
        if isinstance(module, nn.Embedding):
            model.hooks.append(module.register_forward_hook(_widen))
        weight.data = narrow
        narrowed = True
    return narrowed


def is_narrow(model: CausalModel) -> bool:
    """Returns whether all frozen matrices of a model are held in bf16."""
    return all(weight.dtype == torch.bfloat16 for _, weight in _frozen(model))


def widen(model: CausalModel) -> None:
    """Holds every weight of a model in float32 again, before others are trained."""
    for parameter in model.parameters():
        if parameter.dtype == torch.bfloat16:
            parameter.data = parameter.data.float()


def _frozen(model: CausalModel) -> Iterator[tuple[nn.Linear | nn.Embedding, Tensor]]:
    """Yields the layers whose matrix is frozen whole, and that matrix; not quantised ones."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding) and not isinstance(module, QuantisedLinear):
            weight = module.weight
            # Rows that are trained share the memory of their matrix.
            if not weight.requires_grad and not _is_trained(model, weight):
                yield module, weight


def _is_trained(model: CausalModel, weight: Tensor) -> bool:
    """Returns whether rows of a matrix are trained."""
    return any(model.get_parameter(name) is weight for name in model.rows)


def _widen(_: nn.Module, inputs: tuple[Tensor], out_NC: Tensor) -> Tensor:
    """Returns embeddings in float32: the residual stream is not narrowed."""
    return out_NC.to(torch.float32)
