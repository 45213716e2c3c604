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
    """One held-out prompt, and what the model makes of it.

    Attributes:
        task: The task of its source.
        prompt: The prompt as the model reads it, tags included.
        expected: The target.
        produced: What the model wrote before EOS, or before it was cut off.
        exact: Whether it wrote the target's very tokens, and then EOS.
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

    Prompts are laid end to end as the documents of one row, so any number of them, of any lengths,
    takes one forward pass a token. Nothing is cached: each pass computes the prompts anew, which
    costs the square of the length and is meant for a few answers, not for serving.

    Args:
        model: The model.
        prompts: The ids of each prompt, at least one; BOS is the caller's to put.
        eos_id: The token that ends an answer.
        max_new_tokens: Longest answer, EOS included. It also ends where the model's context does.
        go_on: Asked between tokens; where it says no, there are no continuations: an empty list.
    """
    device = model.head_VC.device
    texts = [list(prompt) for prompt in prompts]
    # The prompts whose answers go on; one that fills the context has no room for any.
    going = [index for index, text in enumerate(texts) if len(text) < model.config.context]
    for written in range(max_new_tokens):
        if not going:
            break
        if written and go_on is not None and not go_on(written, max_new_tokens):
            return []
        lengths = np.array([len(texts[index]) for index in going])
        ends = lengths.cumsum()
        ids = np.concatenate([texts[index] for index in going])
        positions = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
        cu_seqlens = np.concatenate(([0], ends)).astype(np.int32)
        with torch.no_grad():
            last = model(
                torch.from_numpy(ids).to(device),
                torch.from_numpy(positions).to(device),
                torch.from_numpy(cu_seqlens).to(device),
                int(lengths.max()),
                torch.from_numpy(ends - 1).to(device),
            )
            chosen = F.linear(last, model.head_VC).argmax(-1).tolist()
        for index, token in zip(going, chosen, strict=True):
            texts[index].append(token)
        going = [
            index
            for index in going
            if texts[index][-1] != eos_id and len(texts[index]) < model.config.context
        ]
    return [text[len(prompt) :] for text, prompt in zip(texts, prompts, strict=True)]


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

    It answers all if there are fewer.

    A prompt is everything of a document before its first target token. Documents that go on after
    their target (a conversation), or have nothing before it (plain text), are left out.

    Args:
        model: The model.
        dataset: The dataset that it was trained on.
        count: Answers wanted.
        seed: Which ones.
        tasks: Tasks to take them from; all if empty.
        max_new_tokens: Longest answer.
        go_on: Asked between batches of rows that are looked through and between tokens that are
            written; where it says no, there are the answers so far.

    Raises:
        TrainError: If the dataset has no such task.
    """
    check_tasks(dataset, tasks)
    questions = _questions(dataset, tasks, go_on) if count else []
    order = shuffled(len(questions), f"sabitrain answers {seed} {dataset.fingerprint}")
    chosen = [questions[index] for index in order[:count]]
    tokenizer = open_tokenizer(dataset)
    answers = []
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
    """Finds the held-out documents that are a prompt, one target and EOS.

    There are none where ``go_on`` says no.
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
    prompt = question.prompt[1:] if question.prompt[0] == dataset.bos_id else question.prompt
    written = produced[:-1] if produced and produced[-1] == dataset.eos_id else produced
    return Answer(
        task=dataset.sources[question.source].task,
        prompt=tokenizer.decode(list(prompt), skip_special_tokens=False),
        expected=tokenizer.decode(list(question.expected), skip_special_tokens=False),
        produced=tokenizer.decode(written, skip_special_tokens=False),
        exact=produced == [*question.expected, dataset.eos_id],
    )
