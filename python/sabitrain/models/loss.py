"""The loss: the cross-entropy of each prediction times its weight.

Weights carry the normalisation: the weights of an optimizer step sum to one over all of its
micro-batches, so micro-batches are just added up. A micro-batch without targets adds a zero that
can still be differentiated.

The loss is linear in the weights, and the weights are known beforehand. So the gradient is made in
the forward pass from the same logits. Logits are not kept, and are made a chunk of predictions at a
time if there are many.

Dimensions: N tokens, M predictions, C width, V vocabulary, P rows of the
head in a product, R rows that are trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.function import once_differentiable

from sabitrain.data.batches import PAD_TO, Batch
from sabitrain.data.settings import Compute
from sabitrain.models.precision import product_dtype
from sabitrain.models.trained_rows import TrainedRows

# Most logits held at once: a quarter of a gigabyte in 16 bits.
MAX_LOGITS = 1 << 27
# Most numbers of a product that are held beside the sum they are added to, as much in float32.
_MOST_ADDED = 1 << 25

# Rows of 16-bit logits begin at multiples of 16 bytes, as tensor cores read them.
_ALIGNED = 8
# Products of 16-bit matrices that give float32; the operation has a kernel for CUDA alone.
_WIDE_MM = hasattr(torch.ops.aten.mm, "dtype")


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


def eager_chunk(
    logits_MP: Tensor, targets_M: Tensor, weights_M: Tensor, z_loss: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the sums of a chunk, and the gradient of its logits in the place of the logits.

    The sums are those of the weighted cross-entropies and of the weighted squares of the
    log-sum-exps.

    For CUDA, inductor makes one kernel of this: it reads the logits twice and writes the gradient,
    with no float32 of that size. The kernel's first pass needs the largest logit and the sum of
    exponentials spelt out as below; `torch.logsumexp` would take two.
    """
    target_M1 = targets_M.unsqueeze(1)
    wide_MP = logits_MP.to(_wide(logits_MP.dtype))
    weight_M1 = weights_M.to(wide_MP.dtype).unsqueeze(1)
    at_target_M1 = wide_MP.gather(1, target_M1)
    largest_M1 = wide_MP.amax(-1, keepdim=True)
    exp_MP = wide_MP.sub_(largest_M1).exp_()
    sum_M1 = exp_MP.sum(-1, keepdim=True)
    lse_M1 = largest_M1 + sum_M1.log()
    losses_M2 = torch.cat((lse_M1 - at_target_M1, lse_M1.square()), 1)
    dlogits_MP = exp_MP.mul_(weight_M1 * (1 + 2 * z_loss * lse_M1) / sum_M1)
    # One target a row: nothing accumulates, so both ways are deterministic on CUDA too, as
    # scatter_add_ is not.
    if torch.compiler.is_compiling():
        # Fused into the pass that writes the gradient.
        places_P = torch.arange(logits_MP.shape[1], device=logits_MP.device)
        dlogits_MP.sub_(torch.where(places_P == target_M1, weight_M1, 0))
    else:
        # A comparison would be three more passes over the logits.
        dlogits_MP[torch.arange(len(targets_M), device=targets_M.device), targets_M] -= (
            weight_M1.squeeze(1)
        )
    return (weight_M1 * losses_M2).sum(0), logits_MP.copy_(dlogits_MP)


Chunk = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""`eager_chunk`, or a function of the same arguments and results."""


def weighted_loss(
    hidden_MC: Tensor,
    head_VC: Tensor,
    batch: Batch,
    z_loss: float = 0.0,
    chunk: Chunk = eager_chunk,
    rows: TrainedRows | None = None,
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
        chunk: The function of each chunk of logits; `compiled_chunk` gives a faster one.
        rows: The rows of the head that are trained, if some alone are.

    Returns:
        Two scalars; only the first can be differentiated, and only once.
    """
    first, trained_RC = (0, head_VC) if rows is None else rows
    loss, cross_entropy = _WeightedLoss.apply(
        hidden_MC, trained_RC, first, head_VC, batch.targets_M, batch.weights_M, z_loss, chunk
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
        states_MC, weight_PC = _for_products(hidden_MC, head_VC)
        wide = _wide(states_MC.dtype)
        for part in _chunks(len(targets_M), len(head_VC)):
            logits_MP = _logits(states_MC[part], weight_PC, len(head_VC)).to(wide)
            losses.append(
                logits_MP.logsumexp(-1) - logits_MP.gather(1, targets_M[part, None])[:, 0]
            )
            right.append(logits_MP.argmax(-1) == targets_M[part])
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
        trained_RC: Tensor,
        first: int,
        head_VC: Tensor,
        targets_M: Tensor,
        weights_M: Tensor,
        z_loss: float,
        chunk: Chunk,
    ) -> tuple[Tensor, Tensor]:
        """Computes both scalars, and keeps the gradients that are asked for.

        These are of the states, and of the rows of the head from ``first`` on that are trained.
        """
        of_states, of_head = ctx.needs_input_grad[:2]
        states_MC, weight_PC = _for_products(hidden_MC, head_VC)
        wide = _wide(states_MC.dtype)
        # A tensor, so that compiled code serves every value; filled on the device, so that nothing
        # waits for a copy.
        factor = torch.full((), z_loss, dtype=wide, device=hidden_MC.device)
        dhidden_MC = torch.empty_like(states_MC) if of_states else None
        sums_2, dhead_RC = None, None
        rows = slice(first, first + len(trained_RC))
        # The types are chosen above; autocast would narrow the sums.
        with torch.autocast(hidden_MC.device.type, enabled=False):
            for part in _chunks(len(targets_M), len(head_VC)):
                part_2, dlogits_MP = chunk(
                    _logits(states_MC[part], weight_PC, len(head_VC)),
                    targets_M[part],
                    weights_M[part],
                    factor,
                )
                if dhidden_MC is not None:
                    torch.mm(dlogits_MP, weight_PC, out=dhidden_MC[part])
                if of_head:
                    # Padding is cut off the factor: cut off the product, it would keep a larger
                    # buffer.
                    dlogits_RM = dlogits_MP[:, rows].T
                    dhead_RC = _add_wide_product(dhead_RC, dlogits_RM, states_MC[part])
                    del dlogits_RM
                # Not held while the next chunk is made.
                del dlogits_MP
                sums_2 = part_2 if sums_2 is None else sums_2 + part_2
        # A batch has at least one prediction.
        assert sums_2 is not None
        # Gradients in the types of the inputs, as autograd asks for them. They are no saved
        # tensors: the backward pass gives them away.
        ctx.gradients = [
            None if gradient is None else gradient.to(tensor.dtype)
            for gradient, tensor in ((dhidden_MC, hidden_MC), (dhead_RC, trained_RC))
        ]
        cross_entropy, squares = sums_2.unbind()
        ctx.mark_non_differentiable(cross_entropy)
        return cross_entropy + z_loss * squares, cross_entropy

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad: Tensor, _: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None, None, None, None, None]:
        """Gives the kept gradients away, multiplied in place by the gradient of the loss.

        Raises:
            RuntimeError: If called a second time.
        """
        if ctx.gradients is None:
            raise RuntimeError(
                "a second backward pass through the loss: its gradients are kept for one"
            )
        gradients, ctx.gradients = ctx.gradients, None
        dhidden_MC, dhead_RC = (
            None if gradient is None else gradient.mul_(grad) for gradient in gradients
        )
        return dhidden_MC, dhead_RC, None, None, None, None, None, None


