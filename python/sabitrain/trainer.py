"""Trains a model on packed datasets: ``python -m sabitrain --data OUT --run DIR``.

`Trainer.run` is the story of a run. It trains on the targets of the datasets, validates, saves
checkpoints that ``transformers`` reads, and answers a few held-out prompts. Everything it leaves
lies in the run folder (`sabitrain.checkpoints.run_folder`). However a run ends, by Ctrl-C or
``kill -9``, the same command with ``--resume`` goes on as if it had not.
"""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from sabitrain.accumulation import Accumulation
from sabitrain.checkpoints.fingerprint import fingerprint_of
from sabitrain.checkpoints.history import History
from sabitrain.checkpoints.pretrained import Pretrained
from sabitrain.checkpoints.remote_run import Mirror, fetch_run
from sabitrain.checkpoints.resuming import Start, find_start
from sabitrain.checkpoints.run_folder import begin_run, plain_configuration, resume_command
from sabitrain.checkpoints.trainer_state import Progress
from sabitrain.config import TrainConfig
from sabitrain.data.datasets import Datasets, open_datasets
from sabitrain.data.loader import Loader
from sabitrain.data.masking import masking_of
from sabitrain.data.order import make_order
from sabitrain.device import (
    choose_device,
    limit_memory,
    memory_limit,
    precision,
    runs_in_bf16,
    set_deterministic,
    use_fast_products,
)
from sabitrain.endings import errors_with_remedies
from sabitrain.evaluation.eval_data import EvalData, open_eval_data
from sabitrain.evaluation.generate import answer_held_out
from sabitrain.evaluation.scores import Evaluation
from sabitrain.fitting import settle_plan
from sabitrain.models.flops import step_flops
from sabitrain.monitoring.outputs import open_outputs
from sabitrain.monitoring.report import Report, report_begin, report_end, report_stop
from sabitrain.monitoring.tensorboard import check_tensorboard
from sabitrain.optim.guard import records_of, stop_error
from sabitrain.optim.schedule import learning_rate
from sabitrain.partial.narrowing import is_narrow
from sabitrain.partial.phases import span_at, spans_of
from sabitrain.preflight import check_datasets
from sabitrain.starting import start_from
from sabitrain.stopping import StopRequest
from sabitrain.training_state import make_training_state
from sabitrain.validation import Validator


def run_training(config: TrainConfig) -> Report:
    """Trains a model, leaves everything in the run folder, and returns the result.

    Raises:
        DatasetError: If a dataset cannot be read, has no row to train on, or differs from the run
            to resume.
        ConfigError: If a setting differs from the run to resume.
        TrainError: If the data does not fit the model, or three steps in a row could not be taken.
        OutputError: If the run folder is not empty, or cannot be written to.
        InputError: If an object store cannot be reached, or refuses access.
        Interrupted: If Ctrl-C came twice.
    """
    fetch_run(config)
    config, base = start_from(config)
    with open_datasets(config.datasets) as data:
        check_datasets(config, data, base)
        check_tensorboard(config.tensorboard)
        notes: list[str] = []
        device = choose_device(config.device, notes.append)
        # Before CUDA is set up for the model: cuBLAS reads its settings then.
        set_deterministic(config.deterministic)
        use_fast_products(device)
        limit_memory(device, config.memory_limit)
        with (
            open_eval_data(config.eval_data, data, config.model.context) as others,
            errors_with_remedies(config),
            begin_run(config) as mirror,
            StopRequest() as stop,
            Trainer(config, data, device, stop, base, others, mirror) as trainer,
        ):
            data.fetch_ahead()
            trainer.setup(notes)
            return trainer.run()


