"""How fast the loader makes steps on one core: ``taskset -c 1 python benches/loader.py OUT``.

OUT is a packed dataset, or several, which are then mixed.

Everything that training reads is made: ids, labels, positions, ``cu_seqlens`` of fixed length,
padded predictions and their weights, in steps of 128 random rows, 16 to a micro-batch.

A line for each masking strategy: the fastest step and the median one, by this process's time on the
processor and by the clock. The clock is for other processes too; the processor's time is not, but
they share its caches. Then the same steps read ahead by the loader's thread, the mean of all; and
NumPy widening ids alone, what the machine gives at that moment.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from sabitrain.data.batches import make_step
from sabitrain.data.datasets import open_datasets
from sabitrain.data.loader import Loader, keep_freed_memory
from sabitrain.data.masking import Masking
from sabitrain.data.rows import RowSource

ROWS, MICRO_ROWS, STEPS = 128, 16, 300
STRATEGIES = {
    "targets": {},
    "every token": {"loss": "full"},
    "prompts by a tenth": {"prompt_weight": 0.1},
    "each example the same": {"weigh_by": "example"},
}


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """What ``work`` takes: of the processor's time, and by the clock."""
    processor, clock = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - processor, time.perf_counter() - clock


def report(name: str, tokens: int, took: list[tuple[float, float]]) -> None:
    """Print how many tokens a second the fastest and the median of some calls made, ``tokens``
    each.
    """
    rates = [
        tokens / of(times) / 1e6
        for times in zip(*took, strict=True)
        for of in (min, statistics.median)
    ]
    print(
        "{:23} processor {:6.1f}, median {:6.1f}   "
        "clock {:6.1f}, median {:6.1f}   M tokens/s".format(name, *rates)
    )


def main() -> None:
    """Measure the loader under each strategy, and the machine."""
    with open_datasets([Path(argument) for argument in sys.argv[1:]]) as opened:
        dataset = opened.rows
        print(
            f"{len(dataset.train):,} rows of {dataset.seq_len}, "
            f"{dataset.train.n_targets.mean():,.0f} targets in each"
        )
        measure(dataset)
    ids = np.zeros(1 << 15, np.uint16)
    report(
        "widening ids alone",
        len(ids),
        [seconds(lambda: ids.astype(np.int64)) for _ in range(STEPS)],
    )


def measure(dataset: RowSource) -> None:
    """Report the steps of a dataset, each random rows of its training split."""
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
    """Ask for every step, and let go of it."""
    for step in range(STEPS):
        loader.step(step)


if __name__ == "__main__":
    main()
