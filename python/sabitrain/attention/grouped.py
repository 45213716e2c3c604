"""The attention of any device and type: segments laid out by groups of about one length.

Each segment is padded at its end, and a group is attended causally as one batch. A causal query
never sees later tokens, so the padding needs no mask: real queries come before the padding, and the
gradient of padded queries is zero.

Tried, with 4,096 tokens in 111 segments (4 heads of 32), forward and backward: groups gathered one
by one 10 + 24 ms on one thread and 293 + 1,606 ms (medians) on two threads beside another busy
process, where small parallel operations wait for each other; all gathered at once, as here, 9 + 21
ms and 43 + 127 ms. Forward alone, whole rows of 256 under a block-diagonal mask took five times as
long, and a loop over documents longer still. Rounding lengths up to 8 or 16 takes the same time,
with 8 and 22 % of padding; to 32 and 64 longer (51 and 124 %).

Dimensions: N tokens of all segments laid end to end, H query heads, K key and value heads, D
dimensions of a head; P places of the layout, G segments of a group, L tokens of its longest.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# Lengths are rounded up to a multiple of this to make a group; at most this many scores are held at
# once.
_ROUND_TO = 16
_MAX_SCORES = 1 << 22


class _Group(NamedTuple):
    """Segments of about the same length, padded to the longest.

    Attributes:
        start: The first place of the group in the layout.
        segments: G, the number of segments.
        longest: L, the tokens of the longest segment.
    """

    start: int
    segments: int
    longest: int

    def cut(self, x_PXHD: Tensor) -> Tensor:
        """Returns the group's part of X tensors in the layout, as a view [X, G, H, L, D]."""
        part = x_PXHD[self.start : self.start + self.segments * self.longest]
        return part.view(self.segments, self.longest, *x_PXHD.shape[1:]).permute(2, 0, 3, 1, 4)


class _Layout(NamedTuple):
    """All segments, group after group; P places, the padding of the groups included.

    A place without a token of its own repeats the last token of its segment, so that no place reads
    another segment. The layout depends on the lengths alone, never on the content of the tokens.
    """

    token_at_P: Tensor
    place_of_N: Tensor
    groups: list[_Group]


