"""The CUDA path of attention with a stand-in for its kernels, and the self-check of a run."""

from __future__ import annotations

import importlib.util
import itertools
from collections import Counter

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from sabiprep.errors import TrainError
from sabitrain.attention import documents as attention
from sabitrain.attention import flash
from sabitrain.attention.check import check_attention
from sabitrain.attention.documents import document_attention
from sabitrain.config import ModelConfig
from sabitrain.data.batches import make_batch
from sabitrain.models.architecture import make_model
from sabitrain.models.loss import predicting_states, weighted_loss
from support.train.attention_reference import bounds, dense, inputs, with_gradients
from support.train.tiny import VOCAB_SIZE, random_rows

LENGTHS = [20, 5, 23, 17, 31, 2]
ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def choose(monkeypatch, kernel: str) -> None:
    """Chooses kernels whether this machine has them or not."""
    monkeypatch.setattr(flash, "_chosen", flash._BACKENDS[kernel])


def on_cuda() -> tuple[list[torch.Tensor], torch.Tensor]:
    """Queries, keys, values and the gradient of three segments, and their bounds."""
    tensors = [
        torch.empty(48, heads, 16, dtype=torch.bfloat16, device="cuda") for heads in (4, 2, 2, 4)
    ]
    return tensors, torch.empty(4, dtype=torch.int32, device="cuda")


def described(tensors) -> list[tuple]:
    return [(x.shape, x.dtype, x.device, x.stride()) for x in tensors]


def test_every_argument_that_the_installed_flash_ops_want_is_given():
    """The CUDA path without CUDA: the ops' own shape rules, on tensors that hold nothing."""
    with FakeTensorMode():
        (q, k, v, grad), cu = on_cuda()
        assert attention._backend(q) is flash
        out, lse = flash.forward(q, k, v, cu, 23)
        assert described((out, lse)) == described(
            (q, torch.empty(4, 48, dtype=torch.float32, device="cuda"))
        )
        grads = flash.backward(grad, q, k, v, out, lse, cu, 23)
        assert described(grads) == described((q, k, v))


@pytest.mark.parametrize("kernel", ["flash2", "cudnn", "flash3"])
def test_the_shapes_of_the_op_on_cuda(monkeypatch, kernel):
    choose(monkeypatch, kernel)
    with FakeTensorMode():
        (q, k, v, grad), cu = on_cuda()
        out, lse = attention._attention(q, k, v, cu, 23, 0)
        assert described((out, lse)) == described(
            (q, torch.empty(4, 48, dtype=torch.float32, device="cuda"))
        )
        grads = attention._attention_backward(grad, q, k, v, out, lse, cu, 23, 0)
        assert described(grads) == described((q, k, v))


