"""The loss: what is predicted from where, and gradients that do not depend on how a step is cut."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tiny import VOCAB_SIZE, write_tiny

from sabitrain.config import ModelConfig
from sabitrain.data import make_batch, micro_batches
from sabitrain.evaluate import precision
from sabitrain.loss import step_share, target_losses
from sabitrain.model import Llama


def make_model() -> Llama:
    torch.manual_seed(0)
    return Llama(ModelConfig(layers=2, width=16, heads=2, kv_heads=1, mlp_width=24, context=64), VOCAB_SIZE).double()


def step_gradients(model: Llama, split, rows, at_once: int) -> tuple[float, list[torch.Tensor]]:
    """The loss and gradients of a step over ``rows``, ``at_once`` at a time."""
    model.zero_grad()
    targets, total = int(split.n_targets[rows].sum()), 0.0
    for read in micro_batches(split, rows, at_once):
        batch = make_batch(read)
        hidden = model(batch.ids_N, batch.positions_N, batch.cu_seqlens, batch.max_seqlen)
        share = step_share(target_losses(hidden, model.head_VC, batch), targets)
        share.backward()
        total += share.item()
    return total, [parameter.grad.clone() for parameter in model.parameters()]


def test_it_is_the_shifted_cross_entropy_of_transformers_over_each_document(tmp_path):
    """The oracle: document by document, all logits, unshifted labels with -100, shifted by one."""
    dataset, model = write_tiny(tmp_path), make_model()
    total, count = 0.0, 0
    for row in (dataset.train[i] for i in range(len(dataset.train))):
        for start, end in zip(row["cu_seqlens"][:-1].tolist(), row["cu_seqlens"][1:].tolist(), strict=True):
            ids, labels = (torch.from_numpy(row[name][start:end]) for name in ("input_ids", "labels"))
            hidden = model(ids, torch.arange(end - start), torch.tensor([0, end - start]).int(), end - start)
            logits = F.linear(hidden, model.head_VC)
            total += F.cross_entropy(logits[:-1], labels[1:], ignore_index=-100, reduction="sum").item()
            count += int((labels[1:] != -100).sum())
    rows = list(range(len(dataset.train)))
    assert count == dataset.train.n_targets.sum()
    assert step_gradients(model, dataset.train, rows, len(rows))[0] == pytest.approx(total / count, rel=1e-10)


def test_gradients_do_not_depend_on_accumulation(tmp_path):
    dataset, model = write_tiny(tmp_path, kinds="cclltt"), make_model()
    rows = [0, 5, 2, 7, 1, 3, 4, 6]
    assert len(set(dataset.train.n_targets[rows].tolist())) > 2, "the masks must be uneven for this to mean anything"
    whole_loss, whole = step_gradients(model, dataset.train, rows, 8)
    for at_once in (4, 2, 3, 1):
        loss, gradients = step_gradients(model, dataset.train, rows, at_once)
        assert loss == pytest.approx(whole_loss, rel=1e-12)
        for ours, reference in zip(gradients, whole, strict=True):
            torch.testing.assert_close(ours, reference, rtol=1e-9, atol=1e-13)


def test_a_micro_batch_without_targets_adds_nothing(tmp_path):
    dataset, model = write_tiny(tmp_path), make_model()
    read = dataset.train.batch([0])
    read["labels"][:] = -100
    batch = make_batch(read)
    hidden = model(batch.ids_N, batch.positions_N, batch.cu_seqlens, batch.max_seqlen)
    share = step_share(target_losses(hidden, model.head_VC, batch), 0)
    share.backward()
    assert share.item() == 0
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.parameters())


def test_half_precision_states_get_a_float32_softmax(tmp_path):
    dataset, model = write_tiny(tmp_path), make_model().bfloat16()
    batch = make_batch(dataset.train.batch([0]))
    hidden = torch.randn(len(batch.ids_N), 16).bfloat16()
    losses = target_losses(hidden, model.head_VC, batch)
    logits = F.linear(hidden, model.head_VC)[batch.predict_at_M]
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, F.cross_entropy(logits.float(), batch.targets_M, reduction="none"))


def test_in_bf16_the_gradient_points_the_same_way(tmp_path):
    """What a GPU run computes in, on the CPU: the same rounding, if not the same kernels."""
    dataset, model = write_tiny(tmp_path), make_model().float()
    batch, directions = make_batch(dataset.train.batch(range(6))), []
    for autocast in (False, True):
        model.zero_grad()
        with precision(torch.device("cpu"), autocast):
            hidden = model(batch.ids_N, batch.positions_N, batch.cu_seqlens, batch.max_seqlen)
            share = step_share(target_losses(hidden, model.head_VC, batch), len(batch.targets_M))
        share.backward()
        assert share.dtype == torch.float32
        directions.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    assert not torch.equal(*directions)
    assert F.cosine_similarity(*directions, dim=0) > 0.999
