"""Causal attention that never leaves its document, as one opaque op on every device.

``torch.compile`` sees a single node, whatever the backend and however many documents there are:

- CUDA in bf16 or fp16: the variable-length flash kernels behind ``torch.nn.attention.varlen.varlen_attn``.
- Everywhere else: the segments are laid out anew, group by group of about the same length, each padded at its end,
  and a group is attended causally as one batch. A causal query never sees what comes after it, so the padding needs
  no mask: real queries come before it, and the gradient of the padded ones is zero.

Tried, with 4,096 tokens in 111 segments (4 heads of 32), forward and backward: groups gathered one by one 10 + 24 ms on
one thread and 293 + 1,606 ms (medians) on two threads beside another busy process, where small parallel operations
wait for each other; all gathered at once, as here, 9 + 21 ms and 43 + 127 ms. Forward alone, whole rows of 256 under a
block-diagonal mask took five times as long, and a loop over documents longer still. Rounding lengths up to 8 or 16
takes the same time, with 8 and 22 % of padding; to 32 and 64 longer (51 and 124 %).

Dimensions: N tokens of all segments laid end to end, S segments (documents and paddings), H query heads, K key and
value heads, D dimensions of a head; P places of the layout, G segments of a group, L tokens of its longest.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import varlen

# Lengths are rounded up to a multiple of this to make a group; at most this many scores are held at once.
_ROUND_TO = 16
_MAX_SCORES = 1 << 22


def document_attention(q_NHD: Tensor, k_NKD: Tensor, v_NKD: Tensor, cu_seqlens: Tensor, max_seqlen: int) -> Tensor:
    """Causal attention of each token over its own segment, scaled by 1 / sqrt(D).

    Args:
        q_NHD: Queries, any floating type.
        k_NKD: Keys; each serves H / K query heads in order, as in ``transformers``.
        v_NKD: Values.
        cu_seqlens: int32[S + 1] on the same device: where each segment starts, and N. Segments may be empty.
        max_seqlen: At least the length of the longest segment.

    Returns:
        [N, H, D] in the type of the queries.
    """
    out_NHD: Tensor = _attention(q_NHD, k_NKD, v_NKD, cu_seqlens, max_seqlen)[0]
    return out_NHD


@torch.library.custom_op("sabitrain::document_attention", mutates_args=())
def _attention(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, max_seqlen: int) -> tuple[Tensor, Tensor]:
    """The output, and what the backward pass wants beside it: log-sum-exps float32[H, N] on flash, else nothing."""
    if _has_flash(q):
        return _flash_forward(q, k, v, cu_seqlens, max_seqlen)
    return _grouped_forward(q, k, v, cu_seqlens), q.new_empty(0, dtype=torch.float32)


@torch.library.custom_op("sabitrain::document_attention_backward", mutates_args=())
def _attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, cu_seqlens: Tensor, max_seqlen: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of queries, keys and values."""
    if _has_flash(q):
        return _flash_backward(grad, q, k, v, out, lse, cu_seqlens, max_seqlen)
    return _grouped_backward(grad, q, k, v, out, cu_seqlens)


@_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, max_seqlen: int) -> tuple[Tensor, Tensor]:
    lse_shape = (q.shape[1], q.shape[0]) if _has_flash(q) else (0,)
    return q.new_empty(q.shape), q.new_empty(lse_shape, dtype=torch.float32)


