"""The errors of sabiprep and sabitrain: each carries its place and its remedy.

An error that is a missing file, a refused permission and the like is also Python's own:
``except FileNotFoundError`` and ``except InputError`` both catch the `InputError` of a missing
input.
"""

from __future__ import annotations

import errno as numbers
import functools
from typing import Any, Self

_OS_ERRORS: dict[int, type[OSError]] = {
    numbers.ENOENT: FileNotFoundError,
    numbers.EACCES: PermissionError,
    numbers.EPERM: PermissionError,
    numbers.EEXIST: FileExistsError,
    numbers.EISDIR: IsADirectoryError,
    numbers.ENOTDIR: NotADirectoryError,
    numbers.ENOSPC: OSError,
}


class SabiprepError(Exception):
    """Anything that sabiprep or sabitrain refuses or fails at.

    Attributes:
        message: The fault, without its place.
        file: The file it is about, as the user wrote it.
        line: The line in that file, counted from 1.
        row: The row in that file, counted from 1, if it is a file of columns.
        source: The source of ``corpus.toml`` it is about.
        remedy: The way to mend it.
        errno: The number of the operating system's error behind it, if there is one.
    """

    errno: int | None

    def __new__(cls, message: str, *, errno: int | None = None, **place: Any) -> Self:
        """Makes an error that is also the `OSError` of ``errno``, where Python has one."""
        also = None if errno is None else _OS_ERRORS.get(errno)
        made: Any = cls if also is None else _as_both(cls, also)
        # From here on the made class decides: Exception's constructor refuses OSErrors.
        error: Self = super(SabiprepError, made).__new__(made, message)
        return error

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        line: int | None = None,
        row: int | None = None,
        source: str | None = None,
        remedy: str | None = None,
        errno: int | None = None,
    ) -> None:
        """Keeps the message and its place; see the class for the arguments."""
        super().__init__(message)
        self.message = message
        self.file = file
        self.line = line
        self.row = row
        self.source = source
        self.remedy = remedy
        self.errno = errno if errno in _OS_ERRORS else None
        if isinstance(self, OSError):
            self.strerror, self.filename = message, file

    def __str__(self) -> str:
        """Returns ``file:line, source 'name': message``, as far as known, then the remedy."""
        place = []
        if self.file is not None:
            place.append(self.file + place_in_file(self.line, self.row))
        if self.source is not None:
            place.append(f"source '{self.source}'")
        head = f"{', '.join(place)}: {self.message}" if place else self.message
        return head if self.remedy is None else f"{head}\nRemedy: {self.remedy}"

    def __reduce__(self) -> tuple[Any, ...]:
        """Returns the public class, the arguments and the attributes, for `pickle`."""
        cls = next(each for each in type(self).__mro__ if not getattr(each, "_is_both", False))
        names = ("file", "line", "row", "source", "remedy", "errno")
        place = {name: getattr(self, name) for name in names}
        return functools.partial(cls, **place), (self.message,), self.__dict__


def place_in_file(line: int | None, row: int | None) -> str:
    """Returns what follows a file's name: ``:5`` for a line, ``, row 5`` for a row, or nothing."""
    if row is not None:
        return f", row {row}"
    return "" if line is None else f":{line}"


_BOTH: dict[tuple[type, type], type] = {}


def _as_both(cls: type, also: type[OSError]) -> type:
    """Returns the class of the errors that are both, under the name of ``cls``."""
    if issubclass(cls, also):
        return cls
    if (cls, also) not in _BOTH:
        members = {"_is_both": True, "__module__": cls.__module__, "__doc__": cls.__doc__}
        _BOTH[cls, also] = type(cls.__name__, (cls, also), members)
    return _BOTH[cls, also]


class ConfigError(SabiprepError):
    """A configuration that cannot be right: ``corpus.toml``, a trainer's TOML file, an option."""


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
    """Returns the message for an unforeseen exception: its kind and place, without a traceback."""
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
