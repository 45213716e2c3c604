"""Evaluation: the loss on held-out targets, and what it is worth beside a model that reads nothing."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from sabiprep.dataset import BatchDict, PackedDataset, Split
from sabitrain.data import make_batch, micro_batches
from sabitrain.loss import target_losses
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
    """The losses of a split, and of each task that has a target in it."""

    total: TargetLoss
    tasks: dict[str, TargetLoss]


def evaluate_split(
    model: Llama, dataset: PackedDataset, split: Split, rows_at_once: int, autocast: bool = False
) -> Evaluation | None:
    """The mean loss over every target of a split, in total and per task; None if the split has no target.

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
    for rows in micro_batches(split, range(len(split)), rows_at_once):
        batch = make_batch(rows).to(device)
        with torch.no_grad(), precision(device, autocast):
            hidden_NC = model(batch.ids_N, batch.positions_N, batch.cu_seqlens, batch.max_seqlen)
            losses_M = target_losses(hidden_NC, model.head_VC, batch)
        task_M = task_of_source[_target_sources(rows)]
        sums += np.bincount(task_M, losses_M.double().cpu().numpy(), len(tasks))
        counts += np.bincount(task_M, minlength=len(tasks))
    if not counts.any():
        return None
    return Evaluation(
        TargetLoss(sums.sum() / counts.sum(), int(counts.sum())),
        {
            task: TargetLoss(total / count, int(count))
            for task, total, count in zip(tasks, sums.tolist(), counts.tolist(), strict=True)
            if count
        },
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


def _target_sources(rows: BatchDict) -> npt.NDArray[np.int64]:
    """The source of each target, in their order: int64[M]."""
    starts = rows["cu_seqlens"][:-1]
    seq_len = rows["input_ids"].shape[1]
    # The documents of a row are its first segments, in order; its padding, if any, is one more.
    segment_rows = starts // seq_len
    first_of_row = np.searchsorted(segment_rows, np.arange(len(rows["n_targets"])))
    documents_of_row = np.bincount(rows["doc_rows"], minlength=len(rows["n_targets"]))
    is_document = np.arange(len(starts)) - first_of_row[segment_rows] < documents_of_row[segment_rows]
    source_of_segment = np.zeros(len(starts), np.int64)
    source_of_segment[is_document] = rows["source_ids"]
    at_M = np.flatnonzero(rows["loss_mask"].reshape(-1))
    return source_of_segment[np.searchsorted(starts, at_M, side="right") - 1]
