"""Floating-point operations of a step: those executed, and those of a dense computation.

Only matrix products are counted, forward and backward, at two operations a multiply-add. Attention
counts the pairs of tokens that a causal kernel within documents computes, but not the scores that
the kernel computes again in its backward pass: as in PaLM's definition of model FLOPs utilisation
(arXiv:2204.02311, appendix B). Operations that are executed count: the padding of predictions to a
multiple of 256, and the second forward pass of recomputed units. Gradients that no parameter
needs are not made, and do not count. The architecture does the counting.
"""

from __future__ import annotations

from dataclasses import dataclass

from sabitrain.data.batches import Batch, Step
from sabitrain.data.settings import Compute
from sabitrain.models.architecture import ALL, Trained, Work, architecture_of
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
    config: ModelConfig,
    vocab_size: int,
    step: Step,
    compute: Compute,
    recompute: bool = False,
    trained: Trained = ALL,
) -> Flops:
    """Returns the operations of all micro-batches of a step.

    Args:
        config: The shape of the model.
        vocab_size: Tokens of the vocabulary.
        step: The step, its tensors on the CPU.
        compute: The computation that is left out.
        recompute: Whether units are computed again in the backward pass.
        trained: The parameters that are trained.
    """
    dense_compute: Compute = "dense"
    executed, dense = (
        sum(
            _training_flops(config, vocab_size, batch, what, recompute, trained)
            for batch in step.batches
        )
        for what in (compute, dense_compute)
    )
    return Flops(executed, dense)


def forward_flops(config: ModelConfig, vocab_size: int, batch: Batch) -> float:
    """Returns the operations of a forward pass alone over a batch, as in a validation."""
    # A forward pass is a third of all: a backward pass takes twice as much.
    return _training_flops(config, vocab_size, batch, "full", False) / 3


def _training_flops(
    config: ModelConfig,
    vocab_size: int,
    batch: Batch,
    compute: Compute,
    recompute: bool,
    trained: Trained = ALL,
) -> float:
    """Returns the operations of a micro-batch."""
    work = Work(
        tokens=len(batch.ids_N),
        predictions=len(batch.predict_at_M),
        lengths=batch.cu_seqlens.diff().long(),
        compute=compute,
        recompute=recompute,
        trained=trained,
    )
    return architecture_of(config.architecture).training_flops(config, vocab_size, work)
