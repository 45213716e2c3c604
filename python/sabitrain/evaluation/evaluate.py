"""Evaluation: how well held-out targets are predicted, in one pass over their rows.

Dimensions: N tokens of some rows laid end to end, M of them chosen, D documents, S sources.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from sabiprep.dataset import BatchDict
from sabiprep.doc_id import windows_of
from sabitrain.data.batches import make_batch
from sabitrain.data.masking import CONTROL, DATA, TEMPLATE, documents_of, prompt_tokens
from sabitrain.data.rows import Rows, RowSource
from sabitrain.device import precision
from sabitrain.evaluation.baseline import Unigram
from sabitrain.evaluation.scores import Evaluation, Score, SourceScore, TargetLoss
from sabitrain.evaluation.text_bytes import TargetBytes
from sabitrain.models.architecture import CausalModel
from sabitrain.models.loss import predicting_states, target_losses
from sabitrain.stopping import GoOn


def evaluate_split(
    model: CausalModel,
    dataset: RowSource,
    split: Rows,
    rows_at_once: int,
    autocast: bool = False,
    text_bytes: TargetBytes | None = None,
    *,
    rows: npt.NDArray[np.int64] | None = None,
    baseline: Unigram | None = None,
    go_on: GoOn | None = None,
) -> Evaluation | None:
    """Scores the targets of a split: in total, by task, language, both, and source.

    Args:
        model: The model, on the device to compute on; it is not changed.
        dataset: The dataset, with its sources.
        split: A split of the dataset.
        rows_at_once: Rows of a forward pass.
        autocast: Whether to compute in bf16.
        text_bytes: The counter of bytes of text, which remembers counts for the next evaluation.
        rows: The rows to evaluate, int64[rows]; by default all.
        baseline: The baseline to compare losses with, if any.
        go_on: The question asked between batches of rows; a no leaves the rows so far.

    Returns:
        The scores, or None if there is no target.

    Raises:
        DatasetError: If a shard is damaged, or the tokenizer is not the dataset's.
    """
    text_bytes = text_bytes or TargetBytes(dataset)
    rows = np.arange(len(split)) if rows is None else rows
    sums, done = _Sums(len(dataset.sources)), 0
    while done < len(rows):
        # Not before the first batch, so that a validation has a result at all.
        if done and go_on is not None and not go_on(done, len(rows)):
            break
        # The numbers of the rows are also the key under which their bytes are remembered.
        numbers = tuple(rows[done : done + rows_at_once].tolist())
        batch = split.batch(numbers, labels=False)
        sums.bytes_S += text_bytes.of(batch, numbers)
        _score(model, batch, autocast, baseline, sums)
        done += len(numbers)
    return _evaluation(sums, dataset, done, len(split)) if sums.targets_S.any() else None


class _Sums:
    """The sums of an evaluation by source: float64[S], or int64[S] of counts.

    Attributes:
        targets_S: Targets.
        nats_S: The cross-entropy of the targets.
        text_S: Targets, without the EOS that closes a document.
        right_S: Targets of ``text_S`` predicted right.
        baseline_S: The cost of the targets under the baseline, in nats; None without a baseline.
        bytes_S: Bytes of the targets' text.
        prompts_S: Tokens of prompts.
        prompt_nats_S: The cross-entropy of the tokens of prompts.
        answers_S: Answers.
        answers_right_S: Answers that are right.
    """

    def __init__(self, sources: int) -> None:
        self.nats_S, self.prompt_nats_S = np.zeros(sources), np.zeros(sources)
        self.baseline_S: npt.NDArray[np.float64] | None = None
        (self.targets_S, self.text_S, self.right_S, self.bytes_S) = (
            np.zeros(sources, np.int64) for _ in range(4)
        )
        (self.prompts_S, self.answers_S, self.answers_right_S) = (
            np.zeros(sources, np.int64) for _ in range(3)
        )


def _score(
    model: CausalModel, rows: BatchDict, autocast: bool, baseline: Unigram | None, sums: _Sums
) -> None:
    """Adds the counts and costs of some rows to the sums."""
    sources = len(sums.targets_S)
    mask_N, prompt_N = rows["loss_mask"].reshape(-1), prompt_tokens(rows)
    # One pass serves both: targets for the score, prompts as a probe.
    nats_N, right_N = _predict(model, rows, mask_N | prompt_N, autocast)
    document_N = documents_of(rows)
    # On padding the source is wrong, but nothing is read there.
    source_N = rows["source_ids"][document_N]
    text_N = mask_N & (rows["roles"].reshape(-1) != CONTROL)
    for counted_N, counts_S in (
        (mask_N, sums.targets_S),
        (text_N, sums.text_S),
        (text_N & right_N, sums.right_S),
        (prompt_N, sums.prompts_S),
    ):
        counts_S += np.bincount(source_N[counted_N], minlength=sources)
    for counted_N, nats_S in ((mask_N, sums.nats_S), (prompt_N, sums.prompt_nats_S)):
        nats_S += np.bincount(source_N[counted_N], nats_N[counted_N], sources)
    if baseline is not None:
        before_S = np.zeros(sources) if sums.baseline_S is None else sums.baseline_S
        cost_M = baseline.nats(source_N[text_N], rows["input_ids"].reshape(-1)[text_N])
        sums.baseline_S = before_S + np.bincount(source_N[text_N], cost_M, sources)
    # An answer is right if none of its targets, its closing EOS among them, is wrong.
    answer_D = _answers(rows, document_N, mask_N & ~text_N)
    right_D = answer_D & ~_in_documents(rows, document_N, mask_N & ~right_N)
    sums.answers_S += np.bincount(rows["source_ids"][answer_D], minlength=sources)
    sums.answers_right_S += np.bincount(rows["source_ids"][right_D], minlength=sources)


def _answers(
    rows: BatchDict, document_N: npt.NDArray[np.int64], closes_N: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Finds the documents that are answers, a prompt and all of its targets: bool[D].

    A window of a longer document is none: only the first has no window before it, and only the last
    is closed.
    """
    roles_N = rows["roles"].reshape(-1)
    asked_D = _in_documents(rows, document_N, (roles_N == TEMPLATE) | (roles_N == DATA))
    closed_D = _in_documents(rows, document_N, closes_N)
    whole_D: npt.NDArray[np.bool_] = (windows_of(rows["doc_parts"]) == 0) & closed_D & asked_D
    return whole_D


