"""Evaluation: the loss on held-out targets, and what it is worth beside a model that reads nothing."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from sabiprep.dataset import PackedDataset, Split
from sabitrain.data import make_batch, micro_batches
from sabitrain.loss import predicting_states, target_losses
from sabitrain.masking import documents_of, prompt_tokens
from sabitrain.model import Llama

# Rows that are counted, not computed on, are read this many at a time.
_ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class TargetLoss:
    """Losses over some targets.

    Attributes:
        loss: Mean cross-entropy in nats per target.
        targets: How many there are.
    """

    loss: float
    targets: int


@dataclass(frozen=True)
class Evaluation:
    """The losses of a split.

    Attributes:
        total: Over every target.
        tasks: Over the targets of each task that has one.
        prompt: Over the tokens of prompts, learnt or not: a probe of how well prompts are modelled; None if there are
            none.
    """

    total: TargetLoss
    tasks: dict[str, TargetLoss]
    prompt: TargetLoss | None


def evaluate_split(
    model: Llama, dataset: PackedDataset, split: Split, rows_at_once: int, autocast: bool = False
) -> Evaluation | None:
    """The mean loss over every target of a split, in total and per task, and over its prompts; None without a target.

    Args:
        model: The model, on the device to compute on; it is left as it was.
        dataset: Where the tasks' names are.
        split: A split of it.
        rows_at_once: Rows of a forward pass.
        autocast: Whether to compute in bf16.
    """
    device = model.head_VC.device
    tasks = sorted({source.task for source in dataset.sources})
    task_of_source = np.array([tasks.index(source.task) for source in dataset.sources])
    sums, counts = np.zeros(len(tasks)), np.zeros(len(tasks), np.int64)
    prompt_sum, prompt_count = 0.0, 0
    for rows in micro_batches(split, range(len(split)), rows_at_once):
        mask_N, prompt_N = rows["loss_mask"].reshape(-1), prompt_tokens(rows)
        read_N = mask_N | prompt_N
        batch = make_batch(rows, read_N.astype(np.float64)).to(device)
        with torch.no_grad(), precision(device, autocast):
            hidden_MC = predicting_states(model, batch)
            losses_M = target_losses(hidden_MC, model.head_VC, batch.targets_M)
        losses_N = np.zeros(len(read_N))
        losses_N[read_N] = losses_M[: batch.targets].double().cpu().numpy()
        task_M = task_of_source[rows["source_ids"][documents_of(rows)[mask_N]]]
        sums += np.bincount(task_M, losses_N[mask_N], len(tasks))
        counts += np.bincount(task_M, minlength=len(tasks))
        prompt_sum += losses_N[prompt_N].sum()
        prompt_count += int(prompt_N.sum())
    if not counts.any():
        return None
    return Evaluation(
        TargetLoss(sums.sum() / counts.sum(), int(counts.sum())),
        {
            task: TargetLoss(total / count, int(count))
            for task, total, count in zip(tasks, sums.tolist(), counts.tolist(), strict=True)
            if count
        },
        TargetLoss(float(prompt_sum / prompt_count), prompt_count) if prompt_count else None,
    )


def unigram_baseline(dataset: PackedDataset) -> TargetLoss | None:
    """The loss on validation targets of the distribution of training targets, each predicted without any context.

    Counts are of the training split's targets, one added for each token of the vocabulary (Laplace). A model that has
    learnt nothing from its prompts can get here, and no further. None if there is no target to validate on.
    """
    held_out = _target_counts(dataset.validation, dataset.vocab_size)
    if not held_out.any():
        return None
    counts = _target_counts(dataset.train, dataset.vocab_size) + 1
    nats = np.log(counts.sum()) - np.log(counts)
    return TargetLoss(float(nats @ held_out / held_out.sum()), int(held_out.sum()))


def precision(device: torch.device, autocast: bool) -> contextlib.AbstractContextManager[object]:
    """Where matrix products run in bf16, if they do."""
    return torch.autocast(device.type, torch.bfloat16) if autocast else contextlib.nullcontext()


def _target_counts(split: Split, vocab_size: int) -> npt.NDArray[np.int64]:
    """How often each token is a target: int64[vocab_size]."""
    counts = np.zeros(vocab_size, np.int64)
    for rows in micro_batches(split, range(len(split)), _ROWS_AT_ONCE):
        counts += np.bincount(rows["input_ids"][rows["loss_mask"]], minlength=vocab_size)
    return counts
