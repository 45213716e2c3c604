"""Train causal language models on datasets packed by ``sabiprep``, learning from the target tokens
only.

The command is ``python -m sabitrain --data OUT --run DIR``; `run_training` is the same from Python.
What needs torch is imported when it is first asked for, so that the command can show its help at
once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sabitrain.config import PRESETS, BatchConfig, ModelConfig, OptimConfig, TrainConfig

if TYPE_CHECKING:
    from sabitrain.attention import document_attention
    from sabitrain.baseline import unigram_baseline
    from sabitrain.checkpoint import load_checkpoint, save_checkpoint
    from sabitrain.evaluate import evaluate_split
    from sabitrain.generate import Answer, answer_held_out, greedy
    from sabitrain.model import Llama
    from sabitrain.report import Report
    from sabitrain.scores import Evaluation, Score, SourceScore, TargetLoss
    from sabitrain.train import run_training

__all__ = [
    "PRESETS",
    "Answer",
    "BatchConfig",
    "Evaluation",
    "Llama",
    "ModelConfig",
    "OptimConfig",
    "Report",
    "Score",
    "SourceScore",
    "TargetLoss",
    "TrainConfig",
    "answer_held_out",
    "document_attention",
    "evaluate_split",
    "greedy",
    "load_checkpoint",
    "run_training",
    "save_checkpoint",
    "unigram_baseline",
]

_MODULES = {
    "attention": ("document_attention",),
    "checkpoint": ("load_checkpoint", "save_checkpoint"),
    "baseline": ("unigram_baseline",),
    "evaluate": ("evaluate_split",),
    "report": ("Report",),
    "scores": ("Evaluation", "Score", "SourceScore", "TargetLoss"),
    "generate": ("Answer", "answer_held_out", "greedy"),
    "model": ("Llama",),
    "train": ("run_training",),
}


def __getattr__(name: str) -> Any:
    """What is exported from a module that needs torch."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"sabitrain.{module}"), name)
    raise AttributeError(f"module 'sabitrain' has no attribute {name!r}")
