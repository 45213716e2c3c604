"""The start of a session: the first step, or the newest checkpoint of the run to resume."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sabitrain.checkpoints.fingerprint import check_fingerprint
from sabitrain.checkpoints.history import History
from sabitrain.checkpoints.run_folder import keep_skipped, take_up
from sabitrain.checkpoints.trainer_state import Progress
from sabitrain.config import TrainConfig
from sabitrain.data.datasets import Datasets


@dataclass(frozen=True)
class Start:
    """The point from which a session trains.

    Attributes:
        config: The settings; of a resumed run, those of its checkpoint.
        saved: The checkpoint; None for a new run.
        progress: The progress of the checkpoint; None for a new run.
    """

    config: TrainConfig
    saved: Path | None = None
    progress: Progress | None = None

    @property
    def step(self) -> int:
        """Returns the steps taken in earlier sessions."""
        return 0 if self.progress is None else self.progress.step

    @property
    def seconds(self) -> float:
        """Returns the seconds spent in earlier sessions."""
        return 0.0 if self.progress is None else self.progress.seconds

    @property
    def metrics_bytes(self) -> int:
        """Returns the bytes of ``metrics.jsonl`` that the session keeps."""
        return 0 if self.progress is None else self.progress.metrics_bytes

    def step_plan(self, rows: int, seq_len: int, device: str) -> dict[str, int]:
        """Returns how steps are cut: ``steps``, ``rows_per_step`` and ``micro_rows``.

        A resumed run keeps the plan of its first session.

        Args:
            rows: Rows of the training split.
            seq_len: Tokens of a row.
            device: The type of the device, as ``cuda``.
        """
        if self.progress is not None:
            return dict(self.progress.plan)
        return self.config.step_plan(rows, seq_len, device)


def find_start(
    config: TrainConfig, history: History, data: Datasets, say: Callable[[str], None]
) -> Start:
    """Returns the start of a session, and leaves the run folder as it is at that step.

    Args:
        config: The settings of the session.
        history: The checkpoints of the run.
        data: The datasets of the session.
        say: The function that takes a line about each damaged checkpoint.

    Raises:
        ConfigError: If a setting differs from the run to resume.
        DatasetError: If a dataset differs from the run to resume.
        TrainError: If every checkpoint is damaged.
    """
    found = history.resume(say) if config.resume else None
    start = Start(config)
    if found is not None:
        saved, progress = found
        check_fingerprint(progress.dataset, data)
        start = Start(take_up(progress.config, progress.step, config), saved, progress)
        history.settle(saved)
    # Before anything is trained: a run that ends here passes over the same batches again.
    keep_skipped(start.config)
    return start
