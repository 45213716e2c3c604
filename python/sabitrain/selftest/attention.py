"""Attention: whether it is right in every document and in no other, and how fast its kernels are.

Dimensions: N tokens, H query heads, K key and value heads, D dimensions of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from sabiprep.errors import TrainError
from sabitrain.attention import flash
from sabitrain.attention.check import check_attention
from sabitrain.attention.documents import document_attention
from sabitrain.attention.settings import Kernel
from sabitrain.data.batches import padded_segments
from sabitrain.selftest.bench import Bench, Outcome, Part, deterministic, relative_error

# Heads, key and value heads, dimensions of a head: those of 125m, 350m and 1b, and a wide one.
_SHAPES = ((12, 12, 64), (16, 16, 64), (32, 8, 64), (8, 2, 128))
_SMALL_SHAPES = ((3, 3, 8), (2, 2, 16), (4, 1, 16), (4, 2, 24))
# Kernels work in blocks of 64 and 128 tokens. The changed document stands between two others.
_LENGTHS = (128, 0, 1, 127, 2048, 129, 0, 1, 128)
_CHANGED = 3
# Of the root of the mean square. bf16 keeps 8 bits, of inputs, of probabilities and of the result.
_TOLERANCE = {torch.bfloat16: 2e-2, torch.float32: 1e-5}


class _Inputs(NamedTuple):
    """Queries, keys, values and the gradient of the output."""

    q: Tensor
    k: Tensor
    v: Tensor
    grad: Tensor


def exactness(bench: Bench) -> Sequence[Part]:
    """Returns a part for each shape, and on a CPU for each type."""
    shapes = _SMALL_SHAPES if bench.small else _SHAPES
    types = (torch.float32, torch.bfloat16) if bench.small else (torch.bfloat16,)
    return [
        Part(f"{'/'.join(map(str, shape))} {_name(dtype)}", 5, partial(_exact, bench, shape, dtype))
        for shape in shapes
        for dtype in types
    ]


def _exact(bench: Bench, shape: tuple[int, int, int], dtype: torch.dtype) -> Outcome:
    """Compares attention with float64, and one document's bits under changes of all others."""
    lengths = [min(length, 300) for length in _LENGTHS] if bench.small else list(_LENGTHS)
    tokens, longest = sum(lengths), max(lengths)
    bounds = _bounds(lengths, bench.device)
    inputs = _random(0, tokens, *shape, bench.device, dtype)
    got = _attend(inputs, bounds, longest)
    expected = _reference(inputs, lengths)
    names = ("output", "dq", "dk", "dv")
    errors = {
        f"error_{name}": relative_error(ours, theirs)
        for name, ours, theirs in zip(names, got, expected, strict=True)
    }
    faults = [
        f"{name} is {error:.2g}"
        for name, error in errors.items()
        # Not `error > tolerance`, which NaN would pass.
        if not error <= _TOLERANCE[dtype]
    ]
    faults += _changed_bits(inputs, lengths, bench.device)
    return Outcome(not faults, errors, "; ".join(faults) or None)


def _changed_bits(inputs: _Inputs, lengths: Sequence[int], device: torch.device) -> list[str]:
    """Returns what changes bits that it must not change."""
    bounds, longest = _bounds(lengths, device), max(lengths)
    start = sum(lengths[:_CHANGED])
    changed = slice(start, start + lengths[_CHANGED])
    others = torch.ones(sum(lengths), dtype=torch.bool, device=device)
    others[changed] = False
    random = _random(1, sum(lengths), *_shape(inputs), device, inputs.q.dtype)
    # Otherwise the kernels add gradients in any order. Both counts of segments are large enough
    # for FlashAttention to cut its sums in the same way.
    with deterministic():
        usual = _attend(inputs, bounds, longest)
        padded = _attend(inputs, _bounds([*lengths, *[0] * 64], device), longest)
        other = _attend(_with(inputs, changed, random), bounds, longest)
        nan = _Inputs(*(torch.full_like(x, torch.nan) for x in inputs))
        poisoned = _attend(_with(inputs, changed, nan), bounds, longest)
    faults = []
    if any(not _same(a, b) for a, b in zip(usual, padded, strict=True)):
        faults.append("empty segments change bits")
    if any(not _same(a[others], b[others]) for a, b in zip(usual, other, strict=True)):
        faults.append("a document changes bits of another")
    if any(not _same(a[others], b[others]) for a, b in zip(usual, poisoned, strict=True)):
        faults.append("NaN leaves its document")
    if _same(usual[0][changed], other[0][changed]):
        faults.append("a document does not heed its own tokens")
    if not poisoned[0][changed].isnan().any():
        faults.append("NaN is lost in its own document")
    return faults


def _attend(inputs: _Inputs, bounds: Tensor, longest: int) -> tuple[Tensor, ...]:
    """Returns the output, and the gradients of queries, keys and values."""
    q, k, v = (x.detach().requires_grad_() for x in inputs[:3])
    out = document_attention(q, k, v, bounds, longest)
    return out.detach(), *torch.autograd.grad(out, (q, k, v), inputs.grad)


