"""The validations of a run: their steps and their rows, within the run's hours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from sabitrain.config import TrainConfig
from sabitrain.data.held_out import all_fit_the_run, sample_rows
from sabitrain.data.rows import RowSource
from sabitrain.evaluation.baseline import Unigram, train_unigram
from sabitrain.evaluation.eval_data import EvalData
from sabitrain.evaluation.evaluate import evaluate_split
from sabitrain.evaluation.scores import Evaluation
from sabitrain.evaluation.text_bytes import TargetBytes
from sabitrain.models.architecture import CausalModel
from sabitrain.monitoring.clock import Clock
from sabitrain.monitoring.console import Console
from sabitrain.stopping import GoOn, StopRequest

# An expected second is planned as this many, lest the run's hours end before the work.
_MARGIN = 1.1
# The mean length of documents is taken from this many rows.
_ROWS_SAMPLED = 16


class Validator:
    """Validates the model of a run on held-out rows.

    Validations take the sample of ``--eval-rows`` (`sabitrain.data.held_out.sample_rows`), the same
    rows each time. The last validation takes every held-out row if time allows: under ``--hours``,
    if it is expected to end within the hours; else, if no more rows are held out than the run has
    trained on, so that it takes a fraction of the run's time.

    Under ``--hours`` training ends early enough for the last checkpoint, the last validation and
    the answers. A validation that takes longer than expected ends with the hours nevertheless, and
    keeps the rows done by then.
    """

    def __init__(
        self,
        config: TrainConfig,
        dataset: RowSource,
        model: CausalModel,
        plan: Mapping[str, int],
        autocast: bool,
        clock: Clock,
        console: Console,
        stop: StopRequest,
        others: Sequence[EvalData] = (),
    ) -> None:
        """Prepares to validate ``model``; no row is read yet.

        Args:
            config: The settings of the run.
            dataset: The dataset of the run.
            model: The model of the run.
            plan: The plan of the run; a forward pass has its ``micro_rows``, those of a step at
                most.
            autocast: Whether to compute in bf16.
            clock: The clock of the run.
            console: The console that shows the progress.
            stop: The listener for signals.
            others: The datasets to score beside the held-out rows.
        """
        self._others, self._bytes_of = others, [TargetBytes(each.dataset) for each in others]
        self._samples: list[npt.NDArray[np.int64]] = []
        # A run from a checkpoint shows what it begins with, and so does one that is compared.
        self._scores_start = config.init is not None or bool(others)
        self._config, self._dataset, self._model = config, dataset, model
        self._plan = plan
        self._autocast = autocast
        self._clock, self._console, self._stop = clock, console, stop
        self._sample: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self._unigram: Unigram | None = None
        self._bytes = TargetBytes(dataset)
        # The answers take as long as a validation of this many rows.
        self._rows_of_answers = 0.0
        self._seconds_a_row: float | None = None

    def prepare(self) -> None:
        """Chooses the sample and counts the baseline's tokens.

        A signal leaves this half done: the run ends then.

        Raises:
            DatasetError: If a shard is damaged.
        """
        self._samples = self._sample_others()
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
        # None means a signal, after which the run ends without a validation.
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

    def _sample_others(self) -> list[npt.NDArray[np.int64]]:
        """Chooses the rows of the other datasets; fewer than all datasets after a signal."""
        samples = []
        for other in self._others:
            rows = sample_rows(
                other.dataset,
                other.rows,
                self._config.eval_rows,
                self._config.seed,
                self.going_on(f"choosing of {other.name}", "rows", False),
            )
            if rows is None:
                break
            samples.append(rows)
        return samples

    def is_due(self, step: int) -> bool:
        """Returns whether a validation is due after ``step`` steps.

        One comes every ``--eval-every`` steps, and one before the first step of a run that starts
        from a checkpoint or has ``--eval-data``.
        """
        if step == 0:
            return self._scores_start
        return bool(self._config.eval_every and step % self._config.eval_every == 0)

    def is_last(self, step: int) -> bool:
        """Returns whether the run ends with ``step`` steps.

        The run has taken all its steps, or its hours leave no room for one more.
        """
        if step == self._clock.steps or step == 0 or self._clock.seconds_to_limit is None:
            return step == self._clock.steps
        # The last validation, one more if it is due, and the answers.
        one_validation = len(self._sample) + self._rows_of_others()
        rows = (1 + self.is_due(step)) * one_validation + self._rows_of_answers
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
            # Asked each time: micro-batches may have become smaller. No more rows than a step has,
            # lest a signal waits for longer than in a step.
            min(self._plan["micro_rows"], self._plan["rows_per_step"]),
            self._autocast,
            self._bytes,
            rows=rows,
            baseline=self._unigram,
            go_on=self.going_on("validating", "rows"),
        )
        if evaluation is not None:
            self._seconds_a_row = (self._clock.seconds - began) / evaluation.rows
        return None if self._stop.is_requested() else evaluation

    def validate_others(self) -> Iterator[tuple[str, Evaluation]]:
        """Yields the name of each dataset of ``--eval-data`` with its scores, until a signal comes.

        Each is scored on its sample of ``--eval-rows``. One without a target has no scores.
        """
        chosen = zip(self._others, self._samples, self._bytes_of, strict=False)
        for other, rows, counter in chosen:
            self._console.between_steps(f"scoring {other.name}")
            # Rows of other lengths: as many tokens at once as a validation has.
            tokens = self._plan["micro_rows"] * self._dataset.seq_len
            evaluation = evaluate_split(
                self._model,
                other.dataset,
                other.rows,
                max(1, tokens // other.dataset.seq_len),
                self._autocast,
                counter,
                rows=rows,
                go_on=self.going_on(f"scoring {other.name}", "rows"),
            )
            if self._stop.is_requested():
                return
            if evaluation is not None:
                yield other.name, evaluation

    def _rows_of_others(self) -> float:
        """Returns the rows of one validation of the other datasets, as rows of the run's length."""
        tokens = sum(
            len(rows) * other.dataset.seq_len
            for other, rows in zip(self._others, self._samples, strict=False)
        )
        return tokens / self._dataset.seq_len

    def going_on(self, doing: str, unit: str, within_hours: bool = True) -> GoOn:
        """Returns a function that shows how much of a work is done and says whether it goes on.

        Args:
            doing: The work, for the console.
            unit: The unit that the work is counted in.
            within_hours: Whether the end of the run's hours ends the work, as a signal does.
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
        # Without a pace nothing says that all rows would fit.
        if self._seconds_a_row is None and self._clock.seconds_a_step is None:
            return False
        after = self._rows_of_answers + self._rows_of_others()
        return self._expected(rows + after) < self._clock.seconds_to_limit

    def _expected(self, rows: float) -> float:
        """Returns the seconds that ``rows`` rows will take, judged by the last validation.

        Training stands in before the first validation.
        """
        row = self._seconds_a_row
        if row is None:
            # Validation has no backward pass, but predicts prompts too.
            row = (self._clock.seconds_a_step or 0.0) / self._config.batch.rows(
                self._dataset.seq_len
            )
        return _MARGIN * rows * row
