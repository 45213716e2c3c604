"""Trains a model on packed datasets: ``python -m sabitrain --data OUT --run DIR``.

`Trainer.run` is the story of a run. It trains on the targets of the datasets, validates, saves
checkpoints that ``transformers`` reads, and answers a few held-out prompts. Everything it leaves
lies in the run folder (`sabitrain.checkpoints.run_folder`). However a run ends, by Ctrl-C or
``kill -9``, the same command with ``--resume`` goes on as if it had not.
"""

from __future__ import annotations

import contextlib
import platform
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from sabiprep.errors import Interrupted, TrainError
from sabitrain.attention.check import check_attention
from sabitrain.checkpoints.files import output_error
from sabitrain.checkpoints.fingerprint import check_fingerprint, fingerprint_of
from sabitrain.checkpoints.history import History
from sabitrain.checkpoints.run_folder import (
    METRICS_FILE,
    begin_run,
    keep_skipped,
    plain_configuration,
    resume_command,
    take_up,
)
from sabitrain.checkpoints.trainer_state import Progress, restore_state
from sabitrain.config import TrainConfig
from sabitrain.data.batches import Step, make_step
from sabitrain.data.datasets import Datasets, open_datasets
from sabitrain.data.loader import Loader
from sabitrain.data.masking import masking_of
from sabitrain.data.order import make_order
from sabitrain.device import (
    choose_device,
    limit_memory,
    precision,
    runs_in_bf16,
    set_deterministic,
)
from sabitrain.evaluation.generate import answer_held_out
from sabitrain.evaluation.scores import Evaluation
from sabitrain.models.architecture import architecture_of
from sabitrain.models.compiling import compile_ahead
from sabitrain.models.flops import step_flops
from sabitrain.models.loss import predicting_states, weighted_loss
from sabitrain.monitoring.clock import Clock
from sabitrain.monitoring.console import open_console
from sabitrain.monitoring.metrics import Metrics
from sabitrain.monitoring.report import Report, report_begin, report_end, report_stop, saved_so_far
from sabitrain.monitoring.tensorboard import check_tensorboard, open_tensorboard
from sabitrain.optim.guard import StepGuard, records_of, stop_error
from sabitrain.optim.optimizers import (
    clip_gradient,
    make_optimizers,
    set_learning_rate,
    skip_where,
)
from sabitrain.optim.schedule import learning_rate
from sabitrain.preflight import check_datasets
from sabitrain.stopping import StopRequest
from sabitrain.validation import Validator


def run_training(config: TrainConfig) -> Report:
    """Trains as ``config`` says, leaves everything in the run folder, and reports.

    Raises:
        DatasetError: If a dataset cannot be read, has nothing to train on, or is not the one of
            the run to resume.
        ConfigError: If a setting is not that of the run to resume.
        TrainError: If the data does not fit the model, or three steps in a row could not be taken.
        OutputError: If the run folder is not empty, or cannot be written to.
        Interrupted: If Ctrl-C came twice.
    """
    with open_datasets(config.datasets) as data:
        check_datasets(config, data)
        check_tensorboard(config.tensorboard)
        device = choose_device(config.device)
        # Before CUDA is set up for the model: cuBLAS reads its settings then.
        set_deterministic(config.deterministic)
        limit_memory(device, config.memory_limit)
        try:
            with (
                begin_run(config),
                StopRequest() as stop,
                Trainer(config, data, device, stop) as trainer,
            ):
                trainer.setup()
                return trainer.run()
        except KeyboardInterrupt:
            raise Interrupted(
                f"stopped by Ctrl-C at once; {saved_so_far(config.run)}",
                file=str(config.run),
                remedy=f"go on with: {resume_command(config)}",
            ) from None
        except torch.OutOfMemoryError as error:
            raise TrainError(
                f"the GPU's memory is full (--memory-limit is {config.memory_limit:g} GB)",
                remedy=f"lower --batch.micro-tokens from {config.batch.micro_tokens}, "
                "or use --recompute; `python -m sabitrain plan` says what fits",
            ) from error
        except OSError as error:
            raise output_error(
                error, "the run cannot go on", config.run, resume_command(config)
            ) from error


