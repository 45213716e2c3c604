"""All that the steps of a run change: the model, its optimizers and the guard over steps.

What steps compute with it, gradients and updates, is here too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sabitrain.attention import flash
from sabitrain.attention.check import check_attention
from sabitrain.checkpoints.adapter import name_base
from sabitrain.checkpoints.pretrained import (
    Pretrained,
    files_beside,
    load_pretrained,
    open_pretrained,
)
from sabitrain.checkpoints.trainer_state import restore_state
from sabitrain.config import TrainConfig
from sabitrain.data.batches import Batch
from sabitrain.device import precision
from sabitrain.models.architecture import ALL, CausalModel, Trained, architecture_of, trained_in
from sabitrain.models.compiling import compile_units, sizes_apart, what_compiles
from sabitrain.models.loss import (
    Chunk,
    compiled_chunk,
    eager_chunk,
    predicting_states,
    weighted_loss,
)
from sabitrain.optim.guard import StepGuard
from sabitrain.optim.optimizers import (
    clip_gradient,
    make_optimizers,
    set_learning_rate,
    skip_where,
)
from sabitrain.partial.narrowing import narrow_frozen, widen
from sabitrain.partial.trained import set_trained
from sabitrain.stopping import StopRequest

# Some thirty times the parameters that train on a CPU in minutes.
_LARGE_ON_A_CPU = 30_000_000


@dataclass
class TrainingState:
    """The model of a run, its optimizers and the guard over steps, on one device.

    Attributes:
        config: The settings.
        model: The model.
        optimizers: The optimizers of the model's parameters.
        guard: The guard, which decides whether a step is taken.
        device: The device.
        bf16: Whether steps compute in bf16.
        compiles_units: Whether the units of the model are compiled.
        chunk: The chunk of the loss, compiled or not.
        narrowed: Whether frozen weights are in bf16, so that nothing can compute in float32.
        trained: The parameters that are trained, as the operations of a step depend on them.
    """

    config: TrainConfig
    model: CausalModel
    optimizers: Sequence[torch.optim.Optimizer]
    guard: StepGuard
    device: torch.device
    bf16: bool
    compiles_units: bool
    chunk: Chunk
    narrowed: bool = False
    trained: Trained = ALL

    @property
    def compiles(self) -> bool:
        """Whether anything is compiled."""
        return self.chunk is not eager_chunk

    def restore(self, saved: Path) -> None:
        """Puts everything back to a checkpoint.

        Raises:
            TrainError: If the checkpoint is of another model or other optimizers.
        """
        restore_state(saved, self.model, self.optimizers, self.guard)
        # The files beside an adapter's base are the base's own.
        if self.config.init is not None and self.model.adapters is None:
            self.model.beside = files_beside(open_pretrained(saved))

    def enter(self, config: TrainConfig) -> None:
        """Trains from here on what a phase trains, with optimizers that begin anew."""
        self.clear_gradients()
        widen(self.model)
        set_trained(self.model, config)
        self.narrowed = self.bf16 and narrow_frozen(self.model)
        self.trained = trained_in(self.model)
        self.optimizers = make_optimizers(self.model, self.model.units(), self.config.optim)
        self.guard.forget()

    def accumulate(self, batches: Sequence[Batch], stop: StopRequest) -> Tensor | None:
        """Adds up the gradients of the micro-batches of a step.

        Returns:
            The cross-entropy, a scalar on the device; None if a signal came between two of them.

        Raises:
            torch.OutOfMemoryError: If the GPU's memory is full; the gradients are to be cleared.
        """
        with self._dropping_out():
            return self._accumulate(batches, stop)

    @contextlib.contextmanager
    def _dropping_out(self) -> Iterator[None]:
        """Has adapters drop out inside the ``with``: nothing but training does."""
        adapters = self.model.adapters
        drops = adapters is not None and adapters.dropout > 0
        if drops:
            self.model.train()
        try:
            yield
        finally:
            if drops:
                self.model.eval()

    def seed_dropout(self, number: int) -> None:
        """Has the dropout of a step be a function of the seed and its number, counted from 0.

        So a step that is done again, by a resumed run or in smaller micro-batches, needs no state
        of a generator to be the same.
        """
        if self.model.adapters is None or not self.model.adapters.dropout:
            return
        (seed,) = np.random.SeedSequence((self.config.seed, number)).generate_state(1, np.uint64)
        # Not `torch.manual_seed`, which seeds every GPU there is.
        generator = (
            torch.default_generator
            if self.device.type == "cpu"
            else torch.cuda.default_generators[self.device.index or 0]
        )
        generator.manual_seed(int(seed) >> 1)

    def _accumulate(self, batches: Sequence[Batch], stop: StopRequest) -> Tensor | None:
        """Does the work of `accumulate`."""
        loss = torch.zeros((), device=self.device)
        left = len(batches)
        for batch in (batch.to(self.device) for batch in batches):
            with precision(self.device, self.bf16):
                hidden_MC = predicting_states(self.model, batch, self.config.compute)
                to_minimise, cross_entropy = weighted_loss(
                    hidden_MC,
                    self.model.head_VC,
                    batch,
                    self.config.z_loss,
                    self.chunk,
                    self.model.head_rows,
                )
            del hidden_MC
            torch.autograd.backward(to_minimise)
            loss += cross_entropy
            left -= 1
            # After the last micro-batch the step is whole, so it is taken.
            if left and stop.is_requested():
                return None
        return loss

    def rehearse(self, batch: Batch, passes: int, stop: StopRequest) -> None:
        """Computes gradients and forgets them, so that torch compiles and memory is tried.

        `rehearse_update` comes before: the states of the optimizers take memory too. A signal ends
        the compilation at once.

        Args:
            batch: A micro-batch.
            passes: How often it is computed: twice shows the memory of a step of several.
            stop: The listener for the signal.

        Raises:
            torch.OutOfMemoryError: If the GPU's memory is full.
        """
        with stop.ends_at_once(), sizes_apart():
            self.accumulate([batch] * passes, stop)
        self.clear_gradients()

    def give_up_compiling(self) -> None:
        """Has steps compute uncompiled from here on."""
        self.chunk, self.compiles_units = eager_chunk, False
        for unit in self.model.units():
            unit.compiled = None

    def rehearse_update(self) -> None:
        """Takes an update that changes nothing: it makes the states of the optimizers.

        Raises:
            torch.OutOfMemoryError: If the GPU's memory is full, and smaller micro-batches would not
                help.
        """
        for parameter in self.model.trained().values():
            parameter.grad = torch.zeros_like(parameter)
        clip_gradient(self.model, self.config.optim.clip)
        self.update(0.0, torch.ones((), device=self.device))

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

    def take(self, loss: Tensor, number: int, targets: int, rate: float) -> Tensor:
        """Applies the gradients of a step, if the guard lets it pass, and clears them.

        Nothing here waits for the device, which decides.

        Args:
            loss: The loss of the step, a scalar on the device.
            number: The number of the step, from 1.
            targets: The targets of the step.
            rate: The learning rate.

        Returns:
            The outcome, float64[5] on the device (`sabitrain.optim.guard.StepGuard.judge`).
        """
        grad_norm = clip_gradient(self.model, self.config.optim.clip)
        skip, outcome = self.guard.judge(loss, grad_norm, number, targets)
        self.update(rate, skip)
        return outcome

    def clear_gradients(self) -> None:
        """Forgets the gradients."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()


