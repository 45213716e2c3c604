"""The loss: what is predicted from where, and gradients that do not depend on how a step is cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sabitrain.config import ModelConfig
from sabitrain.data.batches import PAD_TO, make_batch, make_step
from sabitrain.data.masking import Masking
from sabitrain.device import precision
from sabitrain.models.llama import Llama
from sabitrain.models.loss import predicting_states, target_losses, weighted_loss
from support.train.tiny import VOCAB_SIZE, write_tiny


def make_model() -> Llama:
    torch.manual_seed(0)
    return Llama(
        ModelConfig(layers=2, width=16, heads=2, kv_heads=1, mlp_width=24, context=64), VOCAB_SIZE
    ).double()


def step_gradients(
    model: Llama, split, rows, at_once: int, masking: Masking
) -> tuple[float, list[torch.Tensor]]:
    """The loss and gradients of a step over ``rows``, ``at_once`` at a time."""
    model.zero_grad()
    total = 0.0
    for batch in make_step(split, rows, at_once, masking).batches:
        loss, _ = weighted_loss(predicting_states(model, batch), model.head_VC, batch)
        loss.backward()
        total += loss.item()
    return total, [parameter.grad.clone() for parameter in model.parameters()]


def test_it_is_the_shifted_cross_entropy_of_transformers_over_each_document(tmp_path):
    """The oracle: document by document, all logits, unshifted labels with -100, shifted by one."""
    dataset, model = write_tiny(tmp_path), make_model()
    total, count = 0.0, 0
    for row in (dataset.train[i] for i in range(len(dataset.train))):
        for start, end in zip(
            row["cu_seqlens"][:-1].tolist(), row["cu_seqlens"][1:].tolist(), strict=True
        ):
            ids, labels = (
                torch.from_numpy(row[name][start:end]) for name in ("input_ids", "labels")
            )
            hidden = model(
                ids, torch.arange(end - start), torch.tensor([0, end - start]).int(), end - start
            )
            logits = F.linear(hidden, model.head_VC)
            total += F.cross_entropy(
                logits[:-1], labels[1:], ignore_index=-100, reduction="sum"
            ).item()
            count += int((labels[1:] != -100).sum())
    rows = list(range(len(dataset.train)))
    assert count == dataset.train.n_targets.sum()
    masking = Masking(dataset.sources)
    assert step_gradients(model, dataset.train, rows, len(rows), masking)[0] == pytest.approx(
        total / count, rel=1e-10
    )


STRATEGIES = {
    "target": {},
    "full": {"loss": "full"},
    "prompts": {"prompt_weight": 0.1},
    "tasks": {"task_weights": {"copy": 3.0, "label": 0.25}},
    "examples": {"weigh_by": "example", "loss": "template-masked"},
}


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_gradients_do_not_depend_on_accumulation(tmp_path, strategy):
    """In float32: steps of one micro-batch, two, four and eight, and two workers that share the
    micro-batches.
    """
    dataset, model = write_tiny(tmp_path, kinds="cclltt"), make_model().float()
    masking = Masking(dataset.sources, **strategy)
    rows = [0, 5, 2, 7, 1, 3, 4, 6]
    assert len(set(dataset.train.n_targets[rows].tolist())) > 2, (
        "the masks must be uneven for this to mean anything"
    )
    whole_loss, whole = step_gradients(model, dataset.train, rows, 8, masking)
    assert max(gradient.abs().max().item() for gradient in whole) > 1e-3
    for at_once in (4, 2, 1):
        loss, gradients = step_gradients(model, dataset.train, rows, at_once, masking)
        assert loss == pytest.approx(whole_loss, abs=1e-6)
        for ours, reference in zip(gradients, whole, strict=True):
            torch.testing.assert_close(ours, reference, rtol=1e-6, atol=1e-6)


def test_workers_that_share_a_step_add_up_to_it(tmp_path):
    dataset, model = write_tiny(tmp_path, kinds="cclltt"), make_model()
    masking, rows = Masking(dataset.sources, prompt_weight=0.2), [0, 5, 2, 7, 1, 3, 4, 6]
    _, whole = step_gradients(model, dataset.train, rows, 8, masking)
    batches = make_step(dataset.train, rows, 2, masking).batches
    summed = [torch.zeros_like(gradient) for gradient in whole]
    for rank in range(2):
        model.zero_grad()
        for batch in batches[rank::2]:
            weighted_loss(predicting_states(model, batch), model.head_VC, batch)[0].backward()
        summed = [
            total + parameter.grad
            for total, parameter in zip(summed, model.parameters(), strict=True)
        ]
    for ours, reference in zip(summed, whole, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-9, atol=1e-13)


def test_a_micro_batch_without_targets_adds_nothing(tmp_path):
    dataset, model = write_tiny(tmp_path), make_model()
    read = dataset.train.batch([0])
    batch = make_batch(read, np.zeros(read["input_ids"].size))
    loss, _ = weighted_loss(predicting_states(model, batch), model.head_VC, batch)
    loss.backward()
    assert (loss.item(), batch.targets, len(batch.predict_at_M)) == (0, 0, PAD_TO)
    assert all(
        parameter.grad is None or not parameter.grad.any() for parameter in model.parameters()
    )


def test_half_precision_states_get_a_float32_softmax(tmp_path):
    dataset, model = write_tiny(tmp_path), make_model().bfloat16()
    batch = make_step(dataset.train, [0], 1, Masking(dataset.sources)).batches[0]
    hidden = torch.randn(len(batch.predict_at_M), 16).bfloat16()
    losses, right = target_losses(hidden, model.head_VC, batch.targets_M)
    logits = F.linear(hidden, model.head_VC).float()
    assert losses.dtype == torch.float32
    assert right.tolist() == [
        row.argmax() == target for row, target in zip(logits, batch.targets_M, strict=True)
    ]
    torch.testing.assert_close(losses, F.cross_entropy(logits, batch.targets_M, reduction="none"))
    loss, _ = weighted_loss(hidden, model.head_VC, batch)
    torch.testing.assert_close(loss, (losses * batch.weights_M).sum().float())


def test_the_z_loss_is_apart_from_the_cross_entropy(tmp_path):
    dataset, model = write_tiny(tmp_path), make_model()
    batch = make_step(dataset.train, [0, 1], 2, Masking(dataset.sources)).batches[0]
    hidden = predicting_states(model, batch)
    plain = weighted_loss(hidden, model.head_VC, batch)
    with_z = weighted_loss(hidden, model.head_VC, batch, 0.5)
    squares = F.linear(hidden, model.head_VC).logsumexp(-1) ** 2
    assert plain[0] == plain[1] == with_z[1] and not with_z[1].requires_grad
    torch.testing.assert_close(with_z[0] - plain[0], 0.5 * (squares * batch.weights_M).sum())


def test_in_bf16_the_gradient_points_the_same_way(tmp_path):
    """What a GPU run computes in, on the CPU: the same rounding, if not the same kernels."""
    dataset, model = write_tiny(tmp_path), make_model().float()
    batch, directions = (
        make_step(dataset.train, range(6), 6, Masking(dataset.sources)).batches[0],
        [],
    )
    for autocast in (False, True):
        model.zero_grad()
        with precision(torch.device("cpu"), autocast):
            loss, _ = weighted_loss(predicting_states(model, batch), model.head_VC, batch)
        loss.backward()
        assert loss.dtype == torch.float32
        directions.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    assert not torch.equal(*directions)
    assert F.cosine_similarity(*directions, dim=0) > 0.999
