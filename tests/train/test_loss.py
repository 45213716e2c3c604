"""The loss: what is predicted from where, and gradients that do not depend on how a step is cut."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from sabiprep.dataset import open_dataset
from sabitrain.config import ModelConfig
from sabitrain.data.batches import PAD_TO, Batch, make_batch, make_step
from sabitrain.data.masking import Masking
from sabitrain.device import precision
from sabitrain.models import loss as loss_module
from sabitrain.models.architecture import CausalModel, make_model
from sabitrain.models.loss import (
    Chunk,
    compiled_chunk,
    eager_chunk,
    predicting_states,
    target_losses,
    weighted_loss,
)
from support.dataset_writer import write_dataset
from support.train.tiny import EOS, PAD, VOCAB_SIZE, write_tiny
from support.train.tiny import documents as tiny_documents


def small_model() -> CausalModel:
    torch.manual_seed(0)
    return make_model(
        ModelConfig(layers=2, width=16, heads=2, kv_heads=1, mlp_width=24, context=64), VOCAB_SIZE
    ).double()


def step_gradients(
    model: CausalModel, split, rows, at_once: int, masking: Masking
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
    dataset, model = write_tiny(tmp_path), small_model()
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
    dataset, model = write_tiny(tmp_path, kinds="cclltt"), small_model().float()
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


def test_weights_of_documents_give_the_gradients_of_the_dense_weighted_loss(tmp_path):
    """In float64, against every document by itself: all logits, each loss times the weights of its
    document and its role, over the sum of the weights.
    """
    rng = np.random.default_rng(0)
    weights = [0.0, 0.5, 1.0, 3.25]
    documents = [
        document._replace(weight=weights[int(rng.integers(4))])
        for document in tiny_documents(24, 0)
    ]
    path = write_dataset(
        tmp_path, documents, seq_len=32, vocab_size=VOCAB_SIZE, eos_id=EOS, pad_id=PAD
    )
    dataset, model = open_dataset(path), small_model()
    masking = Masking(dataset.sources, prompt_weight=0.25)
    rows = list(range(len(dataset.train)))
    loss, gradients = step_gradients(model, dataset.train, rows, 2, masking)
    model.zero_grad()
    total, sum_of_weights = torch.zeros((), dtype=torch.float64), 0.0
    for document in documents:
        ids = torch.tensor(document.ids)
        bounds = torch.tensor([0, len(ids)]).int()
        hidden = model(ids, torch.arange(len(ids)), bounds, len(ids))
        logits = F.linear(hidden, model.head_VC)
        losses = F.cross_entropy(logits[:-1], ids[1:], reduction="none")
        of_roles = torch.tensor([0.25 if role in (1, 2) else 1.0 for role in document.roles[1:]])
        total = total + (losses * of_roles).sum() * document.weight
        sum_of_weights += float(of_roles.sum()) * document.weight
    (total / sum_of_weights).backward()
    assert loss == pytest.approx(total.item() / sum_of_weights, rel=1e-10)
    for ours, reference in zip(gradients, model.parameters(), strict=True):
        torch.testing.assert_close(ours, reference.grad, rtol=1e-9, atol=1e-13)
    batches = make_step(dataset.train, rows, 2, masking).batches
    counted = sum(len(d.ids) - 1 for d in documents if d.weight)
    # What weighs nothing is left out of the computation.
    assert sum(batch.targets for batch in batches) == counted
    assert float(sum(batch.weights_M.sum() for batch in batches)) == pytest.approx(1, rel=1e-12)


def test_workers_that_share_a_step_add_up_to_it(tmp_path):
    dataset, model = write_tiny(tmp_path, kinds="cclltt"), small_model()
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
    dataset, model = write_tiny(tmp_path), small_model()
    read = dataset.train.batch([0])
    batch = make_batch(read, np.zeros(read["input_ids"].size))
    loss, _ = weighted_loss(predicting_states(model, batch), model.head_VC, batch)
    loss.backward()
    assert (loss.item(), batch.targets, len(batch.predict_at_M)) == (0, 0, PAD_TO)
    assert all(
        parameter.grad is None or not parameter.grad.any() for parameter in model.parameters()
    )


def test_half_precision_states_get_a_float32_softmax(tmp_path):
    dataset, model = write_tiny(tmp_path), small_model().bfloat16()
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
    dataset, model = write_tiny(tmp_path), small_model()
    batch = make_step(dataset.train, [0, 1], 2, Masking(dataset.sources)).batches[0]
    hidden = predicting_states(model, batch)
    plain = weighted_loss(hidden, model.head_VC, batch)
    with_z = weighted_loss(hidden, model.head_VC, batch, 0.5)
    squares = F.linear(hidden, model.head_VC).logsumexp(-1) ** 2
    assert plain[0] == plain[1] == with_z[1] and not with_z[1].requires_grad
    torch.testing.assert_close(with_z[0] - plain[0], 0.5 * (squares * batch.weights_M).sum())


def test_in_bf16_the_gradient_points_the_same_way(tmp_path):
    """What a GPU run computes in, on the CPU: the same rounding, if not the same kernels."""
    dataset, model = write_tiny(tmp_path), small_model().float()
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


def test_in_bf16_every_gradient_is_close_to_that_of_float64(tmp_path):
    """The branches of a norm's output add up their gradients in bf16."""
    dataset, results = write_tiny(tmp_path), []
    for autocast in (False, True):
        model = small_model().float() if autocast else small_model()
        batch = make_step(dataset.train, range(6), 6, Masking(dataset.sources)).batches[0]
        with precision(torch.device("cpu"), autocast):
            loss, _ = weighted_loss(predicting_states(model, batch), model.head_VC, batch)
        loss.backward()
        results.append((loss.item(), dict(model.named_parameters())))
    (want, exact), (got, narrow) = results
    assert got == pytest.approx(want, rel=1e-3)
    for name, parameter in exact.items():
        ours = narrow[name].grad.double().flatten()
        assert F.cosine_similarity(ours, parameter.grad.flatten(), dim=0) > 0.999, name