class Trainer:
    """A run: its model, its data and how far it is. Usable in ``with``, which closes its files.

    Attributes:
        config: The settings; those of a resumed run once `setup` has found it.
        done: Steps taken.
        saved: The newest checkpoint; None as long as there is none.
        evaluation: The newest validation; None as long as there is none.
    """

    def __init__(
        self, config: TrainConfig, data: Datasets, device: torch.device, stop: StopRequest
    ) -> None:
        """Notes what a run is given; `setup` makes the rest.

        Args:
            config: The settings.
            data: The datasets, which `sabitrain.preflight.check_datasets` has passed.
            device: Where to train.
            stop: Says whether a signal asked the run to end.
        """
        self.config, self.data, self.dataset = config, data, data.rows
        self.device, self.bf16, self.stop = device, runs_in_bf16(device), stop
        self.done, self.saved_at = 0, -1
        self.saved: Path | None = None
        self.evaluation: Evaluation | None = None
        self._notes: list[str] = []
        self._open = contextlib.ExitStack()

    def setup(self) -> None:
        """Makes everything that a run needs, from the newest checkpoint if there is one.

        Raises:
            ConfigError: If a setting is not that of the run to resume.
            DatasetError: If a dataset is not that of the run to resume.
            TrainError: If attention is wrong on the device, or every checkpoint is damaged.
        """
        self.history = History(self.config.run, self.config.checkpoint)
        found = self.history.resume(self._notes.append) if self.config.resume else None
        progress = None
        if found is not None:
            self.saved, progress = found
            self.done = self.saved_at = progress.step
            check_fingerprint(progress.dataset, self.data)
            self.config = take_up(progress.config, progress.step, self.config)
            self.history.settle(self.saved)
        # Before anything is trained: a run that ends here passes over the same batches again.
        keep_skipped(self.config)
        self._make_model()
        self._plan_steps(progress)
        self._open_outputs(progress)
        if self.saved is None:
            self._begin_record()
        else:
            self._go_on_from(self.saved)
        report_begin(
            self.config,
            self.console,
            self.dataset,
            self.model,
            f"{self.device}{' in bf16' if self.bf16 else ''}",
            self.order,
            self.plan["steps"],
        )
        self.validator = Validator(
            self.config,
            self.dataset,
            self.model,
            self.plan["micro_rows"],
            self.bf16,
            self.clock,
            self.console,
            self.stop,
        )
        self.validator.prepare()
        self._compile()

    def run(self) -> Report:
        """Trains to the end of the run, or until a signal stops it, and reports."""
        while True:
            asked = self.stop.signal
            last = self.validator.is_last(self.done)
            validates = last or self.validator.is_due(self.done)
            saves = validates or self._checkpoint_is_due() or bool(asked)
            if saves or self.done % self.config.log_every == 0:
                self._refuse_bad_steps()
            # A checkpoint comes before all else that is due after its step, so that is where a
            # resumed run begins.
            if saves:
                self.save()
            if validates and not asked:
                self.validate(last)
                asked = self.stop.signal
            if asked and self.saved is not None:
                return self._report_stop(self.saved)
            if last:
                break
            self.step()

        self.console.settle()
        if self.done < self.plan["steps"]:
            self.console.say(
                f"{self.config.hours:g} hours are over: stopping at step {self.done}, "
                "before the rate has come down"
            )
        self.console.say(f"saved {self.history.newest} after {self.clock.seconds:.0f} s")
        self.console.between_steps("answering")
        answers = answer_held_out(
            self.model,
            self.dataset,
            self.config.answers,
            seed=self.config.seed,
            tasks=self.config.answer_tasks,
            max_new_tokens=self.config.max_new_tokens,
            go_on=self.validator.going_on("answering", "tokens"),
        )
        if self.stop.signal and self.saved is not None:
            return self._report_stop(self.saved)
        return report_end(self.metrics, self.done, self.evaluation, answers, self.history.newest)

    def step(self) -> None:
        """Takes the next optimizer step, or passes over its batch if that is to be skipped.

        A step that a signal ends between micro-batches is not taken: it is taken when the run is
        resumed.
        """
        if self.done + 1 in self.config.skip_batches:
            self.done += 1
            return
        self.metrics.begin_step()
        step = self.loader.step(self.done)
        loss = self._accumulate(step)
        if loss is None:
            for optimizer in self.optimizers:
                optimizer.zero_grad()
            return
        grad_norm = clip_gradient(self.model, self.config.optim.clip)
        # Whether the step is taken is decided on the device: nothing here waits for it.
        skip, outcome = self.guard.judge(loss, grad_norm, self.done + 1, step.targets)
        rate = learning_rate(self.config.optim, self.done, self.plan["steps"])
        set_learning_rate(self.optimizers, rate)
        skip_where(self.optimizers, skip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.done += 1
        self.metrics.step(
            self.done,
            step,
            step_flops(
                self.config.model,
                self.dataset.vocab_size,
                step,
                self.config.compute,
                self.config.recompute,
            ),
            epoch=self.order.epoch(self.done),
            lr=rate,
            outcome=outcome,
            waited=self.loader.waited,
        )

    def validate(self, last: bool) -> None:
        """Validates the model; ``last`` may take more rows. A signal ends it without a result."""
        self.evaluation = self.validator.validate(self.done, last)
        if self.evaluation is not None:
            self.metrics.validation(self.done, self.evaluation)

    def save(self) -> None:
        """Writes a checkpoint, unless there is one of this step.

        Raises:
            OutputError: If it cannot be written.
        """
        if self.done <= self.saved_at:
            return
        self.console.between_steps("saving")
        began = self.clock.seconds
        progress = Progress(
            step=self.done,
            seconds=self.clock.seconds,
            metrics_bytes=self.metrics.sync(),
            plan=self.plan,
            config=plain_configuration(self.config),
            dataset=fingerprint_of(self.data),
        )
        self.saved = self.history.save(
            self.model, self.optimizers, self.guard, self.dataset, progress
        )
        self.saved_at = self.done
        self.clock.seconds_to_save = self.clock.seconds - began

    def _make_model(self) -> None:
        """Makes the model, its optimizers and the guard, from the seed."""
        config = self.config
        if config.threads:
            torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        architecture = architecture_of(config.model.architecture)
        dtype = torch.bfloat16 if self.bf16 else torch.float32
        check_attention(*architecture.attention_heads(config.model), self.device, dtype)
        self.model = architecture.make(config.model, self.dataset.vocab_size).to(self.device)
        self.model.recompute(config.recompute)
        # The model itself stays as it is: checkpoints and answers go by its own names.
        self.forward = torch.compile(self.model, dynamic=True) if config.compile else self.model
        self.optimizers = make_optimizers(self.model, self.model.units(), config.optim)
        self.guard = StepGuard(self.device, config.optim.spike)

    def _plan_steps(self, progress: Progress | None) -> None:
        """Decides how steps are cut, which a resumed run has decided already, and their rows."""
        dataset, config = self.dataset, self.config
        self.plan = (
            config.step_plan(len(dataset.train), dataset.seq_len, self.device.type)
            if progress is None
            else dict(progress.plan)
        )
        self.order = make_order(
            self.data, config.mix, self.plan["rows_per_step"], config.seed, self.plan["steps"]
        )
        self.masking = masking_of(config, dataset.sources)

    def _open_outputs(self, progress: Progress | None) -> None:
        """Opens the console, the record, TensorBoard and the loader, until the end of the with."""
        config = self.config
        seconds, kept = (0.0, 0) if progress is None else (progress.seconds, progress.metrics_bytes)
        self.clock = Clock(self.plan["steps"], config.hours, self.done, seconds)
        self.console = self._open.enter_context(open_console(self.clock))
        tensorboard = self._open.enter_context(
            open_tensorboard(config.tensorboard, config.run, self.done)
        )
        self.metrics = self._open.enter_context(
            Metrics(
                config.run / METRICS_FILE,
                self.console,
                self.clock,
                self.device,
                config.log_every,
                kept,
                tensorboard,
            )
        )
        self.loader = self._open.enter_context(
            Loader(
                self.dataset.train,
                self.order.step,
                self.plan["steps"],
                self.plan["micro_rows"],
                self.masking,
                config.compute,
                pin=self.bf16,
            )
        )
        # From here on a signal is acknowledged on the console, not printed into its drawing.
        self.stop.say_by(self.console.say)
        for note in self._notes:
            self.console.say(note, "bold")

    def _begin_record(self) -> None:
        """Writes the first line of the record of a run."""
        self.metrics.start(
            dataset=self.dataset.fingerprint,
            parameters=self.model.n_parameters(),
            **self.plan,
            device=str(self.device),
            bf16=self.bf16,
            torch=torch.__version__,
            python=platform.python_version(),
            skip_batches=self.config.skip_batches,
        )

    def _go_on_from(self, saved: Path) -> None:
        """Puts model, optimizers and guard back to where a checkpoint has them."""
        restore_state(saved, self.model, self.optimizers, self.guard)
        self.metrics.not_finite, self.metrics.spikes = self.guard.state["counts"].tolist()
        self.metrics.resume(
            step=self.done,
            checkpoint=saved.name,
            device=str(self.device),
            torch=torch.__version__,
            skip_batches=self.config.skip_batches,
        )
        self.console.say(f"going on from {saved}, after step {self.done:,}")

    def _compile(self) -> None:
        """Compiles the model before the first step, if that is wanted and a step is to come."""
        if not self.config.compile or self.done >= self.plan["steps"] or self.stop.is_requested():
            return
        self.console.between_steps("compiling")
        micro_rows = self.plan["micro_rows"]
        first = make_step(
            self.dataset.train,
            self.order.step(self.done)[:micro_rows],
            micro_rows,
            self.masking,
            self.config.compute,
        )
        batch = first.batches[0].to(self.device)
        compile_ahead(self.forward, self.model, batch, self.config.compute, self.bf16, self.stop)

    def _checkpoint_is_due(self) -> bool:
        """Returns whether ``--checkpoint.every`` has a checkpoint after the last step."""
        every = self.config.checkpoint.every
        return bool(every) and self.done > 0 and self.done % every == 0

    def _accumulate(self, step: Step) -> Tensor | None:
        """Adds up the gradients of all micro-batches of a step.

        Returns:
            The cross-entropy, a scalar on the device; None if a signal came between two of them.
        """
        loss = torch.zeros((), device=self.device)
        left = len(step.batches)
        for batch in (batch.to(self.device) for batch in step.batches):
            with precision(self.device, self.bf16):
                hidden_MC = predicting_states(self.forward, batch, self.config.compute)
                to_minimise, cross_entropy = weighted_loss(
                    hidden_MC, self.model.head_VC, batch, self.config.z_loss
                )
            torch.autograd.backward(to_minimise)
            loss += cross_entropy
            left -= 1
            if left and self.stop.is_requested():
                return None
        return loss

    def _refuse_bad_steps(self) -> None:
        """Ends the run if three steps in a row could not be taken, and names their records.

        Raises:
            TrainError: If so.
        """
        bad = self.guard.stopping_steps()
        if bad:
            rows = self.dataset.train.batch(self.order.step(bad[-1] - 1), labels=False)
            records = records_of(self.dataset, rows)
            self.metrics.stopped(bad[-1], records)
            raise stop_error(bad[-1], records, resume_command(self.config, bad))

    def _report_stop(self, saved: Path) -> Report:
        """Says that a signal ended the run, and how it goes on."""
        return report_stop(self.config, self.console, self.stop, self.done, self.evaluation, saved)

    def __enter__(self) -> Self:
        """Returns the trainer, its files closed at the end of the ``with``."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the loader, the record, TensorBoard and the console."""
        self._open.__exit__(kind, error, trace)
