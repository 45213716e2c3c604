"""Steps of the presets: their speed, their memory beside the plan's, and what they must not do.

A step must not wait for the device, and after the first no step may be compiled again, whatever the
targets, the documents and the rows of its micro-batches.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch._dynamo.utils import (
    clear_compilation_metrics,
    counters,
    get_compilation_metrics,
)

from sabitrain.config import PRESETS, BatchConfig, PresetName, TrainConfig
from sabitrain.data.batches import Batch, Step
from sabitrain.device import memory_limit, peak_flops
from sabitrain.fitting import Fit, RowSizes, fit_run
from sabitrain.memory import Memory, MicroBatch, memory_of
from sabitrain.models.flops import step_flops
from sabitrain.models.settings import ModelConfig
from sabitrain.optim.settings import OptimConfig
from sabitrain.selftest.bench import Bench, Outcome, Part, described
from sabitrain.selftest.data import batch_of, random_rows
from sabitrain.settings import Switch
from sabitrain.stopping import StopRequest
from sabitrain.training_state import TrainingState, make_training_state

VOCAB_SIZE, SEQ_LEN, DOCUMENTS, TARGETS = 52_000, 2048, 16, 0.5
"""The vocabulary, and the tokens, the documents and the share of targets of a row."""
LIBRARIES_MB = 128
"""What libraries take of torch's allocator, which no plan knows: cuBLAS's workspaces above all."""
_SMALL_VOCAB_SIZE, _SMALL_SEQ_LEN = 600, 256
_ROWS = 8
_TIMED_STEPS, _TIMED_SECONDS = 10, 4.0
_VARIED, _MOST_DOCUMENTS = 30, 64


class Setup(NamedTuple):
    """A preset, ready to take steps.

    Attributes:
        state: The training state, nothing compiled yet.
        batch: A micro-batch on the CPU.
        fit: The rows and the recomputation, for any batch that it is to take.
        memory: The plan for this one.
        seq_len: Tokens of a row.
        vocab_size: Tokens of the vocabulary.
    """

    state: TrainingState
    batch: Batch
    fit: Fit
    memory: Memory
    seq_len: int
    vocab_size: int


def first_parts(bench: Bench) -> Sequence[Part]:
    """Returns the parts that matter most."""
    return [_part(bench, "125m", True, 50), _part(bench, "125m", False, 12)]


def large_parts(bench: Bench) -> Sequence[Part]:
    """Returns the largest preset; none where sizes are small, for it would be the same."""
    return [] if bench.small else [_part(bench, "1b", True, 50)]


def other_parts(bench: Bench) -> Sequence[Part]:
    """Returns the other presets; none where sizes are small."""
    if bench.small:
        return []
    return [
        _part(bench, "350m", True, 45),
        _part(bench, "1b", False, 20),
        _part(bench, "350m", False, 15),
    ]


def _part(bench: Bench, preset: PresetName, compiles: bool, seconds: float) -> Part:
    """Returns the part of a preset, compiled or not."""
    word = "compiled" if compiles else "eager"
    return Part(f"{preset} {word}", seconds, partial(_measure, bench, preset, compiles))


def config_of(bench: Bench, preset: PresetName, compile: Switch, tokens: int) -> TrainConfig:
    """Returns the settings of a preset, its shape made small on a CPU.

    Args:
        bench: The bench.
        preset: The preset.
        compile: Whether to compile.
        tokens: Tokens of a step.
    """
    shape = ModelConfig(**PRESETS[preset]["model"])
    if bench.small:
        shape = ModelConfig(
            layers=2, width=64, heads=4, kv_heads=shape.kv_heads and 2, mlp_width=96, context=256
        )
    return TrainConfig(
        data=("none",),
        run=Path("none"),
        preset=preset,
        model=shape,
        optim=OptimConfig(**PRESETS[preset]["optim"]),
        batch=BatchConfig(tokens=tokens),
        compile=compile,
        device=str(bench.device),
    )


def set_up(bench: Bench, preset: PresetName, compiles: bool) -> Setup:
    """Makes a preset and a micro-batch of `_ROWS` rows, or of as many as fit in any case."""
    seq_len = _SMALL_SEQ_LEN if bench.small else SEQ_LEN
    vocab_size = _SMALL_VOCAB_SIZE if bench.small else VOCAB_SIZE
    rows = 2 if bench.small else _ROWS
    config = config_of(bench, preset, "on" if compiles else "off", rows * seq_len)
    limit = memory_limit(bench.device, "auto") or 10**10
    largest = RowSizes(seq_len, np.full(8, seq_len), np.full(8, _MOST_DOCUMENTS))
    fit = fit_run(config, vocab_size, largest, rows, limit)
    state = make_training_state(config, vocab_size, bench.device, bench.bf16, lambda note: None)
    state.model.recompute(fit.recompute)
    batch = batch_of(
        random_rows(0, fit.micro_rows, seq_len, DOCUMENTS, TARGETS, vocab_size), bench.bf16
    )
    size = MicroBatch(len(batch.ids_N), batch.targets, fit.micro_rows * DOCUMENTS)
    memory = memory_of(config, vocab_size, size, fit.recompute, fit.micro_rows < rows)
    return Setup(state, batch, fit, memory, seq_len, vocab_size)


def sizes_of(seq_len: int) -> RowSizes:
    """Returns the sizes of rows of `DOCUMENTS` documents, a share of `TARGETS` trained."""
    return RowSizes(
        seq_len, np.full(8, round(seq_len * TARGETS) + DOCUMENTS), np.full(8, DOCUMENTS)
    )


def take_step(state: TrainingState, batches: Sequence[Batch], stop: StopRequest) -> Tensor:
    """Takes a step as `sabitrain.trainer.Trainer` does, and returns its loss on the device."""
    loss = state.accumulate(batches, stop)
    # No signal is listened for.
    assert loss is not None
    state.take(loss, 1, sum(batch.targets for batch in batches), 1e-5)
    return loss


def _measure(bench: Bench, preset: PresetName, compiles: bool) -> Outcome:
    """Times steps of a preset, and watches for what they must not do."""
    if compiles:
        missing = bench.cannot_compile()
        if missing is not None:
            return Outcome(None, why=missing)
    counters.clear()
    setup, stop = set_up(bench, preset, compiles), StopRequest()
    began = time.perf_counter()
    setup.state.rehearse(setup.batch, 1, stop)
    bench.synchronize()
    first_seconds = time.perf_counter() - began
    numbers = {
        **_times(bench, setup, stop),
        "first_step_seconds": first_seconds,
        # Those that an earlier test on this machine left: the first step is faster then.
        "graphs_from_disk": counters["inductor"]["fxgraph_cache_hit"],
        "graph_breaks": sum(counters["graph_break"].values()),
        "rows": setup.fit.micro_rows,
        "recompute": setup.fit.recompute,
        "targets": setup.batch.targets,
    }
    faults = []
    waits = _waits(bench, setup, stop)
    if waits is not None:
        faults.append(f"a step waits for the device: {waits}")
    if compiles:
        again = _compiled_again(bench, setup, stop)
        numbers |= {"recompilations": len(again), "batches": _VARIED}
        if again:
            faults.append(f"compiled again: {again[0]}")
    if numbers["graph_breaks"]:
        faults.append(f"graph break: {next(iter(counters['graph_break']))}")
    if not np.isfinite(numbers["loss"]):
        faults.append("the loss is no number")
    peak, plan = numbers["peak_mb"], numbers["plan_without_reserve_mb"]
    if peak is not None and peak > plan + LIBRARIES_MB:
        faults.append(f"the peak is {peak:,.0f} MB, the plan {plan:,.0f} MB")
    return Outcome(not faults, numbers, "; ".join(faults) or None)


def _times(bench: Bench, setup: Setup, stop: StopRequest) -> dict[str, Any]:
    """Returns the speed of steps, and their memory beside the plan's."""
    state, batches = setup.state, [setup.batch]
    loss = take_step(state, batches, stop)
    bench.synchronize()
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(bench.device)
    hosts: list[float] = []
    over = time.perf_counter() + (1.0 if bench.small else _TIMED_SECONDS)
    # Each by itself, so that the host's time is its own: it waits where many kernels are queued.
    while len(hosts) < _TIMED_STEPS and time.perf_counter() < over:
        began = time.perf_counter()
        take_step(state, batches, stop)
        hosts.append(time.perf_counter() - began)
        bench.synchronize()
    # Then one after the other, as in a run.
    began = time.perf_counter()
    for _ in hosts:
        take_step(state, batches, stop)
    bench.synchronize()
    seconds = (time.perf_counter() - began) / len(hosts)
    config = state.config
    step = Step(batches, setup.batch.tokens, setup.batch.targets)
    flops = step_flops(
        config.model, setup.vocab_size, step, config.compute, setup.fit.recompute
    ).executed
    peak = peak_flops(bench.device)
    memory = setup.memory
    on_gpu = bench.device.type == "cuda"
    return {
        "ms": seconds * 1e3,
        "host_ms": statistics.median(hosts) * 1e3,
        "mfu": None if peak is None else flops / seconds / peak,
        "targets_per_second": setup.batch.targets / seconds,
        "peak_mb": torch.cuda.max_memory_allocated(bench.device) / 1e6 if on_gpu else None,
        "plan_mb": memory.total / 1e6,
        "plan_without_reserve_mb": (memory.total - memory.reserve) / 1e6,
        "reserved_mb": torch.cuda.max_memory_reserved(bench.device) / 1e6 if on_gpu else None,
        "tokens_per_second": setup.batch.tokens / seconds,
        "tflops": flops / seconds / 1e12,
        "loss": float(loss),
    }


