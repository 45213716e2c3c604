"""The outputs of a session, opened together: the console, the record and TensorBoard."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import torch

from sabitrain.checkpoints.resuming import Start
from sabitrain.checkpoints.run_folder import METRICS_FILE
from sabitrain.monitoring.clock import Clock
from sabitrain.monitoring.console import Console, open_console
from sabitrain.monitoring.metrics import Metrics
from sabitrain.monitoring.tensorboard import open_tensorboard


class Outputs(NamedTuple):
    """The outputs of a session, and the clock they go by.

    Attributes:
        clock: The time of the run.
        console: The lines that people see.
        metrics: The record of the run, which hands its numbers to TensorBoard too.
    """

    clock: Clock
    console: Console
    metrics: Metrics


@contextlib.contextmanager
def open_outputs(start: Start, steps: int, device: torch.device) -> Iterator[Outputs]:
    """Opens the outputs of a session, and closes them at the end of the ``with``.

    Args:
        start: The start of the session; the record is cut back to it.
        steps: Steps of the run.
        device: The device whose speed and memory the record reports.
    """
    config = start.config
    # Closed in the other order, so that the console is there until all else is closed.
    clock = Clock(steps, config.hours, start.step, start.seconds)
    with (
        open_console(clock) as console,
        open_tensorboard(config.tensorboard, config.folder, start.step) as tensorboard,
        Metrics(
            config.folder / METRICS_FILE,
            console,
            clock,
            device,
            config.log_every,
            start.metrics_bytes,
            tensorboard,
        ) as metrics,
    ):
        yield Outputs(clock, console, metrics)
