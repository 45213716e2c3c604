"""The metrics of steps: of each, as ``metrics.jsonl`` has them, and of several together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class StepMetrics:
    """The metrics of an optimizer step.

    Times, speeds and shares of time are means over the steps that were waited for together.

    Attributes:
        step: The number of the step, from 1.
        epoch: Passes over the data after the step.
        loss: Nats per target; None if that is no number.
        lr: The learning rate.
        grad_norm: The norm of the gradient before clipping; None if that is no number.
        update: The outcome of the step (`sabitrain.optim.guard.UPDATES`).
        tokens: Tokens of its documents, without padding.
        targets: Tokens that are trained.
        seconds: The duration of the step.
        tokens_per_second: The speed in tokens.
        targets_per_second: The speed in targets.
        flops: Operations executed.
        skipped: The share of the dense computation that is left out.
        flops_per_second: Operations executed a second.
        dense_equivalent_flops_per_second: The operations a second with which a dense computation
            would keep up.
        mfu: ``flops_per_second`` as a share of the device's peak; None if the peak is not known.
        memory_bytes: The most memory held so far (`sabitrain.device.peak_memory`).
        data_wait: The share of the time spent waiting for rows.
        eta_seconds: Seconds until the run stops (`sabitrain.monitoring.clock`); None if unknown.
    """

    step: int
    epoch: float
    loss: float | None
    lr: float
    grad_norm: float | None
    update: str
    tokens: int
    targets: int
    seconds: float
    tokens_per_second: float
    targets_per_second: float
    flops: float
    skipped: float
    flops_per_second: float
    dense_equivalent_flops_per_second: float
    mfu: float | None
    memory_bytes: int
    data_wait: float
    eta_seconds: float | None


@dataclass(frozen=True)
class Summary:
    """Some steps in a row.

    Attributes:
        last: The metrics of the last step.
        loss: Nats per target over the steps taken; NaN if none was taken, or none had a target.
        tokens_per_second: The mean speed in tokens.
        targets_per_second: The mean speed in targets.
        flops_per_second: Operations executed a second.
        mfu: ``flops_per_second`` as a share of the device's peak; None if the peak is not known.
        skipped: The share of the dense computation that is left out.
        data_wait: The share of the time spent waiting for rows.
    """

    last: StepMetrics
    loss: float
    tokens_per_second: float
    targets_per_second: float
    flops_per_second: float
    mfu: float | None
    skipped: float
    data_wait: float


def summarise(steps: Sequence[StepMetrics]) -> Summary:
    """Returns the metrics of at least one step together."""
    # The loss is over targets, not over steps: steps have different numbers of them.
    last, taken = steps[-1], [step for step in steps if step.update == "taken"]
    seconds = sum(step.seconds for step in steps)
    trained = sum(step.targets for step in taken)
    flops = sum(step.flops for step in steps)
    rate = flops / seconds
    return Summary(
        last=last,
        loss=sum((step.loss or 0.0) * step.targets for step in taken) / trained
        if trained
        else math.nan,
        tokens_per_second=sum(step.tokens for step in steps) / seconds,
        targets_per_second=sum(step.targets for step in steps) / seconds,
        flops_per_second=rate,
        mfu=None if last.mfu is None else last.mfu * rate / last.flops_per_second,
        skipped=1
        - flops / sum(step.dense_equivalent_flops_per_second * step.seconds for step in steps),
        data_wait=sum(step.data_wait * step.seconds for step in steps) / seconds,
    )