def _reference(inputs: _Inputs, lengths: Sequence[int]) -> tuple[Tensor, ...]:
    """Returns the same in float64: each document by itself, all its scores at once."""
    q, k, v = (x.detach().double().requires_grad_() for x in inputs[:3])
    group = q.shape[1] // k.shape[1]
    outs = []
    for part_q, part_k, part_v in zip(
        *(torch.split(x, list(lengths)) for x in (q, k, v)), strict=True
    ):
        wide_k, wide_v = part_k.repeat_interleave(group, 1), part_v.repeat_interleave(group, 1)
        scores = torch.einsum("nhd,mhd->hnm", part_q, wide_k) / q.shape[2] ** 0.5
        later = torch.ones_like(scores[0], dtype=torch.bool).triu(1)
        weights = scores.masked_fill(later, -torch.inf).softmax(-1)
        outs.append(torch.einsum("hnm,mhd->nhd", weights, wide_v))
    out = torch.cat(outs)
    return out.detach(), *torch.autograd.grad(out, (q, k, v), inputs.grad.double())


def _random(
    seed: int,
    tokens: int,
    heads: int,
    kv_heads: int,
    size: int,
    device: torch.device,
    dtype: torch.dtype,
) -> _Inputs:
    """Returns normal inputs, the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    counts = (heads, kv_heads, kv_heads, heads)
    return _Inputs(
        *(
            torch.randn(tokens, count, size, generator=generator).to(device, dtype)
            for count in counts
        )
    )


def _with(inputs: _Inputs, place: slice, others: _Inputs) -> _Inputs:
    """Returns inputs that are others at a place."""
    made = _Inputs(*(x.clone() for x in inputs))
    for x, other in zip(made, others, strict=True):
        x[place] = other[place]
    return made


def _bounds(lengths: Sequence[int], device: torch.device) -> Tensor:
    """Returns where each segment starts, and their end; padded by empty ones as batches are."""
    spare = padded_segments(len(lengths)) - len(lengths)
    return torch.tensor([0, *lengths, *[0] * spare]).cumsum(0).to(device, torch.int32)


def _shape(inputs: _Inputs) -> tuple[int, int, int]:
    """Returns query heads, key and value heads, and the dimensions of a head."""
    return inputs.q.shape[1], inputs.k.shape[1], inputs.q.shape[2]


def _same(first: Tensor, second: Tensor) -> bool:
    """Returns whether two tensors have the same bits; zeros of either sign are the same."""
    return torch.equal(first, second)


def _name(dtype: torch.dtype) -> str:
    """Returns the name of a type."""
    return "bf16" if dtype == torch.bfloat16 else "float32"


def speed(bench: Bench) -> Sequence[Part]:
    """Returns a part for each kernel."""
    kernels: tuple[Kernel, ...] = get_args(Kernel)
    return [Part(kernel, 8, partial(_kernel_speed, bench, kernel)) for kernel in kernels]


def _kernel_speed(bench: Bench, kernel: Kernel) -> Outcome:
    """Checks a kernel, and times it on four mixes of documents, in the shape of 1b."""
    device = bench.device
    if device.type == "cpu" and kernel != "flash2":
        return Outcome(None, why="a kernel of CUDA")
    shape = _SMALL_SHAPES[2] if bench.small else _SHAPES[2]
    dtype = torch.bfloat16 if bench.bf16 else torch.float32
    if device.type == "cuda":
        try:
            flash.use(kernel, device)
        except TrainError as error:
            return Outcome(None, why=error.message)
    try:
        # On a CPU the usual attention is timed.
        check_attention(*shape, device, dtype)
        tokens, numbers = 512 if bench.small else 16_384, dict[str, float]()
        heads, kv_heads, size = shape
        # Drawn on the device: on the host so many would take a second.
        inputs = _Inputs(
            *(
                torch.randn(tokens, count, size, device=device, dtype=dtype)
                for count in (heads, kv_heads, kv_heads, heads)
            )
        )
        for name, lengths in _mixes(tokens).items():
            numbers |= _times(bench, name, lengths, inputs)
        return Outcome(True, numbers)
    except TrainError as error:
        return Outcome(False, why=error.message)
    finally:
        flash.use("flash2", device)


def _times(bench: Bench, name: str, lengths: Sequence[int], inputs: _Inputs) -> dict[str, float]:
    """Returns the milliseconds of both passes over documents, and their operations a second."""
    q, k, v = (x.detach().requires_grad_() for x in inputs[:3])
    bounds, longest = _bounds(lengths, bench.device), max(lengths)

    def forward() -> Tensor:
        return document_attention(q, k, v, bounds, longest)

    def both() -> object:
        return torch.autograd.grad(forward(), (q, k, v), inputs.grad)

    one, two = bench.milliseconds(forward, 20), bench.milliseconds(both, 20)
    # Causal pairs alone: two products forward, and four backward.
    pairs = sum(length * (length + 1) // 2 for length in lengths)
    flops = 12 * pairs * q.shape[1] * q.shape[2]
    return {
        f"{name}_tflops": flops / two / 1e9,
        f"{name}_ms": two,
        f"{name}_forward_ms": one,
    }


def _mixes(tokens: int) -> dict[str, list[int]]:
    """Returns the lengths of documents that fill so many tokens, by the name of the mix."""
    longest = min(2048, tokens)
    rng = np.random.default_rng(0)
    drawn: list[int] = []
    while sum(drawn) < tokens:
        length = int(np.exp(rng.uniform(np.log(16), np.log(longest))))
        drawn.append(min(length, tokens - sum(drawn)))
    return {
        "of_128": [128] * (tokens // 128),
        "of_2048": [longest] * (tokens // longest),
        "mixed": drawn,
        "of_16": [16] * (tokens // 16),
    }
