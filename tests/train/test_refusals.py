"""Runs that are refused or fail: in words, and before anything is written where they can be."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from sabiprep.dataset import open_dataset
from sabiprep.errors import DatasetError, OutputError, TrainError
from sabitrain.config import ModelConfig, OptimConfig
from sabitrain.data.datasets import Datasets
from sabitrain.monitoring.metrics import Metrics
from sabitrain.planning import plan_run
from sabitrain.trainer import run_training
from support.dataset_writer import write_manifest
from support.train.runs import without_times
from support.train.tiny import SOURCES, VOCAB_SIZE, tiny_config, write_tiny


@pytest.fixture
def data(tmp_path) -> Path:
    return write_tiny(tmp_path / "data").path


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"task_weights": ("copy=0", "label=0", "text=0")}, "(copy, label, text) a weight above 0"),
        (
            {"loss": "template-masked", "prompt_weight": 0.0, "task_weights": ("copy=0",)},
            "(copy) a weight above 0",
        ),
    ],
)
def test_a_run_with_nothing_to_learn_is_refused_before_it_begins(tmp_path, options, remedy):
    kinds = "clt" if len(options["task_weights"]) > 1 else "c"
    sources = SOURCES[: len(kinds)]
    data = write_tiny(tmp_path / "data", kinds=kinds, sources=sources).path
    config = tiny_config(data, tmp_path / "run", **options)
    with pytest.raises(TrainError, match="nothing to learn") as refused:
        run_training(config)
    assert remedy in str(refused.value.remedy)
    with open_dataset(data) as dataset, pytest.raises(TrainError, match="nothing to learn"):
        plan_run(config, Datasets([dataset]))
    assert not (tmp_path / "run").exists()


def test_what_does_not_fit_is_refused_before_anything_is_written(data, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(
        TrainError, match=r"rows have 32 tokens, the model's context 16(.|\n)*--model.context 32"
    ):
        run_training(tiny_config(data, run, model=ModelConfig(context=16)))
    with pytest.raises(DatasetError, match="no row to train on"):
        run_training(tiny_config(write_tiny(tmp_path / "empty", train=0).path, run))
    with pytest.raises(DatasetError):
        run_training(tiny_config(tmp_path / "nowhere", run))
    with pytest.raises(TrainError, match="no task 'translate'"):
        run_training(tiny_config(data, run, answer_tasks=("translate",)))
    with pytest.raises(TrainError, match="no task 'translate'"):
        run_training(tiny_config(data, run, task_weights=("translate=2",)))
    other = write_tiny(tmp_path / "other", vocab_size=VOCAB_SIZE + 3).tokenizer_path.read_bytes()
    data.joinpath("tokenizer.json").write_bytes(other)
    with pytest.raises(
        DatasetError, match=r"not the tokenizer this dataset was packed with.*sha256"
    ):
        run_training(tiny_config(data, run))
    with pytest.raises(DatasetError, match="vocabulary of 20, but this tokenizer has one of 23"):
        run_training(tiny_config(with_tokenizer(data, other), run))
    with pytest.raises(DatasetError, match="cannot be read as a tokenizer"):
        run_training(tiny_config(with_tokenizer(data, b"{"), run))
    assert not run.exists()


def with_tokenizer(data, content):
    """The dataset with another tokenizer, and a manifest that says it was packed with that."""
    manifest = json.loads((data / "manifest.json").read_text("utf-8"))
    manifest["tokenizer"]["sha256"] = hashlib.sha256(content).hexdigest()
    write_manifest(data, manifest)
    (data / "tokenizer.json").write_bytes(content)
    return data


def test_a_loss_that_is_no_number_stops_the_run(data, tmp_path):
    optim = OptimConfig(lr=1e30, warmup=0, clip=0)
    with pytest.raises(TrainError, match=r"step \d+: the third in a row(.|\n)*--optim.lr"):
        run_training(tiny_config(data, tmp_path / "run", optim=optim, max_steps=50, eval_every=0))
    assert not (tmp_path / "run" / "checkpoint").is_symlink()


def test_a_full_disk_and_a_full_gpu_are_told_in_words(data, tmp_path, monkeypatch):
    def fail(error: Exception):
        def step(*_: object, **__: object) -> None:
            raise error

        return step

    for name, error, kind, message in (
        ("disk", OSError(28, "No space left on device"), OutputError, "No space left on device"),
        (
            "gpu",
            torch.OutOfMemoryError("CUDA out of memory"),
            TrainError,
            r"memory is full(.|\n)*--batch.micro-tokens",
        ),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(Metrics, "step", fail(error))
            with pytest.raises(kind, match=message):
                run_training(tiny_config(data, tmp_path / name))


def test_only_a_run_is_overwritten_and_only_when_asked(data, tmp_path):
    run = tmp_path / "run"
    run_training(tiny_config(data, run, max_steps=1))
    with pytest.raises(OutputError, match=r"not empty(.|\n)*--overwrite"):
        run_training(tiny_config(data, run))
    run_training(tiny_config(data, run, max_steps=2, overwrite=True))
    assert len([line for line in without_times(run) if line["kind"] == "train"]) == 2
    for precious in (
        run / "thesis.txt",
        run / "checkpoints" / "thesis.txt",
        run / "checkpoint" / "thesis.txt",
    ):
        precious.write_text("years of work")
        with pytest.raises(OutputError, match=r"thesis\.txt', which no training run has written"):
            run_training(tiny_config(data, run, overwrite=True))
        assert precious.read_text() == "years of work"
        precious.unlink()
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(OutputError):
        run_training(tiny_config(data, file, overwrite=True))
    assert file.exists()
