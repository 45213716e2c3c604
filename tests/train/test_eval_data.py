"""Datasets that are scored and never trained on, and the loss before the first step."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from sabiprep.dataset import open_dataset
from sabiprep.errors import ConfigError, DatasetError, SabiprepError, TrainError
from sabitrain.__main__ import main
from sabitrain.checkpoints.checkpoint import load_checkpoint
from sabitrain.command_line import parse_command_line
from sabitrain.config import CheckpointConfig
from sabitrain.evaluation.eval_data import name_and_path
from sabitrain.evaluation.evaluate import evaluate_split
from sabitrain.trainer import run_training
from support.train.runs import without_times
from support.train.tiny import tiny_config, write_tiny


@pytest.fixture
def data(tmp_path) -> Path:
    return write_tiny(tmp_path / "data").path


@pytest.fixture
def other(tmp_path) -> Path:
    return write_tiny(tmp_path / "other", train=8, held_out=9, kinds="lc").path


def lines(run: Path, kind: str) -> list[dict]:
    return [line for line in without_times(run) if line["kind"] == kind]


def test_each_dataset_is_scored_before_the_first_step_and_at_each_validation(
    data, other, tmp_path, capsys
):
    run = tmp_path / "run"
    entries = (f"forgotten={other}", str(data))
    run_training(tiny_config(data, run, eval_data=entries, max_steps=4, eval_every=2))
    found = [(line["step"], line["name"]) for line in lines(run, "eval_data")]
    assert found == [(step, name) for step in (0, 2, 4) for name in ("forgotten", "data")]
    assert [line["step"] for line in lines(run, "validation")] == [0, 2, 4]
    start, _, end = (line for line in lines(run, "eval_data") if line["name"] == "forgotten")
    assert start["change"] is None
    assert end["change"] == pytest.approx(end["total"]["loss"] - start["total"]["loss"], abs=1e-12)
    model = load_checkpoint(run / "checkpoint")
    with open_dataset(other) as dataset:
        rows = np.arange(len(dataset.validation))
        expected = evaluate_split(model, dataset, dataset.validation, 4, rows=rows)
    assert expected is not None
    assert end["total"]["loss"] == pytest.approx(expected.total.loss, rel=1e-5)
    shown = capsys.readouterr().out
    assert "forgotten at step 0: target loss" in shown
    assert f"forgotten at step 4: target loss {end['total']['loss']:.4f} ({end['change']:+.4f}" in (
        shown
    )


def test_nothing_is_trained_on_it(data, other, tmp_path):
    for name, entries in (("with", (str(other),)), ("without", ())):
        run_training(tiny_config(data, tmp_path / name, eval_data=entries, max_steps=4))
    one, another = (
        (tmp_path / name / "checkpoint" / "model.safetensors").read_bytes()
        for name in ("with", "without")
    )
    assert one == another


def test_without_held_out_rows_all_rows_are_scored(data, tmp_path):
    whole = write_tiny(tmp_path / "whole", held_out=0).path
    run = tmp_path / "run"
    run_training(tiny_config(data, run, eval_data=(str(whole),), max_steps=1))
    with open_dataset(whole) as dataset:
        assert lines(run, "eval_data")[0]["held_out_rows"] == len(dataset.train)
    with pytest.raises(DatasetError, match="is trained on, and holds out no row"):
        run_training(tiny_config(whole, tmp_path / "again", eval_data=(str(whole),)))


def test_a_resumed_run_says_the_change_since_its_first_step(data, other, tmp_path):
    options = {"eval_data": (str(other),), "max_steps": 6, "eval_every": 3}
    every = CheckpointConfig(every=3)
    run_training(tiny_config(data, tmp_path / "whole", checkpoint=every, **options))
    run = tmp_path / "run"
    run_training(tiny_config(data, run, checkpoint=every, **options))
    shutil.rmtree(run / "checkpoints" / "step-00000006")
    assert main(["--run", str(run), "--resume"]) == 0
    for kind in ("eval_data", "validation"):
        assert lines(run, kind) == lines(tmp_path / "whole", kind)


def test_a_change_between_losses_of_other_rows_was_shown(data, other, tmp_path, capsys):
    run = tmp_path / "run"
    every = {"eval_every": 10, "max_steps": 20}
    run_training(tiny_config(data, run, eval_data=(str(other),), eval_rows=2, **every))
    first, *between, last = lines(run, "validation")
    assert first["rows"] == 2 and last["rows"] == last["held_out_rows"] > 2
    assert between and all("change" in line for line in between)
    assert "change" not in last
    shown = capsys.readouterr().out
    assert f"step 20: target loss {last['total']['loss']:.4f}\n" in shown


def test_a_run_from_random_weights_has_no_validation_before_its_first_step(data, tmp_path):
    run_training(tiny_config(data, tmp_path / "run", max_steps=2, eval_every=1))
    assert [line["step"] for line in lines(tmp_path / "run", "validation")] == [1, 2]
    assert "change" not in lines(tmp_path / "run", "validation")[0]


def other_tokenizer(data: Path) -> str:
    written = json.loads((data / "tokenizer.json").read_text())
    return json.dumps({**written, "normalizer": {"type": "Lowercase"}})


def test_datasets_that_cannot_be_scored_are_refused(data, other, tmp_path):
    long = write_tiny(tmp_path / "long", seq_len=128).path
    odd = write_tiny(tmp_path / "odd", tokenizer_json=other_tokenizer(data)).path
    other_twice = (str(other), f"other={data}")
    for entries, kind, message in (
        (other_twice, ConfigError, "two datasets of --eval-data are called 'other'"),
        ((str(long),), TrainError, "its rows have 128 tokens, the model's context 64"),
        ((str(odd),), DatasetError, "packed with another tokenizer .* differ in normalizer"),
        ((str(tmp_path / "nothing"),), SabiprepError, "nothing"),
    ):
        with pytest.raises(kind, match=message):
            run_training(tiny_config(data, tmp_path / "run", eval_data=entries))
        assert not (tmp_path / "run").exists()


def test_entries_are_paths_with_or_without_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert name_and_path("a/out") == ("out", Path("a/out"))
    assert name_and_path(".")[0] == tmp_path.name
    assert name_and_path("base=a/out") == ("base", Path("a/out"))
    assert name_and_path("a/x=y") == ("x=y", Path("a/x=y"))
    words = ["--data", "d", "--run", "r", "--eval-data", "a", "--eval-data", "b=c"]
    assert parse_command_line(words).eval_data == ("a", "b=c")
