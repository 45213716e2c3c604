"""The attention of CUDA in half precision: the kernels of torch, called as ``aten`` ops.

`use` chooses among FlashAttention-2 (the default), cuDNN and FlashAttention-3. The ``aten`` ops are
called by themselves, since autograd does not reach inside an op of ours, and each layer of Python
around them costs the host time. Torch 2.11 to 2.15 declare every argument passed here in the same
place, under the same name.

All kernels take fewer key and value heads than query heads, forward and backward.

Dimensions: N tokens of all segments laid end to end, S segments, H query heads, K key and value
heads, D dimensions of a head.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import (
    activate_flash_attention_impl,
    current_flash_attention_impl,
    restore_flash_attention_impl,
)

from sabiprep.errors import TrainError
from sabitrain.attention.settings import Kernel

_FLASH_FORWARD = torch.ops.aten._flash_attention_forward.default
_FLASH_BACKWARD = torch.ops.aten._flash_attention_backward.default
_CUDNN_FORWARD = torch.ops.aten._cudnn_attention_forward.default
_CUDNN_BACKWARD = torch.ops.aten._cudnn_attention_backward.default

# The oldest cuDNN that torch itself gives packed segments.
_CUDNN_VERSION = 91800
# cuDNN makes a plan for each longest length that it is told, and before version 9.24 it takes none
# up to 128.
_CUDNN_ROUND_TO = 256
# Rows that the backward pass of FlashAttention-2 leaves between segments.
_GAP = 128


def takes(q: Tensor) -> bool:
    """Returns whether the kernels take these queries.

    They take half precision on CUDA, in heads of 8 to 256 dimensions in steps of 8.
    """
    # Larger heads, and other steps, the kernels refuse with an error.
    half = q.dtype in (torch.bfloat16, torch.float16)
    return q.is_cuda and half and q.shape[2] % 8 == 0 and q.shape[2] <= 256


def use(kernel: Kernel, device: torch.device | None = None) -> None:
    """Chooses the kernels for every later call in this process.

    Args:
        kernel: Their name.
        device: The device to run them on; by default, the current GPU.

    Raises:
        TrainError: If there is no such kernel, or this machine cannot run it. The choice before it
            stays.
    """
    if kernel not in _BACKENDS:
        raise TrainError(
            f"there is no attention kernel {kernel!r}",
            remedy=f"choose one of {', '.join(_BACKENDS)}",
        )
    backend = _BACKENDS[kernel]
    fault = backend.fault(device)
    if kernel == "flash3" and not fault:
        try:
            # Replaces the kernels behind the ops of FlashAttention-2.
            activate_flash_attention_impl("FA3")
        except (ImportError, RuntimeError, ValueError) as error:
            fault = str(error)
    if fault:
        raise TrainError(
            f"the attention kernel {kernel} does not run here: {fault}", remedy=backend.remedy
        )
    if kernel != "flash3" and current_flash_attention_impl() is not None:
        restore_flash_attention_impl()
    global _chosen
    _chosen = backend


def forward(
    q: Tensor, k: Tensor, v: Tensor, cu: Tensor, longest: int, window: int = 0
) -> tuple[Tensor, Tensor]:
    """Computes the chosen kernel's output [N, H, D] and log-sum-exps float32[H, N]."""
    return _for_window(window).forward(q, k, v, cu, longest, window)


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
    """Computes the chosen kernel's gradients of queries, keys and values."""
    return _for_window(window).backward(grad, q, k, v, out, lse, cu, longest, window)


def _for_window(window: int) -> _Backend:
    """Returns the chosen kernels, or FlashAttention's where those of cuDNN know no window."""
    return _BACKENDS["flash2"] if window and _chosen is _BACKENDS["cudnn"] else _chosen