def _lay_out(cu_seqlens: Tensor, heads: int) -> _Layout:
    """Groups the segments by length."""
    ends = cu_seqlens.cpu().numpy().astype(np.int64)
    starts, lengths = ends[:-1], np.diff(ends)
    rounded = -(-lengths // _ROUND_TO)
    place_of = np.empty(ends[-1], np.int64)
    groups, tokens, places = [], [], 0
    for size in np.unique(rounded[rounded > 0]):
        alike = np.flatnonzero(rounded == size)
        # Short of the rounded length: padding beyond the longest would be computed for nothing.
        longest = int(lengths[alike].max())
        at_once = max(1, _MAX_SCORES // (heads * longest * longest))
        for first in range(0, len(alike), at_once):
            members = alike[first : first + at_once]
            offsets = np.arange(longest)
            # The minimum repeats the last token of a segment in its padding.
            token_GL = starts[members, None] + np.minimum(offsets, lengths[members, None] - 1)
            own_GL = offsets < lengths[members, None]
            place_of[token_GL[own_GL]] = places + np.flatnonzero(own_GL)
            tokens.append(token_GL.ravel())
            groups.append(_Group(places, len(members), longest))
            places += token_GL.size
    device = cu_seqlens.device
    return _Layout(
        torch.from_numpy(np.concatenate(tokens)).to(device),
        torch.from_numpy(place_of).to(device),
        groups,
    )


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


def forward(
    q: Tensor, k: Tensor, v: Tensor, cu: Tensor, longest: int, window: int = 0
) -> tuple[Tensor, Tensor]:
    """Computes attention group by group: [N, H, D], and nothing beside it."""
    heads, size = q.shape[1:]
    layout = _lay_out(cu, heads)
    # One gather for all three: many small ones wait for each other on busy machines.
    qkv = torch.cat((q, repeat_heads(k, heads), repeat_heads(v, heads)), 1).index_select(
        0, layout.token_at_P
    )
    qkv = qkv.view(-1, 3, heads, size)
    # Groups write into one array: joining their outputs would copy all of them again.
    out = torch.empty_like(qkv[:, :1], memory_format=torch.contiguous_format)
    unseen = _unseen(layout.groups, window, q.device)
    for group in layout.groups:
        gq, gk, gv = group.cut(qkv)
        # Without a mask the kernel leaves the future out: a window that holds all needs none.
        seen = ~unseen[: group.longest, : group.longest] if 0 < window < group.longest else None
        group.cut(out)[0].copy_(
            F.scaled_dot_product_attention(gq, gk, gv, attn_mask=seen, is_causal=seen is None)
        )
    return out[:, 0].index_select(0, layout.place_of_N), q.new_empty(0, dtype=torch.float32)


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    cu: Tensor,
    longest: int,
    window: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes the gradients group by group, in float32 at least, from new probabilities.

    With P = softmax(Q K^T / sqrt(D)) and O = P V: dV = P^T dO, dS = P * (dO V^T - rowsum(dO * O)),
    dQ = dS K / sqrt(D), dK = dS^T Q / sqrt(D) (FlashAttention, arXiv:2205.14135, appendix B.2).
    """
    heads, size = q.shape[1:]
    # Sums over a segment are not safe in half precision.
    dtype, scale = torch.promote_types(q.dtype, torch.float32), size**-0.5
    layout = _lay_out(cu, heads)
    grad, out = grad.to(dtype), out.to(dtype)
    wide_k, wide_v = repeat_heads(k, heads).to(dtype), repeat_heads(v, heads).to(dtype)
    inputs = torch.cat((q.to(dtype) * scale, wide_k, wide_v, grad), 1)
    # One gather for all four: many small ones wait for each other on busy machines.
    inputs = inputs.index_select(0, layout.token_at_P).view(-1, 4, heads, size)
    rowsums = (grad * out).sum(-1).index_select(0, layout.token_at_P).view(-1, 1, heads, 1)
    padding = torch.ones(len(inputs), dtype=torch.bool, device=q.device).index_fill_(
        0, layout.place_of_N, False
    )
    # Padding repeats its segment's last token, whose gradient must count once.
    inputs[:, 3].masked_fill_(padding[:, None, None], 0)
    rowsums.masked_fill_(padding[:, None, None, None], 0)
    grads = _group_gradients(layout.groups, inputs, rowsums, window)
    dq, dk, dv = (grads[:, i].index_select(0, layout.place_of_N) for i in range(3))
    dk, dv = sum_heads(dk, k.shape[1]), sum_heads(dv, v.shape[1])
    # The scores took scaled queries, so the gradient of the queries is scaled once more.
    return dq.mul_(scale).to(q.dtype), dk.to(k.dtype), dv.to(v.dtype)


def _unseen(groups: list[_Group], window: int, device: torch.device) -> Tensor:
    """Returns bool[L, L] for the longest segment: the keys that a query does not attend to."""
    side = max(group.longest for group in groups)
    all_pairs = torch.ones(side, side, dtype=torch.bool, device=device)
    future = all_pairs.triu(1)
    return future | all_pairs.tril(-window) if window else future


def _group_gradients(groups: list[_Group], inputs: Tensor, rowsums: Tensor, window: int) -> Tensor:
    """Returns the gradients of queries, keys and values in the layout: [P, 3, H, D].

    Args:
        groups: The groups of the layout.
        inputs: [P, 4, H, D]: scaled queries, keys, values and the gradient of the output.
        rowsums: [P, 1, H, 1]: rowsum(dO * O).
        window: The tokens that a token attends to; 0 for all.
    """
    unseen = _unseen(groups, window, inputs.device)
    grads = torch.empty_like(inputs[:, :3], memory_format=torch.contiguous_format)
    for group in groups:
        gq, gk, gv, ggrad = group.cut(inputs)
        dq, dk, dv = group.cut(grads)
        scores = (gq @ gk.mT).masked_fill_(unseen[: group.longest, : group.longest], -torch.inf)
        # Computed again: kept from the forward pass they would take the square of the lengths.
        probabilities = scores.softmax(-1)
        dv.copy_(probabilities.mT @ ggrad)
        dscores = (ggrad @ gv.mT).sub_(group.cut(rowsums)[0]).mul_(probabilities)
        dq.copy_(dscores @ gk)
        dk.copy_(dscores.mT @ gq)
    return grads
