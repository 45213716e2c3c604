"""Floating-point operations of a step: those executed, and those a dense computation would have
taken.

Matrix products are counted, forward and backward, at two operations a multiply-add; nothing else
is. Attention counts the pairs of tokens that a causal kernel within documents has to, and not the
scores that it computes again in its backward pass: as in PaLM's definition of model FLOPs
utilisation (arXiv:2204.02311, appendix B). Predictions include the padding to a multiple of 256,
since it is executed; so is, where blocks are recomputed, their second forward pass, which counts
too: it ends where the input of a block's last product is known, and leaves out that product itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sabitrain.config import Compute, ModelConfig
from sabitrain.data.batches import Batch, Step

# Dense bf16 with float32 accumulation, by the name that CUDA reports.
_PEAKS = {
    # NVIDIA H100 and H200 Tensor Core GPU datasheets: half of the figures given with sparsity.
    "NVIDIA H100 80GB HBM3": 989.5e12,
    "NVIDIA H100 PCIe": 756.5e12,
    "NVIDIA H200": 989.5e12,
    # NVIDIA A100 Tensor Core GPU datasheet.
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    # NVIDIA A10, L4 (half of the figure with sparsity) and L40S datasheets.
    "NVIDIA A10": 125e12,
    "NVIDIA L4": 121e12,
    "NVIDIA L40S": 362e12,
    # NVIDIA Ampere GA102 and Ada GPU architecture whitepapers, appendix A.
    "NVIDIA GeForce RTX 3090": 71e12,
    "NVIDIA GeForce RTX 4090": 165.2e12,
}


@dataclass(frozen=True)
class Flops:
    """Operations of a step, forward and backward.

    Attributes:
        executed: Those that are executed.
        dense: Those that predicting at every position would take, with the same attention and
            recomputation.
    """

    executed: float
    dense: float

    @property
    def skipped(self) -> float:
        """The share of the dense computation that is left out."""
        return 1 - self.executed / self.dense


def step_flops(
    shape: ModelConfig, vocab_size: int, step: Step, compute: Compute, recompute: bool = False
) -> Flops:
    """The operations of all micro-batches of a step (read from the CPU); ``recompute``: of blocks,
    for the backward.
    """
    executed = sum(
        _batch_flops(shape, vocab_size, batch, compute, recompute) for batch in step.batches
    )
    dense = sum(
        _batch_flops(shape, vocab_size, batch, "dense", recompute) for batch in step.batches
    )
    return Flops(executed, dense)


def training_flops(
    shape: ModelConfig,
    vocab_size: int,
    tokens: int,
    predictions: int,
    pairs: int,
    compute: Compute,
    recompute: bool = False,
) -> float:
    """The operations of a forward and a backward pass, which takes twice the forward's.

    Args:
        shape: The model.
        vocab_size: Its vocabulary.
        tokens: Tokens, padding included.
        predictions: Positions that predict, if not all do.
        pairs: Pairs of a query and a key that attention computes, over all documents.
        compute: What is left out.
        recompute: Whether blocks are computed again in the backward pass
            (`sabitrain.models.llama.Llama.recompute`).
    """
    heads_width = shape.heads * shape.head_size
    projections = 2 * shape.width * (heads_width + 2 * shape.key_heads * shape.head_size)
    last_product = 2 * shape.mlp_width * shape.width
    after_attention = 2 * heads_width * shape.width + 3 * last_product
    at_head = tokens if compute == "dense" else predictions
    at_end = predictions if compute == "full" else tokens
    positions = (shape.layers - 1) * tokens + at_end
    blocks = (
        shape.layers * (tokens * projections + 4 * pairs * heads_width)
        + positions * after_attention
    )
    forward = blocks + at_head * 2 * shape.width * vocab_size
    again = blocks - positions * last_product if recompute else 0
    return 3.0 * forward + again


def forward_flops(shape: ModelConfig, vocab_size: int, batch: Batch) -> float:
    """The operations of a forward pass alone over a batch (read from the CPU), as a validation has
    it.
    """
    return _batch_flops(shape, vocab_size, batch, "full", False) / 3


def peak_flops(device: torch.device) -> float | None:
    """What a device can do in a second at most, in bf16; None if there is no figure with a source."""
    return _PEAKS.get(torch.cuda.get_device_name(device)) if device.type == "cuda" else None


def _batch_flops(
    shape: ModelConfig, vocab_size: int, batch: Batch, compute: Compute, recompute: bool
) -> float:
    """The operations of a micro-batch."""
    lengths = batch.cu_seqlens.diff().long()
    pairs = int((lengths * (lengths + 1) // 2).sum())
    return training_flops(
        shape, vocab_size, len(batch.ids_N), len(batch.predict_at_M), pairs, compute, recompute
    )