def _waits(bench: Bench, setup: Setup, stop: StopRequest) -> str | None:
    """Returns where a step waits for the device, or None; a CPU is not waited for."""
    if bench.device.type != "cuda":
        return None
    bench.synchronize()
    # torch warns that this mode is a prototype.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(2):
            take_step(setup.state, [setup.batch], stop)
    except RuntimeError as error:
        setup.state.clear_gradients()
        # Full memory is another matter.
        if "synchroniz" not in str(error):
            raise
        return described(error)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return None


def _compiled_again(bench: Bench, setup: Setup, stop: StopRequest) -> list[str]:
    """Returns why code was compiled again over batches of all kinds: once for each time."""
    rng = np.random.default_rng(1)
    clear_compilation_metrics()
    for index in range(_VARIED):
        # None and all of the tokens are trained, in one document and in many. The last
        # micro-batch of a step may have fewer rows.
        share = (0.0, 1.0)[index] if index < 2 else float(rng.random())
        documents = 1 if index < 2 else int(np.exp(rng.uniform(0, np.log(_MOST_DOCUMENTS))))
        rows = max(1, setup.fit.micro_rows - (index % 5 == 4))
        batch = batch_of(
            random_rows(index, rows, setup.seq_len, documents, share, setup.vocab_size), bench.bf16
        )
        take_step(setup.state, [batch], stop)
    bench.synchronize()
    return [
        " ".join(str(metrics.recompile_reason or "code that was not there before").split())
        for metrics in get_compilation_metrics()
    ]
