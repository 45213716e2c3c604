"""The time that is left of a run, against plain arithmetic on a clock that the test turns."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sabitrain.monitoring import clock as clock_module
from sabitrain.monitoring.clock import INTERVALS, Clock

intervals = st.lists(st.tuples(st.integers(1, 50), st.floats(0.01, 1000)), max_size=2 * INTERVALS)


@given(
    done=intervals,
    before=st.tuples(st.integers(0, 100), st.floats(0, 1000)),
    more=st.integers(0, 10_000),
    since=st.floats(0, 100),
    hours=st.none() | st.floats(0.001, 10),
)
def test_the_first_stop_at_the_pace_of_the_last_intervals(done, before, more, since, hours):
    now = 5e5
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock_module, "time", SimpleNamespace(monotonic=lambda: now))
        steps = before[0] + sum(count for count, _ in done) + more
        clock = Clock(steps, hours, *before)
        assert clock.seconds == pytest.approx(before[1], abs=1e-6)
        assert clock.seconds_left is None
        step = before[0]
        for count, seconds in done:
            now += seconds
            step += count
            clock.mark(step)
        now += since
        total = before[1] + sum(seconds for _, seconds in done) + since
        assert clock.seconds == pytest.approx(total, abs=1e-6)
        assert clock.seconds_to_limit == (
            None if hours is None else pytest.approx(3600 * hours - total, abs=1e-6)
        )
        assert clock.is_over() == (hours is not None and clock.seconds >= 3600 * hours)
        if not done:
            assert clock.seconds_left is clock.seconds_a_step is None
            return
        recent = done[-INTERVALS:]
        pace = sum(seconds for _, seconds in recent) / sum(count for count, _ in recent)
        assert clock.seconds_a_step == pytest.approx(pace, abs=1e-6)
        stops = [more * pace - since] + ([] if hours is None else [3600 * hours - total])
        assert clock.seconds_left == pytest.approx(max(0.0, min(stops)), abs=1e-4)
