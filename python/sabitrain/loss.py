"""The loss: cross-entropy on target tokens, summed, and divided by the targets of the whole optimizer step.

Dividing each micro-batch by its own count would weigh a token by how few targets stand beside it; the step's count
makes the gradient the same however the step is cut into micro-batches.

Dimensions: N tokens, M targets, C width, V vocabulary.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from sabitrain.data import Batch


def target_losses(hidden_NC: Tensor, head_VC: Tensor, batch: Batch) -> Tensor:
    """The cross-entropy of each target in nats, float32[M] (float64 from float64), from the position before it.

    The head runs on those positions only. The softmax is in float32 whatever the type of the hidden states: a
    sum over a vocabulary is not safe in half precision.
    """
    logits_MV = F.linear(hidden_NC.index_select(0, batch.predict_at_M), head_VC)
    if logits_MV.dtype.itemsize < 4:
        logits_MV = logits_MV.float()
    return F.cross_entropy(logits_MV, batch.targets_M, reduction="none")


def step_share(losses_M: Tensor, step_targets: int) -> Tensor:
    """What a micro-batch adds to the loss of its step: the sum of its losses over the targets of the whole step.

    A micro-batch without targets adds a zero that can still be differentiated.
    """
    return losses_M.sum() / max(1, step_targets)
