"""The attention of CUDA in half precision: the kernels behind torch's ``varlen_attn``.

Its ops are called by themselves, since autograd does not reach inside an op of ours. Their
arguments came and went between torch 2.10 and 2.15 (scale, window_size, enable_gqa, backend); their
names did not change, so each call passes, by name, those that the installed version declares.
Grouped queries are not taken by every version's backward pass: keys and values are repeated.

Dimensions: N tokens of all segments laid end to end, H query heads, K key and value heads, D
dimensions of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import varlen


def takes(q: Tensor) -> bool:
    """Returns whether the kernels take these queries.

    They take half precision on CUDA, in heads of 8 to 256 dimensions in steps of 8.
    """
    # Larger heads, and other steps, the kernels refuse with an error.
    half = q.dtype in (torch.bfloat16, torch.float16)
    return q.is_cuda and half and q.shape[2] % 8 == 0 and q.shape[2] <= 256


def forward(q: Tensor, k: Tensor, v: Tensor, cu: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """Computes the flash kernel's output [N, H, D] and log-sum-exps float32[H, N]."""
    out, lse, _ = _call_varlen(
        "_varlen_attn",
        query=q,
        key=repeat_heads(k, q.shape[1]),
        value=repeat_heads(v, q.shape[1]),
        **_bounds(cu, longest),
    )
    return out, lse


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    cu: Tensor,
    longest: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes the flash kernel's gradients; a key's gradients are summed over its query heads."""
    dq, dk, dv = _call_varlen(
        "_varlen_attn_backward",
        grad_out=grad,
        query=q,
        key=repeat_heads(k, q.shape[1]),
        value=repeat_heads(v, q.shape[1]),
        out=out,
        lse=lse,
        # The state of dropout, of which there is none.
        rng_state=torch.zeros(2, dtype=torch.uint64, device=q.device),
        **_bounds(cu, longest),
    )
    return dq, sum_heads(dk, k.shape[1]), sum_heads(dv, v.shape[1])


def _bounds(cu: Tensor, longest: int) -> dict[str, Any]:
    """Returns the arguments that make the kernel causal and keep it within segments."""
    segments = {"cu_seq_q": cu, "cu_seq_k": cu, "max_q": longest, "max_k": longest}
    return {**segments, "is_causal": True, "window_size": [-1, 0]}


def _call_varlen(name: str, **arguments: Any) -> tuple[Tensor, ...]:
    """Calls an op of ``torch.nn.attention.varlen`` with the arguments that it declares."""
    op = getattr(varlen, name)
    # The schema, not the Python signature: the latter hides behind the op's decorator.
    declared = {argument.name for argument in op._opoverload._schema.arguments}
    result: tuple[Tensor, ...] = op(
        **{key: value for key, value in arguments.items() if key in declared}
    )
    return result


def repeat_heads(x_NKD: Tensor, heads: int) -> Tensor:
    """Repeats each key or value head for every query head it serves: [N, H, D]."""
    return (
        x_NKD
        if x_NKD.shape[1] == heads
        else x_NKD.repeat_interleave(heads // x_NKD.shape[1], dim=1)
    )


def sum_heads(dx_NHD: Tensor, kv_heads: int) -> Tensor:
    """Returns the gradient of `repeat_heads`: [N, K, D]."""
    tokens, heads, size = dx_NHD.shape
    return (
        dx_NHD
        if heads == kv_heads
        else dx_NHD.reshape(tokens, kv_heads, heads // kv_heads, size).sum(2)
    )
