"""The plan: its memory is that of autograd and optimizers, and a limit is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sabiprep.dataset import open_dataset
from sabitrain import planning
from sabitrain.__main__ import main
from sabitrain.command_line import parse_command_line
from sabitrain.config import BatchConfig, ModelConfig, OptimConfig
from sabitrain.data.batches import make_step
from sabitrain.data.datasets import Datasets
from sabitrain.data.masking import Masking
from sabitrain.models.llama import Llama
from sabitrain.models.loss import predicting_states, weighted_loss
from sabitrain.optim.optimizers import make_optimizers
from sabitrain.planning import memory_of, plan_run, saved_bytes
from support.train.tiny import VOCAB_SIZE, tiny_config, write_tiny

SHAPE = ModelConfig(layers=3, width=32, heads=4, kv_heads=2, mlp_width=48, context=1024)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("predictions", [None, 256])
def test_without_numbers_the_same_bytes_are_kept_as_with(recompute, predictions):
    config = tiny_config("data", "run", model=SHAPE, recompute=recompute)
    real = Llama(SHAPE, VOCAB_SIZE)
    real.recompute(recompute)
    imagined = planning._imagined(config, VOCAB_SIZE)
    for tokens in (512, 1024):
        assert (
            saved_bytes(imagined, tokens, predictions) == saved_bytes(real, tokens, predictions) > 0
        )


def test_recomputing_keeps_less_and_gives_the_same_gradients(tmp_path):
    with write_tiny(tmp_path / "data") as dataset:
        step = make_step(dataset.train, [0, 1, 2], 3, Masking(dataset.sources))
    kept, gradients = [], []
    for recompute in (False, True):
        torch.manual_seed(0)
        model = Llama(SHAPE, VOCAB_SIZE)
        model.recompute(recompute)
        kept.append(saved_bytes(model, 512, 256))
        loss, _ = weighted_loss(
            predicting_states(model, step.batches[0]), model.head_VC, step.batches[0]
        )
        loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert kept[1] < kept[0] / 3
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_parameters_and_optimizer_are_those_of_a_real_one(name):
    config = tiny_config("data", "run", model=SHAPE, optim=OptimConfig(name=name))
    model = Llama(SHAPE, VOCAB_SIZE)
    optimizers = make_optimizers(model, model.units(), config.optim)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for optimizer in optimizers:
        optimizer.step()
    held = [
        value
        for one in optimizers
        for state in one.state.values()
        for value in state.values()
        if value.ndim
    ]
    memory = memory_of(config, VOCAB_SIZE, 512, 0.5)
    assert memory.optimizer == sum(value.nbytes for value in held)
    assert (
        memory.parameters
        == memory.gradients
        == sum(parameter.nbytes for parameter in model.parameters())
    )


def test_the_largest_micro_batch_fits_and_one_row_more_does_not(tmp_path):
    with write_tiny(tmp_path / "data") as dataset:
        batch = {"max_steps": 3, "model": SHAPE}
        whole = plan_run(tiny_config(dataset.path, tmp_path / "run", **batch), Datasets([dataset]))
        assert (whole.steps, whole.micro_rows, whole.largest_micro_rows) == (3, 4, 4)
        assert whole.flops.executed > 0 and whole.repeats == {str(dataset.path): 1.0}
        limit = whole.memory.total / 1e9 - 1e-6
        config = tiny_config(dataset.path, tmp_path / "run", memory_limit=limit, **batch)
        largest = plan_run(config, Datasets([dataset])).largest_micro_rows
        share = sum(dataset.train.n_targets) / (12 * 32)
        assert 0 < largest < 4
        assert memory_of(config, VOCAB_SIZE, 32 * largest, share).total <= limit * 1e9
        assert memory_of(config, VOCAB_SIZE, 32 * (largest + 1), share).total > limit * 1e9


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
    assert "not even one row fits: use --recompute" in capsys.readouterr().out
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


@pytest.mark.parametrize("preset", ["125m", "350m", "1b"])
def test_presets_fit_a_card_of_24_gb(preset):
    config = parse_command_line(["--data", "out", "--run", "run", "--preset", preset])
    assert memory_of(config, 52_000, config.batch.micro_tokens, 0.5).total < 24e9


def test_the_dataset_is_the_one_that_is_opened(tmp_path):
    path = write_tiny(tmp_path / "data").path
    with open_dataset(path) as dataset:
        assert plan_run(tiny_config(path, tmp_path / "run"), Datasets([dataset])).repeats == {
            str(path): 4 / 3
        }
