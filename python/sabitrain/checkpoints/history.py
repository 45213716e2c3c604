"""The checkpoints of a run: those to keep, and the link to the newest."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from sabiprep.errors import TrainError
from sabitrain.checkpoints import files
from sabitrain.checkpoints.adapter import ADAPTER_FILES
from sabitrain.checkpoints.checkpoint import FILES, new_checkpoint, write_model
from sabitrain.checkpoints.pretrained import ADAPTED_FILE
from sabitrain.checkpoints.settings import CheckpointConfig
from sabitrain.checkpoints.trainer_state import (
    FACTS_FILE,
    TENSORS_FILE,
    Progress,
    read_progress,
    save_state,
)
from sabitrain.data.rows import RowSource
from sabitrain.data.tokenizer import CHAT_TEMPLATE
from sabitrain.models.architecture import CausalModel
from sabitrain.optim.guard import StepGuard

FOLDER = "checkpoints"
LINK = "checkpoint"
ALL_FILES = (*FILES, *ADAPTER_FILES, CHAT_TEMPLATE, ADAPTED_FILE, TENSORS_FILE, FACTS_FILE)
_NAME = re.compile(r"step-\d{8,}")
_LEFT_OVER = re.compile(r"\.step-\d{8,}\.unfinished")


class History:
    """The checkpoints in ``RUN/checkpoints``, one folder a step.

    The link ``RUN/checkpoint`` leads to the newest.
    """

    def __init__(self, run: Path, config: CheckpointConfig) -> None:
        """Notes the run folder and which of its checkpoints to keep."""
        self.newest = run / LINK
        self._folder = run / FOLDER
        self._config = config

    def save(
        self,
        model: CausalModel,
        optimizers: Sequence[torch.optim.Optimizer],
        guard: StepGuard,
        dataset: RowSource,
        progress: Progress,
    ) -> Path:
        """Writes the checkpoint of a step, points the link to it, and removes older checkpoints.

        A checkpoint of the same step is replaced: it was found damaged when the run was resumed.

        Raises:
            OutputError: If it cannot be written.
        """
        folder = self._folder / folder_name(progress.step)
        try:
            files.make_folder(self._folder)
            # Whole or damaged, a folder of that name would be in the way of the rename.
            files.remove(folder)
            with new_checkpoint(folder) as unfinished:
                write_model(unfinished, model, dataset)
                save_state(unfinished, model, optimizers, guard, progress)
            self.settle(folder)
        except OSError as error:
            raise files.output_error(error, "cannot be written to", self._folder) from error
        return folder

    def resume(self, say: Callable[[str], None]) -> tuple[Path, Progress] | None:
        """Returns the newest checkpoint that is whole, and its progress; None if there is none.

        Args:
            say: The function that takes a line about each damaged checkpoint.

        Raises:
            TrainError: If there are checkpoints, but all are damaged.
        """
        damaged = None
        for folder in reversed(self._all()):
            try:
                return folder, read_progress(folder)
            except TrainError as error:
                say(f"{error.file}: {error.message}; going back to the checkpoint before it")
                damaged = error
        if damaged is not None:
            raise TrainError(
                "every checkpoint of this run is damaged",
                file=str(self._folder),
                remedy=f"remove {self._folder} to begin at the first step again, "
                "or put back a copy of a checkpoint",
            ) from damaged
        return None

    def settle(self, newest: Path) -> None:
        """Points the link to the newest checkpoint, and removes those that need not be kept.

        Unfinished checkpoints are removed too, and those of later steps: they were found damaged
        when the run was resumed.
        """
        # Relative, so that a run folder can be moved.
        target = f"{FOLDER}/{newest.name}"
        if not (self.newest.is_symlink() and os.readlink(self.newest) == target):
            files.point(self.newest, target)
        found = self._all()
        # The link leads to the newest before any other is removed.
        steps = [_step(folder) for folder in found]
        keep = kept_steps(steps, _step(newest), self._config)
        for folder in found:
            if _step(folder) not in keep:
                # Under another name first: half a checkpoint must not be taken for one.
                doomed = files.unfinished_name(folder)
                files.remove(doomed)
                files.rename(folder, doomed)
        for path in sorted(self._folder.iterdir()):
            if _LEFT_OVER.fullmatch(path.name):
                files.remove(path)

    def _all(self) -> list[Path]:
        """Returns the folders of all finished checkpoints, oldest first."""
        return folders(self._folder.parent)


def folders(run: Path) -> list[Path]:
    """Returns the folders of a run's finished checkpoints, oldest first, whole or damaged."""
    folder = run / FOLDER
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), key=_step)


def kept_steps(steps: Sequence[int], newest: int, config: CheckpointConfig) -> set[int]:
    """Returns the steps of the checkpoints to keep.

    Args:
        steps: The steps of all checkpoints, in order.
        newest: The step of the newest; later ones were found damaged.
        config: Which to keep.
    """
    whole = [step for step in steps if step <= newest]
    keep = set(whole[-config.keep_last :])
    if config.keep_every:
        keep |= {step for step in whole if step % config.keep_every == 0}
    return keep


def folder_name(step: int) -> str:
    """Returns the name of the folder of a checkpoint."""
    return f"step-{step:08d}"


def step_of(name: str) -> int:
    """Returns the step of the checkpoint whose folder has a name."""
    return int(name.removeprefix("step-"))


def is_finished_name(name: str) -> bool:
    """Returns whether a folder of a finished checkpoint has such a name."""
    return _NAME.fullmatch(name) is not None


def is_ours(name: str) -> bool:
    """Returns whether an entry of ``RUN/checkpoints`` bears a name that a run gives."""
    return bool(_NAME.fullmatch(name) or _LEFT_OVER.fullmatch(name))


def _step(folder: Path) -> int:
    """Returns the step of a checkpoint."""
    return step_of(folder.name)
