"""TensorBoard has the numbers of the record, under the same names; without it, a run that wants it
is refused.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sabiprep.errors import OutputError, TrainError
from sabitrain import trainer
from sabitrain.__main__ import main
from sabitrain.config import CheckpointConfig
from sabitrain.monitoring.tensorboard import scalars
from sabitrain.trainer import run_training
from support.train.runs import stop_after
from support.train.tiny import tiny_config, write_tiny

needs_tensorboard = pytest.mark.skipif(
    not importlib.util.find_spec("tensorboard"), reason="no tensorboard"
)


@pytest.fixture
def data(tmp_path) -> Path:
    return write_tiny(tmp_path / "data").path


def on_the_board(run: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard reads from a run: the step and value of each scalar."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def in_the_record(run: Path) -> dict[str, list[tuple[int, float]]]:
    """The same from ``metrics.jsonl``, by a walk of its own."""
    found: dict[str, list[tuple[int, float]]] = {}
    for text in (run / "metrics.jsonl").read_text().splitlines():
        line = json.loads(text)
        if line["kind"] not in ("train", "validation"):
            continue
        kind, step = line.pop("kind"), line.pop("step")
        left: list[tuple[str, Any]] = [(kind, line)]
        while left:
            path, value = left.pop()
            if isinstance(value, dict):
                left += [(f"{path}/{name}", inner) for name, inner in value.items()]
            elif value is not None and not isinstance(value, str):
                found.setdefault(path, []).append((step, pytest.approx(value, rel=1e-6)))
    return found


@needs_tensorboard
def test_the_board_says_what_the_record_says(data, tmp_path):
    run_training(tiny_config(data, tmp_path / "run", tensorboard=True))
    board = on_the_board(tmp_path / "run")
    assert board == in_the_record(tmp_path / "run")
    assert [step for step, _ in board["train/loss"]] == [1, 2, 3, 4]
    assert [step for step, _ in board["validation/pairs/copy/yor/bits_per_byte"]] == [2, 4]
    assert {
        "train/targets_per_second",
        "train/data_wait",
        "validation/total/prompt/loss",
    } < board.keys()


@needs_tensorboard
def test_a_resumed_run_leaves_out_what_it_does_again(data, tmp_path, monkeypatch):
    options = {"max_steps": 6, "eval_every": 0, "log_every": 1, "tensorboard": True}
    options["checkpoint"] = CheckpointConfig(every=2)
    with monkeypatch.context() as patch:
        patch.setattr(trainer.Loader, "step", stop_after(3, trainer.Loader.step))
        with pytest.raises(KeyError):
            run_training(tiny_config(data, tmp_path / "run", **options))
    assert [step for step, _ in on_the_board(tmp_path / "run")["train/loss"]] == [1, 2, 3]
    assert main(["--run", str(tmp_path / "run"), "--resume"]) == 0
    assert on_the_board(tmp_path / "run") == in_the_record(tmp_path / "run")


@needs_tensorboard
def test_it_is_part_of_the_run_folder(data, tmp_path):
    run = tmp_path / "run"
    run_training(tiny_config(data, run, max_steps=1, tensorboard=True))
    precious = run / "tensorboard" / "thesis.txt"
    precious.write_text("years of work")
    with pytest.raises(
        OutputError, match=r"tensorboard/thesis\.txt', which no training run has written"
    ):
        run_training(tiny_config(data, run, max_steps=1, overwrite=True))
    precious.unlink()
    run_training(tiny_config(data, run, max_steps=1, overwrite=True))
    assert not (run / "tensorboard").exists()


def test_without_tensorboard_a_run_that_wants_it_is_refused(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(
        TrainError, match=r"needs the package tensorboard(.|\n)*pip install tensorboard"
    ):
        run_training(tiny_config(data, tmp_path / "run", tensorboard=True))
    assert not (tmp_path / "run").exists()
    run_training(tiny_config(data, tmp_path / "run", max_steps=1))


values = st.recursive(
    st.none() | st.booleans() | st.text() | st.integers() | st.floats(allow_nan=False),
    lambda inner: st.dictionaries(st.text("abc", min_size=1), inner, max_size=4),
)


@given(values)
def test_numbers_are_found_wherever_they_are(value):
    """Put back where their paths say, they are the value without all else."""

    def pruned(value: Any) -> Any:
        if isinstance(value, dict):
            kept = {name: pruned(inner) for name, inner in value.items()}
            return {name: inner for name, inner in kept.items() if inner is not None} or None
        return value if type(value) in (int, float) else None

    rebuilt: Any = None
    for path, number in scalars("top", value):
        _, *names = path.split("/")
        if not names:
            rebuilt = number
            continue
        place = rebuilt = rebuilt or {}
        for name in names[:-1]:
            place = place.setdefault(name, {})
        place[names[-1]] = number
    assert rebuilt == pruned(value)
