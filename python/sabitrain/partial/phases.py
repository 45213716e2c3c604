"""The phases of a run: which steps train what, and at which rate.

A phase is a run of its own within the run: the learning rate has its own warm-up and fall, and the
optimizers begin anew. The data goes on as if there were no phases.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from sabiprep.errors import ConfigError
from sabitrain.config import TrainConfig


@dataclass(frozen=True)
class Span:
    """The steps of a phase.

    Attributes:
        number: The number of the phase, from 1.
        first: Its first step, counted from 0.
        end: The step after its last.
        lr: The factor of the learning rate.
        config: The settings of the run, with what this phase trains.
    """

    number: int
    first: int
    end: int
    lr: float
    config: TrainConfig


def spans_of(config: TrainConfig, steps: int) -> Sequence[Span]:
    """Returns the phases of a run of ``steps`` steps, in order; one for a run without phases.

    Raises:
        ConfigError: If a phase has no step.
    """
    if not config.phase:
        return [Span(1, 0, steps, 1.0, config)]
    spans: list[Span] = []
    first = 0
    for number, (phase, own) in enumerate(zip(config.phase, phase_configs(config), strict=True), 1):
        count = round(phase.share * steps) if phase.share is not None else phase.steps
        end = steps if count is None else first + count
        if not first < end <= steps - (len(config.phase) - number):
            raise ConfigError(
                f"phase {number} would train steps {first + 1} to {end} of {steps:,}",
                remedy="give every phase a step: change its steps or share, or lengthen the run",
            )
        spans.append(Span(number, first, end, phase.lr, own))
        first = end
    return spans


def phase_configs(config: TrainConfig) -> Sequence[TrainConfig]:
    """Returns the settings of each phase; those of the run, if it has no phases."""
    return [
        dataclasses.replace(
            config,
            train=phase.train,
            freeze=(*config.freeze, *phase.freeze),
            new_rows=config.new_rows if phase.train == "new-rows" else (),
            phase=(),
        )
        for phase in config.phase
    ] or [config]


def span_at(spans: Sequence[Span], step: int) -> Span:
    """Returns the phase of a step, counted from 0; after the last step, the last phase."""
    return next((span for span in spans if step < span.end), spans[-1])
