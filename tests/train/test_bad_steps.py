"""Runs with bad steps: skipped and counted, stopped after three, resumed past them."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sabiprep.errors import ConfigError, TrainError
from sabitrain import trainer
from sabitrain.command_line import parse_command_line
from sabitrain.config import CheckpointConfig, OptimConfig, TrainConfig
from sabitrain.data.datasets import open_datasets
from sabitrain.data.masking import Masking
from sabitrain.data.order import make_order
from sabitrain.optim import guard as guard_module
from sabitrain.trainer import run_training
from support.train import tear
from support.train.runs import read, spoil, stop_after
from support.train.tiny import SOURCES, documents, tiny_config, write_tiny


@pytest.fixture
def data(tmp_path) -> Path:
    return write_tiny(tmp_path / "data").path


@pytest.mark.parametrize("log_every", [1, 4])
def test_a_run_skips_and_counts(data, tmp_path, monkeypatch, capsys, log_every):
    spoil(monkeypatch, {2, 3, 5})
    config = tiny_config(data, tmp_path / "run", max_steps=8, log_every=log_every, eval_every=0)
    assert run_training(config).steps == 8
    steps = [line for line in read(tmp_path / "run") if line["kind"] == "train"]
    bad = [line["step"] for line in steps if line["update"] == "not finite"]
    assert bad == [2, 3, 5] and all(
        line["grad_norm"] is None for line in steps if line["step"] in bad
    )
    end = read(tmp_path / "run")[-1]
    assert (end["not_finite"], end["spikes"]) == (3, 0)
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step 8")]
    assert shown[0].endswith(", 3 steps skipped") and "nan" not in shown[0]


def test_three_in_a_row_stop_the_run_and_name_their_records(data, tmp_path, monkeypatch):
    spoil(monkeypatch, {4, 6, 7, 8})
    run = tmp_path / "run"
    config = tiny_config(
        data, run, max_steps=40, log_every=5, eval_every=0, checkpoint=CheckpointConfig(every=3)
    )
    with pytest.raises(TrainError, match=r"step 8: the third in a row") as raised:
        run_training(config)
    *steps, stopped = read(run)[1:]
    assert [line["update"] for line in steps[3:]] == [
        *("not finite", "taken", *["not finite"] * 3, *["stopped"] * (len(steps) - 8))
    ]
    assert stopped["kind"] == "stopped" and stopped["step"] == 8
    with open_datasets([data]) as opened:
        rows = make_order(opened, config.mix, 4, config.seed, 40).step(7)
        batch = opened.rows.train.batch(rows)
    written = documents(60, 0)
    places = [
        (SOURCES[source]["name"], record) for source, record in zip(*ids_of(batch), strict=True)
    ]
    assert all(
        written[record].source_id == [s["name"] for s in SOURCES].index(name)
        for name, record in places
    )
    named = [
        f"source '{name}', {name}.jsonl at byte {record}" for name, record in dict.fromkeys(places)
    ]
    assert stopped["records"] == named
    assert all(name in str(raised.value) for name in named[:5])
    assert f"and {len(named) - 5} more" in str(raised.value) and "--optim.lr" in str(raised.value)


def ids_of(batch: Any) -> tuple[list[int], list[int]]:
    return batch["source_ids"].tolist(), batch["record_ids"].tolist()


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_step_without_a_target_changes_nothing(data, tmp_path, monkeypatch, capsys, name):
    """Weights, momentum and decay are those of the step before, to the bit; file and console say so
    without a NaN.
    """
    optim = OptimConfig(name=name, lr=1e-2, weight_decay=0.5)
    options = {"max_steps": 4, "eval_every": 0, "log_every": 1, "answers": 0, "optim": optim}
    weights = Masking.weights
    asked = iter(
        [True, False, True, False, *[False] * 9]
    )  # the first is the look before the run begins

    def without(self: Masking, rows: Any) -> Any:
        return weights(self, rows) * next(asked)

    monkeypatch.setattr(Masking, "weights", without)
    run = tmp_path / "run"
    run_training(
        tiny_config(data, run, checkpoint=CheckpointConfig(every=1, keep_last=9), **options)
    )
    steps = [line for line in read(run) if line["kind"] == "train"]
    assert [step["update"] for step in steps] == ["no target", "taken", "no target", "no target"]
    assert [step["loss"] is None for step in steps] == [True, False, True, True]
    assert [step["targets"] > 0 for step in steps] == [False, True, False, False]
    kept = [run / "checkpoints" / f"step-{number:08d}" for number in (2, 3, 4)]
    assert len({path.joinpath("model.safetensors").read_bytes() for path in kept}) == 1
    states = [load_file(path / "trainer.safetensors") for path in kept]
    for state in states[1:]:
        assert all(
            torch.equal(state[key], states[0][key]) for key in state if key.startswith("optimizer.")
        )
    shown = capsys.readouterr().out
    assert not re.search(r"\bnan\b", shown) and shown.count("loss none") == 3


def test_resuming_keeps_the_counters(data, tmp_path, monkeypatch):
    """Two bad steps, a checkpoint and a stop: with a third one after it the run ends, with a good
    one it goes on.
    """
    options = {
        "threads": 1,
        "max_steps": 12,
        "eval_every": 0,
        "checkpoint": CheckpointConfig(every=5),
    }
    with monkeypatch.context() as patch:
        spoil(patch, {2, 4, 5, 7})
        run_training(tiny_config(data, tmp_path / "whole", **options))
    with monkeypatch.context() as patch:
        spoil(patch, {2, 4, 5})
        patch.setattr(trainer.Loader, "step", stop_after(5, trainer.Loader.step))
        with pytest.raises(KeyError):
            run_training(tiny_config(data, tmp_path / "run", **options))
    shutil.copytree(tmp_path / "run", tmp_path / "again", symlinks=True)
    with monkeypatch.context() as patch:
        spoil(patch, {2})
        run_training(tiny_config(data, tmp_path / "run", resume=True, **options))
    assert tear.outcome(tmp_path / "run") == tear.outcome(tmp_path / "whole")
    end = read(tmp_path / "run")[-1]
    assert (end["not_finite"], end["spikes"]) == (4, 0)
    with monkeypatch.context() as patch:
        spoil(patch, {1})
        with pytest.raises(TrainError, match="step 6: the third in a row"):
            run_training(tiny_config(data, tmp_path / "again", resume=True, **options))


STOPPABLE = {
    "threads": 1,
    "max_steps": 12,
    "eval_every": 0,
    "log_every": 1,
    "checkpoint": CheckpointConfig(every=5),
}


def go(patch: pytest.MonkeyPatch, bad: set[int], config: TrainConfig) -> None:
    """Run with the gradients of these steps, counted from where it begins, spoilt."""
    with patch.context() as spoilt:
        spoil(spoilt, bad)
        run_training(config)


def test_going_on_past_what_stopped_a_run(data, tmp_path, monkeypatch):
    """Once told to, it passes over the batches however often it is resumed, and ends as if it had
    from the start.
    """
    run = tmp_path / "run"
    with pytest.raises(TrainError, match="step 9: the third in a row"):
        go(monkeypatch, {7, 8, 9}, tiny_config(data, run, **STOPPABLE))
    with pytest.raises(TrainError, match="step 9: the third in a row"):
        go(monkeypatch, {2, 3, 4}, tiny_config(data, run, resume=True, **STOPPABLE))
    with monkeypatch.context() as patch:
        patch.setattr(trainer.Loader, "step", stop_after(10, trainer.Loader.step))
        with pytest.raises(KeyError):
            run_training(
                tiny_config(data, run, resume=True, skip_batches=(2, 7, 8, 9), **STOPPABLE)
            )
    run_training(tiny_config(data, run, resume=True, **STOPPABLE))
    run_training(tiny_config(data, tmp_path / "whole", skip_batches=(7, 8, 9), **STOPPABLE))
    got, want = tear.outcome(run), tear.outcome(tmp_path / "whole")
    assert got.pop("metrics.jsonl")[1:] == want.pop("metrics.jsonl")[1:]
    assert got == want
    lines = read(run)
    assert [line["step"] for line in lines if line["kind"] == "train"] == [
        1,
        2,
        3,
        4,
        5,
        6,
        10,
        11,
        12,
    ]
    assert [line["skip_batches"] for line in lines if line["kind"] == "resume"] == [[7, 8, 9]] * 2
    assert lines[0]["skip_batches"] == [] and read(tmp_path / "whole")[0]["skip_batches"] == [
        7,
        8,
        9,
    ]


def test_the_command_that_goes_on_knows_of_every_stop(data, tmp_path, monkeypatch):
    run, bad, past = tmp_path / "run", {1, 2, 3}, "1 2 3"
    config = tiny_config(data, run, **STOPPABLE)
    for _ in range(2):
        with pytest.raises(TrainError) as stopped:
            go(monkeypatch, bad, config)
        (command,) = re.findall(
            r"go on without the three batches: python -m sabitrain (.*)", stopped.value.remedy
        )
        assert command == f"--run {run} --resume --skip-batches {past}"
        config, past = parse_command_line(shlex.split(command)), "1 2 3 4 5 6"
    go(monkeypatch, set(), config)
    # Whoever resumes it once more need not name them. Steps 4 and 5 came before the checkpoint it
    # went on from.
    assert parse_command_line(["--run", str(run), "--resume"]).skip_batches == (1, 2, 3, 6)


def test_a_spike_is_skipped(data, tmp_path, monkeypatch):
    monkeypatch.setattr(guard_module, "WINDOW", 8)
    spoil(monkeypatch, {9}, 1e6)
    run_training(tiny_config(data, tmp_path / "run", max_steps=10, eval_every=0, answers=0))
    steps = [line for line in read(tmp_path / "run") if line["kind"] == "train"]
    assert [line["step"] for line in steps if line["update"] == "spike"] == [9]
    with pytest.raises(ConfigError, match=r"optim\.spike must be 0 or above 1, not 0\.5"):
        OptimConfig(spike=0.5)
