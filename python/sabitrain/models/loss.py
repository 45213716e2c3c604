"""The loss: the cross-entropy of each prediction times its weight.

Weights carry the normalisation: the weights of an optimizer step sum to one over all of its
micro-batches, so micro-batches are just added up. A micro-batch without targets adds a zero that
can still be differentiated.

The loss is linear in the weights, and the weights are known beforehand. So the gradient is made in
the forward pass from the same logits. Logits are not kept, and are made a chunk of predictions at a
time if there are many.

Dimensions: N tokens, M predictions, C width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sabitrain.data.batches import PAD_TO, Batch
from sabitrain.data.settings import Compute

# Most logits held at once: half a gigabyte of float32.
MAX_LOGITS = 1 << 27


def predicting_states(
    model: Callable[..., Tensor], batch: Batch, compute: Compute = "full"
) -> Tensor:
    """Computes the states [M, C] from which a batch predicts; ``model`` may be compiled.

    ``"full"`` leaves out, in the last block, all work that the predictions do not need; ``"head"``
    picks the predicting states only before the head; ``"dense"`` takes a batch that predicts at
    every position. All three give the same loss and gradients.
    """
    inputs = (batch.ids_N, batch.positions_N, batch.cu_seqlens, batch.max_seqlen)
    if compute == "full":
        return model(*inputs, batch.predict_at_M)
    hidden_NC = model(*inputs)
    return hidden_NC if compute == "dense" else hidden_NC.index_select(0, batch.predict_at_M)


def weighted_loss(
    hidden_MC: Tensor, head_VC: Tensor, batch: Batch, z_loss: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Returns the weighted sum of the losses of a batch, and the cross-entropy's part of the sum.

    A prediction's loss is its cross-entropy in nats plus ``z_loss`` times the square of its
    log-sum-exp, which keeps logits from drifting (PaLM, arXiv:2204.02311, section 5). The softmax
    is in float32 whatever the type of the hidden states (float64 from float64): a sum over a
    vocabulary is not safe in half precision.

    Args:
        hidden_MC: The result of `predicting_states` for the batch.
        head_VC: The weight of the head.
        batch: The batch, with targets and weights.
        z_loss: The factor of the squared log-sum-exp; 0 for none.

    Returns:
        Two scalars; only the first can be differentiated, and only once.
    """
    loss, cross_entropy = _WeightedLoss.apply(
        hidden_MC, head_VC, batch.targets_M, batch.weights_M, z_loss
    )
    return loss, cross_entropy


def target_losses(hidden_MC: Tensor, head_VC: Tensor, targets_M: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the cross-entropy of each prediction in nats, without gradient.

    The second result says of each prediction whether its target is the most likely token.

    Returns:
        float32[M] (float64[M] from float64), and bool[M].
    """
    losses, right = [], []
    with torch.no_grad():
        states_MC, head_VC = _for_products(hidden_MC, head_VC)
        for part in _chunks(len(targets_M), len(head_VC)):
            logits_MV = _widened(states_MC[part] @ head_VC.T)
            losses.append(
                logits_MV.logsumexp(-1) - logits_MV.gather(1, targets_M[part, None])[:, 0]
            )
            right.append(logits_MV.argmax(-1) == targets_M[part])
    return torch.cat(losses), torch.cat(right)


class _WeightedLoss(torch.autograd.Function):
    """Loss and gradient in one pass over the logits.

    With z = logits of a prediction, t its target, w its weight, L = logsumexp(z), c = ``z_loss``:
    loss = w (L - z_t + c L^2), d loss / dz = w ((1 + 2 c L) softmax(z) - onehot(t)).
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_MC: Tensor,
        head_VC: Tensor,
        targets_M: Tensor,
        weights_M: Tensor,
        z_loss: float,
    ) -> tuple[Tensor, Tensor]:
        """Computes both scalars, and keeps the gradients of states and head."""
        states_MC, weight_VC = _for_products(hidden_MC, head_VC)
        wide = torch.promote_types(states_MC.dtype, torch.float32)
        weights_M1 = weights_M.to(wide).unsqueeze(1)
        sums_2 = torch.zeros(2, dtype=wide, device=hidden_MC.device)
        dhidden_MC = torch.empty_like(states_MC)
        dhead_VC = torch.zeros(head_VC.shape, dtype=wide, device=head_VC.device)
        # The types are chosen above; autocast would narrow the sums.
        with torch.autocast(hidden_MC.device.type, enabled=False):
            for part in _chunks(len(targets_M), len(head_VC)):
                logits_MV = _widened(states_MC[part] @ weight_VC.T)
                target_M1, weight_M1 = targets_M[part, None], weights_M1[part]
                lse_M1 = logits_MV.logsumexp(-1, keepdim=True)
                losses_M2 = torch.cat((lse_M1 - logits_MV.gather(1, target_M1), lse_M1.square()), 1)
                sums_2 += (weight_M1 * losses_M2).sum(0)
                # In place: a second chunk of logits would double the memory.
                dlogits_MV = logits_MV.sub_(lse_M1).exp_()
                dlogits_MV.mul_(weight_M1 * (1 + 2 * z_loss * lse_M1))
                # One target a row: nothing accumulates, so this is deterministic on CUDA too, as
                # scatter_add_ is not.
                dlogits_MV[torch.arange(len(lse_M1), device=lse_M1.device), targets_M[part]] -= (
                    weight_M1[:, 0]
                )
                narrow_MV = dlogits_MV.to(states_MC.dtype)
                torch.mm(narrow_MV, weight_VC, out=dhidden_MC[part])
                dhead_VC += narrow_MV.T @ states_MC[part]
        # Gradients in the types of the inputs, as autograd asks for them.
        ctx.save_for_backward(dhidden_MC.to(hidden_MC.dtype), dhead_VC.to(head_VC.dtype))
        cross_entropy, squares = sums_2.unbind()
        ctx.mark_non_differentiable(cross_entropy)
        return cross_entropy + z_loss * squares, cross_entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        """Returns the kept gradients times the gradient of the loss."""
        dhidden_MC, dhead_VC = ctx.saved_tensors
        return dhidden_MC * grad, dhead_VC * grad, None, None, None


def _for_products(hidden_MC: Tensor, head_VC: Tensor) -> tuple[Tensor, Tensor]:
    """Returns states and head in the type of their product: autocast's type if it is on."""
    device = hidden_MC.device.type
    dtype = (
        torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_MC.dtype
    )
    return hidden_MC.detach().to(dtype), head_VC.detach().to(dtype)


def _widened(logits_MV: Tensor) -> Tensor:
    """Returns logits in float32 at least."""
    return logits_MV.to(torch.promote_types(logits_MV.dtype, torch.float32))


def _chunks(predictions: int, vocabulary: int) -> Iterator[slice]:
    """Yields slices of the predictions, each of at most `MAX_LOGITS` logits or `PAD_TO` rows."""
    # Whole multiples of the padding, so that compiled code sees few lengths.
    at_once = max(PAD_TO, MAX_LOGITS // vocabulary // PAD_TO * PAD_TO)
    for first in range(0, predictions, at_once):
        yield slice(first, min(first + at_once, predictions))
