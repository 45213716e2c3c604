"""Settings of the checkpoints: the steps that write one, and the ones to keep."""

from __future__ import annotations

from dataclasses import dataclass

from sabitrain.settings import require


@dataclass(frozen=True)
class CheckpointConfig:
    """The steps that write a checkpoint, and the checkpoints to keep."""

    every: int = 250
    """Steps between checkpoints; one is written before each validation and at the end too. 0: those
    alone.
    """
    keep_last: int = 2
    """Newest checkpoints to keep; of two, the older one stands in should the newest be damaged."""
    keep_every: int = 0
    """Beside those, keep the checkpoints of steps that are a multiple of this; 0 keeps no others.
    """

    def __post_init__(self) -> None:
        """Checks every setting."""
        require(self.every >= 0, f"checkpoint.every must be 0 or more, not {self.every}")
        require(
            self.keep_last >= 1, f"checkpoint.keep_last must be at least 1, not {self.keep_last}"
        )
        require(
            self.keep_every >= 0, f"checkpoint.keep_every must be 0 or more, not {self.keep_every}"
        )

    def is_due(self, step: int) -> bool:
        """Returns whether ``every`` asks for a checkpoint after ``step`` steps."""
        return bool(self.every) and step > 0 and step % self.every == 0
