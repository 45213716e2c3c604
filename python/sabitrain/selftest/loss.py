"""The loss of a micro-batch: its time, its memory and its error, in each way to compute it.

Dimensions: M predictions, C width, V vocabulary.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from sabitrain.data.batches import Batch
from sabitrain.device import precision
from sabitrain.models import loss as losses
from sabitrain.models.loss import compiled_chunk, eager_chunk, weighted_loss
from sabitrain.selftest.bench import Bench, Outcome, Part, relative_error

Way = Literal["compiled", "eager", "rounded", "liger"]
_WAYS: tuple[Way, ...] = ("compiled", "eager", "rounded", "liger")
_SIZES = ((768, 52_000), (2048, 52_000), (768, 128_256), (2048, 128_256))
_SMALL_SIZES = ((32, 600),)
# bf16 rounds the logits, their gradient, and the gradient of the states.
_TOLERANCE, _LOSS_TOLERANCE = 2e-2, 1e-3


class _Problem(NamedTuple):
    """States float[M, C], a head float32[V, C], and targets int64[M] of equal weight."""

    hidden_MC: Tensor
    head_VC: Tensor
    batch: Batch


def parts(bench: Bench) -> Sequence[Part]:
    """Returns a part for each size and way."""
    seconds = {"compiled": 25, "eager": 5, "rounded": 10, "liger": 15}
    return [
        Part(
            f"{width} by {vocab:,} {way}", seconds[way], partial(_measure, bench, width, vocab, way)
        )
        for width, vocab in (_SMALL_SIZES if bench.small else _SIZES)
        for way in _WAYS
    ]


def _measure(bench: Bench, width: int, vocab_size: int, way: Way) -> Outcome:
    """Times a way to compute the loss and its gradients, and compares them with float64."""
    missing = _why_not(bench, way)
    if missing is not None:
        return Outcome(None, why=missing)
    loss_of = _ways(bench)[way]
    with _rounding_the_head() if way == "rounded" else contextlib.nullcontext():
        few = _problem(bench, 256 if bench.small else 512, width, vocab_size)
        errors = _errors(bench, few, loss_of)
        del few
        many = _problem(bench, 256 if bench.small else 4096, width, vocab_size)

        def both() -> None:
            many.hidden_MC.grad = many.head_VC.grad = None
            loss_of(many).backward()  # type: ignore[no-untyped-call]

        milliseconds = bench.milliseconds(both, 10)
        many.hidden_MC.grad = many.head_VC.grad = None
        numbers = {"ms": milliseconds, "peak_mb": bench.peak_megabytes(both), **errors}
    right = errors["error_loss"] <= _LOSS_TOLERANCE and all(
        errors[name] <= _TOLERANCE for name in ("error_states", "error_head")
    )
    return Outcome(right, numbers, None if right else "further from float64 than bf16 explains")


def _why_not(bench: Bench, way: Way) -> str | None:
    """Returns why a way cannot be measured here, or None."""
    if way == "liger":
        if importlib.util.find_spec("liger_kernel") is None:
            return "liger_kernel is not installed"
        return "Liger's kernels are of CUDA" if bench.small else None
    if way == "rounded":
        # On a CPU no product gives a wider type than its inputs.
        usual = bench.device.type == "cuda" and losses._WIDE_MM
        return None if usual else "there is no product of out_dtype here"
    return None if way == "eager" else bench.cannot_compile()


def _ways(bench: Bench) -> dict[Way, Callable[[_Problem], Tensor]]:
    """Returns the functions of each way, which return the loss."""

    def ours(problem: _Problem, chunk: losses.Chunk) -> Tensor:
        with precision(bench.device, bench.bf16):
            return weighted_loss(problem.hidden_MC, problem.head_VC, problem.batch, 0.0, chunk)[0]

    chunk = compiled_chunk()

    def compiled(problem: _Problem) -> Tensor:
        return ours(problem, chunk)

    def eager(problem: _Problem) -> Tensor:
        return ours(problem, eager_chunk)

    return {"compiled": compiled, "eager": eager, "rounded": compiled, "liger": _liger}


def _liger(problem: _Problem) -> Tensor:
    """Returns the loss as Liger computes it, over the same products in bf16."""
    transformers: Any = importlib.import_module("liger_kernel.transformers")
    fused = transformers.LigerFusedLinearCrossEntropyLoss()
    head_VC, hidden_MC = problem.head_VC.bfloat16(), problem.hidden_MC.bfloat16()
    loss: Tensor = fused(head_VC, hidden_MC, problem.batch.targets_M)
    return loss


def _problem(bench: Bench, predictions: int, width: int, vocab_size: int) -> _Problem:
    """Returns states and a head whose logits spread as those of a model in training."""
    device = bench.device
    torch.manual_seed(0)
    hidden_MC = torch.randn(predictions, width, device=device)
    head_VC = torch.randn(vocab_size, width, device=device) / width**0.5
    targets_M = torch.randint(vocab_size, (predictions,), device=device)
    none = torch.zeros(1, dtype=torch.int64, device=device)
    batch = Batch(
        none,
        none,
        none.int(),
        1,
        none,
        targets_M,
        torch.full((predictions,), 1 / predictions, dtype=torch.float64, device=device),
        predictions,
        predictions,
    )
    # The states come out of a norm in float32.
    return _Problem(hidden_MC.requires_grad_(), head_VC.requires_grad_(), batch)


def _errors(
    bench: Bench, problem: _Problem, loss_of: Callable[[_Problem], Tensor]
) -> dict[str, float]:
    """Returns how far loss and gradients are from float64, over the same rounded inputs."""
    loss = loss_of(problem)
    loss.backward()  # type: ignore[no-untyped-call]
    got = loss.detach(), problem.hidden_MC.grad, problem.head_VC.grad
    dtype = torch.bfloat16 if bench.bf16 else torch.float32
    leaves = [
        x.detach().to(dtype).double().requires_grad_() for x in (problem.hidden_MC, problem.head_VC)
    ]
    expected = torch.nn.functional.cross_entropy(leaves[0] @ leaves[1].T, problem.batch.targets_M)
    gradients = torch.autograd.grad(expected, leaves)
    names = ("loss", "states", "head")
    return {
        f"error_{name}": relative_error(ours, theirs)
        for name, ours, theirs in zip(names, got, (expected.detach(), *gradients), strict=True)
        if ours is not None
    }


@contextlib.contextmanager
def _rounding_the_head() -> Iterator[None]:
    """Has products give bf16 inside the ``with``, not float32 by ``out_dtype``."""
    before = losses._WIDE_MM
    losses._WIDE_MM = False
    try:
        yield
    finally:
        losses._WIDE_MM = before