def make_training_state(
    config: TrainConfig,
    vocab_size: int,
    device: torch.device,
    bf16: bool,
    say: Callable[[str], None],
    base: Pretrained | None = None,
) -> TrainingState:
    """Makes the training state of a new run, from its seed or from a checkpoint.

    Args:
        config: The settings.
        vocab_size: Rows of the embedding.
        device: The device to train on.
        bf16: Whether steps compute in bf16.
        say: The function that takes a line about what is not as asked.
        base: The checkpoint whose weights the run starts from, if any.

    Raises:
        ConfigError: If the architecture has no such shape, or nothing of it is trained.
        TrainError: If attention is wrong on the device, its kernel cannot be used, the compiler
            that is asked for is missing, or the checkpoint's weights cannot be taken.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    architecture = architecture_of(config.model.architecture)
    dtype = torch.bfloat16 if bf16 else torch.float32
    if device.type == "cuda":
        flash.use(config.attention, device)
    heads = architecture.attention_heads(config.model)
    check_attention(heads.query, heads.key, heads.size, device, dtype, heads.windowed)
    model = architecture.make(config.model, vocab_size) if base is None else load_pretrained(base)
    # A base of adapters is quantised or narrowed first: in float32 it may be too large for a GPU.
    # Rows that are trained share the memory of their matrix, which moving would end.
    if config.train != "lora":
        model = model.to(device)
    set_trained(model, config, device)
    if model.adapters is not None and base is not None:
        name_base(model, base)
    narrowed = bf16 and narrow_frozen(model)
    model = model.to(device)
    if model.adapters is not None and model.adapters.dropout:
        model.eval()
    if device.type == "cpu" and model.n_parameters() > _LARGE_ON_A_CPU:
        say(
            f"{model.n_parameters():,} parameters on a CPU: a step takes minutes, and a run weeks; "
            "such a model is meant for a GPU"
        )
    if device.type == "cpu" and config.attention != "flash2":
        say(f"--attention {config.attention} has no effect on a CPU")
    compiles_units, compiles_loss, note = what_compiles(config.compile, device)
    if note is not None:
        say(note)
    if compiles_units:
        compile_units(model)
    return TrainingState(
        config,
        model,
        make_optimizers(model, model.units(), config.optim),
        StepGuard(device, config.optim.spike),
        device,
        bf16,
        compiles_units,
        compiled_chunk() if compiles_loss else eager_chunk,
        narrowed,
        trained_in(model),
    )
