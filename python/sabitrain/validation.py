"""The validations of a run: when one is due, on which rows, and within the run's hours."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sabitrain.config import TrainConfig
from sabitrain.data.held_out import all_fit_the_run, sample_rows
from sabitrain.data.rows import RowSource
from sabitrain.evaluation.baseline import Unigram, train_unigram
from sabitrain.evaluation.evaluate import evaluate_split
from sabitrain.evaluation.scores import Evaluation
from sabitrain.evaluation.text_bytes import TargetBytes
from sabitrain.models.architecture import CausalModel
from sabitrain.monitoring.clock import Clock
from sabitrain.monitoring.console import Console
from sabitrain.stopping import GoOn, StopRequest

# What is expected to take a second is given so many, lest the run's hours end before it.
_MARGIN = 1.1
_ROWS_SAMPLED = 16  # of which the length of a document is the mean


class Validator:
    """Validates the model of a run on held-out rows.

    Validations take the sample of ``--eval-rows`` (`sabitrain.data.held_out.sample_rows`), the same
    rows each time. The last takes every held-out row where time allows: under ``--hours``, if that
    is expected to be done within them; else, if no more rows are held out than the run has trained
    on, so that it takes a fraction of the run's time.

    Under ``--hours`` training ends early enough for what comes after it: a checkpoint, the last
    validation, the answers. What takes longer than expected ends with the hours nevertheless, with
    the rows it has by then.
    """

    def __init__(
        self,
        config: TrainConfig,
        dataset: RowSource,
        model: CausalModel,
        rows_at_once: int,
        autocast: bool,
        clock: Clock,
        console: Console,
        stop: StopRequest,
    ) -> None:
        """Prepares to validate ``model``; no row is read yet.

        Args:
            config: The run's.
            dataset: What it trains on.
            model: Its model.
            rows_at_once: Rows of a forward pass; no more than a step has, lest a signal waits for
                longer than in one.
            autocast: Whether to compute in bf16.
            clock: The run's.
            console: Where it shows how far it is.
            stop: Says whether a signal asked it to end.
        """
        self._config, self._dataset, self._model = config, dataset, model
        self._rows_at_once = min(rows_at_once, config.batch.rows(dataset.seq_len))
        self._autocast = autocast
        self._clock, self._console, self._stop = clock, console, stop
        self._sample: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self._unigram: Unigram | None = None
        self._bytes = TargetBytes(dataset)
        self._rows_of_answers = 0.0
        self._seconds_a_row: float | None = None

    def prepare(self) -> None:
        """Chooses the sample and counts the baseline's tokens.

        A signal leaves it half done: the run ends then.

        Raises:
            DatasetError: If a shard is damaged.
        """
        held_out = self._dataset.validation
        if len(held_out) == 0:
            return
        rows = sample_rows(
            self._dataset,
            held_out,
            self._config.eval_rows,
            self._config.seed,
            self.going_on("choosing", "rows", False),
        )
        if rows is not None:
            self._sample = rows
            self._unigram = train_unigram(
                self._dataset, self.going_on("counting targets of", "rows", False)
            )
        # Each token of an answer takes a pass over its document so far.
        sampled = range(min(_ROWS_SAMPLED, len(held_out)))
        lengths = held_out.batch(sampled, labels=False)["seq_lengths"]
        passes = self._config.answers * self._config.max_new_tokens
        self._rows_of_answers = passes * float(lengths.mean()) / self._dataset.seq_len

    def is_due(self, step: int) -> bool:
        """Returns whether ``--eval-every`` has a validation after ``step`` steps."""
        return bool(self._config.eval_every and step and step % self._config.eval_every == 0)

    def is_last(self, step: int) -> bool:
        """Returns whether the run ends with ``step`` steps.

        They are all, or the hours have room only for what follows them.
        """
        if step == self._clock.steps or step == 0 or self._clock.seconds_to_limit is None:
            return step == self._clock.steps
        rows = (1 + self.is_due(step)) * len(self._sample) + self._rows_of_answers
        one_step = self._clock.seconds_a_step or 0.0
        return (
            self._clock.seconds_to_limit
            <= one_step + self._clock.seconds_to_save + self._expected(rows)
        )

    def validate(self, step: int, last: bool) -> Evaluation | None:
        """Scores the model after ``step`` steps; None if there is no target or a signal came."""
        rows = (
            np.arange(len(self._dataset.validation))
            if last and self._takes_all(step)
            else self._sample
        )
        self._console.between_steps("validating")
        began = self._clock.seconds
        evaluation = evaluate_split(
            self._model,
            self._dataset,
            self._dataset.validation,
            self._rows_at_once,
            self._autocast,
            self._bytes,
            rows=rows,
            baseline=self._unigram,
            go_on=self.going_on("validating", "rows"),
        )
        if evaluation is not None:
            self._seconds_a_row = (self._clock.seconds - began) / evaluation.rows
        return None if self._stop.is_requested() else evaluation

    def going_on(self, doing: str, unit: str, within_hours: bool = True) -> GoOn:
        """Returns a function that shows how much of a work is done, and whether it goes on.

        A signal ends it and, if asked to, the run's hours.
        """

        def go_on(done: int, of: int) -> bool:
            self._console.progress(doing, done, of, unit)
            return not (self._stop.is_requested() or (within_hours and self._clock.is_over()))

        return go_on

    def _takes_all(self, step: int) -> bool:
        """Returns whether the last validation takes every row."""
        rows = len(self._dataset.validation)
        if self._clock.seconds_to_limit is None:
            return all_fit_the_run(rows, step * self._config.batch.rows(self._dataset.seq_len))
        if self._seconds_a_row is None and self._clock.seconds_a_step is None:
            return False
        return self._expected(rows + self._rows_of_answers) < self._clock.seconds_to_limit

    def _expected(self, rows: float) -> float:
        """Returns the seconds that so many rows will take.

        It goes by the last validation, or else by training, if there is either.
        """
        row = self._seconds_a_row
        if row is None:
            # Validation has no backward pass, but predicts prompts too.
            row = (self._clock.seconds_a_step or 0.0) / self._config.batch.rows(
                self._dataset.seq_len
            )
        return _MARGIN * rows * row
