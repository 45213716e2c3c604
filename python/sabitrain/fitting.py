"""Fits a run into the memory of a GPU: the rows of a micro-batch, and whether units recompute.

Micro-batches are as large as memory allows, and no larger than a step. Recomputing costs up to a
third more operations, so it is chosen only where without it less than `ENOUGH` tokens would fit:
with fewer, kernels are too short for a GPU to be busy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sabiprep.terminal import counted
from sabitrain.config import TrainConfig
from sabitrain.data.batches import micro_batches
from sabitrain.data.masking import masking_of
from sabitrain.data.order import Order
from sabitrain.data.rows import RowSource
from sabitrain.memory import Memory, MicroBatch, memory_of

ENOUGH = 4096
"""Tokens of a micro-batch that keep a GPU busy."""

_ROWS_SAMPLED = 512
# Standard deviations above the mean: one in ten thousand micro-batches is larger, if their rows
# are drawn at random.
_DEVIATIONS = 4


@dataclass(frozen=True)
class RowSizes:
    """The sizes of some rows of a run.

    Attributes:
        tokens: Tokens of a row.
        targets: int64[rows]: predictions with a weight.
        documents: int64[rows]: documents and paddings.
    """

    tokens: int
    targets: npt.NDArray[np.int64]
    documents: npt.NDArray[np.int64]

    def micro_batch(self, rows: int) -> MicroBatch:
        """Returns a size that hardly any micro-batch of so many rows exceeds."""
        return MicroBatch(
            rows * self.tokens,
            _hardly_exceeded(self.targets, rows),
            _hardly_exceeded(self.documents, rows),
        )


def _hardly_exceeded(counts: npt.NDArray[np.int64], rows: int) -> int:
    """Returns a bound of the sum of ``rows`` counts, drawn at random from ``counts``."""
    likely = rows * float(counts.mean()) + _DEVIATIONS * math.sqrt(rows) * float(counts.std())
    return min(math.ceil(likely), rows * int(counts.max()))


def sample_sizes(config: TrainConfig, dataset: RowSource, order: Order, steps: int) -> RowSizes:
    """Returns the sizes of the first rows of a run, each row by itself.

    Raises:
        DatasetError: If a shard is damaged.
    """
    masking = masking_of(config, dataset.sources)
    few = range(min(steps, math.ceil(_ROWS_SAMPLED / order.rows_per_step)))
    rows = np.concatenate([order.step(step) for step in few])[:_ROWS_SAMPLED]
    targets, documents = [], []
    for row in micro_batches(dataset.train, rows, 1):
        targets.append(np.count_nonzero(masking.weights(row)))
        documents.append(len(row["cu_seqlens"]) - 1)
    return RowSizes(dataset.seq_len, np.array(targets), np.array(documents))


@dataclass(frozen=True)
class Fit:
    """The cut of a step that fits a GPU.

    Attributes:
        micro_rows: Rows of a micro-batch.
        recompute: Whether units keep their inputs alone.
        memory: The memory at the peak.
        limit: The bytes that a run may take.
    """

    micro_rows: int
    recompute: bool
    memory: Memory
    limit: int

    @property
    def fits(self) -> bool:
        """Whether the peak is within the limit."""
        return self.memory.total <= self.limit


def fit_run(
    config: TrainConfig,
    vocab_size: int,
    sizes: RowSizes,
    rows_per_step: int,
    limit: int,
    micro_rows: int | None = None,
    recomputed: bool = False,
    lossless: bool = False,
) -> Fit:
    """Returns the cut of a step for a GPU: what the settings leave open is chosen.

    Args:
        config: The settings.
        vocab_size: Tokens of the vocabulary.
        sizes: The sizes of some rows.
        rows_per_step: Rows of a step.
        limit: Bytes that the run may take.
        micro_rows: Rows of a micro-batch; None for as many as fit.
        recomputed: Whether an earlier session of the run recomputed; ``auto`` goes on so.
        lossless: Whether bf16 holds the checkpoint that the run starts from without loss.

    Returns:
        The cut, with one row and `Fit.fits` false if not even one row fits.
    """

    def fit(recompute: bool) -> Fit:
        if micro_rows is not None:
            rows = min(micro_rows, rows_per_step)
        else:
            most = most_rows(config, vocab_size, sizes, rows_per_step, limit, recompute, lossless)
            rows = _evenly(rows_per_step, max(1, most))
        size = sizes.micro_batch(rows)
        memory = memory_of(config, vocab_size, size, recompute, rows < rows_per_step, lossless)
        return Fit(rows, recompute, memory, limit)

    if config.recompute != "auto" or recomputed:
        return fit(config.recompute != "off")
    without = fit(recompute=False)
    enough = min(math.ceil(ENOUGH / sizes.tokens), rows_per_step)
    if without.fits and (micro_rows is not None or without.micro_rows >= enough):
        return without
    again = fit(recompute=True)
    return again if again.fits or not without.fits else without


def _evenly(rows_per_step: int, most: int) -> int:
    """Returns the rows of micro-batches that are as few, but as equal as can be."""
    return math.ceil(rows_per_step / math.ceil(rows_per_step / most))


def most_rows(
    config: TrainConfig,
    vocab_size: int,
    sizes: RowSizes,
    rows_per_step: int,
    limit: int,
    recompute: bool,
    lossless: bool = False,
) -> int:
    """Returns the most rows of a micro-batch within a limit; 0 if not even one fits.

    Args:
        config: The settings.
        vocab_size: Tokens of the vocabulary.
        sizes: The sizes of some rows.
        rows_per_step: Rows of a step.
        limit: Bytes that the run may take.
        recompute: Whether units keep their inputs alone.
        lossless: Whether bf16 holds the checkpoint that the run starts from without loss.
    """

    def bytes_of(rows: int) -> int:
        size = sizes.micro_batch(rows)
        accumulate = rows < rows_per_step
        return memory_of(config, vocab_size, size, recompute, accumulate, lossless).total

    return _largest(rows_per_step, bytes_of, limit)


def _largest(most: int, bytes_of: Callable[[int], int], limit: int) -> int:
    """Returns the most rows whose bytes are within a limit; 0 if one row's are not.

    Args:
        most: The most rows wanted.
        bytes_of: The bytes of some rows, which grow with them, and nearly in proportion.
        limit: The limit in bytes.
    """
    if bytes_of(most) <= limit:
        return most
    if most == 1 or bytes_of(1) > limit:
        return 0
    low, high = 1, most
    # Along the line between the two: each try runs a step of the whole model.
    while high - low > 1:
        at_low, at_high = bytes_of(low), bytes_of(high)
        guess = low + (limit - at_low) * (high - low) // max(1, at_high - at_low)
        middle = min(max(guess, low + 1), high - 1)
        low, high = (middle, high) if bytes_of(middle) <= limit else (low, middle)
    return low


def described(fit: Fit, config: TrainConfig, seq_len: int) -> str:
    """Returns what was chosen, in words; a warning if it does not fit."""
    cut = (
        f"micro-batches of {counted(fit.micro_rows, 'row')}, {fit.micro_rows * seq_len:,} tokens"
        f"{', recomputing' if fit.recompute else ''}"
    )
    sizes = f"{fit.memory.total / 1e9:.1f} GB of {fit.limit / 1e9:.1f} GB"
    if fit.fits:
        return f"{cut}: {sizes} of memory"
    given = config.batch.micro_tokens != "auto" or config.recompute == "off"
    return f"{cut}: {sizes} of memory, so the GPU is likely to run out of it; " + (
        "leave --batch.micro-tokens and --recompute at auto"
        if given
        else "take a smaller --preset, or pack shorter rows"
    )


def settle_plan(
    plan: dict[str, int],
    config: TrainConfig,
    dataset: RowSource,
    order: Order,
    limit: int,
    lossless: bool = False,
) -> str | None:
    """Decides what the plan of a run leaves to the GPU: ``micro_rows`` and ``recompute``.

    Args:
        plan: The plan, which is completed. A resumed run's has both, and ``recompute`` stays on.
        config: The settings.
        dataset: The dataset.
        order: The order of the rows.
        limit: Bytes that the run may take; 0 on a CPU, where memory decides nothing.
        lossless: Whether every frozen matrix is held in bf16.

    Returns:
        What was chosen, in words; None on a CPU.

    Raises:
        DatasetError: If a shard is damaged.
    """
    before = bool(plan.get("recompute")) and config.recompute == "auto"
    plan["recompute"] = int(before or config.recompute == "on")
    if not limit:
        return None
    sizes = sample_sizes(config, dataset, order, plan["steps"])
    fit = fit_run(
        config,
        config.model.rows(dataset.vocab_size),
        sizes,
        plan["rows_per_step"],
        limit,
        plan.get("micro_rows"),
        before,
        lossless,
    )
    plan |= {"micro_rows": fit.micro_rows, "recompute": int(fit.recompute)}
    return described(fit, config, dataset.seq_len)
