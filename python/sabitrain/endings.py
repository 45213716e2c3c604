"""The errors that end a run, each with the command or the setting that helps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from sabiprep.errors import Interrupted, TrainError
from sabitrain.checkpoints.files import output_error
from sabitrain.checkpoints.run_folder import resume_command
from sabitrain.config import TrainConfig
from sabitrain.monitoring.report import saved_so_far


@contextlib.contextmanager
def errors_with_remedies(config: TrainConfig) -> Iterator[None]:
    """Gives errors of the system and of torch inside the ``with`` their place and remedy.

    Raises:
        Interrupted: If Ctrl-C came twice.
        TrainError: If the GPU's memory is full.
        OutputError: If the disk refuses a change.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped by Ctrl-C at once; {saved_so_far(config.folder)}",
            file=config.run_name,
            remedy=f"go on with: {resume_command(config)}",
        ) from None
    except torch.OutOfMemoryError as error:
        raise TrainError(
            f"the GPU's memory is full (--memory-limit is {config.memory_limit}, "
            f"--batch.micro-tokens {config.batch.micro_tokens})",
            remedy="use --recompute on; for a new run leave --batch.micro-tokens at auto, or take "
            "a smaller model: `python -m sabitrain plan` says what fits",
        ) from error
    except OSError as error:
        raise output_error(
            error, "the run cannot go on", config.folder, resume_command(config)
        ) from error
