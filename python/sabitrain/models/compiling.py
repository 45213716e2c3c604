"""Compiles the model before the first step, so that a signal can end minutes of compilation."""

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
    """Runs a forward and a backward pass over ``batch``, so that torch compiles both.

    No result is kept. A signal ends the compilation at once: nothing has been trained by it.

    Args:
        forward: The result of `torch.compile` for the model.
        model: The model.
        batch: A batch on the model's device.
        compute: The computation to leave out.
        autocast: Whether to compute in bf16.
        stop: The listener for the signal.
    """
    with stop.ends_at_once():
        with precision(model.head_VC.device, autocast):
            hidden_MC = predicting_states(forward, batch, compute)
            loss, _ = weighted_loss(hidden_MC, model.head_VC, batch)
        torch.autograd.backward(loss)
    # The weights of this batch are not those of a step, so its gradients must not stay.
    model.zero_grad()
