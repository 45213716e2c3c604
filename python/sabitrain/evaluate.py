"""Evaluation: the loss on held-out targets, and what it is worth beside a model that reads nothing."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from sabiprep.dataset import PackedDataset, Split
from sabitrain.data import make_batch, micro_batches
from sabitrain.loss import predicting_states, target_losses
from sabitrain.masking import CONTROL, documents_of, prompt_tokens
from sabitrain.model import Llama
from sabitrain.tokenizer import open_tokenizer

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
class Score(TargetLoss):
    """How well some targets are predicted.

    Attributes:
        accuracy: The share of them that is the most likely token, given all tokens before it.
        bits_per_byte: Their cross-entropy in bits for each byte of their text (UTF-8), which compares models of
            different tokenizers; None if they have no text.
    """

    accuracy: float
    bits_per_byte: float | None


@dataclass(frozen=True)
class Evaluation:
    """How well the targets of a split are predicted.

    Attributes:
        total: Over every target.
        tasks: Over the targets of each task that has one.
        languages: Over the targets of each language that has one.
        prompt: Over the tokens of prompts, learnt or not: a probe of how well prompts are modelled; None if there are
            none.
    """

    total: Score
    tasks: dict[str, Score]
    languages: dict[str, Score]
    prompt: TargetLoss | None


def evaluate_split(
    model: Llama,
    dataset: PackedDataset,
    split: Split,
    rows_at_once: int,
    autocast: bool = False,
    text_bytes_S: npt.NDArray[np.int64] | None = None,
) -> Evaluation | None:
    """How well a split's targets are predicted, in total, per task and per language; None without a target.

    Args:
        model: The model, on the device to compute on; it is left as it was.
        dataset: Where the sources are.
        split: A split of it.
        rows_at_once: Rows of a forward pass.
        autocast: Whether to compute in bf16.
        text_bytes_S: What `target_bytes` gives for the split, where that has been asked already.
    """
    device, sources = model.head_VC.device, len(dataset.sources)
    if text_bytes_S is None:
        text_bytes_S = target_bytes(dataset, split)
    nats_S, right_S, counts_S = np.zeros(sources), np.zeros(sources), np.zeros(sources, np.int64)
    prompt_sum, prompt_count = 0.0, 0
    for rows in micro_batches(split, range(len(split)), rows_at_once):
        mask_N, prompt_N = rows["loss_mask"].reshape(-1), prompt_tokens(rows)
        read_N = mask_N | prompt_N
        batch = make_batch(rows, read_N.astype(np.float64)).to(device)
        with torch.no_grad(), precision(device, autocast):
            hidden_MC = predicting_states(model, batch)
            losses_M, right_M = target_losses(hidden_MC, model.head_VC, batch.targets_M)
        losses_N, right_N = np.zeros(len(read_N)), np.zeros(len(read_N))
        losses_N[read_N] = losses_M[: batch.targets].double().cpu().numpy()
        right_N[read_N] = right_M[: batch.targets].cpu().numpy()
        source_M = rows["source_ids"][documents_of(rows)[mask_N]]
        nats_S += np.bincount(source_M, losses_N[mask_N], sources)
        right_S += np.bincount(source_M, right_N[mask_N], sources)
        counts_S += np.bincount(source_M, minlength=sources)
        prompt_sum += losses_N[prompt_N].sum()
        prompt_count += int(prompt_N.sum())
    if not counts_S.any():
        return None

    def score(of_S: npt.NDArray[np.bool_]) -> Score:
        nats, count, text = nats_S[of_S].sum(), int(counts_S[of_S].sum()), int(text_bytes_S[of_S].sum())
        bits_per_byte = float(nats / math.log(2) / text) if text else None
        return Score(float(nats / count), count, float(right_S[of_S].sum() / count), bits_per_byte)

    def scores(names: Sequence[str]) -> dict[str, Score]:
        of_name = {name: np.array([other == name for other in names]) for name in sorted(set(names))}
        return {name: score(of_S) for name, of_S in of_name.items() if counts_S[of_S].any()}

    return Evaluation(
        score(np.ones(sources, np.bool_)),
        scores([source.task for source in dataset.sources]),
        scores([source.lang for source in dataset.sources]),
        TargetLoss(float(prompt_sum / prompt_count), prompt_count) if prompt_count else None,
    )


def target_bytes(dataset: PackedDataset, split: Split) -> npt.NDArray[np.int64]:
    """The bytes of text (UTF-8) in the targets of each source of a split: int64[sources].

    What a run of targets adds to the text of the tokens before it in its document, control tokens aside: they have
    none. A character whose bytes are cut by the edge of a run (that of a window of a longer document, say) counts as
    the replacement character.
    """
    tokenizer, bytes_S = open_tokenizer(dataset), np.zeros(len(dataset.sources), np.int64)
    for rows in micro_batches(split, range(len(split)), _ROWS_AT_ONCE):
        ids_N, positions_N = rows["input_ids"].reshape(-1), rows["position_ids"].reshape(-1)
        text_N = rows["roles"].reshape(-1) != CONTROL
        # A document's first token is no target, so no run goes on from one document to the next.
        target_N = np.concatenate(([False], rows["loss_mask"].reshape(-1) & text_N, [False]))
        begins_R, ends_R = np.flatnonzero(np.diff(target_N)).reshape(-1, 2).T
        firsts_R = begins_R - positions_N[begins_R]
        texts = [
            ids_N[first:edge][text_N[first:edge]].tolist()
            for edges_R in (begins_R, ends_R)
            for first, edge in zip(firsts_R.tolist(), edges_R.tolist(), strict=True)
        ]
        decoded = tokenizer.decode_batch(texts, skip_special_tokens=False)
        before_R, after_R = np.array([len(text.encode()) for text in decoded], np.int64).reshape(2, -1)
        np.add.at(bytes_S, rows["source_ids"][documents_of(rows)[begins_R]], after_R - before_R)
    return bytes_S


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
