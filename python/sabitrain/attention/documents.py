"""Causal attention that never leaves its document, as one opaque op on every device.

``torch.compile`` sees a single node, whatever the backend and however many documents there are. The
backends are `sabitrain.attention.flash` (CUDA, half precision) and `sabitrain.attention.grouped`
(everything else).

Dimensions: N tokens of all segments laid end to end, S segments (documents and paddings), H query
heads, K key and value heads, D dimensions of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from sabitrain.attention import flash, grouped


def document_attention(
    q_NHD: Tensor,
    k_NKD: Tensor,
    v_NKD: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    window: int = 0,
) -> Tensor:
    """Attends causally from each token to its own segment, scaled by 1 / sqrt(D).

    Args:
        q_NHD: Queries [N, H, D], any floating type.
        k_NKD: Keys [N, K, D]; each serves H / K query heads in order, as in ``transformers``.
        v_NKD: Values [N, K, D].
        cu_seqlens: int32[S + 1] on the same device: where each segment starts, and N. Segments may
            be empty.
        max_seqlen: At least the length of the longest segment.
        window: The number of tokens that a token attends to, itself and those before it; 0 for all
            (sliding window attention, as in ``transformers``).

    Returns:
        [N, H, D] in the type of the queries.
    """
    out_NHD: Tensor = _attention(q_NHD, k_NKD, v_NKD, cu_seqlens, max_seqlen, window)[0]
    return out_NHD


def _forward(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, max_seqlen: int, window: int
) -> tuple[Tensor, Tensor]:
    """Returns the output, and log-sum-exps float32[H, N] on flash, nothing elsewhere.

    The backward pass takes both.
    """
    result: tuple[Tensor, Tensor] = _backend(q).forward(q, k, v, cu_seqlens, max_seqlen, window)
    return result


def _backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    window: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the gradients of queries, keys and values."""
    result: tuple[Tensor, Tensor, Tensor] = _backend(q).backward(
        grad, q, k, v, out, lse, cu_seqlens, max_seqlen, window
    )
    return result


def fake_forward(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, max_seqlen: int, window: int
) -> tuple[Tensor, Tensor]:
    """Returns the shapes alone, by which ``torch.compile`` traces the op."""
    if _backend(q) is flash:
        lse = q.new_empty((q.shape[1], q.shape[0]), dtype=torch.float32)
        # The kernels keep the order of dimensions in memory.
        return torch.empty_like(q), lse
    return q.new_empty(q.shape), q.new_empty(0, dtype=torch.float32)


def _fake_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    window: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the shapes of the gradients, as `fake_forward`."""
    if _backend(q) is flash:
        return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    """Keeps the tensors that the backward pass reads."""
    q, k, v, cu_seqlens, ctx.max_seqlen, ctx.window = inputs
    ctx.mark_non_differentiable(output[1])
    # A gradient of zeros for the log-sum-exps would be made for nothing, a kernel each time.
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, k, v, *output, cu_seqlens)


def _differentiate(
    ctx: Any, grad: Tensor | None, _: Tensor | None
) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None, None]:
    """Returns the gradients of the inputs; the bounds of segments have none."""
    if grad is None:
        return None, None, None, None, None, None
    # Autograd may hand out an expanded gradient, which the kernels do not take.
    dq, dk, dv = _attention_backward(
        grad.contiguous(), *ctx.saved_tensors, ctx.max_seqlen, ctx.window
    )
    return dq, dk, dv, None, None, None


def _refuse(ctx: Any, *grads: Tensor) -> None:
    """Refuses second derivatives, which no backend computes."""
    raise RuntimeError("attention has no second derivative")


def _backend(q: Tensor) -> ModuleType:
    """Returns the module that computes attention for such queries."""
    return flash if flash.takes(q) else grouped


# Not `torch.library.custom_op`: its checks of every call take 10 of 113 us, forward and backward,
# with kernels that do nothing.
_LIBRARY = torch.library.Library("sabitrain", "FRAGMENT")  # type: ignore[no-untyped-call]


def _define(schema: str, kernel: Callable[..., Any], fake: Callable[..., Any]) -> Any:
    """Defines an op on every device: its schema, its function, and its shapes alone."""
    library: Any = _LIBRARY
    name = library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    library.impl(name, kernel, "CompositeExplicitAutograd")
    torch.library.register_fake(f"sabitrain::{name}", fake, lib=_LIBRARY)
    return getattr(torch.ops.sabitrain, name).default


_attention = _define(
    "document_attention(Tensor q, Tensor k, Tensor v, Tensor cu_seqlens, SymInt max_seqlen,"
    " int window) -> (Tensor, Tensor)",
    _forward,
    fake_forward,
)
_attention_backward = _define(
    "document_attention_backward(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor out,"
    " Tensor lse, Tensor cu_seqlens, SymInt max_seqlen, int window) -> (Tensor, Tensor, Tensor)",
    _backward,
    _fake_backward,
)
torch.library.register_autograd(_attention, _differentiate, setup_context=_save, lib=_LIBRARY)
torch.library.register_autograd(_attention_backward, _refuse, lib=_LIBRARY)
