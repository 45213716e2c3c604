"""Compiles the model before the first step, so that a signal can end what may take minutes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sabitrain.data.batches import Batch
from sabitrain.data.settings import Compute
from sabitrain.device import precision
from sabitrain.models.architecture import CausalModel
from sabitrain.models.loss import predicting_states, weighted_loss
from sabitrain.stopping import StopRequest


def compile_ahead(
    forward: Callable[..., Tensor],
    model: CausalModel,
    batch: Batch,
    compute: Compute,
    autocast: bool,
    stop: StopRequest,
) -> None:
    """Runs a forward and a backward pass over ``batch``, which makes torch compile both.

    No result is kept.

    A signal ends it at once, half done: nothing has been trained by it.

    Args:
        forward: What `torch.compile` gave for the model.
        model: The model.
        batch: A batch on its device.
        compute: What is left out.
        autocast: Whether to compute in bf16.
        stop: Hears the signal.
    """
    with stop.ends_at_once():
        with precision(model.head_VC.device, autocast):
            hidden_MC = predicting_states(forward, batch, compute)
            loss, _ = weighted_loss(hidden_MC, model.head_VC, batch)
        torch.autograd.backward(loss)
    model.zero_grad()