def random_predictions(
    seed: int, predictions: int, vocabulary: int, dtype: torch.dtype, device: str = "cpu"
) -> tuple[Tensor, Tensor, Batch]:
    """States and head of width 8, and targets and weights, some of which are 0."""
    torch.manual_seed(seed)
    with torch.device(device):
        hidden = torch.randn(predictions, 8, dtype=dtype, requires_grad=True)
        head = torch.randn(vocabulary, 8, dtype=dtype, requires_grad=True)
        weights = torch.rand(predictions, dtype=torch.float64)
        weights *= (torch.rand(predictions) < 0.7) / predictions
        targets = torch.randint(vocabulary, (predictions,))
    return hidden, head, Batch(targets, targets, targets, 0, targets, targets, weights, 0, 0)


def oracle(hidden: Tensor, head: Tensor, batch: Batch, z_loss: float) -> list[Tensor]:
    """All logits in float64, by autograd: loss, cross-entropy, both gradients."""
    hidden, head = (x.detach().double().requires_grad_() for x in (hidden, head))
    logits = hidden @ head.T
    log_sum_exp = logits.exp().sum(1).log()
    cross_entropies = log_sum_exp - logits[range(len(logits)), batch.targets_M]
    loss = (batch.weights_M * (cross_entropies + z_loss * log_sum_exp**2)).sum()
    cross_entropy = (batch.weights_M * cross_entropies).sum().detach()
    return [loss.detach(), cross_entropy, *torch.autograd.grad(loss, (hidden, head))]


def ours(
    hidden: Tensor, head: Tensor, batch: Batch, z_loss: float, chunk: Chunk = eager_chunk
) -> list[Tensor]:
    """The same four of `weighted_loss`."""
    loss, cross_entropy = weighted_loss(hidden, head, batch, z_loss, chunk)
    return [loss.detach(), cross_entropy, *torch.autograd.grad(loss, (hidden, head))]


@pytest.fixture(scope="module")
def traced_chunk():
    """The chunk as `torch.compile` sees it, with no code made: that takes seconds a vocabulary."""
    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=64):
        yield torch.compile(eager_chunk, dynamic=True, fullgraph=True, backend="aot_eager")


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    predictions=st.sampled_from([2, 255, 256, 600, 768]),
    vocabulary=st.sampled_from([5, 16, 61, 256]),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    z_loss=st.sampled_from([0.0, 1e-4, 0.1]),
    most_logits=st.sampled_from([1, 1 << 27]),
    compiled=st.booleans(),
)
def test_it_equals_the_dense_loss_in_float64(
    traced_chunk, seed, predictions, vocabulary, dtype, z_loss, most_logits, compiled
):
    hidden, head, batch = random_predictions(seed, predictions, vocabulary, dtype)
    with patch.object(loss_module, "MAX_LOGITS", most_logits):
        got = ours(hidden, head, batch, z_loss, traced_chunk if compiled else eager_chunk)
    for value, exact in zip(got, oracle(hidden, head, batch, z_loss), strict=True):
        if dtype == torch.bfloat16:
            assert (value.double() - exact).norm() <= 0.02 * exact.norm()
        else:
            rtol, atol = (1e-10, 1e-13) if dtype == torch.float64 else (1e-4, 1e-6)
            torch.testing.assert_close(value.double(), exact, rtol=rtol, atol=atol)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_compiled_loss_is_the_same_and_is_compiled_once(monkeypatch, dtype):
    """Lengths, weights of the z-loss and numbers of chunks change; a run has one vocabulary."""
    torch._dynamo.reset()
    cases = [(256, 0.0, 1 << 27), (768, 1e-4, 1 << 27), (1024, 1.0, 1), (512, 0.5, 1)]
    with torch._dynamo.config.patch(error_on_recompile=True):
        for predictions, z_loss, most_logits in cases:
            monkeypatch.setattr(loss_module, "MAX_LOGITS", most_logits)
            hidden, head, batch = random_predictions(0, predictions, 1003, dtype)
            eager = ours(hidden, head, batch, z_loss)
            compiled, again = (
                ours(hidden, head, batch, z_loss, compiled_chunk()) for _ in range(2)
            )
            for one, other, third in zip(eager, compiled, again, strict=True):
                assert torch.equal(other, third)
                narrow = one.dtype == torch.bfloat16
                torch.testing.assert_close(
                    one, other, rtol=1e-2 if narrow else 1e-5, atol=1e-4 if narrow else 1e-7
                )


