"""Measure the loader on one core: ``taskset -c 1 python benches/loader.py OUT...``.

OUT is a packed dataset. Several datasets are mixed.

Each step makes all that training reads: ids, labels, positions, ``cu_seqlens`` of fixed length,
padded predictions and their weights, in steps of 128 random rows, 16 to a micro-batch.

Each masking strategy gets a line: the fastest step and the median step, by this process's time on
the processor and by the clock. Other processes slow the clock; they do not add to the processor's
time, but they share its caches. The next line is the mean of all steps read ahead by the loader's
thread. The last line is NumPy widening ids alone: the speed of the machine at that moment.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from sabiprep.dataset import PackedDataset
from sabitrain.data import make_step
from sabitrain.loader import Loader, keep_freed_memory
from sabitrain.masking import Masking
from sabitrain.mixture import open_datasets

ROWS, MICRO_ROWS, STEPS = 128, 16, 300
STRATEGIES = {
    "targets": {},
    "every token": {"loss": "full"},
    "prompts by a tenth": {"prompt_weight": 0.1},
    "each example the same": {"weigh_by": "example"},
}


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds that ``work`` takes: of the processor's time, and by the clock."""
    processor, clock = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - processor, time.perf_counter() - clock


def report(name: str, tokens: int, took: list[tuple[float, float]]) -> None:
    """Print the tokens a second of the fastest and of the median call, ``tokens`` to a call."""
    rates = [
        tokens / of(times) / 1e6
        for times in zip(*took, strict=True)
        for of in (min, statistics.median)
    ]
    processor, processor_median, clock, clock_median = (f"{rate:6.1f}" for rate in rates)
    print(
        f"{name:23} processor {processor}, median {processor_median}   "
        f"clock {clock}, median {clock_median}   M tokens/s"
    )


def main() -> None:
    """Measure the loader under each masking strategy, then the machine."""
    with open_datasets([Path(argument) for argument in sys.argv[1:]]) as dataset:
        targets = f"{dataset.train.n_targets.mean():,.0f} targets in each"
        print(f"{len(dataset.train):,} rows of {dataset.seq_len}, {targets}")
        measure(dataset)
    ids = np.zeros(1 << 15, np.uint16)
    report(
        "widening ids alone",
        len(ids),
        [seconds(lambda: ids.astype(np.int64)) for _ in range(STEPS)],
    )


def measure(dataset: PackedDataset) -> None:
    """Print the speed of each strategy over random rows of the training split."""
    split, tokens = dataset.train, ROWS * dataset.seq_len
    rows = np.random.default_rng(1).integers(0, len(split), (STEPS, ROWS))
    keep_freed_memory()
    for name, strategy in STRATEGIES.items():
        masking = Masking(dataset.sources, **strategy)
        took = [seconds(partial(make_step, split, taken, MICRO_ROWS, masking)) for taken in rows]
        report(name, tokens, took)
    with Loader(split, rows.__getitem__, STEPS, MICRO_ROWS, Masking(dataset.sources)) as loader:
        report("targets, read ahead", STEPS * tokens, [seconds(partial(run_through, loader))])


def run_through(loader: Loader) -> None:
    """Request every step and drop it."""
    for step in range(STEPS):
        loader.step(step)


if __name__ == "__main__":
    main()
