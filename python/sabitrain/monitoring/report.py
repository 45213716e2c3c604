"""The beginning and the end of a run in words, and its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sabiprep.terminal import counted
from sabitrain.checkpoints import history
from sabitrain.checkpoints.run_folder import resume_command
from sabitrain.config import TrainConfig
from sabitrain.data.order import Order
from sabitrain.data.rows import RowSource
from sabitrain.evaluation.generate import Answer
from sabitrain.evaluation.scores import Evaluation, TargetLoss
from sabitrain.models.architecture import CausalModel
from sabitrain.monitoring.console import Console
from sabitrain.monitoring.metrics import Metrics
from sabitrain.optim.eight_bits import FEWEST
from sabitrain.optim.optimizers import states_in_8_bits
from sabitrain.stopping import StopRequest


@dataclass(frozen=True)
class Report:
    """The result of a run.

    Attributes:
        steps: Optimizer steps taken.
        evaluation: The losses on the validation split at the end; None if it has no target.
        baseline: The cost of predicting the same targets without context; None likewise.
        answers: Held-out prompts and the model's answers.
        checkpoint: The folder of the last checkpoint.
        stopped: The signal that ended the run early; None if the run came to its end.
    """

    steps: int
    evaluation: Evaluation | None
    baseline: TargetLoss | None
    answers: Sequence[Answer]
    checkpoint: Path
    stopped: str | None = None


def saved_so_far(run: Path) -> str:
    """Returns the newest checkpoint of a run that ends at once, in words."""
    newest = run / history.LINK
    return f"saved is {newest.resolve()}" if newest.exists() else "no checkpoint is saved yet"


def report_begin(
    config: TrainConfig,
    console: Console,
    dataset: RowSource,
    model: CausalModel,
    where: str,
    order: Order,
    steps: int,
) -> None:
    """Says which model is trained on which rows, ``where``, and for how many steps."""
    rows = len(dataset.train)
    parameters = parameters_in_words(model.n_parameters(), model.n_trained())
    console.say(
        f"{config.preset}: {parameters}, vocabulary "
        f"{dataset.vocab_size:,}, on {where}\n"
        f"{', '.join(config.data)}: {counted(rows, 'row')} of {dataset.seq_len} tokens "
        "to train on, "
        f"{len(dataset.validation):,} held out\n"
        f"{counted(steps, 'step')} of {counted(order.rows_per_step, 'row')}, "
        f"{order.epoch(steps):.2f} epochs"
    )
    for line in states_in_words(states_in_8_bits(config.optim, model), model.n_trained()):
        console.say(line)
    if order.rows_per_step > rows:
        console.say(
            "note: one step repeats every row there is; "
            f"--batch.tokens {rows * dataset.seq_len} would be one epoch"
        )


def parameters_in_words(count: int, trained: int) -> str:
    """Returns the number of parameters, and how many are trained if not all are."""
    some = f", {trained:,} of them trained" if trained != count else ""
    return f"{count:,} parameters{some}"


def states_in_words(in_8_bits: int | None, trained: int) -> list[str]:
    """Returns a line about the states of AdamW in 8 bits; none under another optimizer."""
    if in_8_bits is None:
        return []
    small = f"; not those of norms, embedding, head and matrices below {FEWEST:,} numbers"
    if not in_8_bits:
        small += ": adamw8bit is adamw here"
    return [f"states of {in_8_bits:,} of {trained:,} parameters in 8 bits{small}"]


def report_stop(
    config: TrainConfig,
    console: Console,
    stop: StopRequest,
    step: int,
    evaluation: Evaluation | None,
    saved: Path,
) -> Report:
    """Says that a signal ended the run after ``step`` steps, and how it goes on."""
    # The line that acknowledges the signal comes from another thread, and belongs before these.
    stop.wait_until_said()
    console.say(f"stopped by {stop.signal} after step {step:,}, all of it in {saved}", "bold")
    console.say(f"go on with: {resume_command(config)}")
    return Report(step, evaluation, None, (), saved, stop.signal)


def report_end(
    metrics: Metrics,
    step: int,
    evaluation: Evaluation | None,
    answers: Sequence[Answer],
    saved: Path,
) -> Report:
    """Writes the result of a run that is done, and returns it."""
    metrics.answers(answers)
    total = None if evaluation is None else evaluation.total
    baseline = (
        None
        if total is None or total.baseline is None
        else TargetLoss(total.baseline, total.targets)
    )
    exact = sum(answer.exact for answer in answers)
    metrics.end(evaluation, baseline, steps=step, answers=len(answers), exact=exact)
    return Report(step, evaluation, baseline, answers, saved)
