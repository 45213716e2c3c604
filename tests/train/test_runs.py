"""Whole runs: they learn, they can be repeated, and what cannot be run is refused in words."""

from __future__ import annotations

import ast
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import sabitrain
from dataset_writer import write_manifest
from sabiprep.dataset import open_dataset
from sabiprep.errors import DatasetError, OutputError, TrainError
from sabitrain.__main__ import main
from sabitrain.config import BatchConfig, ModelConfig, OptimConfig
from sabitrain.data.datasets import Datasets
from sabitrain.monitoring import metrics
from sabitrain.monitoring.metrics import Metrics
from sabitrain.planning import plan_run
from sabitrain.trainer import run_training
from support.train.runs import without_times
from support.train.tiny import SOURCES, VOCAB_SIZE, tiny_config, write_tiny


@pytest.fixture
def data(tmp_path) -> Path:
    return write_tiny(tmp_path / "data").path


def test_it_learns_to_copy_and_to_label(tmp_path):
    data = write_tiny(tmp_path / "data", train=3000, held_out=100, kinds="cl").path
    config = tiny_config(
        data,
        tmp_path / "run",
        model=ModelConfig(layers=2, width=64, heads=2, kv_heads=1, mlp_width=128, context=32),
        batch=BatchConfig(tokens=1024, micro_tokens=512),
        optim=OptimConfig(lr=5e-3, weight_decay=0.0),
        max_steps=250,
        eval_every=0,
        answers=40,
    )
    report = run_training(config)
    assert report.evaluation is not None and report.baseline is not None
    assert report.evaluation.total.loss < 0.25 * report.baseline.loss
    exact = [answer.exact for answer in report.answers]
    assert len(exact) == 40 and sum(exact) >= 30


def test_a_run_leaves_what_it_says(data, tmp_path, capsys):
    config = tiny_config(data, tmp_path / "run", log_every=1)
    report = run_training(config)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        *("checkpoint", "checkpoints", "config.toml", "metrics.jsonl")
    ]
    assert report.checkpoint == tmp_path / "run" / "checkpoint"
    kinds = [line["kind"] for line in without_times(tmp_path / "run")]
    assert kinds == [
        "start",
        "train",
        "train",
        "validation",
        "train",
        "train",
        "validation",
        *["answer"] * 3,
        "end",
    ]
    last = capsys.readouterr().out.rstrip().splitlines()[-1]
    assert report.evaluation is not None and report.baseline is not None
    assert f"{report.evaluation.total.loss:.4f}" in last and f"{report.baseline.loss:.4f}" in last
    assert ("NOT below" in last) == (report.evaluation.total.loss >= report.baseline.loss)
    steps = [line for line in without_times(tmp_path / "run") if line["kind"] == "train"]
    assert [step["step"] for step in steps] == [1, 2, 3, 4]
    assert set(steps[0]) == {
        "kind",
        "step",
        "epoch",
        "loss",
        "lr",
        "grad_norm",
        "update",
        "tokens",
        "targets",
        "flops",
        "skipped",
        "mfu",
    }
    assert abs(float(str(steps[0]["loss"])) - 3.0) < 0.2, "ln 20, before anything is trained"


def test_the_same_seed_writes_the_same_metrics(data, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run_training(tiny_config(data, tmp_path / name, seed=seed))
    assert without_times(tmp_path / "a") == without_times(tmp_path / "b")
    assert without_times(tmp_path / "a") != without_times(tmp_path / "c")


def test_accumulation_changes_nothing_but_the_rounding(data, tmp_path):
    for micro in (128, 64, 32):
        run_training(
            tiny_config(
                data, tmp_path / str(micro), batch=BatchConfig(tokens=128, micro_tokens=micro)
            )
        )
    losses = [
        [line["loss"] for line in without_times(tmp_path / n) if line["kind"] == "train"]
        for n in ("128", "64", "32")
    ]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    assert losses[2] == pytest.approx(losses[0], abs=1e-4)


def test_computing_less_changes_nothing_but_the_rounding(data, tmp_path):
    for compute in ("dense", "head", "full"):
        run_training(
            tiny_config(data, tmp_path / compute, compute=compute, z_loss=1e-3, prompt_weight=0.1)
        )
    losses = {
        name: [line["loss"] for line in without_times(tmp_path / name) if line["kind"] == "train"]
        for name in ("dense", "head", "full")
    }
    assert losses["head"] == pytest.approx(losses["dense"], abs=1e-4)
    assert losses["full"] == pytest.approx(losses["dense"], abs=1e-4)


@pytest.mark.skipif(
    shutil.which("cc") is None and shutil.which("gcc") is None, reason="no C compiler"
)
def test_a_compiled_run_is_the_same_but_for_the_rounding(data, tmp_path):
    small = ModelConfig(layers=1, width=16, heads=2, mlp_width=16, context=64)
    for compile_it in (False, True):
        run_training(
            tiny_config(
                data, tmp_path / str(compile_it), compile=compile_it, model=small, answers=0
            )
        )
    losses = [
        [line["loss"] for line in without_times(tmp_path / n) if line["kind"] == "train"]
        for n in ("False", "True")
    ]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)


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


