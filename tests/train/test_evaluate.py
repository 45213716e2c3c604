"""Evaluation against plain loops over documents."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from sabiprep.dataset import open_dataset
from sabitrain.config import ModelConfig
from sabitrain.evaluation.baseline import unigram_baseline
from sabitrain.evaluation.evaluate import evaluate_split
from sabitrain.evaluation.scores import Score, SourceScore, TargetLoss
from sabitrain.evaluation.text_bytes import TargetBytes
from sabitrain.models.architecture import make_model
from sabitrain.models.decoder import DecoderModel
from sabitrain.models.family import Specifics
from sabitrain.models.llama import LlamaArchitecture
from support.dataset_writer import Document, write_dataset
from support.train.tiny import (
    SOURCES,
    VOCAB_SIZE,
    documents,
    write_tiny,
)


@pytest.mark.parametrize(
    "kinds",
    [
        [("copy", "yor"), ("label", "hau"), ("text", "yor")],
        [("copy", "yor"), ("copy", "hau"), ("text", "yor")],
        [("copy", "yor"), ("text", "yor"), ("copy", "yor")],
    ],
)
def test_scores_by_task_and_language(tmp_path, kinds):
    """Sources that share a language, a task, or both; each document scored by itself, from its
    logits.
    """
    held_out = documents(41, 9)
    sources = [
        {**source, "task": task, "lang": lang}
        for source, (task, lang) in zip(SOURCES, kinds, strict=True)
    ]
    dataset = write_tiny(tmp_path, validation=held_out, sources=sources)
    torch.manual_seed(0)
    model = make_model(
        ModelConfig(layers=1, width=16, heads=2, kv_heads=2, mlp_width=24, context=64), VOCAB_SIZE
    )
    found, prompts, answers = defaultdict(list), defaultdict(list), defaultdict(list)
    for document in held_out:
        n, ids = len(document.ids), torch.tensor(document.ids)
        with torch.no_grad():
            hidden = model(ids, torch.arange(n), torch.tensor([0, n]).int(), n)
        logits = F.linear(hidden[:-1], model.head_VC)
        nats = F.cross_entropy(logits, ids[1:], reduction="none").tolist()
        task, language = kinds[document.source_id]
        keys = (
            "total",
            f"task {task}",
            f"in {language}",
            (task, language),
            SOURCES[document.source_id]["name"],
        )
        if 1 in document.roles:
            right = (logits.argmax(-1) == ids[1:])[
                [i - 1 for i in range(1, n) if document.roles[i] in (0, 3)]
            ].all()
            for key in keys:
                answers[key].append(right.item())
        for key, i in itertools.product(keys, range(1, n)):
            if document.roles[i] == 3 or i == n - 1:
                # The tokenizer's words are t0, t1 ...; decoded, each but a text's first has a space
                # before it.
                text = f" t{document.ids[i]}" if document.roles[i] == 3 else ""
                is_right = logits[i - 1].argmax().item() == document.ids[i]
                found[key].append((nats[i - 1], len(text), is_right if text else None))
            else:
                prompts[key].append(nats[i - 1])
    want = {}
    for key, entries in found.items():
        nats, lengths = sum(entry[0] for entry in entries), sum(entry[1] for entry in entries)
        right = [entry[2] for entry in entries if entry[2] is not None]
        asked = prompts[key]
        score = Score(
            loss=pytest.approx(nats / len(entries), rel=1e-5),
            targets=len(entries),
            accuracy=sum(right) / len(right),
            bits_per_byte=pytest.approx(nats / math.log(2) / lengths, rel=1e-5),
            prompt=TargetLoss(pytest.approx(sum(asked) / len(asked), rel=1e-5), len(asked))
            if asked
            else None,
            answers=len(answers[key]),
            answers_right=sum(answers[key]) / len(answers[key]) if answers[key] else None,
        )
        want[key] = score
        for name, (task, language) in zip(
            (source["name"] for source in SOURCES), kinds, strict=True
        ):
            if key == name:
                want[key] = SourceScore(**vars(score), task=task, language=language)
    groups = [score for score in want.values() if not isinstance(score, SourceScore)]
    assert any(score.prompt is None for score in groups) == (kinds[2][0] == "text")
    text_bytes = TargetBytes(dataset)
    for rows_at_once, given in ((1, None), (3, text_bytes), (3, text_bytes), (100, text_bytes)):
        evaluation = evaluate_split(
            model, dataset, dataset.validation, rows_at_once, text_bytes=given
        )
        assert evaluation is not None
        assert evaluation.rows == evaluation.held_out_rows == len(dataset.validation)
        scores = {"total": evaluation.total}
        scores |= {f"task {name}": score for name, score in evaluation.tasks.items()}
        scores |= {f"in {name}": score for name, score in evaluation.languages.items()}
        scores |= {
            (task, name): one for task, of in evaluation.pairs.items() for name, one in of.items()
        }
        assert scores | evaluation.sources == want


def test_the_bytes_are_those_of_the_text(tmp_path):
    """A byte-level tokenizer whose tokens end inside characters."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=260, special_tokens=["</s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["ọjọ́ ẹ̀kọ́ ń ṣe"], trainer)
    eos = tokenizer.token_to_id("</s>")
    written, want = [], [0, 0]
    for record, (prompt, target) in enumerate(
        [("ọjọ́:", " ẹ̀kọ́ ṣe"), ("<yor>", "ń"), ("", "ṣe kí ọ́")]
    ):
        parts = [tokenizer.encode(text).ids for text in (prompt, target)]
        roles = [2] * len(parts[0]) + [3] * len(parts[1]) + [0]
        first = [] if prompt else [eos]
        written.append(
            Document(
                [*first, *parts[0], *parts[1], eos], [0] * len(first) + roles, record % 2, record
            )
        )
        want[record % 2] += len(target.encode())
    vocabulary = tokenizer.get_vocab_size()
    dataset = open_dataset(
        write_dataset(
            tmp_path,
            written,
            seq_len=64,
            vocab_size=vocabulary,
            eos_id=eos,
            pad_id=eos,
            tokenizer_json=tokenizer.to_str(),
        )
    )
    counts = TargetBytes(dataset)
    assert counts.of(dataset.train.batch(range(len(dataset.train)))).tolist() == want
    assert counts.of(dataset.train.batch([])).tolist() == [0, 0]


