"""Runs that the trainer's tests begin, spoil, stop and read, and the metrics of a made-up step."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

import sabitrain
from sabitrain import training_state
from sabitrain.config import TrainConfig
from sabitrain.config_file import to_toml
from sabitrain.models.architecture import CausalModel
from sabitrain.monitoring.step_metrics import StepMetrics
from support.train.tiny import TIMES


def environment() -> dict[str, str]:
    """Where a process of its own finds the package and the tests' modules."""
    paths = [str(Path(sabitrain.__file__).parents[1]), *sys.path, os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def begin(config: TrainConfig) -> subprocess.Popen[str]:
    """The command, begun in a process of its own with the run's configuration."""
    file = config.run.with_suffix(".toml")
    file.write_text(to_toml(config), encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, "-m", "sabitrain", "--config", str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def wait_for(process: subprocess.Popen[str], start: str) -> None:
    """Read what a process prints up to a line that starts so."""
    assert process.stdout is not None
    while not process.stdout.readline().startswith(start):
        assert process.poll() is None


def read(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def without_times(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics, the times aside."""
    return [{key: value for key, value in line.items() if key not in TIMES} for line in read(run)]


def spoil(patch: pytest.MonkeyPatch, steps: set[int], value: float = math.nan) -> None:
    """Have the gradient of these steps, counted from 1, hold a number that it must not."""
    clip, taken = training_state.clip_gradient, [0]

    def clip_spoilt(model: nn.Module, largest: float) -> Tensor:
        taken[0] += 1
        if taken[0] in steps:
            next(model.parameters()).grad[0, 0] = value
        return clip(model, largest)

    patch.setattr(training_state, "clip_gradient", clip_spoilt)


def spoil_trained(patch: pytest.MonkeyPatch, steps: set[int]) -> None:
    """Have the gradient of these steps, counted from 1, hold no number, whatever is trained."""
    clip, taken = training_state.clip_gradient, [0]

    def clip_spoilt(model: CausalModel, largest: float) -> Tensor:
        taken[0] += 1
        if taken[0] in steps:
            next(iter(model.trained().values())).grad.view(-1)[0] = math.nan
        return clip(model, largest)

    patch.setattr(training_state, "clip_gradient", clip_spoilt)


def stop_after(steps: int, step: Any) -> Any:
    """The loader's ``step`` with an error once so many steps are taken."""

    def stopping(self: Any, index: int) -> Any:
        if index == steps:
            raise KeyError(index)
        return step(self, index)

    return stopping


def step_metrics(
    targets: int = 5,
    loss: float | None = 2.0,
    update: str = "taken",
    seconds: float = 0.5,
    executed: float = 3e9,
    dense: float = 4e9,
    data_wait: float = 0.1,
    peak: float | None = None,
    step: int = 7,
) -> StepMetrics:
    """The metrics of a step, those that follow from others made from them."""
    return StepMetrics(
        step=step,
        epoch=0.25,
        loss=loss,
        lr=1e-3,
        grad_norm=0.75,
        update=update,
        tokens=2 * targets,
        targets=targets,
        seconds=seconds,
        tokens_per_second=2 * targets / seconds,
        targets_per_second=targets / seconds,
        flops=executed,
        skipped=1 - executed / dense,
        flops_per_second=executed / seconds,
        dense_equivalent_flops_per_second=dense / seconds,
        mfu=None if peak is None else executed / seconds / peak,
        memory_bytes=1_250_000_000,
        data_wait=data_wait,
        eta_seconds=3723.0,
    )
