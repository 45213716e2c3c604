"""Steps that are no number or spike: judged as a slow list would, leaving no trace, counted, and
stopping the run.
"""

from __future__ import annotations

import copy
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sabitrain.config import ModelConfig, OptimConfig
from sabitrain.data.datasets import open_datasets
from sabitrain.models.architecture import make_model
from sabitrain.optim import guard as guard_module
from sabitrain.optim.guard import UPDATES, StepGuard, records_of
from sabitrain.optim.optimizers import clip_gradient, make_optimizers, skip_where
from support.train.tiny import SOURCES, write_tiny

SHAPE = ModelConfig(layers=2, width=16, heads=2, kv_heads=1, mlp_width=40, context=8)
CPU = torch.device("cpu")


def slow(steps: list[tuple[float, float]], spike: float, window: int) -> list[str]:
    """What becomes of each step, with lists."""
    seen: list[tuple[float, float]] = []
    updates: list[str] = []
    for step in steps:
        last = seen[-window:]
        full = last + [(math.inf, math.inf)] * (window - len(last))
        limits = [
            max(1.0, spike * statistics.median_low([entry[i] for entry in full])) for i in range(2)
        ]
        if updates[-3:] and len(updates) >= 3 and all(update != "taken" for update in updates[-3:]):
            updates.append("stopped")
        elif not all(math.isfinite(value) for value in step):
            updates.append("not finite")
        elif spike and any(value > limit for value, limit in zip(step, limits, strict=True)):
            updates.append("spike")
        else:
            updates.append("taken")
            if step[0] > 0:
                seen.append(step)
    return updates


numbers = st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 9.0, 40.0, math.nan, math.inf])


@given(
    steps=st.lists(st.tuples(numbers, numbers), max_size=40),
    spike=st.sampled_from([0.0, 2.0, 10.0]),
)
def test_steps_are_judged_as_with_lists(steps, spike):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guard_module, "WINDOW", 8)
        guard, updates = StepGuard(CPU, spike), []
        for number, step in enumerate(steps, 1):
            skip, told = guard.judge(*torch.tensor(step), number, 1)
            updates.append(UPDATES[int(told[2])])
            assert skip.item() == (updates[-1] != "taken")
            assert told[:2].tolist() == pytest.approx(step, nan_ok=True)
            assert told[3:].tolist() == [updates.count("not finite"), updates.count("spike")]
    assert updates == slow(steps, spike, 8)
    stopping = guard.stopping_steps()
    first = updates.index("stopped") if "stopped" in updates else None
    ends = len(updates) >= 3 and all(update != "taken" for update in updates[-3:])
    last = first if first is not None else len(steps) if ends else None
    assert stopping == ([] if last is None else [last - 2, last - 1, last])


@pytest.mark.parametrize("name", ["adamw", "muon", "adamw8bit"])
@pytest.mark.parametrize("before", [0, 3])
def test_a_skipped_step_leaves_no_trace(name, before, monkeypatch):
    """A NaN in one gradient: weights and state stay as they were to the bit, and later steps as if
    it had not been.
    """
    # So small a model has no matrix that would be held in 8 bits.
    monkeypatch.setattr("sabitrain.optim.optimizers.FEWEST", 1)

    def steps(with_nan: bool) -> list[Any]:
        torch.manual_seed(0)
        model = make_model(SHAPE, 30)
        optimizers = make_optimizers(model, model.units(), OptimConfig(name=name, lr=0.1))
        guard, random = StepGuard(CPU, 10.0), torch.Generator().manual_seed(1)
        for step in range(before + 1 + with_nan):
            bad = with_nan and step == before
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=None if bad else random)
            if bad:
                model.model.layers[0].mlp.up_proj.weight.grad[0, 0] = math.nan
                kept = copy.deepcopy(
                    [model.state_dict(), *(optimizer.state_dict() for optimizer in optimizers)]
                )
            skip, _ = guard.judge(torch.tensor(2.0), clip_gradient(model, 1.0), step + 1, 1)
            skip_where(optimizers, skip)
            for optimizer in optimizers:
                optimizer.step()
            assert skip.item() == bad
            now = [model.state_dict(), *(optimizer.state_dict() for optimizer in optimizers)]
            if bad and before:
                assert bits(now) == bits(kept)
            elif bad:
                assert bits(now[0]) == bits(kept[0])
        return now

    assert bits(steps(True)) == bits(steps(False))


def bits(value: Any) -> Any:
    """A nest of tensors with their bytes in their places."""
    if isinstance(value, Tensor):
        return value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: bits(inner) for key, inner in value.items()}
    return [bits(inner) for inner in value] if isinstance(value, list | tuple) else value


@pytest.fixture
def data(tmp_path) -> Path:
    return write_tiny(tmp_path / "data").path


def test_a_step_without_a_target_is_none_of_those_in_a_row():
    """Bad, none, bad, none, bad: the run stops for the three bad ones, by their numbers."""
    guard, updates = StepGuard(CPU, 10.0), []
    losses = [math.nan, 0.0, math.nan, 0.0, math.nan, 2.0, 0.0]
    for number, loss in enumerate(losses, 1):
        assert guard.stopping_steps() == ([1, 3, 5] if number > 5 else [])
        skip, told = guard.judge(torch.tensor(loss), torch.tensor(0.5), number, int(loss != 0))
        updates.append(UPDATES[int(told[2])])
        assert skip.item() == 1 and told[0].isnan().item() == (updates[-1] != "stopped")
    assert updates == [*("not finite", "no target") * 2, "not finite", "stopped", "no target"]
    assert guard.state["counts"].tolist() == [3, 0]


def test_a_mixture_names_the_dataset_too(data, tmp_path):
    other = write_tiny(tmp_path / "other", train=30).path
    with open_datasets([data, other]) as opened:
        mixture = opened.rows
        batch = mixture.train.batch([len(mixture.train) - 1])
        first = batch["source_ids"][0] - len(SOURCES), batch["record_ids"][0]
        name = SOURCES[first[0]]["name"]
        assert (
            records_of(mixture, batch)[0]
            == f"source '{name}', {other}: {name}.jsonl at byte {first[1]}"
        )
