"""Whole runs: they learn, they can be repeated, and what cannot be run is refused in words."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import sabitrain
from sabiprep.dataset import open_dataset
from sabitrain.__main__ import main
from sabitrain.config import BatchConfig, ModelConfig, OptimConfig
from sabitrain.data.datasets import Datasets
from sabitrain.monitoring import metrics
from sabitrain.planning import plan_run
from sabitrain.trainer import run_training
from support.train.runs import without_times
from support.train.tiny import tiny_config, write_tiny


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
        optim=OptimConfig(lr=3e-3, weight_decay=0.0),
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
    for compile_it in ("off", "on"):
        run_training(
            tiny_config(data, tmp_path / compile_it, compile=compile_it, model=small, answers=0)
        )
    losses = [
        [line["loss"] for line in without_times(tmp_path / n) if line["kind"] == "train"]
        for n in ("off", "on")
    ]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)


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

    def step_of(**options: str) -> dict[str, Any]:
        config = tiny_config(data, tmp_path / f"run-{len(options)}", max_steps=1, **options)
        run_training(config)
        with open_dataset(data) as dataset:
            planned = plan_run(config, Datasets([dataset])).flops
        (step,) = (line for line in without_times(config.run) if line["kind"] == "train")
        assert (step["flops"], step["skipped"]) == (planned.executed, planned.skipped)
        return step

    once, again = step_of(), step_of(recompute="on")
    assert once["loss"] == again["loss"]
    assert 1.1 < again["flops"] / once["flops"] < 4 / 3


def test_no_validation_split(tmp_path, capsys):
    data = write_tiny(tmp_path / "data", validation=[]).path
    report = run_training(tiny_config(data, tmp_path / "run"))
    assert report.evaluation is None and report.baseline is None and report.answers == []
    assert "no validation targets" in capsys.readouterr().out


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
    """But for the self-test and for adapt, which pack a corpus."""
    imported, package = set(), Path(sabitrain.__file__).parent
    for file in package.rglob("*.py"):
        if {package / "selftest", package / "adapt"} & {*file.parents}:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                imported.add(str(node.module))
            elif isinstance(node, ast.Import):
                imported |= {name.name for name in node.names}
    assert {name for name in imported if name.split(".")[0] == "sabiprep"} == {
        f"sabiprep.{module}"
        for module in (
            "cache",
            "dataset",
            "doc_id",
            "errors",
            "files",
            "hub_requests",
            "object_stores",
            "places",
            "terminal",
            "tokenizer_file",
        )
    }
