"""Causal attention that never leaves its document, as one opaque op on every device.

``torch.compile`` sees a single node, whatever the backend and however many documents there are. The
backends are `sabitrain.attention.flash` (CUDA, half precision) and `sabitrain.attention.grouped` (everything else).

Dimensions: N tokens of all segments laid end to end, S segments (documents and paddings), H query
heads, K key and value heads, D dimensions of a head.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from sabiprep.errors import TrainError
from sabitrain.attention import flash, grouped

# The self-check's documents, and how far from the reference they may be, as a share of 1 + the
# reference: bf16 keeps 8 bits, and on the CPU it is off by up to 0.01 here. A wrong mask or a wrong
# scale is off by tenths at least.
_CHECKED_LENGTHS = (1, 130, 17, 64, 3, 201)
_TOLERANCE = 5e-2


def document_attention(
    q_NHD: Tensor, k_NKD: Tensor, v_NKD: Tensor, cu_seqlens: Tensor, max_seqlen: int
) -> Tensor:
    """Causal attention of each token over its own segment, scaled by 1 / sqrt(D).

    Args:
        q_NHD: Queries, any floating type.
        k_NKD: Keys; each serves H / K query heads in order, as in ``transformers``.
        v_NKD: Values.
        cu_seqlens: int32[S + 1] on the same device: where each segment starts, and N. Segments may
            be empty.
        max_seqlen: At least the length of the longest segment.

    Returns:
        [N, H, D] in the type of the queries.
    """
    out_NHD: Tensor = _attention(q_NHD, k_NKD, v_NKD, cu_seqlens, max_seqlen)[0]
    return out_NHD


@torch.library.custom_op("sabitrain::document_attention", mutates_args=())
def _attention(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, max_seqlen: int
) -> tuple[Tensor, Tensor]:
    """The output, and what the backward pass wants beside it: log-sum-exps float32[H, N] on flash,
    else nothing.
    """
    result: tuple[Tensor, Tensor] = _backend(q).forward(q, k, v, cu_seqlens, max_seqlen)
    return result


@torch.library.custom_op("sabitrain::document_attention_backward", mutates_args=())
def _attention_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of queries, keys and values."""
    result: tuple[Tensor, Tensor, Tensor] = _backend(q).backward(
        grad, q, k, v, out, lse, cu_seqlens, max_seqlen
    )
    return result


@_attention.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, max_seqlen: int
) -> tuple[Tensor, Tensor]:
    lse_shape = (q.shape[1], q.shape[0]) if _backend(q) is flash else (0,)
    return q.new_empty(q.shape), q.new_empty(lse_shape, dtype=torch.float32)


@_attention_backward.register_fake
def _(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, cu_seqlens, ctx.max_seqlen = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(q, k, v, *output, cu_seqlens)


def _differentiate(
    ctx: Any, grad: Tensor, _: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, None, None]:
    dq, dk, dv = _attention_backward(grad.contiguous(), *ctx.saved_tensors, ctx.max_seqlen)
    return dq, dk, dv, None, None


_attention.register_autograd(_differentiate, setup_context=_save)


def _backend(q: Tensor) -> ModuleType:
    """The module that computes attention for such queries."""
    return flash if flash.takes(q) else grouped


def check_attention(
    heads: int, kv_heads: int, head_size: int, device: torch.device, dtype: torch.dtype
) -> None:
    """Compare a few small documents, forward and backward, with every score of every pair of
    tokens.

    What a kernel computes depends on the GPU, the driver and the version of torch, so a run on a
    GPU begins with it.

    Raises:
        TrainError: If they differ by more than half precision explains.
    """
    generator = torch.Generator().manual_seed(0)
    tokens = sum(_CHECKED_LENGTHS)
    shapes = [(tokens, count, head_size) for count in (heads, kv_heads, kv_heads, heads)]
    q, k, v, grad = (torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes)
    bounds = (
        torch.tensor([0, *_CHECKED_LENGTHS, 0, 0]).cumsum(0).to(device, torch.int32)
    )  # the last two are empty
    q.requires_grad_(), k.requires_grad_(), v.requires_grad_()
    out = document_attention(q, k, v, bounds, max(_CHECKED_LENGTHS))
    got = (out, *torch.autograd.grad(out, (q, k, v), grad))
    expected = _dense(q.detach(), k.detach(), v.detach(), grad)
    for what, ours, reference in zip(("output", "dq", "dk", "dv"), got, expected, strict=True):
        worst = ((ours.float() - reference).abs() / (1 + reference.abs())).max().item()
        if not worst <= _TOLERANCE:
            raise TrainError(
                f"attention on {device} in {dtype} is wrong by {worst:.2g} ({what})",
                remedy="install another version of torch or of the GPU's driver, or use --device cpu",
            )


def _dense(q: Tensor, k: Tensor, v: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Output and gradients for `_CHECKED_LENGTHS` in float32, all scores at once."""
    leaves = [x.float().requires_grad_() for x in (q, k, v)]
    wide_q, wide_k, wide_v = (
        leaves[0],
        *(x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in leaves[1:]),
    )
    segment_N = torch.repeat_interleave(torch.tensor(_CHECKED_LENGTHS)).to(q.device)
    unseen_NN = (segment_N[:, None] != segment_N) | torch.ones(
        len(q), len(q), device=q.device
    ).triu(1).bool()
    scores_HNN = torch.einsum("nhd,mhd->hnm", wide_q, wide_k) * q.shape[2] ** -0.5
    weights_HNN = scores_HNN.masked_fill(unseen_NN, -torch.inf).softmax(-1)
    out = torch.einsum("hnm,mhd->nhd", weights_HNN, wide_v)
    dq, dk, dv = torch.autograd.grad(out, leaves, grad.float())
    return out.detach(), dq, dk, dv