def _in_documents(
    rows: BatchDict, document_N: npt.NDArray[np.int64], tokens_N: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Finds the documents that have some of these tokens, none of them padding: bool[D]."""
    counts_D = np.bincount(document_N[tokens_N], minlength=len(rows["source_ids"]))
    found_D: npt.NDArray[np.bool_] = counts_D > 0
    return found_D


def _predict(
    model: CausalModel, rows: BatchDict, read_N: npt.NDArray[np.bool_], autocast: bool
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Returns the cross-entropy of the tokens to read, and whether each is the most likely.

    The first is float64[N], the second bool[N]; both are 0 elsewhere.
    """
    device = model.head_VC.device
    batch = make_batch(rows, read_N).to(device)
    with torch.no_grad(), precision(device, autocast):
        hidden_MC = predicting_states(model, batch)
        losses_M, right_M = target_losses(hidden_MC, model.head_VC, batch.targets_M)
    # Predictions are padded at their end; the first ones are those of the tokens, in order.
    nats_N, right_N = np.zeros(len(read_N)), np.zeros(len(read_N), np.bool_)
    nats_N[read_N] = losses_M[: batch.targets].double().cpu().numpy()
    right_N[read_N] = right_M[: batch.targets].cpu().numpy()
    return nats_N, right_N


def _evaluation(sums: _Sums, dataset: RowSource, rows: int, held_out_rows: int) -> Evaluation:
    """Returns the scores of all groups of sources that have a target."""
    sources = dataset.sources
    tasks, languages = [source.task for source in sources], [source.lang for source in sources]
    every_S = np.ones(len(sources), np.bool_)

    def scores(names: Sequence[str], among_S: npt.NDArray[np.bool_]) -> dict[str, Score]:
        groups = {
            name: among_S & np.array([other == name for other in names])
            for name in sorted(set(names))
        }
        return {
            name: _score_of(sums, of_S)
            for name, of_S in groups.items()
            if sums.targets_S[of_S].any()
        }

    # Groups without a target are left out, so every score can divide by its targets.
    by_task = scores(tasks, every_S)
    # Two datasets of a mixture may have sources of one name.
    names = _distinct([source.name for source in sources])
    source_of = dict(zip(names, sources, strict=True))
    return Evaluation(
        total=_score_of(sums, every_S),
        tasks=by_task,
        languages=scores(languages, every_S),
        pairs={
            task: scores(languages, np.array([other == task for other in tasks]))
            for task in by_task
        },
        sources={
            name: SourceScore(
                **vars(score), task=source_of[name].task, language=source_of[name].lang
            )
            for name, score in scores(names, every_S).items()
        },
        rows=rows,
        held_out_rows=held_out_rows,
    )


def _score_of(sums: _Sums, of_S: npt.NDArray[np.bool_]) -> Score:
    """Returns the score of some sources; at least one must have a target."""
    (targets, text, right, size, prompts, answers, answers_right) = (
        int(counts_S[of_S].sum())
        for counts_S in (
            *(sums.targets_S, sums.text_S, sums.right_S, sums.bytes_S),
            *(sums.prompts_S, sums.answers_S, sums.answers_right_S),
        )
    )
    nats = float(sums.nats_S[of_S].sum())
    # Ratios of sums, not means of ratios: a source counts by its targets.
    return Score(
        loss=nats / targets,
        targets=targets,
        accuracy=right / text if text else None,
        bits_per_byte=nats / math.log(2) / size if size else None,
        prompt=TargetLoss(float(sums.prompt_nats_S[of_S].sum() / prompts), prompts)
        if prompts
        else None,
        baseline=None if sums.baseline_S is None else float(sums.baseline_S[of_S].sum() / targets),
        answers=answers,
        answers_right=answers_right / answers if answers else None,
    )


def _distinct(names: Sequence[str]) -> list[str]:
    """Returns names, with a number behind each that came before: ``name (2)``."""
    seen: Counter[str] = Counter()
    distinct = []
    for name in names:
        seen[name] += 1
        distinct.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return distinct
