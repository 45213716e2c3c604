"""Settings of the optimizer, its schedule and clipping."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from sabitrain.settings import require

Optimizer = Literal["adamw", "muon", "adamw8bit"]
Schedule = Literal["cosine", "wsd"]


@dataclass(frozen=True)
class OptimConfig:
    """The optimizer, its schedule and clipping."""

    name: Optimizer = "adamw"
    """adamw for everything; or for the matrices of the blocks muon, or adamw8bit, whose states take
    2 bytes a parameter rather than 8 (by bitsandbytes, the extra sabiprep[quant]), and adamw for
    embedding, head and norms.
    """
    lr: float = 2e-3
    """Highest learning rate, reached when the warm-up ends; muon's updates are scaled to share it.
    """
    schedule: Schedule = "cosine"
    """How the learning rate falls: along a cosine from the warm-up on, or wsd: stable, and falling
    at the end only.
    """
    warmup: float = 0.05
    """Share of the steps in which the learning rate rises from 0."""
    decay: float = 0.2
    """Share of the steps in which the learning rate falls under wsd."""
    floor: float = 0.05
    """Learning rate at the last step, as a share of lr."""
    momentum: float = 0.95
    """Decay of muon's running mean of the gradient."""
    beta1: float = 0.9
    """Decay of adamw's running mean of the gradient."""
    beta2: float = 0.95
    """Decay of adamw's running mean of the gradient's square."""
    eps: float = 1e-8
    """The number added to the root of that mean."""
    rates: Annotated[tuple[str, ...], tyro.conf.arg(metavar="PATTERN=FACTOR ...")] = ()
    """Multiplies the learning rate of the parameters whose names match a pattern, as
    'model.embed_tokens.*=0.1'; the first that matches counts."""
    weight_decay: float = 0.1
    """Decoupled weight decay, on matrices only: norms are left alone."""
    clip: float = 1.0
    """Largest norm of the whole gradient, once divided by the step's targets; 0 clips nothing."""
    spike: float = 10.0
    """Skip a step whose loss or gradient norm is above 1 and more than this times the median of the
    last 128 steps; 0 skips only those that are no number. After three in a row the run stops."""

    def __post_init__(self) -> None:
        """Checks every setting."""
        require(self.lr > 0, f"optim.lr must be above 0, not {self.lr}")
        require(
            0 <= self.warmup < 1, f"optim.warmup is a share, from 0 to below 1, not {self.warmup}"
        )
        require(0 <= self.floor <= 1, f"optim.floor is a share, from 0 to 1, not {self.floor}")
        require(0 < self.decay <= 1, f"optim.decay is a share, from above 0 to 1, not {self.decay}")
        for name in ("momentum", "beta1", "beta2"):
            require(
                0 <= getattr(self, name) < 1,
                f"optim.{name} must be from 0 to below 1, not {getattr(self, name)}",
            )
        require(self.eps > 0, f"optim.eps must be above 0, not {self.eps}")
        require(
            self.weight_decay >= 0, f"optim.weight_decay must be 0 or more, not {self.weight_decay}"
        )
        self.factors()
        require(self.clip >= 0, f"optim.clip must be 0 or more, not {self.clip}")
        require(
            self.spike == 0 or self.spike > 1, f"optim.spike must be 0 or above 1, not {self.spike}"
        )

    def factors(self) -> dict[str, float]:
        """Returns ``rates`` as a mapping of patterns, in their order.

        Raises:
            ConfigError: If one is not ``pattern=factor``, or a pattern stands twice.
        """
        factors: dict[str, float] = {}
        for written in self.rates:
            pattern, _, number = written.rpartition("=")
            try:
                factor = float(number)
            except ValueError:
                factor = math.nan
            require(
                pattern != "" and 0 < factor < math.inf,
                f"optim.rates must be pattern=factor, with a factor above 0, not {written!r}",
            )
            require(pattern not in factors, f"optim.rates names {pattern!r} twice")
            factors[pattern] = factor
        return factors
