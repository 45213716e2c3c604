"""The CUDA path of attention with a stand-in for its kernels, and the self-check of a run."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import varlen

from sabiprep.errors import TrainError
from sabitrain.attention import documents as attention
from sabitrain.attention import flash
from sabitrain.attention.check import check_attention
from sabitrain.attention.documents import document_attention
from sabitrain.config import ModelConfig
from sabitrain.data.batches import make_batch
from sabitrain.models.llama import Llama
from sabitrain.models.loss import predicting_states, weighted_loss
from support.train.attention_reference import bounds, dense, inputs, with_gradients
from support.train.tiny import VOCAB_SIZE, random_rows


def test_every_argument_that_the_installed_flash_ops_want_is_given():
    """The CUDA path without CUDA: the ops' own shape rules, on tensors that hold nothing."""
    lengths = [20, 5, 23]
    with FakeTensorMode():
        q, k, v, grad = (
            torch.empty(sum(lengths), heads, 16, dtype=torch.bfloat16, device="cuda")
            for heads in (4, 2, 2, 4)
        )
        cu = torch.empty(len(lengths) + 1, dtype=torch.int32, device="cuda")
        assert attention._backend(q) is flash
        out, lse = flash.forward(q, k, v, cu, 23)
        assert (out.shape, out.dtype, lse.shape, lse.dtype) == (
            q.shape,
            q.dtype,
            (4, 48),
            torch.float32,
        )
        grads = flash.backward(grad, q, k, v, out, lse, cu, 23)
        assert [(x.shape, x.dtype) for x in grads] == [(x.shape, x.dtype) for x in (q, k, v)]


class StandIn:
    """`torch.nn.attention.varlen` on the CPU: ops of the same schema, segment by segment in
    float32.

    As strict as the kernels: half precision, as many key as query heads, int32 bounds, lengths up
    to what was said.
    """

    def __init__(self, causal: bool = True) -> None:
        self.calls = Counter[str]()
        self.causal = causal
        self._varlen_attn = self.declared("_varlen_attn", self.forward)
        self._varlen_attn_backward = self.declared("_varlen_attn_backward", self.backward)

    def declared(self, name: str, function):
        def op(**arguments):
            self.calls[name] += 1
            return function(**arguments)

        op._opoverload = getattr(varlen, name)._opoverload
        return op

    def probabilities(self, q, k, v, bounds, longest, window_size, is_causal):
        """Where each segment is, its probabilities [h, n, m] and log-sum-exps [h, n]."""
        assert (
            q.dtype == k.dtype == v.dtype
            and q.dtype.itemsize == 2
            and q.shape == k.shape == v.shape
        )
        assert (
            bounds.dtype == torch.int32
            and bounds[-1] == len(q)
            and is_causal
            and window_size == [-1, 0]
        )
        for start, end in itertools.pairwise(bounds.tolist()):
            assert end - start <= longest
            scores = (
                torch.einsum("nhd,mhd->hnm", q[start:end].float(), k[start:end].float())
                * q.shape[2] ** -0.5
            )
            if self.causal:
                scores = scores.masked_fill(
                    torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf
                )
            yield slice(start, end), scores.softmax(-1), scores.logsumexp(-1)

    @torch.autocast("cpu", enabled=False)
    def forward(self, query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal, window_size):
        assert cu_seq_q is cu_seq_k and max_q == max_k
        out, lse = torch.empty_like(query), torch.empty(query.shape[1], len(query))
        for at, weights, sums in self.probabilities(
            query, key, value, cu_seq_q, max_q, window_size, is_causal
        ):
            out[at] = torch.einsum("hnm,mhd->nhd", weights, value[at].float()).to(query.dtype)
            lse[:, at] = sums
        return out, lse, torch.zeros(2, dtype=torch.uint64)

    def backward(
        self,
        grad_out,
        query,
        key,
        value,
        out,
        lse,
        cu_seq_q,
        cu_seq_k,
        max_q,
        max_k,
        is_causal,
        rng_state,
        window_size,
    ):
        assert (
            cu_seq_q is cu_seq_k
            and max_q == max_k
            and rng_state.dtype == torch.uint64
            and rng_state.shape == (2,)
        )
        dq, dk, dv = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        for at, weights, sums in self.probabilities(
            query, key, value, cu_seq_q, max_q, window_size, is_causal
        ):
            assert torch.equal(lse[:, at], sums)
            grad, scale = grad_out[at].float(), query.shape[2] ** -0.5
            dv[at] = torch.einsum("hnm,nhd->mhd", weights, grad).to(query.dtype)
            dweights = torch.einsum("nhd,mhd->hnm", grad, value[at].float())
            dscores = weights * (dweights - (grad * out[at].float()).sum(-1).T[:, :, None]) * scale
            dq[at] = torch.einsum("hnm,mhd->nhd", dscores, key[at].float()).to(query.dtype)
            dk[at] = torch.einsum("hnm,nhd->mhd", dscores, query[at].float()).to(query.dtype)
        return dq, dk, dv


