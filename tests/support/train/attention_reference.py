"""The dense reference of attention, its inputs, and outputs with gradients."""

from __future__ import annotations

import torch
from torch import Tensor


def dense(q: Tensor, k: Tensor, v: Tensor, lengths: list[int], window: int = 0) -> Tensor:
    """The oracle: every score of every pair of tokens, masked, in the type of the inputs."""
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    segment = torch.repeat_interleave(torch.tensor(lengths))
    position = torch.arange(len(segment))
    seen = (segment[:, None] == segment[None, :]) & (position[:, None] >= position[None, :])
    if window:
        seen &= position[:, None] - position[None, :] < window
    scores = torch.einsum("nhd,mhd->hnm", q, k) * q.shape[2] ** -0.5
    return torch.einsum("hnm,mhd->nhd", scores.masked_fill(~seen, -torch.inf).softmax(-1), v)


def inputs(
    lengths: list[int], heads: int, kv_heads: int, size: int, dtype: torch.dtype, seed: int = 0
) -> list[Tensor]:
    """Queries, keys, values and the gradient of the output."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(sum(lengths), h, size) for h in (heads, kv_heads, kv_heads, heads)]
    return [
        torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype) for shape in shapes
    ]


def bounds(lengths: list[int]) -> tuple[Tensor, int]:
    return torch.tensor([0, *lengths]).cumsum(0).int(), max(lengths)


def with_gradients(function, q, k, v, grad) -> list[Tensor]:
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    out = function(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad)]
