"""What a run asks of a GPU, with a stand-in in its place: bf16, page-locked batches, its generator,
its memory.

The attention kernel has its own stand-in in ``test_attention.py``.
"""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from sabitrain import trainer
from sabitrain.config import CheckpointConfig
from sabitrain.data.batches import make_batch
from sabitrain.trainer import run_training
from support.train import stand_in_gpu
from support.train.tiny import tiny_config, write_tiny


def test_the_set_up_of_a_run_passes_the_checks_of_torch_cuda(tmp_path, monkeypatch):
    """From first call to last checkpoint, and resumed: the generator is kept and put back."""
    data = write_tiny(tmp_path / "data").path
    gpu = stand_in_gpu.install(monkeypatch)
    options = {
        "eval_every": 0,
        "device": "auto",
        "checkpoint": CheckpointConfig(every=2),
        "memory_limit": 20.0,
    }
    with gpu, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "In CUDA autocast")
        run_training(tiny_config(data, tmp_path / "run", max_steps=2, **options))
        state = load_file(tmp_path / "run" / "checkpoint" / "trainer.safetensors")["rng.cuda"]
        assert torch.equal(state, gpu.generator.get_state())
        gpu.generator.manual_seed(5)
        assert not torch.equal(state, gpu.generator.get_state())
        run_training(tiny_config(data, tmp_path / "run", max_steps=2, resume=True, **options))
    assert torch.equal(state, gpu.generator.get_state())
    assert gpu.moved == {torch.device("cuda", 0)}
    # TF32, for what is not in bf16.
    assert gpu.products == "high"
    assert gpu.fractions == [(0.25, 0), (0.25, 0)]
    assert gpu.set_up > 0 and len(gpu.pinned) >= 2 * 6
    lines = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert (lines[0]["device"], lines[0]["bf16"]) == ("cuda:0", True)
    assert {line["memory_bytes"] for line in lines if line["kind"] == "train"} == {
        stand_in_gpu.PEAK
    }


@pytest.mark.parametrize("recompute", [False, True])
def test_a_run_on_the_cpu_leaves_a_gpu_alone(tmp_path, monkeypatch, recompute):
    """No checkpoint, resumed run or answer sets up CUDA on a GPU that is there."""
    data = write_tiny(tmp_path / "data").path
    gpu = stand_in_gpu.install(monkeypatch)
    options = {
        "max_steps": 2,
        "device": "cpu",
        "checkpoint": CheckpointConfig(every=1),
        "recompute": "on" if recompute else "off",
    }
    run_training(tiny_config(data, tmp_path / "run", **options))
    run_training(tiny_config(data, tmp_path / "run", resume=True, **options))
    assert (gpu.set_up, gpu.moved, gpu.fractions, gpu.pinned) == (0, set(), [], [])
    assert "rng.cuda" not in load_file(tmp_path / "run" / "checkpoint" / "trainer.safetensors")


def test_a_run_in_bf16_from_page_locked_memory(tmp_path, monkeypatch):
    """The branch of a GPU, on the CPU, which computes in bf16 too: close to float32, and not equal
    to it.
    """
    data = write_tiny(tmp_path / "data").path
    losses = {}
    pinned: list[Tensor] = []
    for run in ("float32", "bf16"):
        if run == "bf16":
            monkeypatch.setattr(trainer, "runs_in_bf16", lambda device: True)
            monkeypatch.setattr(
                Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor.clone()
            )
        assert not pinned
        run_training(tiny_config(data, tmp_path / run, max_steps=8, log_every=1, eval_every=0))
        lines = [
            json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()
        ]
        assert lines[0]["bf16"] is (run == "bf16")
        losses[run] = [line["loss"] for line in lines if line["kind"] == "train"]
    assert losses["bf16"] == pytest.approx(losses["float32"], rel=0.02)
    assert losses["bf16"] != losses["float32"]
    # Six tensors a batch: ids, positions, segments, places, targets, weights.
    assert len(pinned) >= 8 * 6
    assert len(pinned) % 6 == 0


def test_a_batch_goes_to_another_device_whole(tmp_path):
    dataset = write_tiny(tmp_path)
    rows = dataset.train.batch([0, 1])
    batch = make_batch(rows, rows["loss_mask"].reshape(-1) * 1.0)
    moved = batch.to(torch.device("meta"))
    for name, value in vars(batch).items():
        there = getattr(moved, name)
        if isinstance(value, Tensor):
            assert (there.device.type, there.shape, there.dtype) == (
                "meta",
                value.shape,
                value.dtype,
            ), name
        else:
            assert there == value, name
