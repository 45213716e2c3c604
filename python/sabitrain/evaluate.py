"""Evaluation: the loss on held-out targets, and what it is worth beside a model that reads nothing."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from sabiprep.dataset import BatchDict, PackedDataset, Split
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
        prompt: The loss on the tokens of the prompts beside them, learnt or not: a probe of how well prompts are
            modelled; None if there are none.
    """

    accuracy: float
    bits_per_byte: float | None
    prompt: TargetLoss | None


@dataclass(frozen=True)
class Evaluation:
    """How well the targets of a split are predicted.

    Attributes:
        total: Over every target.
        tasks: Over the targets of each task that has one.
        languages: Over the targets of each language that has one.
        pairs: Over the targets of each task in each language that it has one in: by task, then by language.
    """

    total: Score
    tasks: dict[str, Score]
    languages: dict[str, Score]
    pairs: dict[str, dict[str, Score]]


def evaluate_split(
    model: Llama,
    dataset: PackedDataset,
    split: Split,
    rows_at_once: int,
    autocast: bool = False,
    text_bytes_S: npt.NDArray[np.int64] | None = None,
) -> Evaluation | None:
    """How well a split's targets are predicted: in total, per task, per language, per both; None without a target.

    Args:
        model: The model, on the device to compute on; it is left as it was.
        dataset: Where the sources are.
        split: A split of it.
        rows_at_once: Rows of a forward pass.
        autocast: Whether to compute in bf16.
        text_bytes_S: What `target_bytes` gives for the split, where that has been asked already.
    """
    if text_bytes_S is None:
        text_bytes_S = target_bytes(dataset, split)
    targets, prompts = _Sums(len(dataset.sources)), _Sums(len(dataset.sources))
    for rows in micro_batches(split, range(len(split)), rows_at_once):
        mask_N, prompt_N = rows["loss_mask"].reshape(-1), prompt_tokens(rows)
        nats_N, right_N = _predict(model, rows, mask_N | prompt_N, autocast)
        source_N = rows["source_ids"][documents_of(rows)]  # anything on padding, where nothing is read
        targets.add(source_N[mask_N], nats_N[mask_N], right_N[mask_N])
        prompts.add(source_N[prompt_N], nats_N[prompt_N], right_N[prompt_N])
    if not targets.counts_S.any():
        return None

    def score(of_S: npt.NDArray[np.bool_]) -> Score:
        found, prompt, text = targets.loss(of_S), prompts.loss(of_S), int(text_bytes_S[of_S].sum())
        assert found is not None
        nats, accuracy = found.loss * found.targets, float(targets.right_S[of_S].sum() / found.targets)
        return Score(found.loss, found.targets, accuracy, nats / math.log(2) / text if text else None, prompt)

    def scores(names: Sequence[str], among_S: npt.NDArray[np.bool_]) -> dict[str, Score]:
        groups = {name: among_S & np.array([other == name for other in names]) for name in sorted(set(names))}
        return {name: score(of_S) for name, of_S in groups.items() if targets.counts_S[of_S].any()}

    tasks, languages = ([getattr(source, kind) for source in dataset.sources] for kind in ("task", "lang"))
    every_S = np.ones(len(dataset.sources), np.bool_)
    by_task = scores(tasks, every_S)
    pairs = {task: scores(languages, np.array([other == task for other in tasks])) for task in by_task}
    return Evaluation(score(every_S), by_task, scores(languages, every_S), pairs)


class _Sums:
    """Cross-entropy and right predictions of some tokens, added up by the source that they come from."""

    def __init__(self, sources: int) -> None:
        self.nats_S, self.right_S = np.zeros(sources), np.zeros(sources)
        self.counts_S = np.zeros(sources, np.int64)

    def add(
        self, source_M: npt.NDArray[np.uint16], nats_M: npt.NDArray[np.float64], right_M: npt.NDArray[np.bool_]
    ) -> None:
        """Some more tokens."""
        sources = len(self.counts_S)
        self.nats_S += np.bincount(source_M, nats_M, sources)
        self.right_S += np.bincount(source_M, right_M, sources)
        self.counts_S += np.bincount(source_M, minlength=sources)

    def loss(self, of_S: npt.NDArray[np.bool_]) -> TargetLoss | None:
        """Over the tokens of some sources; None if there are none."""
        count = int(self.counts_S[of_S].sum())
        return TargetLoss(float(self.nats_S[of_S].sum() / count), count) if count else None


def _predict(
    model: Llama, rows: BatchDict, read_N: npt.NDArray[np.bool_], autocast: bool
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Cross-entropy of the tokens to read, float64[N], and whether each is the most likely, bool[N]; elsewhere 0."""
    device = model.head_VC.device
    batch = make_batch(rows, read_N).to(device)
    with torch.no_grad(), precision(device, autocast):
        hidden_MC = predicting_states(model, batch)
        losses_M, right_M = target_losses(hidden_MC, model.head_VC, batch.targets_M)
    nats_N, right_N = np.zeros(len(read_N)), np.zeros(len(read_N), np.bool_)
    nats_N[read_N] = losses_M[: batch.targets].double().cpu().numpy()
    right_N[read_N] = right_M[: batch.targets].cpu().numpy()
    return nats_N, right_N


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