def workspace_bytes(tokens: int, segments: int, heads: int, kv_heads: int, head_size: int) -> int:
    """Returns the bytes that the backward pass of FlashAttention-2 allocates and frees again.

    The sizes are those of ``mha_varlen_bwd`` in torch's
    ``aten/src/ATen/native/transformers/cuda/flash_attn/flash_api.cpp``: gradients of queries in
    float32, heads rounded up to 32 dimensions (to 64 beyond 128), and a sum for each query and
    head, both with 128 rows more for each segment; and, if query heads share keys, the gradients of
    keys and values for each query head in half precision. Under deterministic algorithms the first
    is allocated once for every ``multiprocessors / (segments * heads)``, rounded up.

    Args:
        tokens: N, of all segments.
        segments: S, the empty ones too.
        heads: Query heads.
        kv_heads: Key and value heads.
        head_size: Dimensions of a head.
    """
    rows, step = tokens + _GAP * segments, 32 if head_size <= 128 else 64
    query_gradients = 4 * rows * heads * (-(-head_size // step) * step)
    sums = 4 * rows * heads
    expanded = 0 if heads == kv_heads else 2 * 2 * tokens * heads * head_size
    return query_gradients + sums + expanded


def kept_bytes(tokens: int, heads: int) -> int:
    """Returns the bytes of the log-sum-exps, kept from the forward pass beside its output."""
    return 4 * tokens * heads


def _flash_forward(
    q: Tensor, k: Tensor, v: Tensor, cu: Tensor, longest: int, window: int
) -> tuple[Tensor, Tensor]:
    """Calls FlashAttention: 2, or 3 where it is activated."""
    # To the left the kernel counts the tokens before a query; -1 is all of them. Without the window
    # to the right, grouped queries of segments of one token take a way of their own in
    # FlashAttention-2, which fails if a segment is empty.
    out, lse, _, _, _ = _FLASH_FORWARD(
        q,
        k,
        v,
        cu,
        cu,
        longest,
        longest,
        0.0,
        True,
        False,
        window_size_left=window - 1,
        window_size_right=0,
    )
    return out, lse


def _flash_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    cu: Tensor,
    longest: int,
    window: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Calls the backward pass of FlashAttention."""
    # The state of dropout, which nothing reads without dropout: empty launches no kernel.
    state = q.new_empty(2, dtype=torch.uint64)
    dq, dk, dv = _FLASH_BACKWARD(
        grad,
        q,
        k,
        v,
        out,
        lse,
        cu,
        cu,
        longest,
        longest,
        0.0,
        True,
        state,
        state,
        window_size_left=window - 1,
        window_size_right=0,
    )
    return dq, dk, dv


def _cudnn_forward(
    q: Tensor, k: Tensor, v: Tensor, cu: Tensor, longest: int, window: int
) -> tuple[Tensor, Tensor]:
    """Calls cuDNN's attention."""
    side = -(-longest // _CUDNN_ROUND_TO) * _CUDNN_ROUND_TO
    # Packed segments are causal only with the same bounds for queries and keys.
    out, lse, *_ = _CUDNN_FORWARD(q, k, v, None, cu, cu, side, side, True, 0.0, True, False)
    return out, lse


def _cudnn_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    cu: Tensor,
    longest: int,
    window: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Calls the backward pass of cuDNN's attention."""
    side = -(-longest // _CUDNN_ROUND_TO) * _CUDNN_ROUND_TO
    # The state of dropout, as above; in int64, which cuDNN converts on no GPU.
    state = q.new_empty(2, dtype=torch.int64)
    dq, dk, dv = _CUDNN_BACKWARD(
        grad, q, k, v, out, lse, state, state, None, cu, cu, side, side, 0.0, True
    )
    return dq, dk, dv


def _no_fault(device: torch.device | None) -> str:
    """Returns no fault: on any machine, the self-check of a run shows whether it works."""
    return ""


def _cudnn_fault(device: torch.device | None) -> str:
    """Returns why cuDNN does not take packed segments here, or nothing."""
    if all(argument.name != "seqused_k" for argument in _CUDNN_FORWARD._schema.arguments):
        # Without it, log-sum-exps have another shape and every call is planned anew.
        return f"torch {torch.__version__} does not give cuDNN packed documents"
    version = torch.backends.cudnn.version() or 0  # type: ignore[no-untyped-call]
    if version < _CUDNN_VERSION:
        return f"it needs cuDNN 9.18, and this is version {version}"
    return _capability_fault(device, (9, 10), "9.0 or 10.x")


def _flash3_fault(device: torch.device | None) -> str:
    """Returns why FlashAttention-3 does not run here, or nothing."""
    if importlib.util.find_spec("flash_attn_interface") is None:
        return "the package flash_attn_interface is not installed"
    return _capability_fault(device, (9,), "9.0")


def _capability_fault(device: torch.device | None, majors: tuple[int, ...], names: str) -> str:
    """Returns why the GPU is of none of these major compute capabilities, or nothing."""
    on_gpu = device is None or device.type == "cuda"
    if torch.version.cuda is None or not torch.cuda.is_available() or not on_gpu:
        return f"it needs an NVIDIA GPU of compute capability {names}, and there is none"
    major, minor = torch.cuda.get_device_capability(device)
    return (
        ""
        if major in majors
        else f"it needs compute capability {names}, and the GPU has {major}.{minor}"
    )


class _Backend(NamedTuple):
    """A choice of kernels.

    Attributes:
        forward: As `forward`.
        backward: As `backward`.
        fault: Returns why a device does not run them, or nothing.
        remedy: The way to make it run them.
    """

    forward: Callable[[Tensor, Tensor, Tensor, Tensor, int, int], tuple[Tensor, Tensor]]
    backward: Callable[
        [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, int, int],
        tuple[Tensor, Tensor, Tensor],
    ]
    fault: Callable[[torch.device | None], str]
    remedy: str


_BACKENDS: dict[Kernel, _Backend] = {
    "flash2": _Backend(_flash_forward, _flash_backward, _no_fault, ""),
    "cudnn": _Backend(
        _cudnn_forward,
        _cudnn_backward,
        _cudnn_fault,
        "install torch 2.15 with cuDNN 9.18, for a GPU of compute capability 9.0 or 10.x, "
        "or use flash2",
    ),
    "flash3": _Backend(
        _flash_forward,
        _flash_backward,
        _flash3_fault,
        "install flash_attn_interface, for a GPU of compute capability 9.0, or use flash2",
    ),
}
_chosen = _BACKENDS["flash2"]
