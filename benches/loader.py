"""How fast the loader makes steps on one core: ``python benches/loader.py OUT``, OUT being a packed dataset.

Everything that training reads is made: ids, labels, positions, ``cu_seqlens`` of fixed length, padded predictions and
their weights, in steps of 128 random rows. The time is the processor's, the best of several passes. The second line is
NumPy widening ids alone: what the machine gives at that moment.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np

from sabiprep.dataset import open_dataset
from sabitrain.data import make_step
from sabitrain.masking import Masking

ROWS, MICRO_ROWS, PASSES = 128, 16, 15


def seconds(work: Callable[[], object]) -> float:
    """The least processor time of this process for ``work``."""
    best = float("inf")
    for _ in range(PASSES):
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return best


def main() -> None:
    """Measure, and print a line for the loader and one for the machine."""
    with open_dataset(sys.argv[1]) as dataset:
        rng, split, masking = np.random.default_rng(1), dataset.train, Masking(dataset.sources)
        steps = [rng.integers(0, len(split), ROWS) for _ in range(8)]
        tokens = 8 * ROWS * dataset.seq_len
        took = seconds(lambda: [make_step(split, rows, MICRO_ROWS, masking) for rows in steps])
        print(f"loader: {tokens / took / 1e6:.1f} M tokens/s ({len(split):,} rows of {dataset.seq_len})")
        ids = rng.integers(0, 16_000, MICRO_ROWS * dataset.seq_len, np.uint16)
        took = seconds(lambda: [ids.astype(np.int64) for _ in range(100)])
        print(f"widening ids alone: {100 * len(ids) / took / 1e6:.0f} M tokens/s")


if __name__ == "__main__":
    main()