@pytest.mark.parametrize("vocabulary", [13, 16])
def test_the_rows_that_align_a_head_have_no_probability(vocabulary):
    """Every logit is negative, so that a logit of 0 would take most of the probability."""
    hidden, head, batch = random_predictions(0, 256, vocabulary, torch.float32)
    hidden, head = hidden.detach().abs().bfloat16(), -head.detach().abs().bfloat16()
    states, weight = loss_module._for_products(hidden, head)
    assert len(weight) == 16 and torch.equal(weight[:vocabulary], head)
    assert not weight[vocabulary:].any()
    weights = torch.ones(256, dtype=torch.float64)
    logits = loss_module._logits(states, weight, vocabulary)
    _, gradient = eager_chunk(logits, batch.targets_M, weights, torch.zeros(()))
    assert not gradient[:, vocabulary:].any()
    probabilities = gradient[:, :vocabulary].double()
    probabilities[range(256), batch.targets_M] += 1
    assert (probabilities.sum(1) - 1).abs().max() < 1e-2
    dense = (hidden @ head.T).float()
    losses, right = target_losses(hidden, head, batch.targets_M)
    torch.testing.assert_close(losses, F.cross_entropy(dense, batch.targets_M, reduction="none"))
    assert torch.equal(right, dense.argmax(1) == batch.targets_M) and right.any()


def test_a_head_in_float32_is_not_copied():
    _, head, _ = random_predictions(0, 2, 13, torch.float32)
    _, weight = loss_module._for_products(head, head)
    assert weight.data_ptr() == head.data_ptr()


def test_the_kept_gradients_are_given_away_once():
    """No second copy of the head's size: the parameter's gradient is the kept buffer."""
    hidden, head, batch = random_predictions(0, 300, 13, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = weighted_loss(hidden, head, batch, 0.1)
    kept = [gradient.data_ptr() for gradient in loss.grad_fn.gradients]
    (3 * loss).backward(retain_graph=True)
    assert [hidden.grad.data_ptr(), head.grad.data_ptr()] == kept
    assert head.grad.untyped_storage().nbytes() == head.nbytes
    before = head.grad.clone()
    with pytest.raises(RuntimeError, match="a second backward pass"):
        loss.backward()
    assert torch.equal(head.grad, before)
    wanted = oracle(hidden, head, batch, 0.1)[3].float() * 3
    assert F.cosine_similarity(head.grad.flatten(), wanted.flatten(), dim=0) > 0.999


def test_a_second_derivative_is_refused():
    hidden, head, batch = random_predictions(0, 256, 13, torch.float64)
    loss, _ = weighted_loss(hidden, head, batch)
    factor = torch.ones((), dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss, hidden, factor, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


class Operations(TorchDispatchMode):
    """Notes the names of all operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_on_cuda_it_waits_for_nothing_and_sums_the_head_in_float32(monkeypatch):
    """On tensors without numbers, of which whatever waits for a number is an error."""
    monkeypatch.setattr(loss_module, "MAX_LOGITS", 1)
    with FakeTensorMode(), Operations() as operations:
        hidden, head, batch = random_predictions(0, 512, 13, torch.bfloat16, "cuda")
        operations.names.clear()
        loss, _ = weighted_loss(hidden, head, batch, 1e-4)
        target_losses(hidden, head, batch.targets_M)
        dhidden, dhead = loss.grad_fn.gradients
    assert (dhidden.shape, dhead.shape) == (hidden.shape, head.shape)
    assert loss.dtype == torch.float32 and loss.device.type == "cuda"
    # In two chunks: the head's gradient is a product of each, that of the states another.
    assert operations.names.count("aten.mm.dtype") == operations.names.count("aten.mm.out") == 2
    waiting = ("item", "_local_scalar_dense", "nonzero", "scatter", "masked", "lift_fresh")
    assert not [name for name in operations.names if name.split(".")[1] in waiting]


def test_products_in_float32_of_16_bit_matrices_are_used_where_they_exist(monkeypatch):
    """The numbers of that branch, with a kernel for the CPU in place of CUDA's."""
    hidden, head, batch = random_predictions(0, 512, 13, torch.bfloat16)
    exact = oracle(hidden, head, batch, 0.0)[3]
    monkeypatch.setattr(loss_module, "MAX_LOGITS", 1)
    monkeypatch.setattr(Tensor, "is_cuda", True)
    library = torch.library.Library("aten", "IMPL")
    seen = []

    def widened(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
        seen.append(dtype)
        return left.to(dtype) @ right.to(dtype)

    try:
        library.impl("mm.dtype", widened, "CPU")
        got = ours(hidden, head, batch, 0.0)[3]
    finally:
        library._destroy()
    assert seen == [torch.float32] * 2
    assert (got.double() - exact).norm() < 0.01 * exact.norm()
