"""Evaluation against plain loops over documents."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import pytest
import torch
import torch.nn.functional as F
from tiny import VOCAB_SIZE, documents, write_tiny

from sabitrain.config import ModelConfig
from sabitrain.evaluate import TargetLoss, evaluate_split, unigram_baseline
from sabitrain.model import Llama


def test_losses_by_task(tmp_path):
    held_out = documents(41, 9)
    dataset = write_tiny(tmp_path, validation=held_out)
    torch.manual_seed(0)
    model = Llama(ModelConfig(layers=1, width=16, heads=2, kv_heads=2, mlp_width=24, context=64), VOCAB_SIZE)
    losses, prompts = defaultdict(list), []
    for document in held_out:
        n, ids = len(document.ids), torch.tensor(document.ids)
        with torch.no_grad():
            hidden = model(ids, torch.arange(n), torch.tensor([0, n]).int(), n)
        nats = F.cross_entropy(F.linear(hidden[:-1], model.head_VC), ids[1:], reduction="none")
        learnt = [i for i in range(1, n) if document.roles[i] == 3 or i == n - 1]
        prompts += nats[[i - 1 for i in range(1, n) if document.roles[i] in (1, 2)]].tolist()
        losses[("copy", "label", "text")[document.source_id]] += nats[[i - 1 for i in learnt]].tolist()
    for rows_at_once in (1, 3, 100):
        evaluation = evaluate_split(model, dataset, dataset.validation, rows_at_once)
        assert evaluation is not None
        assert {task: loss.targets for task, loss in evaluation.tasks.items()} == {k: len(v) for k, v in losses.items()}
        for task, loss in evaluation.tasks.items():
            assert loss.loss == pytest.approx(sum(losses[task]) / len(losses[task]), rel=1e-5)
        every = [nats for of_task in losses.values() for nats in of_task]
        assert evaluation.total.loss == pytest.approx(sum(every) / len(every), rel=1e-5)
        assert evaluation.total.targets == len(every)
        assert evaluation.prompt == TargetLoss(pytest.approx(sum(prompts) / len(prompts), rel=1e-5), len(prompts))


def test_there_may_be_no_prompt(tmp_path):
    dataset = write_tiny(tmp_path, kinds="t")
    model = Llama(ModelConfig(layers=1, width=16, heads=2, kv_heads=2, mlp_width=24, context=64), VOCAB_SIZE)
    evaluation = evaluate_split(model, dataset, dataset.validation, 4)
    assert evaluation is not None and evaluation.prompt is None
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