class StandIn:
    """The kernels on the CPU, behind torch's own ops: segment by segment in float32.

    As strict as the kernels: half precision, whole groups of query heads, int32 bounds, the same
    for queries and keys, lengths up to what was said.
    """

    def __init__(self) -> None:
        self.calls = Counter[str]()
        self.causal = True

    def install(self, library: torch.library.Library) -> None:
        """Registers the kernels for CPU tensors; torch checks each call against its schema."""
        for name, kernel in (
            ("_flash_attention_forward", self.flash_forward),
            ("_flash_attention_backward", self.flash_backward),
            ("_cudnn_attention_forward", self.cudnn_forward),
            ("_cudnn_attention_backward", self.cudnn_backward),
        ):
            library.impl(name, kernel, "CPU")

    def segments(self, q, k, v, cu_q, cu_k, max_q, max_k, dropout, causal, before=-1):
        """Where each segment is, its keys and values by query head, its probabilities [h, n, m]
        and its log-sum-exps [h, n].
        """
        assert q.dtype == k.dtype == v.dtype and q.dtype.itemsize == 2
        assert k.shape == v.shape and len(k) == len(q) and q.shape[2] == k.shape[2]
        assert q.shape[1] % k.shape[1] == 0 and q.shape[2] % 8 == 0 and q.shape[2] <= 256
        assert q.stride(2) == k.stride(2) == v.stride(2) == 1
        assert cu_q is cu_k and cu_q.dtype == torch.int32 and cu_q.is_contiguous()
        assert cu_q[0] == 0 and cu_q[-1] == len(q) and max_q == max_k
        assert dropout == 0 and causal is True
        k, v = (x.float().repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
        for start, end in itertools.pairwise(cu_q.tolist()):
            assert 0 <= end - start <= max_q
            scores = torch.einsum("nhd,mhd->hnm", q[start:end].float(), k[start:end])
            scores *= q.shape[2] ** -0.5
            if self.causal:
                future = torch.ones_like(scores, dtype=torch.bool).triu(1)
                too_old = torch.ones_like(future).tril(-before - 1) & (before >= 0)
                scores = scores.masked_fill(future | too_old, -torch.inf)
            at = slice(start, end)
            yield at, k[at], v[at], scores.softmax(-1), scores.logsumexp(-1)

    @torch.autocast("cpu", enabled=False)
    def forward(self, q, *rest):
        out, lse = torch.empty_like(q), torch.empty(q.shape[1], len(q))
        for at, _, v, weights, sums in self.segments(q, *rest):
            out[at] = torch.einsum("hnm,mhd->nhd", weights, v).to(q.dtype)
            lse[:, at] = sums
        return out, lse

    def backward(self, grad, q, k, v, out, lse, *rest):
        assert grad.dtype == out.dtype == q.dtype and grad.is_contiguous()
        assert grad.shape == out.shape == q.shape and lse.dtype == torch.float32
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        groups = (k.shape[1], q.shape[1] // k.shape[1])
        for at, wide_k, wide_v, weights, sums in self.segments(q, k, v, *rest):
            assert torch.equal(lse[:, at].nan_to_num(7), sums.nan_to_num(7))
            dout, scale = grad[at].float(), q.shape[2] ** -0.5
            dweights = torch.einsum("nhd,mhd->hnm", dout, wide_v)
            dscores = weights * (dweights - (dout * out[at].float()).sum(-1).T[:, :, None]) * scale
            dq[at] = torch.einsum("hnm,mhd->nhd", dscores, wide_k).to(q.dtype)
            wide_dk = torch.einsum("hnm,nhd->mhd", dscores, q[at].float())
            wide_dv = torch.einsum("hnm,nhd->mhd", weights, dout)
            dk[at] = wide_dk.unflatten(1, groups).sum(2).to(q.dtype)
            dv[at] = wide_dv.unflatten(1, groups).sum(2).to(q.dtype)
        return dq, dk, dv

    def flash_forward(
        self,
        q,
        k,
        v,
        cu_q,
        cu_k,
        max_q,
        max_k,
        dropout,
        causal,
        debug,
        *,
        window_size_left,
        window_size_right,
    ):
        self.calls["flash forward"] += 1
        assert (window_size_right, debug) == (0, False)
        window = dropout, causal, window_size_left
        out, lse = self.forward(q, k, v, cu_q, cu_k, max_q, max_k, *window)
        state = torch.empty(2, dtype=torch.uint64)
        return out, lse, state, torch.empty((), dtype=torch.uint64), q.new_empty(0)

    def flash_backward(
        self,
        grad,
        q,
        k,
        v,
        out,
        lse,
        cu_q,
        cu_k,
        max_q,
        max_k,
        dropout,
        causal,
        state,
        unused,
        *,
        window_size_left,
        window_size_right,
    ):
        self.calls["flash backward"] += 1
        assert window_size_right == 0
        assert state.dtype == torch.uint64 and state.shape == (2,)
        window = dropout, causal, window_size_left
        return self.backward(grad, q, k, v, out, lse, cu_q, cu_k, max_q, max_k, *window)

    def cudnn_forward(
        self, q, k, v, bias, cu_q, cu_k, max_q, max_k, with_lse, dropout=0.0, causal=False
    ):
        self.calls["cudnn forward"] += 1
        assert bias is None and with_lse and max_q > 128 and q.shape[2] <= 128
        out, lse = self.forward(q, k, v, cu_q, cu_k, max_q, max_k, dropout, causal)
        state = torch.empty((), dtype=torch.int64)
        return out, lse, cu_q, cu_k, max_q, max_k, state, state.clone(), q.new_empty(0)

    def cudnn_backward(
        self, grad, q, k, v, out, lse, seed, offset, bias, cu_q, cu_k, max_q, max_k, dropout, causal
    ):
        self.calls["cudnn backward"] += 1
        assert bias is None and max_q > 128 and seed.dtype == offset.dtype == torch.int64
        return self.backward(grad, q, k, v, out, lse, cu_q, cu_k, max_q, max_k, dropout, causal)


@pytest.fixture
def stand_in(monkeypatch):
    """The CUDA path on the CPU, all of it but the kernels, for the time of a test."""
    kernels = StandIn()
    with torch.library._scoped_library("aten", "IMPL") as library:
        kernels.install(library)
        monkeypatch.setattr(flash, "takes", lambda q: q.dtype.itemsize == 2)
        yield kernels


def results_of(lengths: list[int], tensors) -> list[torch.Tensor]:
    return with_gradients(lambda *x: document_attention(*x, *bounds(lengths)), *tensors)


@pytest.mark.parametrize("kernel", ["flash2", "cudnn"])
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (3, 1)])
@pytest.mark.parametrize("lengths", [[20, 5, 23], [1], [1, 1, 0], [3, 0, 17, 1, 64, 0, 0, 0]])
def test_the_flash_path_equals_the_dense_reference(stand_in, monkeypatch, kernel, heads, lengths):
    choose(monkeypatch, kernel)
    q, k, v, grad = inputs(lengths, *heads, 16, torch.bfloat16)
    got = results_of(lengths, (q, k, v, grad))
    want = with_gradients(lambda *x: dense(*x, lengths), *(x.double() for x in (q, k, v, grad)))
    name = kernel.rstrip("2")
    assert stand_in.calls == {f"{name} forward": 1, f"{name} backward": 1}
    for ours, reference, like in zip(got, want, (q, q, k, v), strict=True):
        assert ours.dtype == torch.bfloat16 and ours.shape == like.shape
        torch.testing.assert_close(ours.double(), reference, rtol=6e-2, atol=6e-2)