@pytest.fixture
def stand_in(monkeypatch) -> StandIn:
    """The CUDA path on the CPU, all of it but the kernels."""
    kernels = StandIn()
    monkeypatch.setattr(flash, "varlen", kernels)
    monkeypatch.setattr(flash, "takes", lambda q: q.dtype.itemsize == 2)
    return kernels


@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (3, 1)])
@pytest.mark.parametrize("lengths", [[20, 5, 23], [1], [3, 17, 1, 64, 0, 0, 0]])
def test_the_flash_path_equals_the_dense_reference(stand_in, heads, lengths):
    q, k, v, grad = inputs(lengths, *heads, 16, torch.bfloat16)
    got = with_gradients(lambda *x: document_attention(*x, *bounds(lengths)), q, k, v, grad)
    want = with_gradients(lambda *x: dense(*x, lengths), *(x.double() for x in (q, k, v, grad)))
    assert stand_in.calls == {"_varlen_attn": 1, "_varlen_attn_backward": 1}
    for ours, reference, like in zip(got, want, (q, q, k, v), strict=True):
        assert ours.dtype == torch.bfloat16 and ours.shape == like.shape
        torch.testing.assert_close(ours.double(), reference, rtol=6e-2, atol=6e-2)


def test_a_model_in_half_precision_takes_the_flash_path(stand_in):
    torch.manual_seed(0)
    model = Llama(
        ModelConfig(layers=2, width=32, heads=4, kv_heads=2, mlp_width=24, context=64), VOCAB_SIZE
    )
    rows = random_rows(0, 3, 64, 20, 0.5)
    batch, losses = make_batch(rows, rows["loss_mask"].reshape(-1) / 100), []
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss, _ = weighted_loss(predicting_states(model, batch), model.head_VC, batch)
        loss.backward()
        losses.append(loss.item())
    assert stand_in.calls == {"_varlen_attn": 2, "_varlen_attn_backward": 2}
    assert losses[1] == pytest.approx(losses[0], rel=1e-2) and losses[0] != losses[1]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # opcheck's own
def test_the_flash_path_keeps_its_promises_to_the_compiler(stand_in):
    q, k, v, _ = inputs([20, 5, 23], 4, 2, 8, torch.bfloat16)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    torch.library.opcheck(attention._attention, (*leaves, *bounds([20, 5, 23])))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_self_check_passes_what_is_right(dtype):
    check_attention(4, 2, 16, torch.device("cpu"), dtype)


def test_the_self_check_refuses_what_is_wrong(stand_in, monkeypatch):
    check_attention(4, 2, 16, torch.device("cpu"), torch.bfloat16)
    assert stand_in.calls == {"_varlen_attn": 1, "_varlen_attn_backward": 1}
    right = flash.backward
    monkeypatch.setattr(
        flash, "backward", lambda *x: (right(*x)[0], right(*x)[1] * 2, right(*x)[2])
    )
    with pytest.raises(TrainError, match=r"wrong by .*\(dk\)(.|\n)*--device cpu"):
        check_attention(4, 2, 16, torch.device("cpu"), torch.bfloat16)
    monkeypatch.setattr(flash, "varlen", StandIn(causal=False))
    with pytest.raises(TrainError, match=r"wrong by .*\(output\)"):
        check_attention(4, 2, 16, torch.device("cpu"), torch.bfloat16)
    forward = flash.forward
    monkeypatch.setattr(flash, "forward", lambda *x: (forward(*x)[0] * torch.nan, forward(*x)[1]))
    with pytest.raises(TrainError, match="wrong by nan"):
        check_attention(4, 2, 16, torch.device("cpu"), torch.bfloat16)


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
