"""The gradients of a step, by micro-batches that take less when the GPU's memory is full."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from sabiprep.errors import SabiprepError, TrainError
from sabiprep.terminal import counted
from sabitrain.config import TrainConfig
from sabitrain.data.batches import Step
from sabitrain.data.loader import Loader
from sabitrain.monitoring.console import Console
from sabitrain.monitoring.metrics import Metrics
from sabitrain.stopping import StopRequest
from sabitrain.training_state import TrainingState

_T = TypeVar("_T")


class Accumulation:
    """Computes the gradients of steps, one micro-batch after the other.

    The plan of the run names the rows of a micro-batch, and so do checkpoints. A plan that memory
    shows wrong is changed: the gradients are those of the step, however it is cut.
    """

    def __init__(
        self,
        config: TrainConfig,
        plan: dict[str, int],
        loader: Loader,
        state: TrainingState,
        metrics: Metrics,
        console: Console,
        stop: StopRequest,
    ) -> None:
        """Keeps its arguments.

        Args:
            config: The settings.
            plan: The plan of the run; its ``micro_rows`` and ``recompute`` may change.
            loader: The loader of the run.
            state: The training state.
            metrics: The record of the run.
            console: The console, which says what has changed.
            stop: The listener for signals.
        """
        self._config, self._plan, self._loader = config, plan, loader
        self._state, self._metrics, self._console, self._stop = state, metrics, console, stop

    def gradients(self, number: int) -> tuple[Step, Tensor | None]:
        """Adds up the gradients of a step, counted from 0.

        Returns:
            The step, and its cross-entropy on the device; None if a signal came between two
            micro-batches.

        Raises:
            DatasetError: If a shard is damaged.
            torch.OutOfMemoryError: If not even micro-batches of one row fit.
        """

        def accumulate() -> tuple[Step, Tensor | None]:
            step = self._loader.step(number)
            self._state.seed_dropout(number)
            return step, self._state.accumulate(step.batches, self._stop)

        return self._within_memory(accumulate, number)

    def rehearse(self, number: int) -> None:
        """Has torch compile, and the GPU's memory tried, on a step, counted from 0.

        The micro-batch with the most predictions stands for all. No bit of the training state
        changes.

        Raises:
            DatasetError: If a shard is damaged.
            TrainError: If compilation is asked for, and fails.
            torch.OutOfMemoryError: If not even a micro-batch of one row fits.
        """
        self._state.rehearse_update()

        def try_it() -> None:
            # Gradients of an earlier micro-batch take memory too.
            passes = 1 if self._plan["micro_rows"] >= self._plan["rows_per_step"] else 2
            self._state.rehearse(self._loader.largest_batch(number), passes, self._stop)

        try:
            self._within_memory(try_it, number)
        except (SabiprepError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            # A compiler fails in many ways, and in as many types of error. What is wrong in another
            # way is wrong uncompiled too.
            fault = (str(error).strip() or type(error).__name__).splitlines()[0]
            if not self._state.compiles:
                raise
            if self._config.compile == "on":
                raise TrainError(
                    f"torch could not compile: {fault}",
                    remedy="mend the compiler (CC and CXX name it), or use --compile auto",
                ) from error
            self._console.say(f"torch could not compile, so steps take longer: {fault}", "bold")
        else:
            return
        self._state.clear_gradients()
        self._state.give_up_compiling()
        self._within_memory(try_it, number)

    def _within_memory(self, work: Callable[[], _T], step: int) -> _T:
        """Returns the result of some work, done again with smaller micro-batches until it fits."""
        while True:
            try:
                return work()
            except torch.OutOfMemoryError:
                if not self._may_shrink():
                    raise
            # Out of the `except`, whose error holds on to the tensors of the work.
            self._shrink(step)

    def _may_halve(self) -> bool:
        """Returns whether the settings leave smaller micro-batches."""
        return self._config.batch.micro_tokens == "auto" and self._plan["micro_rows"] > 1

    def _may_shrink(self) -> bool:
        """Returns whether the settings leave a step that takes less memory."""
        settled = self._config.recompute != "auto" or self._plan["recompute"]
        return self._may_halve() or not settled

    def _shrink(self, step: int) -> None:
        """Has this and every later session take less memory for a step."""
        self._state.clear_gradients()
        # Frames of the error may be in cycles, with tensors; the device may still be at work.
        gc.collect()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        rows = self._plan["micro_rows"]
        if self._may_halve():
            rows = self._plan["micro_rows"] = -(-rows // 2)
            self._loader.cut(rows)
        else:
            self._plan["recompute"] = 1
            self._state.model.recompute(True)
        again = bool(self._plan["recompute"])
        self._metrics.cut(step=step, micro_rows=rows, recompute=again)
        self._console.say(
            f"the GPU's memory is full: micro-batches have {counted(rows, 'row')} from here on"
            f"{', recomputing' if again else ''}",
            "bold",
        )