def test_empty_segments_change_no_bit(stand_in):
    tensors = inputs(LENGTHS, 4, 2, 8, torch.bfloat16)
    want = results_of(LENGTHS, tensors)
    for lengths in ([*LENGTHS, 0, 0], [*LENGTHS[:3], 0, *LENGTHS[3:]], [0, *LENGTHS]):
        for ours, without in zip(results_of(lengths, tensors), want, strict=True):
            assert torch.equal(ours, without)


def poisoned(tensors, changed: slice) -> list[torch.Tensor]:
    """The same tensors with NaN in some rows."""
    copies = [x.clone() for x in tensors]
    for x in copies:
        x[changed] = torch.nan
    return copies


def test_nan_stays_in_its_document(stand_in):
    tensors, changed = inputs(LENGTHS, 4, 2, 8, torch.bfloat16), slice(25, 48)
    results = [results_of(LENGTHS, case) for case in (tensors, poisoned(tensors, changed))]
    others = torch.ones(sum(LENGTHS), dtype=torch.bool)
    others[changed] = False
    for before, after in zip(*results, strict=True):
        assert torch.equal(before[others], after[others])
        assert after[changed].isnan().all()


def test_a_model_in_half_precision_takes_the_flash_path(stand_in):
    torch.manual_seed(0)
    model = make_model(
        ModelConfig(layers=2, width=32, heads=4, kv_heads=2, mlp_width=24, context=64), VOCAB_SIZE
    )
    rows = random_rows(0, 3, 64, 20, 0.5)
    batch, losses = make_batch(rows, rows["loss_mask"].reshape(-1) / 100), []
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss, _ = weighted_loss(predicting_states(model, batch), model.head_VC, batch)
        loss.backward()
        losses.append(loss.item())
    assert stand_in.calls == {"flash forward": 2, "flash backward": 2}
    assert losses[1] == pytest.approx(losses[0], rel=1e-2) and losses[0] != losses[1]


@pytest.mark.parametrize("kernel", ["flash2", "cudnn"])
@pytest.mark.parametrize("window", [1, 7])
def test_a_window_holds_so_many_tokens_and_cudnn_leaves_it_to_flash(
    stand_in, monkeypatch, kernel, window
):
    choose(monkeypatch, kernel)
    lengths = [20, 1, 5, 23]
    tensors = inputs(lengths, 4, 2, 8, torch.bfloat16)
    got = with_gradients(lambda *x: document_attention(*x, *bounds(lengths), window), *tensors)
    want = with_gradients(lambda *x: dense(*x, lengths, window), *(x.double() for x in tensors))
    for ours, reference in zip(got, want, strict=True):
        torch.testing.assert_close(ours.double(), reference, rtol=6e-2, atol=6e-2)
    assert stand_in.calls == {"flash forward": 1, "flash backward": 1}


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # opcheck's own
@pytest.mark.parametrize("kernel", ["flash2", "cudnn"])
def test_the_flash_path_keeps_its_promises_to_the_compiler(stand_in, monkeypatch, kernel):
    choose(monkeypatch, kernel)
    q, k, v, _ = inputs([20, 5, 23], 4, 2, 8, torch.bfloat16)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    for window in (0, 4):
        torch.library.opcheck(attention._attention, (*leaves, *bounds([20, 5, 23]), window))


