"""The ways to train a model on a card: ``python -m sabitrain plan --suggest``.

Each way is planned as its run would be; the first that fits is named.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from sabiprep.errors import ConfigError
from sabitrain.config import TrainConfig
from sabitrain.data.datasets import Datasets, open_datasets
from sabitrain.device import peak_flops, peak_of
from sabitrain.partial.settings import Bits
from sabitrain.planning import Plan, limit_of, plan_run, wrapped
from sabitrain.starting import start_from

# The card whose speed is taken where there is no GPU, and the share of a card's peak that is
# assumed: nothing here was measured on a GPU yet.
_CARD, _SHARE = "NVIDIA L4", 0.4
_HEADINGS = ("--train", "trained", "memory", "micro-batch", "TFLOP a step", "hours")


@dataclass(frozen=True)
class Way:
    """A way to train.

    Attributes:
        train: The parameters that are trained, as ``--train`` says.
        bits: The bits that a base of adapters is held in; None for all of them.
    """

    train: str
    bits: Bits | None = None

    def __str__(self) -> str:
        """Returns its name in the table."""
        return self.train if self.bits is None else f"{self.train} {self.bits}-bit"

    def options(self) -> str:
        """Returns the options that ask for it."""
        if self.train == "phases":
            return "the phases"
        bits = "" if self.bits is None else f" --lora.bits {self.bits}"
        return f"--train {self.train}{bits}"

    def applied(self, config: TrainConfig) -> TrainConfig:
        """Returns settings of a run that trains so."""
        return dataclasses.replace(
            config,
            train=self.train,
            new_rows=config.new_rows if self.train == "new-rows" else (),
            lora=dataclasses.replace(config.lora, bits=self.bits),
        )


def describe_ways(config: TrainConfig, say: Callable[[str], None] = lambda line: None) -> str:
    """Returns a table of ways to train, at most 80 columns wide, and the settings that fit.

    Args:
        config: The settings. Where they leave ``train`` at ``all``, it is replaced; a way that they
            name is planned alone.
        say: Is told which way is planned next: each tries several sizes of the whole model.

    Raises:
        DatasetError: If a dataset cannot be read, or has no row to train on.
        TrainError: If the datasets do not fit the model.
    """
    limit, card = limit_of(config)
    with open_datasets(config.datasets) as data:
        plans = dict(_plans(config, data, limit, say))
        seq_len = data.rows.seq_len
    name, peak = _speed()
    rows = [_HEADINGS, *(_cells(way, plan, seq_len, peak) for way, plan in plans.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    lines = [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    first = next((way for way, plan in plans.items() if plan.fit.fits), None)
    fixed = _fixed(config)
    within = f"{limit / 1e9:g} GB{card}"
    found = (
        f"nothing fits {within}: pack shorter rows, or take a smaller model"
        if first is None
        else f"fits {within}: {first.options()}"
        + (", recomputing, as --recompute auto will" if plans[first].fit.recompute else "")
    )
    speed = f"hours: at {_SHARE:.0%} of the {peak / 1e12:g} TFLOP/s of an {name}, not measured"
    said = [f"{fixed} was given, so no other way is compared"] if fixed else []
    return "\n".join([*lines, "", *map(wrapped, (*said, found, speed))])


def _plans(
    config: TrainConfig, data: Datasets, limit: int, say: Callable[[str], None]
) -> Iterator[tuple[Way, Plan]]:
    """Yields the plan of each way, those that train most first."""
    if config.phase:
        yield Way("phases"), plan_run(config, data, limit)
        return
    ways = _ways(config)
    for number, way in enumerate(ways, 1):
        say(f"planning {way.options()} ({number} of {len(ways)})")
        try:
            yield way, plan_run(way.applied(config), data, limit)
        except ConfigError:
            # A checkpoint without new rows has no such way; any other fault shows with `all`, or
            # with the way that was named.
            if way.train in ("all", config.train):
                raise


def _ways(config: TrainConfig) -> list[Way]:
    """Returns the ways to compare: that which the settings name, or all."""
    adapters = [Way("lora"), *([Way("lora", 8), Way("lora", 4)] if _has_bitsandbytes() else [])]
    if config.train == "lora" and config.lora.bits is None:
        return adapters
    if config.train != "all":
        return [Way(config.train, config.lora.bits)]
    shape = start_from(dataclasses.replace(config, new_rows=()), weights=False)[0].model
    half, quarter = (Way(f"last:{-(-shape.layers // parts)}") for parts in (2, 4))
    ways = [Way("all"), half, quarter, Way("embeddings")]
    # Adapters and new rows are of a checkpoint.
    if config.init is not None:
        ways[1:1] = adapters
        ways += [Way("new-rows")]
    return list(dict.fromkeys(ways))


def _fixed(config: TrainConfig) -> str:
    """Returns the way to train that the settings name, as they name it; empty for none."""
    if config.phase:
        return "[[phase]]"
    return "" if config.train == "all" else f"--train {config.train}"


def _has_bitsandbytes() -> bool:
    """Returns whether ``bitsandbytes`` is installed."""
    return importlib.util.find_spec("bitsandbytes") is not None


def _speed() -> tuple[str, float]:
    """Returns a card and the operations a second at its peak."""
    if torch.cuda.is_available():
        peak = peak_flops(torch.device("cuda", 0))
        if peak is not None:
            return torch.cuda.get_device_name(0), peak
    return _CARD, peak_of(_CARD)


def _cells(way: Way, plan: Plan, seq_len: int, peak: float) -> tuple[str, ...]:
    """Returns the cells of a way's line."""
    fit = plan.fit
    micro_batch = f"{fit.micro_rows * seq_len:,}" if fit.fits else "does not fit"
    hours = plan.steps * plan.flops.executed / (_SHARE * peak) / 3600
    return (
        str(way),
        f"{plan.trained_parameters:,}",
        f"{fit.memory.total / 1e9:.2f} GB",
        micro_batch,
        f"{plan.flops.executed / 1e12:,.2f}",
        f"{hours:,.1f}" if hours >= 0.1 else "< 0.1",
    )
