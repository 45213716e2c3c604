"""The plan: its memory is that of autograd and optimizers, and a limit is kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from sabiprep.dataset import open_dataset
from sabitrain import planning
from sabitrain.__main__ import main
from sabitrain.config import BatchConfig, ModelConfig
from sabitrain.data.batches import make_step
from sabitrain.data.datasets import Datasets
from sabitrain.data.masking import Masking
from sabitrain.data.order import make_order
from sabitrain.fitting import sample_sizes
from sabitrain.memory import RESERVE, MicroBatch, memory_of
from sabitrain.models.architecture import make_model
from sabitrain.models.loss import predicting_states, weighted_loss
from sabitrain.planning import plan_run
from support.train.tiny import VOCAB_SIZE, tiny_config, write_tiny

SHAPE = ModelConfig(layers=3, width=32, heads=4, kv_heads=2, mlp_width=48, context=1024)


def test_recomputing_keeps_less_and_gives_the_same_gradients(tmp_path):
    with write_tiny(tmp_path / "data") as dataset:
        step = make_step(dataset.train, [0, 1, 2], 3, Masking(dataset.sources))
    config, gradients = tiny_config("data", "run", model=SHAPE), []
    size = MicroBatch(16_384, 256, 1)
    kept = [memory_of(config, VOCAB_SIZE, size, recompute) for recompute in (False, True)]
    for recompute in (False, True):
        torch.manual_seed(0)
        model = make_model(SHAPE, VOCAB_SIZE)
        model.recompute(recompute)
        loss, _ = weighted_loss(
            predicting_states(model, step.batches[0]), model.head_VC, step.batches[0]
        )
        loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert kept[1].total - RESERVE < 0.6 * (kept[0].total - RESERVE)
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_the_largest_micro_batch_fits_and_one_row_more_does_not(tmp_path):
    with write_tiny(tmp_path / "data") as dataset:
        config = tiny_config(
            dataset.path,
            tmp_path / "run",
            max_steps=3,
            model=SHAPE,
            batch=BatchConfig(tokens=32 * 12, micro_tokens="auto"),
        )
        data = Datasets([dataset])
        whole = plan_run(config, data)
        assert (whole.steps, whole.fit.micro_rows, whole.largest_micro_rows) == (3, 12, 12)
        assert not whole.fit.recompute and whole.fit.fits
        assert whole.flops.executed > 0 and whole.repeats == {str(dataset.path): 3.0}
        limit = whole.fit.memory.total - 1
        plan = plan_run(dataclasses.replace(config, recompute="off"), data, limit)
        largest = plan.largest_micro_rows
        assert 0 < largest < 12 and plan.fit.fits and plan.fit.micro_rows <= largest
        # As few micro-batches as the largest would make, and of one size.
        assert -(-12 // plan.fit.micro_rows) == -(-12 // largest)
        sizes = sample_sizes(config, dataset, make_order(data, config.mix, 12, 0, 3), 3)
        several = [
            memory_of(config, VOCAB_SIZE, sizes.micro_batch(rows), False, rows < 12).total
            for rows in (largest, largest + 1)
        ]
        assert several[0] <= limit < several[1]
        # Told how many, a run takes them, whether they fit or not.
        told = dataclasses.replace(config, batch=BatchConfig(tokens=32 * 12, micro_tokens=64))
        tight = plan_run(told, data, 1)
        assert tight.fit.micro_rows == 2 and not tight.fit.fits and tight.largest_micro_rows == 0


def test_the_command_leaves_nothing_behind(tmp_path, capsys, monkeypatch):
    data = write_tiny(tmp_path / "data").path
    monkeypatch.chdir(tmp_path)
    small = ["--model.layers", "1", "--model.width", "16", "--model.heads", "2"]
    assert main(["plan", "--data", str(data), *small, "--memory-limit", "2"]) == 0
    out = capsys.readouterr().out
    for said in (
        "parameters",
        "GB of 2 GB",
        "largest micro-batch within 2 GB",
        "skipped",
        "2.67 passes",
    ):
        assert said in out
    assert main(["plan", "--data", str(data), *small, "--memory-limit", "0.001"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "not even one row fits: take a smaller preset" in out
    assert main(["plan", "--data", str(tmp_path / "nowhere")]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_validations_are_counted(tmp_path):
    """Twice five of the rows, and all at the end, since so many are trained on; fewer where the run
    is shorter.
    """
    with write_tiny(tmp_path / "data", held_out=150) as dataset:
        rows = len(dataset.validation)
        of = {"eval_every": 10, "eval_rows": 5}
        planned = plan_run(
            tiny_config(dataset.path, tmp_path / "run", max_steps=30, **of), Datasets([dataset])
        ).validation
        assert (planned.held_out_rows, planned.rows, planned.times, planned.last_rows) == (
            rows,
            5,
            2,
            rows,
        )
        short = plan_run(
            tiny_config(dataset.path, tmp_path / "run", max_steps=5, **of), Datasets([dataset])
        ).validation
        assert (short.times, short.last_rows) == (0, 5)
        long = plan_run(
            tiny_config(dataset.path, tmp_path / "run", max_steps=5, hours=1.0, **of),
            Datasets([dataset]),
        ).validation
        assert long.last_rows == rows


def test_a_validation_takes_the_operations_of_a_forward_pass(tmp_path):
    """A third of a dense step's over as many rows, but for what is not predicted at the end of the
    model.
    """
    shape = ModelConfig(layers=2, width=16, heads=4, kv_heads=2, mlp_width=24, context=256)
    with write_tiny(tmp_path / "data", train=600, held_out=600, seq_len=256) as dataset:
        options = {
            "model": shape,
            "batch": BatchConfig(tokens=512, micro_tokens=512),
            "max_steps": 3,
        }
        config = tiny_config(dataset.path, tmp_path / "run", eval_every=1, eval_rows=0, **options)
        planned = plan_run(config, Datasets([dataset]))
        rows = len(dataset.validation)
        assert (
            planned.validation.rows,
            planned.validation.times,
            planned.validation.last_rows,
        ) == (rows, 2, rows)
        a_row = planned.flops.dense / 2 / 3
        assert 0.8 * a_row < planned.validation.flops / (3 * rows) <= 1.02 * a_row


@pytest.mark.parametrize(
    "options", [{}, {"hours": 1.0}, {"memory_limit": 0.001}, {"max_steps": 1_000_000}]
)
def test_a_plan_does_not_wrap_at_80_columns(tmp_path, monkeypatch, options):
    """No line is wider, and no word is cut: joined again, lines are what they were."""
    write_tiny(tmp_path / "data", held_out=150)
    monkeypatch.chdir(tmp_path)
    text = planning.describe(tiny_config(Path("data"), Path("run"), eval_rows=7, **options))
    lines = text.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert any(line.startswith("validation: ") for line in lines) and "of validation (" in text
    assert ("at most, as the hours allow" in " ".join(text.split())) == ("hours" in options)


def test_the_dataset_is_the_one_that_is_opened(tmp_path):
    path = write_tiny(tmp_path / "data").path
    with open_dataset(path) as dataset:
        assert plan_run(tiny_config(path, tmp_path / "run"), Datasets([dataset])).repeats == {
            str(path): 4 / 3
        }
