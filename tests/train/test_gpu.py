"""What a run asks of a GPU, with a stand-in in its place: bf16, page-locked batches, its generator, where it is chosen.

The attention kernel has its own stand-in in ``test_attention.py``, the memory limit in ``test_planning.py``.
"""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from tiny import tiny_config, write_tiny
from torch import Tensor

from sabiprep.errors import TrainError
from sabitrain import train, trainer_state
from sabitrain.config import CheckpointConfig
from sabitrain.data import make_batch
from sabitrain.device import choose_device
from sabitrain.train import run_training


def test_a_gpu_is_chosen_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [choose_device(wanted).type for wanted in ("auto", "cuda", "cpu")] == ["cuda", "cuda", "cpu"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"
    with pytest.raises(TrainError, match="no CUDA device"):
        choose_device("cuda")


def test_a_run_in_bf16_from_page_locked_memory(tmp_path, monkeypatch):
    """The branch of a GPU, on the CPU, which computes in bf16 too: close to float32, and not equal to it."""
    data = write_tiny(tmp_path / "data").path
    losses = {}
    pinned: list[Tensor] = []
    for run in ("float32", "bf16"):
        if run == "bf16":
            monkeypatch.setattr(train, "runs_in_bf16", lambda device: True)
            monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor.clone())
        assert not pinned
        run_training(tiny_config(data, tmp_path / run, max_steps=8, log_every=1, eval_every=0))
        lines = [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
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
            assert (there.device.type, there.shape, there.dtype) == ("meta", value.shape, value.dtype), name
        else:
            assert there == value, name


def test_the_generator_of_a_gpu_is_kept_and_put_back(tmp_path, monkeypatch):
    data = write_tiny(tmp_path / "data").path
    state = torch.arange(16, dtype=torch.uint8)
    put_back: list[Tensor] = []
    stand_in = SimpleNamespace(is_available=lambda: True, get_rng_state=lambda: state, set_rng_state=put_back.append)
    monkeypatch.setattr(trainer_state, "cuda", stand_in)
    options = {"max_steps": 2, "eval_every": 0, "device": "cpu", "checkpoint": CheckpointConfig(every=2)}
    run_training(tiny_config(data, tmp_path / "run", **options))
    assert put_back == []
    run_training(tiny_config(data, tmp_path / "run", resume=True, **options))
    assert [kept.tolist() for kept in put_back] == [state.tolist()]
