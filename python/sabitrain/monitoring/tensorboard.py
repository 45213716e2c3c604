"""TensorBoard: the numbers of steps and validations, under the names of ``metrics.jsonl``."""

from __future__ import annotations

import contextlib
import importlib.util
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sabiprep.errors import TrainError
from sabitrain.checkpoints.run_folder import TENSORBOARD_FOLDER


def check_tensorboard(wanted: bool) -> None:
    """Refuses a run that wants TensorBoard on a machine without it.

    Raises:
        TrainError: If TensorBoard is wanted and not installed.
    """
    if wanted and importlib.util.find_spec("tensorboard") is None:
        raise TrainError(
            "--tensorboard needs the package tensorboard, which is not installed",
            remedy="install it (pip install tensorboard), or leave --tensorboard out: "
            "metrics.jsonl has every number",
        )


class TensorBoard:
    """Writes scalars for TensorBoard."""

    def __init__(self, folder: Path, step: int) -> None:
        """Writes to ``folder``, and hides the steps after ``step`` of an earlier session."""
        # Only now: few runs have TensorBoard installed.
        from torch.utils.tensorboard import SummaryWriter

        self._hook, threading.excepthook = threading.excepthook, self._overhear
        self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def add(self, kind: str, values: Mapping[str, Any]) -> None:
        """Adds the numbers of a line of ``metrics.jsonl``: ``train/loss`` and so on.

        Only those of steps, validations and other datasets are added; those of a dataset stand
        below its name: ``eval_data/NAME/total/loss``.
        """
        if kind == "eval_data":
            name = f"{kind}/{values['name']}"
            for path, number in scalars(name, {**values, "name": None}):
                if path != f"{name}/step":
                    self._writer.add_scalar(path, number, values["step"])
        if kind in ("train", "validation"):
            for name, number in scalars(kind, values):
                if name != f"{kind}/step":
                    self._writer.add_scalar(name, number, values["step"])

    def close(self) -> None:
        """Has everything written.

        Raises:
            OSError: If it cannot be, as on a full disk; `add` raises it too.
        """
        try:
            self._writer.close()
        finally:
            threading.excepthook = self._hook

    def _overhear(self, failed: threading.ExceptHookArgs) -> None:
        """Prints nothing if the writing thread fails: the thread hands its error to the run."""
        if type(failed.thread).__name__ != "_AsyncWriterThread":
            self._hook(failed)


@contextlib.contextmanager
def open_tensorboard(wanted: bool, run: Path, step: int) -> Iterator[TensorBoard | None]:
    """Opens TensorBoard for a run after ``step`` steps; None if it is not wanted.

    It is closed at the end of the ``with``.
    """
    tensorboard = TensorBoard(run / TENSORBOARD_FOLDER, step) if wanted else None
    try:
        yield tensorboard
    except BaseException:
        if tensorboard is not None:
            # The error that has ended the run says more.
            with contextlib.suppress(OSError):
                tensorboard.close()
        raise
    if tensorboard is not None:
        tensorboard.close()


def scalars(path: str, value: Any) -> Iterator[tuple[str, float]]:
    """Yields the numbers in a value of JSON's types, by the path of names that leads to each."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from scalars(f"{path}/{name}", inner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value
