"""Settings of the data: datasets and their mix, the length of a run, its steps, its loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import tyro

from sabitrain.settings import MAY_CHANGE, Section, require

MixSchedule = Literal["linear", "cosine"]
Loss = Literal["target", "full", "template-masked"]
WeighBy = Literal["token", "example"]
Compute = Literal["dense", "head", "full"]
_MOST_ON_A_CPU = 4096


@dataclass(frozen=True)
class Mix:
    """The datasets of a run and their shares of its rows.

    Attributes:
        paths: The folders of the datasets.
        weights: The weight of each dataset, in any unit; empty for one dataset without a weight.
        weights_at_end: The weights at the last step; None if they stay.
        schedule: The curve between the two.
    """

    paths: Sequence[Path]
    weights: Sequence[float]
    weights_at_end: Sequence[float] | None
    schedule: MixSchedule


@dataclass(frozen=True, kw_only=True)
class DataConfig(Section):
    """The datasets to train on."""

    data: Annotated[
        tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="OUT[=WEIGHT]")
    ]
    """The packed dataset: the OUT of `sabiprep pack`, or its URL (s3://BUCKET/OUT). Several, each
    with its weight, are mixed, as --data A=0.7 --data B=0.3; the weights are shares of the rows of
    a step."""
    data_end: Annotated[
        tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="OUT=WEIGHT")
    ] = ()
    """The weights of the same datasets at the last step, where the mix is to change over the run.
    """
    data_schedule: MixSchedule = "linear"
    """How the mix goes from the one to the other: along a line, or half a cosine."""

    def __post_init__(self) -> None:
        """Checks the mix."""
        super().__post_init__()
        # A path alone is a dataset too, from Python and in a TOML file.
        if isinstance(self.data, str | Path):
            object.__setattr__(self, "data", (str(self.data),))
        if self.data is not tyro.MISSING and self.data:
            _ = self.mix

    @cached_property
    def mix(self) -> Mix:
        """The datasets and their weights, read from ``OUT=WEIGHT``.

        Raises:
            ConfigError: If a weight is missing or no positive number, a dataset is named twice, or
                ``data_end`` weighs other datasets.
        """
        # One dataset needs no weight, and its path may hold an equals sign.
        if len(self.data) == 1 and not self.data_end:
            return Mix([Path(self.data[0])], [], None, self.data_schedule)
        weights = dict(_weighted(entry) for entry in self.data)
        require(len(weights) == len(self.data), "data names a dataset twice: give it one weight")
        at_end = dict(_weighted(entry) for entry in self.data_end)
        require(
            not at_end or at_end.keys() == weights.keys(),
            "data_end must weigh the datasets of data, each once",
        )
        ending = [at_end[path] for path in weights] if at_end else None
        return Mix(list(weights), list(weights.values()), ending, self.data_schedule)

    @property
    def datasets(self) -> Sequence[Path]:
        """The folders of the datasets."""
        return self.mix.paths


def _weighted(entry: str) -> tuple[Path, float]:
    """Returns the parts of ``OUT=WEIGHT``."""
    # From the right: a path may hold an equals sign itself.
    path, _, number = entry.rpartition("=")
    weight = _number(number)
    require(
        path != "" and 0 < weight < math.inf,
        f"a mix has OUT=WEIGHT for each dataset, with WEIGHT > 0: not {entry!r}",
    )
    return Path(path), weight


def _number(text: str) -> float:
    """Returns the number in a text, NaN if it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


@dataclass(frozen=True, kw_only=True)
class LengthConfig(Section):
    """The length of a run."""

    epochs: Annotated[float | None, tyro.conf.arg(metavar="N")] = None
    """Passes over the training split; 1 where neither this nor max-steps nor max-tokens is given.
    """
    max_steps: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Optimizer steps at most. The schedule ends where the first of epochs, max-steps and
    max-tokens is reached.
    """
    max_tokens: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Tokens (padding included) to train on at most, rounded down to whole steps, at least one."""
    hours: Annotated[float | None, tyro.conf.arg(metavar="N")] = field(
        default=None, metadata=MAY_CHANGE
    )
    """Stop within so many hours, wherever the schedule is by then; the last checkpoint, validation
    and answers are counted in, so that training ends a little earlier."""

    def __post_init__(self) -> None:
        """Checks every setting."""
        super().__post_init__()
        for name in ("epochs", "hours"):
            value = getattr(self, name)
            require(value is None or value > 0, f"{name} must be above 0, not {value}")
        for name in ("max_steps", "max_tokens"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} must be at least 1, not {value}")

    def steps(self, rows: int, rows_per_step: int, seq_len: int) -> int:
        """Returns the optimizer steps of the whole run: the horizon of the schedule.

        Args:
            rows: Rows of the training split.
            rows_per_step: Rows of a step.
            seq_len: Tokens of a row.
        """
        # The first limit that is reached ends the run; without any, one epoch does.
        limits = [] if self.max_steps is None else [self.max_steps]
        if self.max_tokens is not None:
            limits.append(max(1, self.max_tokens // (rows_per_step * seq_len)))
        if self.epochs is not None or not limits:
            epochs = 1.0 if self.epochs is None else self.epochs
            limits.append(max(1, math.ceil(epochs * rows / rows_per_step)))
        return min(limits)


@dataclass(frozen=True)
class BatchConfig:
    """The rows of a step, given in tokens so that the numbers suit rows of any length."""

    tokens: int = 1024
    """Tokens (padding included) of an optimizer step, rounded down to whole rows, at least one."""
    micro_tokens: Annotated[int | Literal["auto"], tyro.conf.arg(metavar="auto|N")] = "auto"
    """Most tokens in one forward and backward pass; a step of more accumulates over several. auto
    takes as many as fit a GPU's memory; a CPU takes 4096 at most.
    """

    def __post_init__(self) -> None:
        """Checks every setting."""
        require(self.tokens >= 1, f"batch.tokens must be at least 1, not {self.tokens}")
        require(
            isinstance(self.micro_tokens, str) or self.micro_tokens >= 1,
            f"batch.micro_tokens must be auto or at least 1, not {self.micro_tokens}",
        )

    def rows(self, seq_len: int) -> int:
        """Returns the rows of an optimizer step, each of ``seq_len`` tokens."""
        return max(1, self.tokens // seq_len)

    def micro_rows(self, seq_len: int, device: str) -> int | None:
        """Returns the most rows of a micro-batch on a device of type ``device``.

        None leaves it to the memory of a GPU. A CPU gains nothing from more than 4096 tokens.
        """
        given = None if self.micro_tokens == "auto" else self.micro_tokens
        if device == "cpu":
            given = min(given or _MOST_ON_A_CPU, _MOST_ON_A_CPU)
        return None if given is None else max(1, given // seq_len)


@dataclass(frozen=True, kw_only=True)
class MaskingConfig(Section):
    """The tokens that are trained, and the weight of each."""

    loss: Loss = "target"
    """Tokens to learn: target, those of the loss mask; full, all but a document's first;
    template-masked, all but that and the text that templates spell."""
    prompt_weight: Annotated[float | None, tyro.conf.arg(metavar="W")] = None
    """The weight of a prompt's token (with template-masked, of one of its data); by default, what
    loss says: 0 or 1.
    """
    task_weights: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TASK=WEIGHT ...")] = ()
    """Multiplies the weight of every token of a task; 1 for tasks that are not named."""
    weigh_by: WeighBy = "token"
    """Whether each token counts the same, or each example (document), whatever its length."""

    def __post_init__(self) -> None:
        """Checks every setting."""
        super().__post_init__()
        require(
            self.prompt_weight is None or 0 <= self.prompt_weight < math.inf,
            f"prompt_weight must be 0 or more, not {self.prompt_weight}",
        )
        self.weight_of_task()

    def weight_of_task(self) -> dict[str, float]:
        """Returns ``task_weights`` as a mapping.

        Raises:
            ConfigError: If one is not ``task=weight``, or a task is named twice.
        """
        weights: dict[str, float] = {}
        for written in self.task_weights:
            task, _, number = written.rpartition("=")
            weight = _number(number)
            require(
                task != "" and 0 <= weight < math.inf,
                "task_weights must be given as task=weight, with a weight of 0 or more, "
                f"not {written!r}",
            )
            require(task not in weights, f"task_weights names {task!r} twice")
            weights[task] = weight
        return weights
