"""The errors of sabiprep and sabitrain: each carries its place and what to do about it."""

from __future__ import annotations


class SabiprepError(Exception):
    """Anything that sabiprep or sabitrain refuses or fails at.

    Attributes:
        message: What is wrong, without its place.
        file: The file it is about, as the user wrote it.
        line: The line in that file, counted from 1.
        source: The source of ``corpus.toml`` it is about.
        remedy: What to do about it.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        line: int | None = None,
        source: str | None = None,
        remedy: str | None = None,
    ) -> None:
        """Keep the message and its place; see the class for the arguments."""
        super().__init__(message)
        self.message = message
        self.file = file
        self.line = line
        self.source = source
        self.remedy = remedy

    def __str__(self) -> str:
        """``file:line, source 'name': message. Remedy: remedy``, of what is known."""
        place = []
        if self.file is not None:
            place.append(self.file if self.line is None else f"{self.file}:{self.line}")
        if self.source is not None:
            place.append(f"source '{self.source}'")
        head = f"{', '.join(place)}: {self.message}" if place else self.message
        return head if self.remedy is None else f"{head}\nRemedy: {self.remedy}"


class ConfigError(SabiprepError):
    """A configuration (``corpus.toml``, a trainer's TOML file or an option) that cannot be right."""


class InputError(SabiprepError):
    """An input that cannot be read, or a record whose policy is to stop the run."""


class TokenizerError(SabiprepError):
    """A tokenizer that cannot be loaded, or cannot serve this configuration."""


class DatasetError(SabiprepError):
    """A packed dataset that is unfinished, damaged, or of another format version."""


class OutputError(SabiprepError):
    """A place that cannot, or must not, be written to."""


class TrainError(SabiprepError):
    """A training run that cannot start or go on."""


class Interrupted(SabiprepError):
    """The run was stopped by the user."""


class InternalError(SabiprepError):
    """A broken promise of ours (a row that fails its own check): a bug, never the user's doing."""


def unforeseen(error: Exception) -> str:
    """Returns the message for an exception that nobody foresaw, for a command line: what and where,
    no traceback.
    """
    place, trace = "", error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        place = (
            f" (line {trace.tb_lineno} of {code.co_filename.rpartition('/')[2]}, in {code.co_name})"
        )
        trace = trace.tb_next
    return (
        f"{type(error).__name__}: {error}{place}\n"
        "Remedy: this is a bug in sabiprep: please report it, with these lines and the command"
    )
