"""Micro-batches by the memory of a GPU, with a stand-in in its place: as many rows as are planned,
halved when memory runs out, kept with each checkpoint.
"""

from __future__ import annotations

import json
import subprocess
import warnings
from pathlib import Path

import pytest
import torch

from sabiprep.dataset import open_dataset
from sabiprep.errors import TrainError
from sabitrain.config import BatchConfig, CheckpointConfig, OptimConfig
from sabitrain.data.batches import make_step
from sabitrain.data.masking import Masking
from sabitrain.optim.optimizers import clip_gradient
from sabitrain.stopping import StopRequest
from sabitrain.trainer import run_training
from sabitrain.training_state import TrainingState, make_training_state
from support.train import stand_in_gpu
from support.train.tiny import VOCAB_SIZE, tiny_config, write_tiny

ROWS = 8


@pytest.fixture
def data(tmp_path) -> Path:
    return write_tiny(tmp_path / "data").path


@pytest.fixture
def gpu(monkeypatch) -> stand_in_gpu.StandIn:
    return stand_in_gpu.install(monkeypatch, free_memory=20 * 10**9)


def train(gpu: stand_in_gpu.StandIn, data: Path, run: Path, **options: object) -> None:
    given = {
        "batch": BatchConfig(tokens=ROWS * 32),
        "max_steps": 4,
        "eval_every": 0,
        "log_every": 1,
        "device": "auto",
        "checkpoint": CheckpointConfig(every=2),
        **options,
    }
    with gpu, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "In CUDA autocast")
        run_training(tiny_config(data, run, **given))


def record(run: Path, kind: str) -> list[dict]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["kind"] == kind]


def plan(run: Path) -> dict[str, int]:
    return json.loads((run / "checkpoint" / "trainer.json").read_text())["plan"]


def test_a_step_that_fits_is_one_micro_batch(gpu, data, tmp_path, capsys):
    train(gpu, data, tmp_path / "run")
    assert plan(tmp_path / "run")["micro_rows"] == ROWS and not record(tmp_path / "run", "cut")
    (start,) = record(tmp_path / "run", "start")
    assert (start["micro_rows"], start["recompute"], start["compiled"]) == (ROWS, False, True)
    assert "micro-batches of 8 rows, 256 tokens: 1.0 GB of 20.0 GB" in capsys.readouterr().out


def test_memory_that_runs_out_halves_the_micro_batches_of_the_same_step(gpu, data, tmp_path):
    train(gpu, data, tmp_path / "whole")
    gpu.most_tokens = 3 * 32
    run = tmp_path / "run"
    train(gpu, data, run)
    # 8, 4, 2: in the rehearsal, before the first step.
    assert [(cut["step"], cut["micro_rows"]) for cut in record(run, "cut")] == [(0, 4), (0, 2)]
    assert plan(run)["micro_rows"] == 2
    losses = [
        [line["loss"] for line in record(tmp_path / name, "train")] for name in ("whole", "run")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3) and len(losses[0]) == 4
    # Bound from then on: a larger card does not change the cut.
    gpu.most_tokens = 1 << 40
    train(gpu, data, run, resume=True)
    assert plan(run)["micro_rows"] == 2 and len(record(run, "cut")) == 2


def test_memory_that_runs_out_in_mid_run_ends_no_run(gpu, data, tmp_path, monkeypatch):
    run, told = tmp_path / "run", []

    def later(*_: object) -> None:
        told.append(None)
        if len(told) == 2:
            gpu.most_tokens = 4 * 32

    monkeypatch.setattr("sabitrain.trainer.learning_rate", lambda *given: later() or 1e-3)
    train(gpu, data, run)
    assert [(cut["step"], cut["micro_rows"]) for cut in record(run, "cut")] == [(2, 4)]
    assert [line["step"] for line in record(run, "train")] == [1, 2, 3, 4]
    assert plan(run)["micro_rows"] == 4


def test_told_micro_batches_are_kept_and_the_error_says_what_helps(gpu, data, tmp_path):
    gpu.most_tokens = 3 * 32
    batch = BatchConfig(tokens=ROWS * 32, micro_tokens=ROWS * 32)
    with pytest.raises(TrainError, match="memory is full") as refused:
        train(gpu, data, tmp_path / "run", batch=batch)
    assert "--batch.micro-tokens" in str(refused.value.remedy)
    gpu.most_tokens = 31
    with pytest.raises(TrainError, match="memory is full"):
        train(gpu, data, tmp_path / "other")
    # Micro-batches of a row are recomputed before the run gives up.
    cuts = [(cut["micro_rows"], cut["recompute"]) for cut in record(tmp_path / "other", "cut")]
    assert cuts == [(4, False), (2, False), (1, False), (1, True)]


@pytest.mark.parametrize("optim", ["adamw", "muon"])
def test_a_rehearsal_changes_no_bit_and_makes_the_optimizers_states_first(data, optim):
    """Gradients beside states are the peak: made after, they would come in the first real step."""
    config = tiny_config("data", "run", optim=OptimConfig(name=optim))
    with open_dataset(data) as dataset, StopRequest() as stop:
        step = make_step(dataset.train, range(4), 2, Masking(dataset.sources))
        trained = {}
        for rehearses in (False, True):
            state = make_training_state(config, VOCAB_SIZE, torch.device("cpu"), True, print)
            for number in range(3):
                if rehearses:
                    state.rehearse_update()
                    held = [len(one.state) for one in state.optimizers]
                    assert all(held) and all(p.grad is None for p in state.model.parameters())
                    before = bits(state)
                    state.rehearse(step.batches[number % 2], 2, stop)
                    assert bits(state) == before
                loss = state.accumulate(step.batches, stop)
                skip, _ = state.guard.judge(loss, clip_gradient(state.model, 1.0), 1, 9)
                state.update(1e-2, skip)
            trained[rehearses] = bits(state)
    assert trained[True] == trained[False]


def bits(state: TrainingState) -> list[bytes]:
    """Parameters and optimizers' states, to the bit."""
    tensors = [*state.model.parameters()]
    for optimizer in state.optimizers:
        for parameter in state.model.parameters():
            tensors += [value for _, value in sorted(optimizer.state.get(parameter, {}).items())]
    return [tensor.detach().numpy().tobytes() for tensor in tensors]


def test_a_compiler_that_fails_costs_speed_and_no_run(gpu, data, tmp_path, monkeypatch, capsys):
    """Triton and a C compiler fail in many ways on a machine that is new."""

    def fails(function, **_):
        def compiled(*given):
            raise subprocess.CalledProcessError(1, "gcc")

        return compiled

    monkeypatch.setattr(torch, "compile", fails)
    train(gpu, data, tmp_path / "run")
    assert "could not compile, so steps take longer: Command 'gcc'" in capsys.readouterr().out
    assert len(record(tmp_path / "run", "train")) == 4
    with pytest.raises(TrainError, match="could not compile: Command 'gcc'"):
        train(gpu, data, tmp_path / "other", compile="on")


def test_a_card_too_small_is_said_and_recomputed(monkeypatch, data, tmp_path, capsys):
    gpu = stand_in_gpu.install(monkeypatch, free_memory=10**9 + 1)
    train(gpu, data, tmp_path / "run")
    out = " ".join(capsys.readouterr().out.split())
    assert "likely to run out" in out and "smaller --preset" in out
    (start,) = record(tmp_path / "run", "start")
    assert (start["micro_rows"], start["recompute"]) == (1, True)
