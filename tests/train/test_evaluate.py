"""Evaluation against plain loops over documents."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict

import pytest
import torch
import torch.nn.functional as F
from tiny import SOURCES, VOCAB_SIZE, documents, write_tiny
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from dataset_writer import Document, write_dataset
from sabiprep.dataset import open_dataset
from sabitrain.config import ModelConfig
from sabitrain.evaluate import Score, TargetLoss, evaluate_split, target_bytes, unigram_baseline
from sabitrain.model import Llama


@pytest.mark.parametrize(
    "kinds",
    [
        [("copy", "yor"), ("label", "hau"), ("text", "yor")],
        [("copy", "yor"), ("copy", "hau"), ("text", "yor")],
        [("copy", "yor"), ("text", "yor"), ("copy", "yor")],
    ],
)
def test_scores_by_task_and_language(tmp_path, kinds):
    """Sources that share a language, a task, or both; each document scored by itself, from its logits."""
    held_out = documents(41, 9)
    sources = [{**source, "task": task, "lang": lang} for source, (task, lang) in zip(SOURCES, kinds, strict=True)]
    dataset = write_tiny(tmp_path, validation=held_out, sources=sources)
    torch.manual_seed(0)
    model = Llama(ModelConfig(layers=1, width=16, heads=2, kv_heads=2, mlp_width=24, context=64), VOCAB_SIZE)
    found, prompts = defaultdict(list), defaultdict(list)
    for document in held_out:
        n, ids = len(document.ids), torch.tensor(document.ids)
        with torch.no_grad():
            hidden = model(ids, torch.arange(n), torch.tensor([0, n]).int(), n)
        logits = F.linear(hidden[:-1], model.head_VC)
        nats = F.cross_entropy(logits, ids[1:], reduction="none").tolist()
        task, language = kinds[document.source_id]
        for key, i in itertools.product(("total", f"task {task}", f"in {language}", (task, language)), range(1, n)):
            if document.roles[i] == 3 or i == n - 1:
                # The tokenizer's words are t0, t1 ...; decoded, each but a text's first has a space before it.
                text = f" t{document.ids[i]}" if document.roles[i] == 3 else ""
                found[key].append((nats[i - 1], logits[i - 1].argmax().item() == document.ids[i], len(text)))
            else:
                prompts[key].append(nats[i - 1])
    want = {}
    for key, entries in found.items():
        nats, right, lengths = (sum(column) for column in zip(*entries, strict=True))
        asked = prompts[key]
        want[key] = Score(
            loss=pytest.approx(nats / len(entries), rel=1e-5),
            targets=len(entries),
            accuracy=right / len(entries),
            bits_per_byte=pytest.approx(nats / math.log(2) / lengths, rel=1e-5),
            prompt=TargetLoss(pytest.approx(sum(asked) / len(asked), rel=1e-5), len(asked)) if asked else None,
        )
    assert any(score.prompt is None for score in want.values()) == (kinds[2][0] == "text")
    text_bytes = target_bytes(dataset, dataset.validation)
    for rows_at_once, given in ((1, None), (3, text_bytes), (100, None)):
        evaluation = evaluate_split(model, dataset, dataset.validation, rows_at_once, text_bytes_S=given)
        assert evaluation is not None
        scores = {"total": evaluation.total}
        scores |= {f"task {name}": score for name, score in evaluation.tasks.items()}
        scores |= {f"in {name}": score for name, score in evaluation.languages.items()}
        scores |= {(task, name): one for task, of in evaluation.pairs.items() for name, one in of.items()}
        assert scores == want


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
    for record, (prompt, target) in enumerate([("ọjọ́:", " ẹ̀kọ́ ṣe"), ("<yor>", "ń"), ("", "ṣe kí ọ́")]):
        parts = [tokenizer.encode(text).ids for text in (prompt, target)]
        roles = [2] * len(parts[0]) + [3] * len(parts[1]) + [0]
        first = [] if prompt else [eos]
        written.append(Document([*first, *parts[0], *parts[1], eos], [0] * len(first) + roles, record % 2, record))
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
    assert target_bytes(dataset, dataset.train).tolist() == want
    assert target_bytes(dataset, dataset.validation).tolist() == [0, 0]


def test_there_may_be_no_prompt(tmp_path):
    dataset = write_tiny(tmp_path, kinds="t")
    model = Llama(ModelConfig(layers=1, width=16, heads=2, kv_heads=2, mlp_width=24, context=64), VOCAB_SIZE)
    evaluation = evaluate_split(model, dataset, dataset.validation, 4)
    assert evaluation is not None and evaluation.total.prompt is None
    assert not any(parameter.grad is not None for parameter in model.parameters())


def test_the_baseline_by_hand(tmp_path):
    dataset = write_tiny(tmp_path, train=50, held_out=20)

    def targets(seed: int, count: int) -> list[int]:
        return [
            token
            for document in documents(count, seed)
            for i, (token, role) in enumerate(zip(document.ids, document.roles, strict=True))
            if i > 0 and role in (0, 3)
        ]

    seen = Counter(targets(0, 50))
    total = sum(seen.values()) + VOCAB_SIZE
    nats = [-math.log((seen[token] + 1) / total) for token in targets(1, 20)]
    baseline = unigram_baseline(dataset)
    assert baseline is not None
    assert (baseline.loss, baseline.targets) == (pytest.approx(sum(nats) / len(nats)), len(nats))


def test_nothing_to_validate_on(tmp_path):
    dataset = write_tiny(tmp_path, validation=[])
    model = Llama(ModelConfig(layers=1, width=16, heads=2, kv_heads=2, mlp_width=24, context=64), VOCAB_SIZE)
    assert evaluate_split(model, dataset, dataset.validation, 4) is None
    assert unigram_baseline(dataset) is None
