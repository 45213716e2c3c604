"""Runs that start from tiny random checkpoints with the dataset's tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from sabitrain.config import BatchConfig, CheckpointConfig, OptimConfig, TrainConfig
from support.train.families import make_theirs, save_theirs


def make_base(data: Path, folder: Path, family: str = "llama") -> Path:
    """A checkpoint of a family, which has twenty more rows than the dataset has tokens."""
    save_theirs(make_theirs(family), folder, (data / "tokenizer.json").read_bytes())
    (folder / "tokenizer_config.json").write_text(json.dumps({"legacy": False}))
    return folder


def from_base(data: Path, run: Path, base: Path, **options: object) -> TrainConfig:
    """Six steps of two micro-batches, a checkpoint after every second."""
    return TrainConfig(
        data=(str(data),),
        run=run,
        **{
            "init": str(base),
            "batch": BatchConfig(tokens=64, micro_tokens=32),
            "optim": OptimConfig(lr=1e-2),
            "checkpoint": CheckpointConfig(every=2, keep_last=2),
            "max_steps": 6,
            "eval_every": 0,
            "answers": 1,
            "max_new_tokens": 2,
            "device": "cpu",
            "log_every": 1,
            "threads": 1,
            **options,
        },
    )


def weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint."""
    return load_file(folder / "model.safetensors")


def damaged_copy(run: Path, copy: Path) -> Path:
    """A copy of a run whose newest checkpoint is damaged."""
    shutil.copytree(run, copy, symlinks=True)
    newest = (copy / "checkpoint").resolve() / "trainer.safetensors"
    content = bytearray(newest.read_bytes())
    content[-5] ^= 1
    newest.write_bytes(content)
    return copy
