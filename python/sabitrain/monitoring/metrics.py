"""The record of a run, one JSON object a line in ``metrics.jsonl``.

The console shows its lines.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from sabitrain.checkpoints.files import Log
from sabitrain.data.batches import Step
from sabitrain.device import peak_flops, peak_memory
from sabitrain.evaluation.generate import Answer
from sabitrain.evaluation.scores import Evaluation, TargetLoss
from sabitrain.models.flops import Flops
from sabitrain.monitoring.clock import Clock
from sabitrain.monitoring.console import Console
from sabitrain.monitoring.step_metrics import StepMetrics, summarise
from sabitrain.monitoring.tensorboard import TensorBoard
from sabitrain.optim.guard import UPDATES


class _Pending(NamedTuple):
    """A step whose outcome is still on the device."""

    number: int
    epoch: float
    lr: float
    outcome: Tensor
    tokens: int
    targets: int
    flops: Flops


class _Shared(NamedTuple):
    """The figures of steps that were waited for together; their seconds are a mean."""

    seconds: float
    data_wait: float
    memory_bytes: int
    eta_seconds: float | None


class Metrics:
    """Writes the record of a run; a context manager that closes the file.

    Every line of the file has a ``kind``: ``start``, ``resume``, ``train`` (a step, a
    `sabitrain.monitoring.step_metrics.StepMetrics`), ``validation`` (a
    `sabitrain.evaluation.scores.Evaluation`), ``eval_data`` (the same of a dataset of
    ``--eval-data``), ``stopped``, ``answer`` and ``end``. Times, speeds and memory aside, a run on
    the CPU writes the same lines again.

    Attributes:
        not_finite: Steps skipped because their loss or gradient was no number, as of the last line
            written.
        spikes: Steps skipped because their loss or gradient was far above the median.
    """

    def __init__(
        self,
        file: Path,
        console: Console,
        clock: Clock,
        device: torch.device,
        log_every: int,
        keep: int = 0,
        tensorboard: TensorBoard | None = None,
    ) -> None:
        """Opens the record of a run.

        Args:
            file: The file.
            console: The console that shows the lines.
            clock: The clock of the run.
            device: The device of the run.
            log_every: Steps between metrics that are shown.
            keep: Bytes of the file, from earlier sessions, to keep.
            tensorboard: The TensorBoard that gets the numbers too, if any.
        """
        self._log = Log(file, keep)
        # The losses before the first step, by the name of the dataset; "" is the run's own.
        self._at_start = _losses_at_start(file)
        self._console, self._tensorboard, self._clock = console, tensorboard, clock
        self._device, self._log_every = device, log_every
        self._peak_flops = peak_flops(device)
        self.not_finite = self.spikes = 0
        # Steps without a line yet, and lines that the console has not shown yet.
        self._pending: list[_Pending] = []
        self._unseen: list[StepMetrics] = []
        self._began = time.perf_counter()
        self._waited = self._waited_before = 0.0

    def start(self, **facts: Any) -> None:
        """Writes the facts of a run that begins."""
        self._write("start", **facts)

    def resume(self, **facts: Any) -> None:
        """Writes the facts of a run that goes on."""
        self._write("resume", **facts)

    def cut(self, **facts: Any) -> None:
        """Writes that micro-batches are smaller from here on."""
        self.flush()
        self._write("cut", **facts)

    def phase(self, **facts: Any) -> None:
        """Writes that another phase begins."""
        self.flush()
        self._write("phase", **facts)

    def sync(self) -> int:
        """Has the disk hold the record so far, and returns its length in bytes."""
        self.flush()
        self._log.sync()
        return self._log.size

    def begin_step(self) -> None:
        """Begins a step; its time counts from here unless other steps are under way."""
        if not self._pending:
            self._began = time.perf_counter()

    def step(
        self,
        number: int,
        step: Step,
        flops: Flops,
        *,
        epoch: float,
        lr: float,
        outcome: Tensor,
        waited: float,
    ) -> None:
        """Notes an optimizer step.

        The outcome stays on the device until metrics are to be shown, or `flush` is called: until
        then the host need not wait for the device.

        Args:
            number: The number of the step, from 1.
            step: The step.
            flops: The operations of the step.
            epoch: Passes over the data after the step.
            lr: The learning rate.
            outcome: float64[5], the second result of `sabitrain.optim.guard.StepGuard.judge`.
            waited: Seconds that the loader has kept the session waiting so far.
        """
        self._pending.append(_Pending(number, epoch, lr, outcome, step.tokens, step.targets, flops))
        self._waited = waited
        self._console.step(number)
        # The last step is shown too, whatever the interval.
        if number % self._log_every == 0 or number == self._clock.steps:
            self.flush()
            self._console.step_metrics(summarise(self._unseen), self.not_finite + self.spikes)
            self._unseen.clear()

    def flush(self) -> None:
        """Writes the lines of the steps so far.

        Times, speeds, memory and shares of time are means over all steps since the last flush: the
        host did not wait between these steps.
        """
        if not self._pending:
            return
        # One copy for all steps, which waits for the device.
        outcomes = torch.stack([step.outcome for step in self._pending]).tolist()
        now = time.perf_counter()
        self._clock.mark(self._pending[-1].number)
        shared = _Shared(
            seconds=(now - self._began) / len(outcomes),
            data_wait=(self._waited - self._waited_before) / (now - self._began),
            memory_bytes=peak_memory(self._device),
            eta_seconds=self._clock.seconds_left,
        )
        self._began, self._waited_before = now, self._waited
        for step, (loss, grad_norm, update, *counts) in zip(self._pending, outcomes, strict=True):
            line = self._step_metrics(step, loss, grad_norm, UPDATES[int(update)], shared)
            self._write("train", **dataclasses.asdict(line))
            self._unseen.append(line)
            self.not_finite, self.spikes = (int(count) for count in counts)
        self._pending.clear()

    def stopped(self, step: int, records: Sequence[str]) -> None:
        """Writes the step that stops the run, and the records in its batch."""
        self.flush()
        self._write("stopped", step=step, records=list(records))

    def validation(self, step: int, evaluation: Evaluation) -> None:
        """Writes and shows a validation after ``step`` steps."""
        change = self._change("", step, evaluation)
        since = {} if change is None else {"change": change}
        self._write("validation", step=step, **dataclasses.asdict(evaluation), **since)
        self._console.validation(step, evaluation, change)

    def eval_data(self, step: int, name: str, evaluation: Evaluation) -> None:
        """Writes and shows the scores of another dataset after ``step`` steps."""
        change = self._change(name, step, evaluation)
        scores = dataclasses.asdict(evaluation)
        self._write("eval_data", step=step, name=name, change=change, **scores)
        self._console.eval_data(step, name, evaluation, change)

    def _change(self, name: str, step: int, evaluation: Evaluation) -> float | None:
        """Returns the change of a dataset's loss since before the first step.

        Returns None if that is not known, or was the loss of other rows.
        """
        total = evaluation.total
        seen = (evaluation.rows, total.targets)
        if step == 0:
            self._at_start[name] = (seen, total.loss)
            return None
        seen_before, before = self._at_start.get(name, (None, 0.0))
        return total.loss - before if seen == seen_before else None

    def answers(self, answers: Sequence[Answer]) -> None:
        """Writes and shows held-out prompts and the model's answers."""
        for answer in answers:
            self._write("answer", **dataclasses.asdict(answer))
        self._console.answers(answers)

    def end(self, evaluation: Evaluation | None, baseline: TargetLoss | None, **facts: Any) -> None:
        """Writes and shows the result of the run."""
        loss = None if evaluation is None else evaluation.total.loss
        skipped = {"not_finite": self.not_finite, "spikes": self.spikes}
        self._write(
            "end",
            **skipped,
            target_loss=loss,
            unigram_baseline=None if baseline is None else baseline.loss,
            **facts,
        )
        self._console.end(evaluation, baseline)

    def _step_metrics(
        self, step: _Pending, loss: float, grad_norm: float, update: str, shared: _Shared
    ) -> StepMetrics:
        """Returns the metrics of a step, once its outcome is known."""
        seconds, rate = shared.seconds, step.flops.executed / shared.seconds
        return StepMetrics(
            step=step.number,
            epoch=round(step.epoch, 4),
            loss=_number(loss),
            lr=step.lr,
            grad_norm=_number(grad_norm),
            update=update,
            tokens=step.tokens,
            targets=step.targets,
            seconds=seconds,
            tokens_per_second=step.tokens / seconds,
            targets_per_second=step.targets / seconds,
            flops=step.flops.executed,
            skipped=step.flops.skipped,
            flops_per_second=rate,
            dense_equivalent_flops_per_second=step.flops.dense / seconds,
            mfu=None if self._peak_flops is None else rate / self._peak_flops,
            memory_bytes=shared.memory_bytes,
            data_wait=shared.data_wait,
            eta_seconds=shared.eta_seconds,
        )

    def _write(self, kind: str, **values: Any) -> None:
        """Writes one line of the file, there even if the run is killed right after."""
        # The file first: it is the record, and TensorBoard may fail.
        self._log.write(json.dumps({"kind": kind, **values}, ensure_ascii=False))
        if self._tensorboard is not None:
            self._tensorboard.add(kind, values)

    def __enter__(self) -> Self:
        """Returns the record, closed at the end of the ``with``."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the file; an error that ends the run goes before one of closing."""
        with contextlib.suppress(*() if error is None else (OSError,)):
            self._log.close()


def _losses_at_start(file: Path) -> dict[str, tuple[tuple[int, int], float]]:
    """Returns the losses before the first step in a record that goes on, by name of the dataset.

    With each are the number of its rows and of its targets.
    """
    losses: dict[str, tuple[tuple[int, int], float]] = {}
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            values = json.loads(line)
            if values["kind"] in ("validation", "eval_data") and values["step"] == 0:
                total = values["total"]
                losses[values.get("name", "")] = (values["rows"], total["targets"]), total["loss"]
            # All of them come before the first step.
            if values["kind"] == "train":
                break
    return losses


def _number(value: float) -> float | None:
    """Returns a number for JSON, which knows neither NaN nor infinity."""
    return value if math.isfinite(value) else None
