"""Greedy answers to held-out prompts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from sabiprep.errors import TrainError
from sabitrain.data.batches import micro_batches
from sabitrain.data.order import shuffled
from sabitrain.data.rows import RowSource
from sabitrain.data.tokenizer import open_tokenizer
from sabitrain.models.architecture import CausalModel
from sabitrain.stopping import GoOn

_TARGET = 3
_ROWS_AT_ONCE = 256
# Prompts that are answered side by side.
_PROMPTS_AT_ONCE = 32


@dataclass(frozen=True)
class Answer:
    """One held-out prompt with the model's answer.

    Attributes:
        task: The task of the prompt's source.
        prompt: The prompt as the model reads it, tags included.
        expected: The target.
        produced: The text written before EOS, or before the answer was cut off.
        exact: Whether the answer is the target's very tokens, and then EOS.
    """

    task: str
    prompt: str
    expected: str
    produced: str
    exact: bool


@dataclass(frozen=True)
class _Question:
    """The ids of a prompt and of its target, without EOS."""

    source: int
    prompt: tuple[int, ...]
    expected: tuple[int, ...]


def greedy(
    model: CausalModel,
    prompts: Sequence[Sequence[int]],
    eos_id: int,
    max_new_tokens: int,
    go_on: GoOn | None = None,
) -> list[list[int]]:
    """Continues each prompt by the most likely tokens: up to and with EOS, or cut off.

    Prompts are laid end to end as the documents of one row, so any number of prompts, of any
    lengths, takes one forward pass a token. Nothing is cached: each pass computes the prompts anew.
    That costs the square of the length and suits a few answers, not serving.

    Args:
        model: The model.
        prompts: The ids of each prompt, at least one; with BOS if the caller wants it.
        eos_id: The token that ends an answer.
        max_new_tokens: Longest answer, EOS included; the model's context may end it earlier.
        go_on: The question asked between tokens; a no leaves an empty list.
    """
    texts = [list(prompt) for prompt in prompts]
    # The prompts whose answers go on; one that fills the context has no room for any.
    going = [index for index, text in enumerate(texts) if len(text) < model.config.context]
    for written in range(max_new_tokens):
        if not going:
            break
        if written and go_on is not None and not go_on(written, max_new_tokens):
            return []
        chosen = _next_tokens(model, [texts[index] for index in going])
        for index, token in zip(going, chosen, strict=True):
            texts[index].append(token)
        going = [
            index
            for index in going
            if texts[index][-1] != eos_id and len(texts[index]) < model.config.context
        ]
    return [text[len(prompt) :] for text, prompt in zip(texts, prompts, strict=True)]


def _next_tokens(model: CausalModel, texts: Sequence[Sequence[int]]) -> list[int]:
    """Returns the most likely token after each text."""
    device = model.head_VC.device
    lengths = np.array([len(text) for text in texts])
    ends = lengths.cumsum()
    # Positions restart in each text, as in each document of a row.
    positions = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
    cu_seqlens = np.concatenate(([0], ends)).astype(np.int32)
    with torch.no_grad():
        # The last position of each text is the only one that the head reads.
        last = model(
            torch.from_numpy(np.concatenate(texts)).to(device),
            torch.from_numpy(positions).to(device),
            torch.from_numpy(cu_seqlens).to(device),
            int(lengths.max()),
            torch.from_numpy(ends - 1).to(device),
        )
        chosen: list[int] = F.linear(last, model.head_VC).argmax(-1).tolist()
    return chosen


def answer_held_out(
    model: CausalModel,
    dataset: RowSource,
    count: int,
    *,
    seed: int = 0,
    tasks: Collection[str] = (),
    max_new_tokens: int = 64,
    go_on: GoOn | None = None,
) -> list[Answer]:
    """Answers greedily ``count`` prompts of the validation split, chosen by ``seed``.

    A split with fewer prompts gives all of them. A prompt is everything of a document before its
    first target token. Documents that go on after their target (a conversation), or have nothing
    before it (plain text), are left out.

    Args:
        model: The model.
        dataset: The dataset that the model was trained on.
        count: Answers wanted.
        seed: The seed that chooses the prompts.
        tasks: Tasks to take prompts from; all if empty.
        max_new_tokens: Longest answer.
        go_on: The question asked between batches of rows and between tokens; a no leaves the
            answers so far.

    Raises:
        TrainError: If the dataset has no such task.
    """
    check_tasks(dataset, tasks)
    questions = _questions(dataset, tasks, go_on) if count else []
    # The dataset's fingerprint in the key: another dataset gives an order of its own.
    order = shuffled(len(questions), f"sabitrain answers {seed} {dataset.fingerprint}")
    chosen = [questions[index] for index in order[:count]]
    tokenizer = open_tokenizer(dataset)
    answers = []
    # Side by side, since a forward pass costs about the same for one short prompt as for many.
    for first in range(0, len(chosen), _PROMPTS_AT_ONCE):
        group = chosen[first : first + _PROMPTS_AT_ONCE]
        produced = greedy(
            model, [question.prompt for question in group], dataset.eos_id, max_new_tokens, go_on
        )
        if not produced:
            break
        answers += [
            _answer(dataset, tokenizer, *pair) for pair in zip(group, produced, strict=True)
        ]
    return answers


def check_tasks(dataset: RowSource, tasks: Collection[str]) -> None:
    """Raises `TrainError` unless the dataset has every one of these tasks."""
    known = {source.task for source in dataset.sources}
    for task in tasks:
        if task not in known:
            raise TrainError(
                f"no task '{task}'",
                file=str(dataset.path),
                remedy=f"name some of: {', '.join(sorted(known))}",
            )


def _questions(dataset: RowSource, tasks: Collection[str], go_on: GoOn | None) -> list[_Question]:
    """Returns the held-out documents that are a prompt, one target and EOS.

    Returns none if ``go_on`` says no.
    """
    split, looked_at = dataset.validation, 0
    found: list[_Question] = []
    for rows in micro_batches(split, range(len(split)), _ROWS_AT_ONCE):
        if looked_at and go_on is not None and not go_on(looked_at, len(split)):
            return []
        looked_at += len(rows["n_targets"])
        # Documents come in the order of their rows, so each begins where the one before it ends.
        begun_row, end = -1, 0
        for row, length, source in zip(
            rows["doc_rows"], rows["seq_lengths"], rows["source_ids"], strict=True
        ):
            begin = end if row == begun_row else 0
            begun_row, end = row, begin + length
            if tasks and dataset.sources[source].task not in tasks:
                continue
            ids, roles = rows["input_ids"][row, begin:end], rows["roles"][row, begin:end]
            targets_at = np.flatnonzero(roles == _TARGET)
            if len(targets_at) == 0:
                continue
            first, after = targets_at[0], targets_at[-1] + 1
            # Something but control tokens comes before the target, and nothing but EOS after it.
            asked = roles[:first].any()
            one_target = after - first == len(targets_at)
            closed = after == length - 1 and ids[after] == dataset.eos_id
            if asked and one_target and closed:
                found.append(
                    _Question(
                        int(source), tuple(ids[:first].tolist()), tuple(ids[first:after].tolist())
                    )
                )
    return found


def _answer(
    dataset: RowSource, tokenizer: Tokenizer, question: _Question, produced: list[int]
) -> Answer:
    """Returns a question and its answer as text."""
    # BOS and EOS are not text, and people know where an answer begins and ends.
    prompt = question.prompt[1:] if question.prompt[0] == dataset.bos_id else question.prompt
    written = produced[:-1] if produced and produced[-1] == dataset.eos_id else produced
    return Answer(
        task=dataset.sources[question.source].task,
        prompt=tokenizer.decode(list(prompt), skip_special_tokens=False),
        expected=tokenizer.decode(list(question.expected), skip_special_tokens=False),
        produced=tokenizer.decode(written, skip_special_tokens=False),
        exact=produced == [*question.expected, dataset.eos_id],
    )
