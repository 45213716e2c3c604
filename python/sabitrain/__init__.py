"""Trains causal language models on datasets packed by ``sabiprep``, on their target tokens only.

The command is ``python -m sabitrain --data OUT --run DIR``; `run_training` is the same from Python.
Names that need torch are imported when they are first asked for, so that the command shows its help
at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sabitrain.config import (
    PRESETS,
    BatchConfig,
    CheckpointConfig,
    ModelConfig,
    OptimConfig,
    TrainConfig,
)

if TYPE_CHECKING:
    from sabitrain.attention.documents import document_attention
    from sabitrain.checkpoints.checkpoint import load_checkpoint, save_checkpoint
    from sabitrain.evaluation.baseline import unigram_baseline
    from sabitrain.evaluation.evaluate import evaluate_split
    from sabitrain.evaluation.generate import Answer, answer_held_out, greedy
    from sabitrain.evaluation.scores import Evaluation, Score, SourceScore, TargetLoss
    from sabitrain.models.architecture import make_model
    from sabitrain.monitoring.report import Report
    from sabitrain.trainer import run_training

__all__ = [
    "PRESETS",
    "Answer",
    "BatchConfig",
    "CheckpointConfig",
    "Evaluation",
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
    "make_model",
    "run_training",
    "save_checkpoint",
    "unigram_baseline",
]

_MODULES = {
    "attention.documents": ("document_attention",),
    "checkpoints.checkpoint": ("load_checkpoint", "save_checkpoint"),
    "evaluation.baseline": ("unigram_baseline",),
    "evaluation.evaluate": ("evaluate_split",),
    "evaluation.generate": ("Answer", "answer_held_out", "greedy"),
    "evaluation.scores": ("Evaluation", "Score", "SourceScore", "TargetLoss"),
    "models.architecture": ("make_model",),
    "monitoring.report": ("Report",),
    "trainer": ("run_training",),
}


def __getattr__(name: str) -> Any:
    """Imports an exported name from its module, which needs torch.

    Raises:
        AttributeError: If nothing of that name is exported.
    """
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"sabitrain.{module}"), name)
    raise AttributeError(f"module 'sabitrain' has no attribute {name!r}")
