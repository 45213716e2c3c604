"""Several steps together, against sums over each; what a step's line in the file is made of."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from sabitrain import device as device_module
from sabitrain.data.batches import Step
from sabitrain.device import peak_memory
from sabitrain.models.flops import Flops
from sabitrain.monitoring import metrics as metrics_module
from sabitrain.monitoring.clock import Clock
from sabitrain.monitoring.console import Console as PlainConsole
from sabitrain.monitoring.metrics import Metrics
from sabitrain.monitoring.step_metrics import summarise
from support.train.runs import step_metrics

CPU = torch.device("cpu")


some_steps = st.lists(
    st.builds(
        step_metrics,
        targets=st.integers(0, 500),
        loss=st.floats(0, 12),
        update=st.sampled_from(["taken", "spike"]),
        seconds=st.floats(0.01, 10),
        executed=st.floats(1e9, 2e9),
        dense=st.floats(2e9, 4e9),
        data_wait=st.floats(0, 1),
        peak=st.just(1e12),
    ),
    min_size=1,
    max_size=8,
)


@given(some_steps)
def test_a_summary_weighs_each_step_by_its_time_or_its_targets(steps):
    summary, seconds, executed, dense, waited, nats, trained = (
        summarise(steps),
        0.0,
        0.0,
        0.0,
        0.0,
        0.0,
        0,
    )
    for step in steps:
        seconds += step.seconds
        waited += step.data_wait * step.seconds
        executed += step.flops
        dense += step.flops / (1 - step.skipped)
        if step.update == "taken":
            nats += step.loss * step.targets
            trained += step.targets
    assert summary.last is steps[-1]
    assert summary.loss == pytest.approx(nats / trained if trained else math.nan, nan_ok=True)
    assert summary.tokens_per_second == pytest.approx(
        2 * sum(step.targets for step in steps) / seconds
    )
    assert summary.targets_per_second == pytest.approx(summary.tokens_per_second / 2)
    assert summary.flops_per_second == pytest.approx(executed / seconds)
    assert summary.mfu == pytest.approx(executed / seconds / 1e12)
    assert summary.skipped == pytest.approx(1 - executed / dense)
    assert summary.data_wait == pytest.approx(waited / seconds)


def test_without_a_peak_there_is_no_utilisation():
    assert summarise([step_metrics()]).mfu is None


def test_the_lines_of_steps_that_are_waited_for_together(tmp_path, monkeypatch):
    """Ten seconds of something else, two steps in four, a pause, and one in eight: on a clock
    turned by hand.
    """
    now = 100.0
    turned = SimpleNamespace(perf_counter=lambda: now, monotonic=lambda: now)
    monkeypatch.setattr(metrics_module, "time", turned)
    monkeypatch.setattr("sabitrain.monitoring.clock.time", turned)
    monkeypatch.setattr(metrics_module, "peak_flops", lambda device: 1e3)
    monkeypatch.setattr(metrics_module, "peak_memory", lambda device: 12_345)
    console, clock, flops = (
        Console(file=(tmp_path / "shown").open("w"), soft_wrap=True),
        Clock(4),
        Flops(600.0, 800.0),
    )

    def take(number: int, seconds: float, waited: float, loss: float) -> None:
        nonlocal now
        metrics.begin_step()
        now += seconds
        outcome = torch.tensor([loss, 0.5, math.isnan(loss), 0.0, 0.0], dtype=torch.float64)
        metrics.step(
            number,
            Step([], 20, 10),
            flops,
            epoch=number / 8,
            lr=0.1,
            outcome=outcome,
            waited=waited,
        )

    with Metrics(
        tmp_path / "metrics.jsonl", PlainConsole(console, clock), clock, CPU, log_every=2
    ) as metrics:
        now += 10
        take(1, 1.0, 0.25, 3.0)
        take(2, 3.0, 0.5, math.nan)
        now += 1000
        take(3, 8.0, 2.5, 2.0)
        metrics.flush()
    console.file.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    together = {
        "kind": "train",
        "lr": 0.1,
        "grad_norm": 0.5,
        "tokens": 20,
        "targets": 10,
        "flops": 600.0,
        "skipped": 0.25,
        "memory_bytes": 12_345,
    }
    first = {
        "seconds": 2.0,
        "tokens_per_second": 10.0,
        "targets_per_second": 5.0,
        "flops_per_second": 300.0,
        "dense_equivalent_flops_per_second": 400.0,
        "mfu": 0.3,
        "data_wait": 0.125,
        "eta_seconds": 14.0,  # what came before the first step is counted too
    }
    third = {
        "seconds": 8.0,
        "tokens_per_second": 2.5,
        "targets_per_second": 1.25,
        "flops_per_second": 75.0,
        "dense_equivalent_flops_per_second": 100.0,
        "mfu": 0.075,
        "data_wait": 0.25,
        "eta_seconds": pytest.approx(1022 / 3),
    }
    assert lines == [
        {**together, **first, "step": 1, "epoch": 0.125, "loss": 3.0, "update": "taken"},
        {**together, **first, "step": 2, "epoch": 0.25, "loss": None, "update": "not finite"},
        {**together, **third, "step": 3, "epoch": 0.375, "loss": 2.0, "update": "taken"},
    ]
    assert (tmp_path / "shown").read_text().count("\n") == 1, "the third is shown with the fourth"


def test_memory_is_the_devices_or_the_processes(monkeypatch):
    size = 64 * 2**20
    before = peak_memory(CPU)
    held = bytearray(size)
    held[::4096] = b"x" * len(held[::4096])  # each page is touched
    assert peak_memory(CPU) >= max(before, size)
    monkeypatch.setattr(device_module.torch.cuda, "max_memory_reserved", lambda device: 123)
    assert peak_memory(torch.device("cuda")) == 123