def test_the_flash_path_is_one_compiled_graph(stand_in):
    def layer(q, k, v, cu, longest):
        return document_attention(q * 2, k, v, cu, longest) + 1

    torch.compiler.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=True)
    for lengths in ([20, 5, 23], [48], [1, 2, 0, 45]):
        tensors = inputs(lengths, 4, 2, 8, torch.bfloat16)
        cu, longest = bounds(lengths)
        got, want = (
            with_gradients(lambda *x, f=f, c=cu, m=longest: f(*x, c, m), *tensors)
            for f in (compiled, layer)
        )
        for ours, eager in zip(got, want, strict=True):
            assert torch.equal(ours, eager)
    assert stand_in.calls == {"flash forward": 6, "flash backward": 6}


def test_a_second_derivative_is_refused(stand_in):
    q, k, v, _ = inputs([20, 5], 4, 2, 8, torch.bfloat16)
    out = document_attention(q.requires_grad_(), k, v, *bounds([20, 5]))
    (dq,) = torch.autograd.grad(out.square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        dq.sum().backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_self_check_passes_what_is_right(dtype):
    check_attention(4, 2, 16, torch.device("cpu"), dtype)


def test_the_self_check_refuses_what_is_wrong(stand_in, monkeypatch):
    check_attention(4, 2, 16, torch.device("cpu"), torch.bfloat16)
    assert stand_in.calls == {"flash forward": 2, "flash backward": 1}
    right = flash.backward
    monkeypatch.setattr(
        flash, "backward", lambda *x: (right(*x)[0], right(*x)[1] * 2, right(*x)[2])
    )
    with pytest.raises(TrainError, match=r"wrong by .*\(dk\)(.|\n)*--device cpu"):
        check_attention(4, 2, 16, torch.device("cpu"), torch.bfloat16)
    stand_in.causal = False
    with pytest.raises(TrainError, match=r"wrong by .*\(output\)"):
        check_attention(4, 2, 16, torch.device("cpu"), torch.bfloat16)
    forward = flash.forward
    monkeypatch.setattr(flash, "forward", lambda *x: (forward(*x)[0] * torch.nan, forward(*x)[1]))
    with pytest.raises(TrainError, match="wrong by nan"):
        check_attention(4, 2, 16, torch.device("cpu"), torch.bfloat16)


def test_the_self_check_goes_through_the_chosen_kernels(stand_in, monkeypatch):
    choose(monkeypatch, "cudnn")
    check_attention(4, 2, 16, torch.device("cpu"), torch.bfloat16)
    assert stand_in.calls == {"cudnn forward": 2, "cudnn backward": 1}


def test_a_kernel_that_fails_is_refused_in_words(monkeypatch):
    def fail(*_):
        raise RuntimeError("no kernel image is available\nCompile with TORCH_USE_CUDA_DSA")

    monkeypatch.setattr(flash, "takes", lambda q: True)
    monkeypatch.setattr(flash, "forward", fail)
    with pytest.raises(
        TrainError, match=r"cpu in torch.bfloat16 fails: no kernel image is available\n.*update"
    ):
        check_attention(4, 2, 16, torch.device("cpu"), torch.bfloat16)
    # No kernels of torch's own for the CPU: the failure of the op itself.
    monkeypatch.undo()
    monkeypatch.setattr(flash, "takes", lambda q: True)
    with pytest.raises(TrainError, match=r"fails: Could not run 'aten::_flash_attention_forward"):
        check_attention(4, 2, 16, torch.device("cpu"), torch.bfloat16)


def test_kernels_that_do_not_run_here_are_refused(monkeypatch):
    chosen = flash._chosen
    with pytest.raises(TrainError, match=r"no attention kernel 'flash4'\n.*flash2, cudnn, flash3"):
        flash.use("flash4")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TrainError, match=r"flash_attn_interface is not installed\n.*9\.0, or use"):
        flash.use("flash3")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    with pytest.raises(TrainError, match=r"compute capability 9\.0, and the GPU has 8\.6"):
        flash.use("flash3", torch.device("cuda"))
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91701)
    with pytest.raises(
        TrainError, match=r"cudnn does not run here: (torch 2|it needs cuDNN 9\.18)"
    ):
        flash.use("cudnn")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 92400)
    with pytest.raises(TrainError, match=r"cudnn does not run here: (torch 2|.*9\.0 or 10\.x)"):
        flash.use("cudnn")
    with pytest.raises(TrainError, match=r"cudnn does not run here: (torch 2|.*there is none)"):
        flash.use("cudnn", torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    # The package is not there after all: torch's own refusal.
    with pytest.raises(TrainError, match=r"flash3 does not run here: No module named"):
        flash.use("flash3")
    assert flash._chosen is chosen


def test_flash_attention_3_is_activated_and_restored(monkeypatch):
    active = []
    monkeypatch.setattr(flash, "_chosen", flash._chosen)
    monkeypatch.setattr(flash, "_capability_fault", lambda device, majors, names: "")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(flash, "activate_flash_attention_impl", active.append)
    monkeypatch.setattr(flash, "current_flash_attention_impl", lambda: (active or [None])[-1])
    monkeypatch.setattr(flash, "restore_flash_attention_impl", active.clear)
    flash.use("flash3")
    assert active == ["FA3"] and flash._chosen is flash._BACKENDS["flash3"]
    flash.use("flash2")
    assert active == [] and flash._chosen is flash._BACKENDS["flash2"]


@pytest.mark.parametrize(
    ("kv_heads", "head_size", "bytes_wanted"),
    [
        # 1,000 + 64 * 128 = 9,192 rows of 4 heads, of 96 numbers for 80 and of 192 for 160.
        (4, 80, 9192 * 4 * 96 * 4 + 9192 * 4 * 4),
        (2, 80, 9192 * 4 * 96 * 4 + 9192 * 4 * 4 + 2 * 1000 * 4 * 80 * 2),
        (4, 160, 9192 * 4 * 192 * 4 + 9192 * 4 * 4),
    ],
)
def test_the_workspace_of_the_backward_pass(kv_heads, head_size, bytes_wanted):
    assert flash.workspace_bytes(1000, 64, 4, kv_heads, head_size) == bytes_wanted
    assert flash.kept_bytes(1000, 4) == 16_000


@pytest.fixture(params=["flash2", "cudnn", "flash3"])
def kernel_of_gpu(request, monkeypatch):
    """Each of the kernels that the GPU runs."""
    try:
        flash.use(request.param)
    except TrainError as error:
        pytest.skip(str(error))
    yield request.param
    flash.use("flash2")


@ON_GPU
@pytest.mark.parametrize("heads", [(4, 4), (4, 2)])
@pytest.mark.parametrize("lengths", [[200, 5, 333, 0, 64, 1, 129, 0, 0], [1, 1, 0]])
def test_flash_equals_the_dense_reference(kernel_of_gpu, heads, lengths):
    q, k, v, grad = inputs(lengths, *heads, 64, torch.bfloat16)
    cu, longest = bounds(lengths)
    on_gpu = [x.cuda() for x in (q, k, v, grad)]
    got = with_gradients(lambda *x: document_attention(*x, cu.cuda(), longest), *on_gpu)
    want = with_gradients(lambda *x: dense(*x, lengths), *(x.double() for x in (q, k, v, grad)))
    for ours, reference in zip(got, want, strict=True):
        torch.testing.assert_close(ours.cpu().double(), reference, rtol=3e-2, atol=3e-2)


@ON_GPU
def test_nan_stays_in_its_document_on_a_gpu(kernel_of_gpu):
    lengths, changed = [200, 5, 333, 64, 1, 129], slice(205, 538)
    cu, longest = bounds(lengths)
    tensors = [x.cuda() for x in inputs(lengths, 4, 2, 64, torch.bfloat16)]
    others = torch.ones(sum(lengths), dtype=torch.bool)
    others[changed] = False
    results = [
        with_gradients(lambda *x: document_attention(*x, cu.cuda(), longest), *case)
        for case in (tensors, poisoned(tensors, changed))
    ]
    assert torch.equal(results[0][0][others], results[1][0][others])
    # Gradients are added up by many blocks at once: their order, and so the last bit, may change.
    for before, after in zip(*results, strict=True):
        torch.testing.assert_close(before[others], after[others])
