"""Causal attention that never leaves its document, as one opaque op on every device.

``torch.compile`` sees a single node, whatever the backend and however many documents there are. The
backends are `sabitrain.attention.flash` (CUDA, half precision) and `sabitrain.attention.grouped`
(everything else).

Dimensions: N tokens of all segments laid end to end, S segments (documents and paddings), H query
heads, K key and value heads, D dimensions of a head.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from sabitrain.attention import flash, grouped


def document_attention(
    q_NHD: Tensor, k_NKD: Tensor, v_NKD: Tensor, cu_seqlens: Tensor, max_seqlen: int
) -> Tensor:
    """Attends causally from each token to its own segment, scaled by 1 / sqrt(D).

    Args:
        q_NHD: Queries [N, H, D], any floating type.
        k_NKD: Keys [N, K, D]; each serves H / K query heads in order, as in ``transformers``.
        v_NKD: Values [N, K, D].
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
    """Returns the output, and log-sum-exps float32[H, N] on flash, nothing elsewhere.

    The backward pass takes both.
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
    """Returns the gradients of queries, keys and values."""
    result: tuple[Tensor, Tensor, Tensor] = _backend(q).backward(
        grad, q, k, v, out, lse, cu_seqlens, max_seqlen
    )
    return result


@_attention.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, max_seqlen: int
) -> tuple[Tensor, Tensor]:
    # The shapes alone, by which ``torch.compile`` traces the op.
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
    """Keeps the tensors that the backward pass reads."""
    q, k, v, cu_seqlens, ctx.max_seqlen = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(q, k, v, *output, cu_seqlens)


def _differentiate(
    ctx: Any, grad: Tensor, _: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, None, None]:
    """Returns the gradients of the inputs; the bounds of segments have none."""
    # Autograd may hand out an expanded gradient, which the kernels do not take.
    dq, dk, dv = _attention_backward(grad.contiguous(), *ctx.saved_tensors, ctx.max_seqlen)
    return dq, dk, dv, None, None


_attention.register_autograd(_differentiate, setup_context=_save)


def _backend(q: Tensor) -> ModuleType:
    """Returns the module that computes attention for such queries."""
    return flash if flash.takes(q) else grouped