def compiled_chunk() -> Chunk:
    """Returns `eager_chunk` compiled for any number of predictions, a vocabulary at a time.

    Loss and gradients are the same up to rounding. The first call takes seconds.
    """
    compiled = torch.compile(eager_chunk, dynamic=True, fullgraph=True)

    def chunk(
        logits_MP: Tensor, targets_M: Tensor, weights_M: Tensor, z_loss: Tensor
    ) -> tuple[Tensor, Tensor]:
        # Of a known length, rows get the single-pass softmax and are read in aligned words.
        torch._dynamo.mark_static(logits_MP, 1)
        # Copies, as compiled code would also depend on the length of a view's base.
        return compiled(logits_MP, targets_M.clone(), weights_M.clone(), z_loss)

    return chunk


def _for_products(hidden_MC: Tensor, head_VC: Tensor) -> tuple[Tensor, Tensor]:
    """Returns states [M, C] and head [P, C] in the type of their product.

    In a 16-bit type the head has rows of zeros up to a multiple of `_ALIGNED`: products with rows
    of logits at odd addresses are several times slower on a GPU.
    """
    dtype = product_dtype(hidden_MC)
    states_MC, head_VC = hidden_MC.detach().to(dtype), head_VC.detach()
    padding = -len(head_VC) % _ALIGNED if dtype.itemsize == 2 else 0
    if not padding:
        return states_MC, head_VC.to(dtype)
    weight_PC = head_VC.new_empty((len(head_VC) + padding, head_VC.shape[1]), dtype=dtype)
    weight_PC[: len(head_VC)].copy_(head_VC)
    weight_PC[len(head_VC) :].zero_()
    return states_MC, weight_PC


def _logits(states_MC: Tensor, weight_PC: Tensor, vocabulary: int) -> Tensor:
    """Returns logits [M, P] in the type of the states.

    Those of the padding are minus infinity: they have no probability and no gradient.
    """
    logits_MP = states_MC @ weight_PC.T
    logits_MP[:, vocabulary:].fill_(-math.inf)
    return logits_MP


def _wide(dtype: torch.dtype) -> torch.dtype:
    """Returns the type of the softmax of logits of a type: float32 at least."""
    return torch.promote_types(dtype, torch.float32)


def _add_wide_product(sum_VC: Tensor | None, left_VM: Tensor, right_MC: Tensor) -> Tensor:
    """Adds a product in float32 at least to a sum, in its place; without a sum, returns it.

    Some rows at a time: a product of a large vocabulary is as large as the sum itself.
    """
    if sum_VC is None:
        return _wide_product(left_VM, right_MC)
    at_once = max(_ALIGNED, _MOST_ADDED // right_MC.shape[1] // _ALIGNED * _ALIGNED)
    for first in range(0, len(sum_VC), at_once):
        rows = slice(first, first + at_once)
        sum_VC[rows].add_(_wide_product(left_VM[rows], right_MC))
    return sum_VC


def _wide_product(left_VM: Tensor, right_MC: Tensor) -> Tensor:
    """Returns a product in float32 at least, not rounded to a 16-bit type on CUDA."""
    wide = _wide(left_VM.dtype)
    # Tensors without numbers plan the memory of a GPU.
    on_gpu = left_VM.is_cuda or isinstance(left_VM, FakeTensor)
    if _WIDE_MM and on_gpu and left_VM.dtype != wide:
        return torch.mm(left_VM, right_MC, out_dtype=wide)
    return (left_VM @ right_MC).to(wide)


def _chunks(predictions: int, vocabulary: int) -> Iterator[slice]:
    """Yields slices of the predictions, each of at most `MAX_LOGITS` logits or `PAD_TO` rows."""
    # Whole multiples of the padding, so that compiled code sees few lengths.
    at_once = max(PAD_TO, MAX_LOGITS // vocabulary // PAD_TO * PAD_TO)
    for first in range(0, predictions, at_once):
        yield slice(first, min(first + at_once, predictions))