@_attention_backward.register_fake
def _(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, cu_seqlens: Tensor, max_seqlen: int
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, cu_seqlens, ctx.max_seqlen = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(q, k, v, *output, cu_seqlens)


def _differentiate(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor, Tensor, Tensor, None, None]:
    dq, dk, dv = _attention_backward(grad.contiguous(), *ctx.saved_tensors, ctx.max_seqlen)
    return dq, dk, dv, None, None


_attention.register_autograd(_differentiate, setup_context=_save)


def _has_flash(q: Tensor) -> bool:
    """Whether the flash kernels take these queries: half precision on CUDA, heads of 8 to 256 in steps of 8."""
    half = q.dtype in (torch.bfloat16, torch.float16)
    return q.is_cuda and half and q.shape[2] % 8 == 0 and q.shape[2] <= 256


# --- CUDA ---------------------------------------------------------------------------------------------------------
# The ops behind `varlen_attn` are called by themselves, since autograd does not reach inside an op of ours. Their
# arguments came and went between torch 2.10 and 2.15 (scale, window_size, enable_gqa, backend); their names did not
# change, so each call passes, by name, those that the installed version declares.


def _flash_forward(q: Tensor, k: Tensor, v: Tensor, cu: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """The flash kernel's output and log-sum-exps."""
    out, lse, _ = _call_varlen(
        "_varlen_attn", query=q, key=_repeat(k, q.shape[1]), value=_repeat(v, q.shape[1]), **_bounds(cu, longest)
    )
    return out, lse


def _flash_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, cu: Tensor, longest: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The flash kernel's gradients; a key's are summed over the query heads it serves."""
    dq, dk, dv = _call_varlen(
        "_varlen_attn_backward",
        grad_out=grad,
        query=q,
        key=_repeat(k, q.shape[1]),
        value=_repeat(v, q.shape[1]),
        out=out,
        lse=lse,
        rng_state=torch.zeros(2, dtype=torch.uint64, device=q.device),  # dropout's, of which there is none
        **_bounds(cu, longest),
    )
    return dq, _sum_repeated(dk, k.shape[1]), _sum_repeated(dv, v.shape[1])


def _bounds(cu: Tensor, longest: int) -> dict[str, Any]:
    """The arguments that make the kernel causal and keep it within segments."""
    segments = {"cu_seq_q": cu, "cu_seq_k": cu, "max_q": longest, "max_k": longest}
    return {**segments, "is_causal": True, "window_size": [-1, 0]}


def _call_varlen(name: str, **arguments: Any) -> tuple[Tensor, ...]:
    """Call an op of ``torch.nn.attention.varlen`` with those of the arguments that it declares."""
    op = getattr(varlen, name)
    declared = {argument.name for argument in op._opoverload._schema.arguments}
    result: tuple[Tensor, ...] = op(**{key: value for key, value in arguments.items() if key in declared})
    return result


# --- everywhere else ----------------------------------------------------------------------------------------------


class _Group(NamedTuple):
    """Segments of about the same length, padded to the longest: where they begin in the layout, and their shape."""

    start: int
    segments: int
    longest: int

    def cut(self, x_PXHD: Tensor) -> Tensor:
        """The group's part of X tensors in the layout, as a view [X, G, H, L, D]."""
        part = x_PXHD[self.start : self.start + self.segments * self.longest]
        return part.view(self.segments, self.longest, *x_PXHD.shape[1:]).permute(2, 0, 3, 1, 4)


class _Layout(NamedTuple):
    """All segments, group after group; P places, the padding of the groups included.

    A place that holds no token of its own holds the last one of its segment once more, so that nothing of another
    segment is even read. The layout depends on the lengths alone, never on what the tokens hold.
    """

    token_at_P: Tensor
    place_of_N: Tensor
    groups: list[_Group]


def _lay_out(cu_seqlens: Tensor, heads: int) -> _Layout:
    """Group the segments by length."""
    ends = cu_seqlens.cpu().numpy().astype(np.int64)
    starts, lengths = ends[:-1], np.diff(ends)
    rounded = -(-lengths // _ROUND_TO)
    place_of = np.empty(ends[-1], np.int64)
    groups, tokens, places = [], [], 0
    for size in np.unique(rounded[rounded > 0]):
        alike = np.flatnonzero(rounded == size)
        longest = int(lengths[alike].max())
        at_once = max(1, _MAX_SCORES // (heads * longest * longest))
        for first in range(0, len(alike), at_once):
            members = alike[first : first + at_once]
            offsets = np.arange(longest)
            token_GL = starts[members, None] + np.minimum(offsets, lengths[members, None] - 1)
            own_GL = offsets < lengths[members, None]
            place_of[token_GL[own_GL]] = places + np.flatnonzero(own_GL)
            tokens.append(token_GL.ravel())
            groups.append(_Group(places, len(members), longest))
            places += token_GL.size
    device = cu_seqlens.device
    return _Layout(torch.from_numpy(np.concatenate(tokens)).to(device), torch.from_numpy(place_of).to(device), groups)


def _grouped_forward(q: Tensor, k: Tensor, v: Tensor, cu: Tensor) -> Tensor:
    """Attention group by group."""
    heads, size = q.shape[1:]
    layout = _lay_out(cu, heads)
    qkv = torch.cat((q, _repeat(k, heads), _repeat(v, heads)), 1).index_select(0, layout.token_at_P)
    qkv = qkv.view(-1, 3, heads, size)
    out = torch.empty_like(qkv[:, :1], memory_format=torch.contiguous_format)
    for group in layout.groups:
        gq, gk, gv = group.cut(qkv)
        group.cut(out)[0].copy_(F.scaled_dot_product_attention(gq, gk, gv, is_causal=True))
    return out[:, 0].index_select(0, layout.place_of_N)


def _grouped_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, cu: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients group by group, in float32 at least, from probabilities computed anew.

    With P = softmax(Q K^T / sqrt(D)) and O = P V: dV = P^T dO, dS = P * (dO V^T - rowsum(dO * O)), dQ = dS K / sqrt(D),
    dK = dS^T Q / sqrt(D) (FlashAttention, arXiv:2205.14135, appendix B.2).
    """
    heads, size = q.shape[1:]
    dtype, scale = torch.promote_types(q.dtype, torch.float32), size**-0.5
    layout = _lay_out(cu, heads)
    grad, out = grad.to(dtype), out.to(dtype)
    inputs = torch.cat((q.to(dtype) * scale, _repeat(k, heads).to(dtype), _repeat(v, heads).to(dtype), grad), 1)
    inputs = inputs.index_select(0, layout.token_at_P).view(-1, 4, heads, size)
    rowsums = (grad * out).sum(-1).index_select(0, layout.token_at_P).view(-1, 1, heads, 1)
    padding = torch.ones(len(inputs), dtype=torch.bool, device=q.device).index_fill_(0, layout.place_of_N, False)
    inputs[:, 3].masked_fill_(padding[:, None, None], 0)
    rowsums.masked_fill_(padding[:, None, None, None], 0)
    longest = max(group.longest for group in layout.groups)
    future = torch.ones(longest, longest, dtype=torch.bool, device=q.device).triu_(1)

    grads = torch.empty_like(inputs[:, :3], memory_format=torch.contiguous_format)
    for group in layout.groups:
        gq, gk, gv, ggrad = group.cut(inputs)
        dq, dk, dv = group.cut(grads)
        scores = (gq @ gk.mT).masked_fill_(future[: group.longest, : group.longest], -torch.inf)
        probabilities = scores.softmax(-1)
        dv.copy_(probabilities.mT @ ggrad)
        dscores = (ggrad @ gv.mT).sub_(group.cut(rowsums)[0]).mul_(probabilities)
        dq.copy_(dscores @ gk)
        dk.copy_(dscores.mT @ gq)
    dq, dk, dv = (grads[:, i].index_select(0, layout.place_of_N) for i in range(3))
    dk, dv = _sum_repeated(dk, k.shape[1]), _sum_repeated(dv, v.shape[1])
    return dq.mul_(scale).to(q.dtype), dk.to(k.dtype), dv.to(v.dtype)


def _repeat(x_NKD: Tensor, heads: int) -> Tensor:
    """Each key or value head once for every query head it serves."""
    return x_NKD if x_NKD.shape[1] == heads else x_NKD.repeat_interleave(heads // x_NKD.shape[1], dim=1)


def _sum_repeated(dx_NHD: Tensor, kv_heads: int) -> Tensor:
    """The gradient of `_repeat`."""
    tokens, heads, size = dx_NHD.shape
    return dx_NHD if heads == kv_heads else dx_NHD.reshape(tokens, kv_heads, heads // kv_heads, size).sum(2)
