"""One step by its kernels: the shares of products, attention and the rest, and of idle time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from sabitrain.selftest import steps
from sabitrain.selftest.bench import Bench, Outcome, Part
from sabitrain.stopping import StopRequest

# The first class of which a kernel's name has a word: attention's names have those of products too.
_CLASSES = {
    "attention": ("flash", "fmha", "attention", "sdpa"),
    "products": (
        "gemm",
        "gemv",
        "cutlass",
        "xmma",
        "nvjet",
        "cublas",
        "splitk",
        "::mm",
        "addmm",
        "bmm",
        "matmul",
    ),
    "copies": ("memcpy", "memset", "::copy_", "::_to_copy", "copy_kernel"),
    "elementwise": (
        "triton_",
        "elementwise",
        "reduce",
        "norm",
        "softmax",
        "multi_tensor",
        "adam",
        "foreach",
        "index",
        "gather",
        "scatter",
        "embedding",
        "cat",
        "fill",
        "sort",
        "::mul",
        "::add",
        "::sub",
        "::div",
        "::sum",
        "::silu",
        "cpp_fused",
    ),
}


def parts(bench: Bench) -> Sequence[Part]:
    """Returns the one part; its code is found compiled on the disk."""
    return [Part("125m", 30, partial(_profile, bench))]


def class_of(kernel: str) -> str:
    """Returns the class of a kernel by its name, ``other`` if it is of none."""
    name = kernel.lower()
    for kind, words in _CLASSES.items():
        if any(word in name for word in words):
            return kind
    return "other"


def _profile(bench: Bench) -> Outcome:
    """Profiles one step, compiled where it can be."""
    missing = bench.cannot_compile()
    # On a CPU the kernels are told apart only where they are torch's own.
    setup = steps.set_up(bench, "125m", compiles=missing is None and not bench.small)
    stop = StopRequest()
    setup.state.rehearse(setup.batch, 1, stop)
    steps.take_step(setup.state, [setup.batch], stop)
    bench.synchronize()
    on_gpu = bench.device.type == "cuda"
    # Noting what the host does would slow it, and show as idle time of the GPU.
    activities = [ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]
    # Of one cycle, which is all there is: otherwise torch 2.11 warns that others are lost.
    with profile(activities=activities, acc_events=True) as profiled:
        began = time.perf_counter()
        steps.take_step(setup.state, [setup.batch], stop)
        bench.synchronize()
        wall = (time.perf_counter() - began) * 1e6
    kernels = _kernels(profiled.events(), on_gpu)
    if not kernels:
        return Outcome(None, {"wall_ms": wall / 1e3}, "the profiler saw no kernel")
    total = sum(kernels.values())
    by_class: Counter[str] = Counter()
    for name, microseconds in kernels.items():
        by_class[class_of(name)] += microseconds
    numbers = {
        **{kind: by_class[kind] / total for kind in (*_CLASSES, "other")},
        "idle": max(0.0, 1 - _busy(profiled.events()) / wall) if on_gpu else None,
        "wall_ms": wall / 1e3,
        "kernels": len(kernels),
        "largest": [
            [name[:80], class_of(name), microseconds / total]
            for name, microseconds in kernels.most_common(12)
        ],
        "largest_other": [
            [name[:120], microseconds / total]
            for name, microseconds in kernels.most_common()
            if class_of(name) == "other"
        ][:5],
    }
    return Outcome(None, numbers)


def _kernels(events: Iterable[Any], on_gpu: bool) -> Counter[str]:
    """Returns the microseconds of each kernel by its name; on a CPU, of each operation alone."""
    kernels: Counter[str] = Counter()
    for event in events:
        if on_gpu and _is_kernel(event):
            kernels[event.name] += event.time_range.elapsed_us()
        elif not on_gpu and event.device_type == DeviceType.CPU:
            kernels[event.name] += event.self_cpu_time_total
    return kernels


def _is_kernel(event: Any) -> bool:
    """Returns whether the GPU ran an event; stretches of code are shown there too."""
    return event.device_type == DeviceType.CUDA and not event.is_user_annotation


def _busy(events: Iterable[Any]) -> float:
    """Returns the microseconds in which the GPU ran at least one kernel."""
    stretches = sorted(
        (event.time_range.start, event.time_range.end) for event in events if _is_kernel(event)
    )
    busy, reached = 0.0, 0.0
    for start, end in stretches:
        busy += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return busy