class Trainer:
    """A run: its model, its data and its progress. Usable in ``with``, which closes its files.

    Attributes:
        config: The settings; those of a resumed run once `setup` has found it.
        done: Steps taken.
        saved: The newest checkpoint; None before the first.
        evaluation: The newest validation; None before the first.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: Datasets,
        device: torch.device,
        stop: StopRequest,
        base: Pretrained | None = None,
        others: Sequence[EvalData] = (),
        mirror: Mirror | None = None,
    ) -> None:
        """Keeps its arguments; `setup` makes everything else.

        Args:
            config: The settings.
            data: The datasets, which `sabitrain.preflight.check_datasets` has passed.
            device: The device to train on.
            stop: The listener for signals that ask the run to end.
            base: The checkpoint whose weights a new run starts from, if any.
            others: The datasets to score beside the held-out rows.
            mirror: The run in an object store, if it is kept in one.
        """
        self._base, self._others, self._mirror = base, others, mirror
        self.config, self.data, self.dataset = config, data, data.rows
        self.device, self.bf16, self.stop = device, runs_in_bf16(device), stop
        # Asked before the model takes some.
        self.memory_limit = memory_limit(device, config.memory_limit)
        self.done, self.saved_at = 0, -1
        self.saved: Path | None = None
        self.evaluation: Evaluation | None = None
        self._open = contextlib.ExitStack()

    def setup(self, notes: list[str]) -> None:
        """Makes everything that a run needs, from the newest checkpoint if there is one.

        Args:
            notes: Lines for the console, about what is not as asked or expected.

        Raises:
            ConfigError: If a setting differs from the run to resume.
            DatasetError: If a dataset differs from the run to resume.
            TrainError: If attention is wrong on the device, or every checkpoint is damaged.
        """
        self.history = History(self.config.folder, self.config.checkpoint)
        start = find_start(self.config, self.history, self.data, notes.append)
        # A resumed run trains with the settings of its checkpoint, whatever the command said.
        self.config, self.done = start.config, start.step
        steps = start.step_plan(len(self.dataset.train), self.dataset.seq_len, self.device.type)
        self.spans = spans_of(self.config, steps["steps"])
        self.span = span_at(self.spans, self.done)
        self.state = make_training_state(
            self.span.config,
            self.config.model.rows(self.dataset.vocab_size),
            self.device,
            self.bf16,
            notes.append,
            self._base,
        )
        self._plan_steps(start, notes)
        self._open_files(start)
        # Only now: the console that shows them goes by the plan.
        for note in notes:
            self.console.say(note, "bold")
        if start.saved is None:
            self._begin_record()
        else:
            self._go_on_from(start.saved)
        self._begin_validation()
        self._rehearse()

    def run(self) -> Report:
        """Trains to the end of the run, or until a signal stops it, and returns the result."""
        while True:
            asked = self.stop.signal
            last = self.validator.is_last(self.done)
            validates = last or self.validator.is_due(self.done)
            # Before the first step there is nothing yet that a checkpoint would save.
            saves = (validates and self.done > 0) or last
            saves = saves or self.config.checkpoint.is_due(self.done) or bool(asked)
            # Asking waits for the device, so it is done where the run waits anyway.
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

        self._say_how_it_ended()
        with precision(self.device, self.state.narrowed):
            answers = answer_held_out(
                self.state.model,
                self.dataset,
                self.config.answers,
                seed=self.config.seed,
                tasks=self.config.answer_tasks,
                max_new_tokens=self.config.max_new_tokens,
                go_on=self.validator.going_on("answering", "tokens"),
            )
        # Answers that a signal cut short are not kept: a resumed run gives all of them.
        if self.stop.signal and self.saved is not None:
            return self._report_stop(self.saved)
        return report_end(self.metrics, self.done, self.evaluation, answers, self.history.newest)

    def step(self) -> None:
        """Takes the next optimizer step, or passes over its batch if ``skip_batches`` names it.

        A step that a signal ends between micro-batches is not taken: a resumed run takes it.
        """
        if self.done + 1 in self.config.skip_batches:
            self.done += 1
            self._enter_phase()
            return
        self.metrics.begin_step()
        step, loss = self.accumulation.gradients(self.done)
        if loss is None:
            self.state.clear_gradients()
            return
        span = self.span
        rate = span.lr * learning_rate(
            self.config.optim, self.done - span.first, span.end - span.first
        )
        outcome = self.state.take(loss, self.done + 1, step.targets, rate)
        self.done += 1
        config = self.config
        flops = step_flops(
            config.model,
            self.state.model.vocab_size,
            step,
            config.compute,
            bool(self.plan["recompute"]),
            self.state.trained,
        )
        self.metrics.step(
            self.done,
            step,
            flops,
            epoch=self.order.epoch(self.done),
            lr=rate,
            outcome=outcome,
            waited=self.loader.waited,
        )
        self._enter_phase()

    def _enter_phase(self) -> None:
        """Begins the next phase if its first step is next: a checkpoint is of the step to come."""
        span = span_at(self.spans, self.done)
        if span is self.span:
            return
        self.span = span
        self.state.enter(span.config)
        trained = self.state.model.n_trained()
        self.metrics.phase(
            step=self.done,
            phase=span.number,
            train=span.config.train,
            trained_parameters=trained,
        )
        self.console.say(
            f"phase {span.number} of {len(self.spans)}: {span.config.train}, {trained:,} parameters"
        )
        self._rehearse()

    def validate(self, last: bool) -> None:
        """Validates the model; ``last`` may take more rows. A signal ends it without a result."""
        self.evaluation = self.validator.validate(self.done, last)
        if self.evaluation is not None:
            self.metrics.validation(self.done, self.evaluation)
        for name, evaluation in self.validator.validate_others():
            self.metrics.eval_data(self.done, name, evaluation)

    def save(self) -> None:
        """Writes a checkpoint, unless there is one of this step.

        Raises:
            OutputError: If the checkpoint cannot be written.
        """
        if self.done <= self.saved_at:
            return
        self.console.between_steps("saving")
        began = self.clock.seconds
        # The record is synced first: the checkpoint must not count lines that the disk lost.
        progress = Progress(
            step=self.done,
            seconds=self.clock.seconds,
            metrics_bytes=self.metrics.sync(),
            plan=self.plan,
            config=plain_configuration(self.config),
            dataset=fingerprint_of(self.data),
        )
        self.saved = self.history.save(
            self.state.model, self.state.optimizers, self.state.guard, self.dataset, progress
        )
        self.saved_at = self.done
        self._upload(self.saved)
        self.clock.seconds_to_save = self.clock.seconds - began

    def _upload(self, saved: Path) -> None:
        """Uploads a checkpoint and the record, if the run is kept in an object store."""
        if self._mirror is not None:
            self._mirror.say = self.console.say
            self.console.between_steps("uploading")
            self._mirror.upload(saved)

    def _plan_steps(self, start: Start, notes: list[str]) -> None:
        """Decides how steps are cut and computed, their rows, and the weights of their tokens."""
        dataset, config = self.dataset, self.config
        self.plan = start.step_plan(len(dataset.train), dataset.seq_len, self.device.type)
        self.order = make_order(
            self.data, config.mix, self.plan["rows_per_step"], config.seed, self.plan["steps"]
        )
        self.masking = masking_of(config, dataset.sources)
        narrow = self.state.narrowed and is_narrow(self.state.model)
        note = settle_plan(self.plan, config, dataset, self.order, self.memory_limit, narrow)
        if note is not None:
            notes.append(note)
        self.state.model.recompute(bool(self.plan["recompute"]))

    def _open_files(self, start: Start) -> None:
        """Opens the outputs and the loader, until the end of the ``with``."""
        self.clock, self.console, self.metrics = self._open.enter_context(
            open_outputs(start, self.plan["steps"], self.device)
        )
        self.loader = self._open.enter_context(
            Loader(
                self.dataset.train,
                self.order.step,
                self.plan["steps"],
                self.plan["micro_rows"],
                self.masking,
                self.config.compute,
                pin=self.bf16,
            )
        )
        self.accumulation = Accumulation(
            self.config,
            self.plan,
            self.loader,
            self.state,
            self.metrics,
            self.console,
            self.stop,
        )
        # From here on a signal is acknowledged on the console, not printed into its drawing.
        self.stop.say_by(self.console.say)

    def _begin_record(self) -> None:
        """Writes the first line of the record of a run."""
        self.metrics.start(
            dataset=self.dataset.fingerprint,
            parameters=self.state.model.n_parameters(),
            trained_parameters=self.state.model.n_trained(),
            **{**self.plan, "recompute": bool(self.plan["recompute"])},
            device=str(self.device),
            bf16=self.bf16,
            compiled=self.state.compiles_units,
            torch=torch.__version__,
            python=platform.python_version(),
            skip_batches=self.config.skip_batches,
            **({} if self._base is None else {"init": self._base.name}),
        )

    def _go_on_from(self, saved: Path) -> None:
        """Puts the training state back to a checkpoint, and writes the line of a resumed run."""
        self.saved, self.saved_at = saved, self.done
        self.state.restore(saved)
        self.metrics.not_finite, self.metrics.spikes = self.state.guard.state["counts"].tolist()
        self.metrics.resume(
            step=self.done,
            checkpoint=saved.name,
            device=str(self.device),
            recompute=bool(self.plan["recompute"]),
            compiled=self.state.compiles_units,
            torch=torch.__version__,
            skip_batches=self.config.skip_batches,
        )
        self.console.say(f"going on from {saved}, after step {self.done:,}")
        # It may be that the session before could not.
        self._upload(saved)

    def _begin_validation(self) -> None:
        """Says how the run begins, and chooses the rows of its validations."""
        report_begin(
            self.config,
            self.console,
            self.dataset,
            self.state.model,
            f"{self.device}{' in bf16' if self.bf16 else ''}",
            self.order,
            self.plan["steps"],
        )
        self.validator = Validator(
            self.config,
            self.dataset,
            self.state.model,
            self.plan,
            self.bf16,
            self.clock,
            self.console,
            self.stop,
            self._others,
        )
        self.validator.prepare()

    def _rehearse(self) -> None:
        """Compiles the model, and tries the GPU's memory, before the first step.

        Nothing is done where no step is to come, or where there is nothing to find out.
        """
        nothing = not self.state.compiles and self.device.type == "cpu"
        if nothing or self.done >= self.plan["steps"] or self.stop.is_requested():
            return
        self.console.between_steps("compiling" if self.state.compiles else "trying a step")
        self.accumulation.rehearse(self.done)

    def _refuse_bad_steps(self) -> None:
        """Ends the run if three steps in a row could not be taken.

        Raises:
            TrainError: If so, with the records of the last step.
        """
        bad = self.state.guard.stopping_steps()
        if bad:
            # The rows of the step are read again: the order gives them from its number.
            rows = self.dataset.train.batch(self.order.step(bad[-1] - 1), labels=False)
            records = records_of(self.dataset, rows)
            self.metrics.stopped(bad[-1], records)
            raise stop_error(bad[-1], records, resume_command(self.config, bad))

    def _say_how_it_ended(self) -> None:
        """Says where training ended, and which checkpoint holds the model."""
        self.console.settle()
        if self.done < self.plan["steps"]:
            self.console.say(
                f"{self.config.hours:g} hours are over: stopping at step {self.done}, "
                "before the rate has come down"
            )
        self.console.say(f"saved {self.history.newest} after {self.clock.seconds:.0f} s")
        self.console.between_steps("answering")

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
