"""Settings of the monitoring: how often metrics are shown, and where else they go."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from sabitrain.settings import MAY_CHANGE, Section, require


@dataclass(frozen=True, kw_only=True)
class MonitoringConfig(Section):
    """The console and TensorBoard."""

    log_every: int = field(default=10, metadata=MAY_CHANGE)
    """Steps between metrics on the console; metrics.jsonl has every step."""
    tensorboard: Annotated[bool, tyro.conf.FlagCreatePairsOff] = field(
        default=False, metadata=MAY_CHANGE
    )
    """Write the numbers of metrics.jsonl for TensorBoard too, into the folder tensorboard of the
    run.
    """

    def __post_init__(self) -> None:
        """Checks every setting."""
        super().__post_init__()
        require(self.log_every >= 1, f"log_every must be at least 1, not {self.log_every}")
