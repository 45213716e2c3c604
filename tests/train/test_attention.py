"""Document attention against a dense float64 reference, and nothing of one document in another."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sabitrain.attention import documents as attention
from sabitrain.attention import grouped
from sabitrain.attention.documents import document_attention
from sabitrain.config import ModelConfig
from sabitrain.data.batches import make_batch
from sabitrain.device import precision
from sabitrain.models.architecture import make_model
from sabitrain.models.compiling import compile_units, sizes_apart
from sabitrain.models.loss import predicting_states, weighted_loss
from support.train.attention_reference import bounds, dense, inputs, with_gradients
from support.train.tiny import VOCAB_SIZE, random_rows


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    heads=st.sampled_from([(4, 4), (4, 2), (3, 1)]),
    size=st.sampled_from([2, 8]),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    window=st.sampled_from([0, 1, 2, 7, 16, 50]),
)
def test_output_and_gradients_equal_the_dense_reference(lengths, heads, size, dtype, window):
    q, k, v, grad = inputs(lengths, *heads, size, dtype)
    got = with_gradients(lambda *x: document_attention(*x, *bounds(lengths), window), q, k, v, grad)
    wide = (x.double() for x in (q, k, v, grad))
    want = with_gradients(lambda *x: dense(*x, lengths, window), *wide)
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 6e-2}[dtype]
    for ours, reference, like in zip(got, want, (q, q, k, v), strict=True):
        assert ours.dtype == dtype and ours.shape == like.shape
        torch.testing.assert_close(ours.double(), reference, rtol=tolerance, atol=tolerance)


def test_gradients_equal_finite_differences():
    lengths = [3, 1, 17]
    q, k, v, _ = inputs(lengths, 2, 1, 4, torch.float64)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    assert all(
        torch.autograd.gradcheck(
            lambda *x, w=window: document_attention(*x, *bounds(lengths), w), leaves
        )
        for window in (0, 5)
    )


def test_groups_are_cut_where_they_would_hold_too_many_scores(monkeypatch):
    lengths = [30, 31, 17, 32, 30, 5]
    q, k, v, grad = inputs(lengths, 2, 2, 4, torch.float64)
    want = with_gradients(lambda *x: document_attention(*x, *bounds(lengths)), q, k, v, grad)
    monkeypatch.setattr(grouped, "_MAX_SCORES", 2 * 2 * 32 * 32)
    assert len(grouped._lay_out(bounds(lengths)[0], 2).groups) == 4
    got = with_gradients(lambda *x: document_attention(*x, *bounds(lengths)), q, k, v, grad)
    for ours, whole in zip(got, want, strict=True):
        torch.testing.assert_close(ours, whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("poison", [torch.randn, lambda *shape: torch.full(shape, torch.nan)])
def test_nothing_of_one_document_reaches_another(poison):
    lengths = [20, 5, 23, 17, 31, 2]
    before = inputs(lengths, 4, 2, 8, torch.float32)
    after = [x.clone() for x in before]
    changed = slice(25, 48)
    for x in after:
        x[changed] = poison(*x[changed].shape)
    results = [
        with_gradients(lambda *x: document_attention(*x, *bounds(lengths)), *case)
        for case in (before, after)
    ]
    others = torch.ones(sum(lengths), dtype=torch.bool)
    others[changed] = False
    for first, second in zip(*results, strict=True):
        assert torch.equal(first[others], second[others])
        assert not torch.equal(first[changed], second[changed])


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # opcheck's own
def test_the_op_keeps_its_promises_to_the_compiler():
    q, k, v, _ = inputs([20, 5, 23], 4, 2, 8, torch.float32)
    for needs_gradient in (False, True):
        leaves = [x.clone().requires_grad_(needs_gradient) for x in (q, k, v)]
        for window in (0, 7):
            torch.library.opcheck(attention._attention, (*leaves, *bounds([20, 5, 23]), window))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_one_graph_whatever_the_documents(backend):
    def layer(q: Tensor, k: Tensor, v: Tensor, cu: Tensor, longest: int) -> Tensor:
        return document_attention(q * 2, k, v, cu, longest) + 1

    compiled = torch.compile(layer, fullgraph=True, backend=backend, dynamic=True)
    for lengths in ([20, 5, 23], [48], [1, 2, 3, 42]):
        q, k, v, grad = inputs(lengths, 4, 2, 8, torch.float32)
        cu, longest = bounds(lengths)
        got = with_gradients(lambda *x, c=cu, m=longest: compiled(*x, c, m), q, k, v, grad)
        want = with_gradients(lambda *x, c=cu, m=longest: layer(*x, c, m), q, k, v, grad)
        for ours, eager in zip(got, want, strict=True):
            torch.testing.assert_close(ours, eager)


@pytest.mark.parametrize(
    "recompute,autocast", [(False, False), (True, False), (False, True), (True, True)]
)
def test_two_compiled_graphs_for_thirty_steps(monkeypatch, recompute, autocast):
    """Documents, targets and lengths change from step to step; forward and backward are compiled
    once for the last block, and once for all others.
    """
    torch.manual_seed(0)
    model = make_model(
        ModelConfig(layers=4, width=16, heads=4, kv_heads=2, mlp_width=24, context=512), VOCAB_SIZE
    )
    if not autocast:
        model.double()
    torch.compiler.reset()
    traced = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", traced)
    compiled = copy.deepcopy(model)
    compile_units(compiled)
    compiled.recompute(recompute)
    targets, places, bounds = set(), set(), set()
    torch._dynamo.utils.counters.clear()
    # The first batch has as many predictions as tokens, which later ones have not.
    rows = random_rows(30, 3, 512, 500, 1.0)
    first = make_batch(rows, rows["loss_mask"].reshape(-1) * 1.0, "dense")
    assert len(first.predict_at_M) == len(first.ids_N)
    bf16 = precision(torch.device("cpu"), autocast)
    with sizes_apart():
        with bf16:
            loss, _ = weighted_loss(predicting_states(compiled, first), compiled.head_VC, first)
        loss.backward()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for step in range(30):
            rows = random_rows(step, 3, 512, (2, 40, 500)[step % 3], (0.0, 0.1, 0.4, 0.9)[step % 4])
            batch = make_batch(rows, rows["loss_mask"].reshape(-1) * 1.0)
            targets.add(batch.targets)
            places.add(len(batch.predict_at_M))
            bounds.add(len(batch.cu_seqlens))
            losses = []
            for one in (compiled, model) if step % 5 == 0 else (compiled,):
                with bf16:
                    loss, _ = weighted_loss(predicting_states(one, batch), one.head_VC, batch)
                losses.append((loss, *torch.autograd.grad(loss, list(one.parameters()))))
            for ours, eager in zip(losses[0], losses[-1], strict=True):
                # Compiled code rounds to bf16 elsewhere.
                close = (0.03 if autocast else 1e-10) * eager.norm()
                assert (ours - eager).norm() <= close
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
    assert not torch._dynamo.utils.counters["graph_break"]
    assert len(targets) > 15 and len(places) > 3 and len(bounds) > 1
