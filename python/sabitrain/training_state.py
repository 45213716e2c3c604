"""All that the steps of a run change: the model, its optimizers and the guard over steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sabitrain.attention.check import check_attention
from sabitrain.checkpoints.trainer_state import restore_state
from sabitrain.config import TrainConfig
from sabitrain.data.batches import Batch
from sabitrain.data.settings import Compute
from sabitrain.models.architecture import CausalModel, architecture_of
from sabitrain.models.compiling import compile_ahead
from sabitrain.optim.guard import StepGuard
from sabitrain.optim.optimizers import make_optimizers, set_learning_rate, skip_where
from sabitrain.stopping import StopRequest


@dataclass(frozen=True)
class TrainingState:
    """The model of a run, its optimizers and the guard over steps, on one device.

    Attributes:
        model: The model; checkpoints and answers use it.
        forward: The model, compiled if the settings say so; steps use it.
        optimizers: The optimizers of the model's parameters.
        guard: The guard, which decides whether a step is taken.
    """

    model: CausalModel
    forward: Callable[..., Tensor]
    optimizers: Sequence[torch.optim.Optimizer]
    guard: StepGuard

    def restore(self, saved: Path) -> None:
        """Puts everything back to a checkpoint.

        Raises:
            TrainError: If the checkpoint is of another model or other optimizers.
        """
        restore_state(saved, self.model, self.optimizers, self.guard)

    def compile(self, batch: Batch, compute: Compute, bf16: bool, stop: StopRequest) -> None:
        """Has torch compile ``forward`` now; a signal ends it at once.

        Args:
            batch: A batch on the device.
            compute: The computation that steps leave out.
            bf16: Whether steps compute in bf16.
            stop: The listener for the signal.
        """
        compile_ahead(self.forward, self.model, batch, compute, bf16, stop)

    def update(self, rate: float, skip: Tensor) -> None:
        """Applies the gradients and clears them.

        Args:
            rate: The learning rate.
            skip: float32[]: 1 to leave the model as it is, 0 to take the step.
        """
        set_learning_rate(self.optimizers, rate)
        skip_where(self.optimizers, skip)
        for optimizer in self.optimizers:
            optimizer.step()
            # Before the next optimizer's step, which needs memory of its own.
            optimizer.zero_grad()

    def clear_gradients(self) -> None:
        """Forgets the gradients."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()


def make_training_state(
    config: TrainConfig, vocab_size: int, device: torch.device, bf16: bool
) -> TrainingState:
    """Makes the training state of a new run, from its seed.

    Args:
        config: The settings.
        vocab_size: Rows of the embedding.
        device: The device to train on.
        bf16: Whether steps compute in bf16.

    Raises:
        ConfigError: If the architecture has no such shape.
        TrainError: If attention is wrong on the device.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    architecture = architecture_of(config.model.architecture)
    dtype = torch.bfloat16 if bf16 else torch.float32
    check_attention(*architecture.attention_heads(config.model), device, dtype)
    model = architecture.make(config.model, vocab_size).to(device)
    model.recompute(config.recompute)
    # The model itself stays as it is: checkpoints and answers go by its own names.
    forward = torch.compile(model, dynamic=True) if config.compile else model
    optimizers = make_optimizers(model, model.units(), config.optim)
    return TrainingState(model, forward, optimizers, StepGuard(device, config.optim.spike))
