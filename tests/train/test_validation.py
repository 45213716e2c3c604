"""Which rows a validation takes, and that a run with hours ends within them: on a clock that the
test turns.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sabiprep.errors import ConfigError
from sabitrain import training_state
from sabitrain.config import BatchConfig, TrainConfig
from sabitrain.evaluation import evaluate, generate
from sabitrain.monitoring import clock
from sabitrain.trainer import run_training
from support.train.tiny import tiny_config, write_tiny

SECONDS = 1 / 3600


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("data") / "data", held_out=150).path


@pytest.fixture(scope="module")
def held_out(data) -> int:
    """Rows that are held out."""
    rows = json.loads((data / "manifest.json").read_text())["splits"]["validation"]["rows"]
    assert rows > 20
    return int(rows)


def one_row_a_step(data: Path, run: Path, **options: object) -> TrainConfig:
    batch = BatchConfig(tokens=32, micro_tokens=32)
    options = {
        "eval_every": 10,
        "eval_rows": 7,
        "answers": 0,
        "max_steps": 1000,
        "threads": 1,
        **options,
    }
    return tiny_config(data, run, batch=batch, log_every=1, **options)


def validations(run: Path) -> list[tuple[int, int]]:
    """The step of each, and its rows."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["rows"]) for line in lines if line["kind"] == "validation"]


class Turned:
    """A clock that goes on by a step, a row or a token alone."""

    def __init__(
        self, patch: pytest.MonkeyPatch, step: float, row: float, token: float = 0.0
    ) -> None:
        self.now, self.step, self.row, self.token = 1e4, step, row, token
        patch.setattr(clock, "time", SimpleNamespace(monotonic=lambda: self.now))
        self._pass(patch, training_state, "weighted_loss", "step")
        self._pass(patch, evaluate, "_predict", "row")
        self._pass(patch, generate.F, "linear", "token")

    def _pass(self, patch: pytest.MonkeyPatch, module: Any, name: str, what: str) -> None:
        of = getattr(module, name)

        def takes_time(*given: Any, **named: Any) -> Any:
            self.now += getattr(self, what) if what != "token" or generate_is_at_it(given) else 0.0
            return of(*given, **named)

        patch.setattr(module, name, takes_time)


def generate_is_at_it(given: tuple[Any, ...]) -> bool:
    """Whether a linear map is that of the head in generation, which has a vocabulary of 20 rows."""
    return len(given) == 2 and given[1].shape == (20, 16)


def test_a_run_ends_within_its_hours_with_its_last_validation(data, tmp_path, monkeypatch):
    """Steps of 2 s, rows of 1 s: a hundred seconds hold three validations and the last with the
    steps between them.
    """
    turned = Turned(monkeypatch, step=2.0, row=1.0)
    report = run_training(one_row_a_step(data, tmp_path / "run", hours=100 * SECONDS))
    assert turned.now - 1e4 <= 100
    assert report.steps >= 30, "at most a validation and a step are left over"
    assert (
        validations(tmp_path / "run")
        == [(10, 7), (20, 7), (30, 7), (report.steps, 7)][: 4 - (report.steps == 30)]
    )


def test_answers_are_within_the_hours_too(data, tmp_path, monkeypatch):
    turned = Turned(monkeypatch, step=1.0, row=1.0, token=0.5)
    options = {"answers": 4, "max_new_tokens": 8, "hours": 100 * SECONDS, "eval_every": 0}
    report = run_training(one_row_a_step(data, tmp_path / "run", **options))
    assert turned.now - 1e4 <= 100 and report.steps > 60
    assert len(report.answers) == 4 and validations(tmp_path / "run") == [(report.steps, 7)]


def test_all_rows_come_last_where_the_hours_allow(data, tmp_path, monkeypatch, held_out):
    turned = Turned(monkeypatch, step=1.0, row=0.1)
    report = run_training(one_row_a_step(data, tmp_path / "run", hours=100 * SECONDS, max_steps=20))
    assert (report.steps, turned.now) == (20, pytest.approx(1e4 + 20 + 0.1 * (7 + held_out)))
    assert validations(tmp_path / "run") == [(10, 7), (20, held_out)]


def test_a_validation_that_is_slower_than_expected_ends_with_the_hours(
    data, tmp_path, monkeypatch, capsys, held_out
):
    """Rows take 20 s of a sudden: the batch at hand when the hours end is the last, and the figures
    are of its rows.
    """
    turned = Turned(monkeypatch, step=1.0, row=20.0)
    report = run_training(one_row_a_step(data, tmp_path / "run", hours=60 * SECONDS, eval_every=0))
    ((step, rows),) = validations(tmp_path / "run")
    assert step == report.steps > 30 and 0 < rows < 7
    assert turned.now - 1e4 < 60 + 20
    out = capsys.readouterr().out
    assert "hours are over: stopping at step" in out
    assert f"({rows} of {held_out} held-out rows)" in out


@pytest.mark.parametrize(("steps", "eval_rows"), [(4, 7), (4, 0), (60, 7)])
def test_without_hours_the_last_is_no_more_than_the_run(data, tmp_path, held_out, steps, eval_rows):
    """Few steps of one row do not end in many rows of validation, unless all are asked for."""
    config = one_row_a_step(
        data, tmp_path / "run", eval_rows=eval_rows, max_steps=steps, eval_every=0
    )
    report = run_training(config)
    assert held_out <= 60
    want = held_out if eval_rows == 0 or steps >= held_out else 7
    assert report.evaluation is not None and report.evaluation.rows == want
    assert report.evaluation.held_out_rows == held_out
    assert (
        report.baseline is not None and report.baseline.targets == report.evaluation.total.targets
    )


def test_rows_cannot_be_less_than_none():
    with pytest.raises(ConfigError, match="eval_rows must be 0 or more, not -1"):
        tiny_config(Path("data"), Path("run"), eval_rows=-1)
