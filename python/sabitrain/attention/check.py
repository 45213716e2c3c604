"""The self-check of the attention, against all scores at once.

Dimensions: N tokens, H query heads, D dimensions of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sabiprep.errors import TrainError
from sabitrain.attention import documents
from sabitrain.attention.documents import document_attention

# The self-check's documents, and how far from the reference they may be, as a share of 1 + the
# reference: bf16 keeps 8 bits, and on the CPU it is off by up to 0.01 here. A wrong mask or a wrong
# scale is off by tenths at least. Kernels work in blocks of 64 and 128 tokens.
_CHECKED_LENGTHS = (1, 129, 17, 0, 127, 3, 128, 201)
_TOLERANCE = 5e-2
# The window that is checked where a model has one: it begins within a block of a kernel.
_CHECKED_WINDOW = 50


def check_attention(
    heads: int,
    kv_heads: int,
    head_size: int,
    device: torch.device,
    dtype: torch.dtype,
    windowed: bool = False,
) -> None:
    """Compares the attention of a few small documents with every score of every pair of tokens.

    The output of a kernel depends on the GPU, the driver and the version of torch, so a run begins
    with this check, forward and backward.

    Args:
        heads: Query heads.
        kv_heads: Key and value heads.
        head_size: Dimensions of a head.
        device: The device to check.
        dtype: The type of the queries.
        windowed: Whether some layers attend within a window, which is checked too.

    Raises:
        TrainError: If the two differ by more than half precision explains, or a kernel fails.
    """
    try:
        errors = _errors(heads, kv_heads, head_size, device, dtype)
        if windowed:
            within = _errors(heads, kv_heads, head_size, device, dtype, _CHECKED_WINDOW)
            errors |= {f"{what} within a window": worst for what, worst in within.items()}
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        fault = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TrainError(
            f"attention on {device} in {dtype} fails: {fault}",
            remedy="install a torch built for this GPU, update the GPU's driver, or use "
            "--device cpu",
        ) from error
    for what, worst in errors.items():
        # Not `worst > _TOLERANCE`, which NaN would pass.
        if not worst <= _TOLERANCE:
            raise TrainError(
                f"attention on {device} in {dtype} is wrong by {worst:.2g} ({what})",
                remedy="install another version of torch or of the GPU's driver, "
                "or use --device cpu",
            )


def _check_layout(
    q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, longest: int, window: int
) -> None:
    """Raises `RuntimeError` if a kernel's results lie otherwise than compiled code is told."""
    told = documents.fake_forward(q, k, v, bounds, longest, window)
    made = torch.ops.sabitrain.document_attention(q, k, v, bounds, longest, window)
    for one, other in zip(told, made, strict=True):
        layouts = [(x.dtype, tuple(x.shape), x.stride()) for x in (one, other)]
        if layouts[0] != layouts[1]:
            raise RuntimeError(f"a result lies as {layouts[1]}, not as {layouts[0]}")


def _errors(
    heads: int,
    kv_heads: int,
    head_size: int,
    device: torch.device,
    dtype: torch.dtype,
    window: int = 0,
) -> dict[str, float]:
    """Returns how far output and gradients are from the reference, as a share of 1 + it.

    The arguments are those of `check_attention`.
    """
    # The check draws from a generator of its own, so that it changes no run.
    generator = torch.Generator().manual_seed(0)
    tokens = sum(_CHECKED_LENGTHS)
    shapes = [(tokens, count, head_size) for count in (heads, kv_heads, kv_heads, heads)]
    q, k, v, grad = (torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes)
    # Two empty segments at the end, as batches have them.
    bounds = torch.tensor([0, *_CHECKED_LENGTHS, 0, 0]).cumsum(0).to(device, torch.int32)
    q.requires_grad_(), k.requires_grad_(), v.requires_grad_()
    longest = max(_CHECKED_LENGTHS)
    _check_layout(q.detach(), k.detach(), v.detach(), bounds, longest, window)
    out = document_attention(q, k, v, bounds, longest, window)
    got = (out, *torch.autograd.grad(out, (q, k, v), grad))
    expected = _dense(q.detach(), k.detach(), v.detach(), grad, window)
    return {
        what: ((ours.float() - reference).abs() / (1 + reference.abs())).max().item()
        for what, ours, reference in zip(("output", "dq", "dk", "dv"), got, expected, strict=True)
    }


def _dense(
    q: Tensor, k: Tensor, v: Tensor, grad: Tensor, window: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns output and gradients for `_CHECKED_LENGTHS` in float32, all scores at once."""
    leaves = [x.float().requires_grad_() for x in (q, k, v)]
    wide_q, wide_k, wide_v = (
        leaves[0],
        *(x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in leaves[1:]),
    )
    segment_N = torch.repeat_interleave(torch.tensor(_CHECKED_LENGTHS)).to(q.device)
    unseen_NN = (segment_N[:, None] != segment_N) | torch.ones(
        len(q), len(q), device=q.device
    ).triu(1).bool()
    if window:
        place_N = torch.arange(len(q), device=q.device)
        unseen_NN |= place_N[:, None] - place_N >= window
    scores_HNN = torch.einsum("nhd,mhd->hnm", wide_q, wide_k) * q.shape[2] ** -0.5
    weights_HNN = scores_HNN.masked_fill(unseen_NN, -torch.inf).softmax(-1)
    out = torch.einsum("hnm,mhd->nhd", weights_HNN, wide_v)
    dq, dk, dv = torch.autograd.grad(out, leaves, grad.float())
    return out.detach(), dq, dk, dv
