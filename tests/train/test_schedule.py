"""The learning rate as a function of the step."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sabitrain.config import OptimConfig
from sabitrain.optim.schedule import learning_rate


@given(
    schedule=st.sampled_from(["cosine", "wsd"]),
    steps=st.integers(1, 300),
    warmup=st.floats(0, 0.9),
    decay=st.floats(0.01, 1),
    floor=st.floats(0, 1),
)
def test_the_rate_rises_once_and_falls_to_the_floor(schedule, steps, warmup, decay, floor):
    config = OptimConfig(lr=2.0, schedule=schedule, warmup=warmup, decay=decay, floor=floor)
    rates = [learning_rate(config, step, steps) for step in range(steps)]
    peak = rates.index(max(rates))
    assert all(0 < rate <= 2.0 or floor == 0 for rate in rates)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert all(
        later <= earlier + 1e-12
        for earlier, later in zip(rates[peak:], rates[peak + 1 :], strict=False)
    )
    risen = math.ceil(warmup * steps)
    if schedule == "cosine" or risen + math.ceil(decay * steps) < steps or risen > 0:
        assert max(rates) == pytest.approx(2.0)
    if risen < steps - 1:
        assert rates[-1] == pytest.approx(2.0 * floor)


def test_a_cosine_by_hand():
    config = OptimConfig(lr=1.0, warmup=0.4, floor=0.2)
    rates = [learning_rate(config, step, 10) for step in range(10)]
    assert rates[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert rates[9] == pytest.approx(0.2)
    assert learning_rate(config, 7, 10) == pytest.approx(
        0.2 + 0.8 * (1 + math.cos(math.pi * 3 / 5)) / 2
    )


def test_warmup_stable_decay_by_hand():
    config = OptimConfig(lr=1.0, schedule="wsd", warmup=0.2, decay=0.4, floor=0.1)
    rates = [learning_rate(config, step, 10) for step in range(10)]
    falling = [0.1 + 0.9 * (1 - math.sqrt(progress)) for progress in (0.25, 0.5, 0.75, 1.0)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 1.0, 1.0, 1.0, *falling])


@given(steps=st.integers(10, 200), longer=st.integers(1, 1000))
def test_a_stable_run_can_be_prolonged_from_where_it_was_stable(steps, longer):
    """But for the warm-up, which is a share of the steps, the rates before the fall are those of a
    longer run.
    """
    config = OptimConfig(schedule="wsd", warmup=0.0, decay=0.2)
    stable = steps - math.ceil(0.2 * steps)
    assert [learning_rate(config, step, steps) for step in range(stable)] == [
        learning_rate(config, step, steps + longer) for step in range(stable)
    ]
