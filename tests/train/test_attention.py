"""Document attention against a dense float64 reference, and nothing of one document in another."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from sabitrain import attention
from sabitrain.attention import document_attention


def dense(q: Tensor, k: Tensor, v: Tensor, lengths: list[int]) -> Tensor:
    """The oracle: every score of every pair of tokens, masked, in the type of the inputs."""
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    segment = torch.repeat_interleave(torch.tensor(lengths))
    position = torch.arange(len(segment))
    seen = (segment[:, None] == segment[None, :]) & (position[:, None] >= position[None, :])
    scores = torch.einsum("nhd,mhd->hnm", q, k) * q.shape[2] ** -0.5
    return torch.einsum("hnm,mhd->nhd", scores.masked_fill(~seen, -torch.inf).softmax(-1), v)


def inputs(lengths: list[int], heads: int, kv_heads: int, size: int, dtype: torch.dtype, seed: int = 0) -> list[Tensor]:
    """Queries, keys, values and the gradient of the output."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(sum(lengths), h, size) for h in (heads, kv_heads, kv_heads, heads)]
    return [torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype) for shape in shapes]


def bounds(lengths: list[int]) -> tuple[Tensor, int]:
    return torch.tensor([0, *lengths]).cumsum(0).int(), max(lengths)


def with_gradients(function, q, k, v, grad) -> list[Tensor]:
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    out = function(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad)]


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    heads=st.sampled_from([(4, 4), (4, 2), (3, 1)]),
    size=st.sampled_from([2, 8]),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
)
def test_output_and_gradients_equal_the_dense_reference(lengths, heads, size, dtype):
    q, k, v, grad = inputs(lengths, *heads, size, dtype)
    got = with_gradients(lambda *x: document_attention(*x, *bounds(lengths)), q, k, v, grad)
    want = with_gradients(lambda *x: dense(*x, lengths), *(x.double() for x in (q, k, v, grad)))
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 6e-2}[dtype]
    for ours, reference, like in zip(got, want, (q, q, k, v), strict=True):
        assert ours.dtype == dtype and ours.shape == like.shape
        torch.testing.assert_close(ours.double(), reference, rtol=tolerance, atol=tolerance)


def test_gradients_equal_finite_differences():
    lengths = [3, 1, 17]
    q, k, v, _ = inputs(lengths, 2, 1, 4, torch.float64)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    assert torch.autograd.gradcheck(lambda *x: document_attention(*x, *bounds(lengths)), leaves)


def test_groups_are_cut_where_they_would_hold_too_many_scores(monkeypatch):
    lengths = [30, 31, 17, 32, 30, 5]
    q, k, v, grad = inputs(lengths, 2, 2, 4, torch.float64)
    want = with_gradients(lambda *x: document_attention(*x, *bounds(lengths)), q, k, v, grad)
    monkeypatch.setattr(attention, "_MAX_SCORES", 2 * 2 * 32 * 32)
    assert len(attention._lay_out(bounds(lengths)[0], 2).groups) == 4
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
    results = [with_gradients(lambda *x: document_attention(*x, *bounds(lengths)), *case) for case in (before, after)]
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
        torch.library.opcheck(attention._attention, (*leaves, *bounds([20, 5, 23])))


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


def test_every_argument_that_the_installed_flash_ops_want_is_given():
    """The CUDA path without CUDA: the ops' own shape rules, on tensors that hold nothing."""
    lengths = [20, 5, 23]
    with FakeTensorMode():
        q, k, v, grad = (
            torch.empty(sum(lengths), heads, 16, dtype=torch.bfloat16, device="cuda") for heads in (4, 2, 2, 4)
        )
        cu = torch.empty(len(lengths) + 1, dtype=torch.int32, device="cuda")
        assert attention._has_flash(q)
        out, lse = attention._flash_forward(q, k, v, cu, 23)
        assert (out.shape, out.dtype, lse.shape, lse.dtype) == (q.shape, q.dtype, (4, 48), torch.float32)
        grads = attention._flash_backward(grad, q, k, v, out, lse, cu, 23)
        assert [(x.shape, x.dtype) for x in grads] == [(x.shape, x.dtype) for x in (q, k, v)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("heads", [(4, 4), (4, 2)])
def test_flash_equals_the_dense_reference(heads):
    lengths = [200, 5, 333, 64, 1, 129]
    q, k, v, grad = inputs(lengths, *heads, 64, torch.bfloat16)
    cu, longest = bounds(lengths)
    on_gpu = [x.cuda() for x in (q, k, v, grad)]
    got = with_gradients(lambda *x: document_attention(*x, cu.cuda(), longest), *on_gpu)
    want = with_gradients(lambda *x: dense(*x, lengths), *(x.double() for x in (q, k, v, grad)))
    for ours, reference in zip(got, want, strict=True):
        torch.testing.assert_close(ours.cpu().double(), reference, rtol=3e-2, atol=3e-2)
