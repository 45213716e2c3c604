"""Memory: the presets within 23.2 GB of a GPU, by the micro-batches that their plans choose.

That is what a card of 24 GB has free.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from sabitrain.config import PRESETS, PresetName
from sabitrain.device import limit_memory, memory_limit
from sabitrain.fitting import fit_run
from sabitrain.memory import CARD
from sabitrain.selftest import steps
from sabitrain.selftest.bench import Bench, Outcome, Part
from sabitrain.selftest.data import batch_of, random_rows
from sabitrain.stopping import StopRequest
from sabitrain.training_state import make_training_state

_SEQ_LEN, _VOCAB_SIZE = 256, 600


def first_parts(bench: Bench) -> Sequence[Part]:
    """Returns the presets that matter most; on a CPU, where all would be the same, one."""
    presets: tuple[PresetName, ...] = ("125m",) if bench.small else ("125m", "1b")
    return [Part(preset, 25, partial(_capped, bench, preset)) for preset in presets]


def other_parts(bench: Bench) -> Sequence[Part]:
    """Returns the other preset; none where sizes are small."""
    return [] if bench.small else [Part("350m", 25, partial(_capped, bench, "350m"))]


def _capped(bench: Bench, preset: PresetName) -> Outcome:
    """Takes two steps of two micro-batches within the limit, and reads the peak."""
    seq_len = _SEQ_LEN if bench.small else steps.SEQ_LEN
    vocab_size = _VOCAB_SIZE if bench.small else steps.VOCAB_SIZE
    tokens = 4 * seq_len if bench.small else PRESETS[preset]["batch"]["tokens"]
    config = steps.config_of(bench, preset, "off", tokens)
    limit = memory_limit(bench.device, CARD / 1e9) or CARD
    fit = fit_run(config, vocab_size, steps.sizes_of(seq_len), tokens // seq_len, limit)
    numbers = {
        "rows": fit.micro_rows,
        "recompute": fit.recompute,
        "plan_mb": fit.memory.total / 1e6,
        "plan_without_reserve_mb": (fit.memory.total - fit.memory.reserve) / 1e6,
        "limit_mb": limit / 1e6,
    }
    if not fit.fits:
        return Outcome(None, numbers, "the plan says that it does not fit")
    limit_memory(bench.device, limit / 1e9)
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(bench.device)
    try:
        state = make_training_state(config, vocab_size, bench.device, bench.bf16, lambda note: None)
        state.model.recompute(fit.recompute)
        shape = fit.micro_rows, seq_len, steps.DOCUMENTS, steps.TARGETS, vocab_size
        batches = [batch_of(random_rows(seed, *shape), bench.bf16, 0.5) for seed in (0, 1)]
        for _ in range(2):
            steps.take_step(state, batches, StopRequest())
        bench.synchronize()
    except torch.OutOfMemoryError as error:
        return Outcome(False, numbers, f"out of memory: {str(error).splitlines()[0]}")
    finally:
        limit_memory(bench.device, "auto")
    if bench.device.type != "cuda":
        return Outcome(None, numbers, "the memory of a CPU is not capped")
    peak = torch.cuda.max_memory_allocated(bench.device) / 1e6
    numbers |= {
        "peak_mb": peak,
        "reserved_mb": torch.cuda.max_memory_reserved(bench.device) / 1e6,
    }
    right = peak <= numbers["plan_without_reserve_mb"] + steps.LIBRARIES_MB
    return Outcome(right, numbers, None if right else "the peak is above the plan")
