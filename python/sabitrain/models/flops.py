"""Floating-point operations of a step: those executed, and those of a dense computation.

Matrix products are counted, forward and backward, at two operations a multiply-add; nothing else
is. Attention counts the pairs of tokens that a causal kernel within documents has to, and not the
scores that it computes again in its backward pass: as in PaLM's definition of model FLOPs
utilisation (arXiv:2204.02311, appendix B). Predictions include the padding to a multiple of 256,
since it is executed; so is, where units are recomputed, their second forward pass, which counts
too. The count itself is the architecture's.
"""

from __future__ import annotations

from dataclasses import dataclass

from sabitrain.data.batches import Batch, Step
from sabitrain.data.settings import Compute
from sabitrain.models.architecture import Work, architecture_of
from sabitrain.models.settings import ModelConfig


@dataclass(frozen=True)
class Flops:
    """Operations of a step, forward and backward.

    Attributes:
        executed: The operations that are executed.
        dense: The operations of predicting at every position, with the same attention and
            recomputation.
    """

    executed: float
    dense: float

    @property
    def skipped(self) -> float:
        """The share of the dense computation that is left out."""
        return 1 - self.executed / self.dense


def step_flops(
    config: ModelConfig, vocab_size: int, step: Step, compute: Compute, recompute: bool = False
) -> Flops:
    """Returns the operations of all micro-batches of a step, which are read from the CPU.

    Args:
        config: The model.
        vocab_size: Its vocabulary.
        step: The step.
        compute: What is left out.
        recompute: Whether units are computed again in the backward pass.
    """
    dense_compute: Compute = "dense"
    executed, dense = (
        sum(_training_flops(config, vocab_size, batch, what, recompute) for batch in step.batches)
        for what in (compute, dense_compute)
    )
    return Flops(executed, dense)


def forward_flops(config: ModelConfig, vocab_size: int, batch: Batch) -> float:
    """Returns the operations of a forward pass alone over a batch, as a validation has it."""
    return _training_flops(config, vocab_size, batch, "full", False) / 3


def _training_flops(
    config: ModelConfig, vocab_size: int, batch: Batch, compute: Compute, recompute: bool
) -> float:
    """Returns the operations of a micro-batch."""
    lengths = batch.cu_seqlens.diff().long()
    work = Work(
        tokens=len(batch.ids_N),
        predictions=len(batch.predict_at_M),
        pairs=int((lengths * (lengths + 1) // 2).sum()),
        compute=compute,
        recompute=recompute,
    )
    return architecture_of(config.architecture).training_flops(config, vocab_size, work)