def test_there_may_be_no_prompt(tmp_path):
    dataset = write_tiny(tmp_path, kinds="t")
    model = make_model(
        ModelConfig(layers=1, width=16, heads=2, kv_heads=2, mlp_width=24, context=64), VOCAB_SIZE
    )
    evaluation = evaluate_split(model, dataset, dataset.validation, 4)
    assert evaluation is not None and evaluation.total.prompt is None
    assert not any(parameter.grad is not None for parameter in model.parameters())


class Knows(DecoderModel):
    """Predicts every token right but ``unknown``, of which it makes the PAD."""

    def __init__(self, unknown: int) -> None:
        shape = ModelConfig(layers=1, width=VOCAB_SIZE * 2, heads=1, kv_heads=1, context=64)
        super().__init__(shape, VOCAB_SIZE, LlamaArchitecture().parts(shape, Specifics()))
        self.unknown = unknown
        with torch.no_grad():
            self.head_VC.copy_(torch.eye(VOCAB_SIZE, VOCAB_SIZE * 2))

    def forward(self, ids_N, positions_N, cu_seqlens, max_seqlen, at_M):
        said_M = ids_N[at_M + 1]
        return F.one_hot(torch.where(said_M == self.unknown, 1, said_M), VOCAB_SIZE * 2).float()


@pytest.mark.parametrize("unknown", [6, 12, 0])
def test_an_answer_is_right_if_all_of_it_is(tmp_path, unknown):
    """A token that is not known makes every answer wrong that has it; an EOS that is not known
    makes all of them.
    """
    held_out = documents(60, 9)
    dataset = write_tiny(tmp_path, validation=held_out)
    evaluation = evaluate_split(Knows(unknown), dataset, dataset.validation, 2)
    assert evaluation is not None
    for name, number in (("copy", 0), ("label", 1)):
        targets = [
            [token for token, role in zip(d.ids, d.roles, strict=True) if role == 3]
            for d in held_out
            if d.source_id == number
        ]
        right = sum(unknown not in answer and unknown != 0 for answer in targets)
        score, flat = evaluation.tasks[name], [token for answer in targets for token in answer]
        assert (score.answers, score.answers_right) == (
            len(targets),
            pytest.approx(right / len(targets)),
        )
        assert score.accuracy == pytest.approx(sum(token != unknown for token in flat) / len(flat))
        assert (
            evaluation.sources[{"copy": "copying", "label": "labels"}[name]].answers_right
            == score.answers_right
        )


def test_windows_and_plain_text_are_no_answers(tmp_path):
    """An answer is whole: what goes on in another window, or comes from one, is a part of one."""
    prompt, target = [3, 7, 5], [8, 9]
    roles = [1, 2, 1, 3, 3]
    whole = Document([*prompt, *target, 0], [*roles, 0], 0, 1)
    first = Document([*prompt, *target], roles, 0, 2, part=0)
    last = Document([9, 8, 0], [3, 3, 0], 0, 2, part=1)
    last_with_prompt = Document([7, 5, 8, 0], [2, 1, 3, 0], 0, 3, part=1)
    copy = Document([*prompt, *target, 0], [*roles, 0], 0, 1, part=1 << 24)
    text = Document([8, 9, 0], [3, 3, 0], 2, 4)
    dataset = write_tiny(tmp_path, validation=[whole, first, last, last_with_prompt, copy, text])
    model = make_model(
        ModelConfig(layers=1, width=16, heads=2, kv_heads=2, mlp_width=24, context=64), VOCAB_SIZE
    )
    evaluation = evaluate_split(model, dataset, dataset.validation, 4)
    assert evaluation is not None
    assert {task: score.answers for task, score in evaluation.tasks.items()} == {
        "copy": 2,
        "text": 0,
    }
    assert evaluation.tasks["text"].answers_right is None and evaluation.total.answers == 2


def test_an_evaluation_that_is_ended_is_of_the_rows_so_far(tmp_path):
    dataset = write_tiny(tmp_path, held_out=60)
    model = make_model(
        ModelConfig(layers=1, width=16, heads=2, kv_heads=2, mlp_width=24, context=64), VOCAB_SIZE
    )
    asked = []

    def go_on(done: int, of: int) -> bool:
        asked.append((done, of))
        return done < 4

    order = np.arange(len(dataset.validation))[::-1]
    cut = evaluate_split(model, dataset, dataset.validation, 2, rows=order, go_on=go_on)
    assert asked == [(2, len(order)), (4, len(order))]
    alone = evaluate_split(model, dataset, dataset.validation, 2, rows=order[:4])
    assert cut == alone and cut is not None
    assert (cut.rows, cut.held_out_rows) == (4, len(order))


def test_nothing_to_validate_on(tmp_path):
    dataset = write_tiny(tmp_path, validation=[])
    model = make_model(
        ModelConfig(layers=1, width=16, heads=2, kv_heads=2, mlp_width=24, context=64), VOCAB_SIZE
    )
    assert evaluate_split(model, dataset, dataset.validation, 4) is None
    assert unigram_baseline(dataset) is None