def test_the_strategy_decides_what_is_trained(data, tmp_path):
    """With the loss on the copy task alone, that task is trained and the labels are not; the file
    has how many.
    """
    options = {"batch": BatchConfig(tokens=512, micro_tokens=128), "max_steps": 40, "eval_every": 0}
    losses, targets = {}, {}
    for name, strategy in {
        "target": {},
        "full": {"loss": "full"},
        "copy": {"task_weights": ("label=0", "text=0")},
    }.items():
        report = run_training(tiny_config(data, tmp_path / name, **options, **strategy))
        assert report.evaluation is not None and report.evaluation.total.prompt is not None
        losses[name] = report.evaluation
        targets[name] = without_times(tmp_path / name)[1]["targets"]
    assert targets["copy"] < targets["target"] < targets["full"]
    assert losses["full"].total.prompt.loss < losses["target"].total.prompt.loss - 0.5
    assert losses["copy"].tasks["label"].loss > losses["target"].tasks["label"].loss + 0.5


def test_hours_stop_a_run_that_still_saves(data, tmp_path, capsys):
    report = run_training(
        tiny_config(data, tmp_path / "run", max_steps=10_000, hours=5e-5, eval_every=0)
    )
    assert 0 < report.steps < 10_000
    assert report.checkpoint.is_dir() and report.evaluation is not None
    assert "5e-05 hours are over" in capsys.readouterr().out


def test_muon_and_a_stable_rate_learn_too(data, tmp_path):
    optim = OptimConfig(name="muon", schedule="wsd", lr=1e-2)
    report = run_training(
        tiny_config(data, tmp_path / "run", optim=optim, max_steps=40, eval_every=0)
    )
    steps = [line for line in without_times(tmp_path / "run") if line["kind"] == "train"]
    assert [step["lr"] for step in steps[2:32]] == [1e-2] * 30 and steps[-1]["lr"] == pytest.approx(
        5e-4
    )
    assert report.evaluation is not None and report.evaluation.total.loss < steps[0]["loss"] - 0.9


def test_tokens_end_a_run(data, tmp_path):
    assert (
        run_training(tiny_config(data, tmp_path / "run", max_steps=None, max_tokens=400)).steps == 3
    )


def test_the_console_sums_up_what_the_file_has_in_full(data, tmp_path, capsys):
    run_training(tiny_config(data, tmp_path / "run", max_steps=3, log_every=2, eval_every=0))
    steps = [line for line in without_times(tmp_path / "run") if line["kind"] == "train"]
    shown = [
        line.split("loss ")[1].split()[0]
        for line in capsys.readouterr().out.splitlines()
        if line[:5] == "step "
    ]
    losses, targets = ([step[name] for step in steps] for name in ("loss", "targets"))
    first_two = (losses[0] * targets[0] + losses[1] * targets[1]) / (targets[0] + targets[1])
    assert shown == [f"{first_two:.4f}", f"{losses[2]:.4f}"]


def test_utilisation_is_of_what_was_executed(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(metrics, "peak_flops", lambda device: 1e9)
    run_training(tiny_config(data, tmp_path / "run", max_steps=1, log_every=1))
    (step,) = (
        json.loads(line)
        for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[1:2]
    )
    assert step["mfu"] == pytest.approx(step["flops"] / step["seconds"] / 1e9)
    dense = step["dense_equivalent_flops_per_second"] * step["seconds"]
    assert step["skipped"] == pytest.approx(1 - step["flops"] / dense)
    assert f"MFU {step['mfu']:.1%}, {step['skipped']:.0%} skipped" in capsys.readouterr().out


def test_what_is_computed_again_is_counted_again(data, tmp_path):
    """The step learns the same, and takes up to a third more."""

    def step_of(**options: bool) -> dict[str, Any]:
        config = tiny_config(data, tmp_path / f"run-{len(options)}", max_steps=1, **options)
        run_training(config)
        with open_dataset(data) as dataset:
            planned = plan_run(config, Datasets([dataset])).flops
        (step,) = (line for line in without_times(config.run) if line["kind"] == "train")
        assert (step["flops"], step["skipped"]) == (planned.executed, planned.skipped)
        return step

    once, again = step_of(), step_of(recompute=True)
    assert once["loss"] == again["loss"]
    assert 1.1 < again["flops"] / once["flops"] < 4 / 3


def test_no_validation_split(tmp_path, capsys):
    data = write_tiny(tmp_path / "data", validation=[]).path
    report = run_training(tiny_config(data, tmp_path / "run"))
    assert report.evaluation is None and report.baseline is None and report.answers == []
    assert "no validation targets" in capsys.readouterr().out


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


def command(data: Path, run: Path, *more: str) -> list[str]:
    small = [
        "--model.layers",
        "1",
        "--model.width",
        "16",
        "--model.heads",
        "2",
        "--model.kv-heads",
        "2",
    ]
    return ["--data", str(data), "--run", str(run), "--device", "cpu", *small, *more]


def test_the_command(data, tmp_path, capsys):
    assert main(command(data, tmp_path / "run", "--max-steps", "2", "--answers", "1")) == 0
    assert "target loss" in capsys.readouterr().out
    assert main(command(data, tmp_path / "run")) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"sabitrain: {tmp_path / 'run'}: the run folder is not empty\nRemedy: ")
    again = ["--config", str(tmp_path / "run" / "config.toml"), "--run", str(tmp_path / "again")]
    assert main(again) == 0
    assert without_times(tmp_path / "again") == without_times(tmp_path / "run")


def test_everything_that_is_exported_is_there():
    assert all(getattr(sabitrain, name) is not None for name in sabitrain.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sabitrain.nothing


def test_it_needs_the_loader_of_sabiprep_and_never_its_extension():
    imported = set()
    for file in Path(sabitrain.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                imported.add(str(node.module))
            elif isinstance(node, ast.Import):
                imported |= {name.name for name in node.names}
    assert {name for name in imported if name.split(".")[0] == "sabiprep"} == {
        f"sabiprep.{module}" for module in ("dataset", "doc_id", "errors", "files", "terminal")
    }
