"""The options of a run of `pack`, defined once.

The functions of `sabiprep.api`, the command line (`sabiprep.arguments`) and the core
(``rust/core/plan/options.rs``) all read them from here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from sabiprep.errors import ConfigError
from sabiprep.places import StrPath as StrPath
from sabiprep.places import is_remote, place_of

LARGEST = 2**63 - 1


# Metadata of a field: how the command line describes its default.
_FROM_CONFIG = {"shown": "as in corpus.toml"}


@dataclass(frozen=True, kw_only=True)
class PackOptions:
    """The settings of a run that are not in ``corpus.toml``.

    ``seq_len``, ``tokenizer`` and ``seed`` replace values of ``corpus.toml``. The others never
    change the bytes of the dataset.

    Raises:
        ConfigError: If a value cannot be right.
    """

    seq_len: int | None = field(default=None, metadata=_FROM_CONFIG)
    """Tokens in a row, a multiple of 64."""
    tokenizer: StrPath | None = field(default=None, metadata=_FROM_CONFIG)
    """The tokenizer.json to use, or a folder with one, such as a checkpoint."""
    seed: int | None = field(default=None, metadata=_FROM_CONFIG)
    """Decides every random choice: the order of documents, the records held out."""
    threads: int | None = field(default=None, metadata={"shown": "all cores"})
    """Threads to work with, on a Ray cluster the cores of each task (there 1 by default); they
    never change the output.
    """
    split_bytes: int | None = field(default=None, metadata={"shown": "8 MiB"})
    """Bytes of input that a thread takes on at a time; they never change the output."""
    spool_bytes: int = field(default=192 << 20, metadata={"shown": "192 MiB"})
    """Bytes of tokenized documents held in memory; beyond them, they are files in OUT/.work."""
    strict: bool = False
    """Stop at a dropped record, and name the first, unless `corpus.toml` chose to drop it."""
    overwrite: bool = False
    """Replace the dataset in OUT once the new one is complete. Any other folder is left alone."""
    resume: bool = False
    """Go on with the run that was stopped in OUT, if there is one."""
    keep_spool: bool = False
    """Leave the tokenized documents in OUT/.work, for `remix` or for a grown corpus."""
    reuse: StrPath | None = None
    """A dataset packed with `keep_spool`, whose documents are used again."""

    def __post_init__(self) -> None:
        """Checks every value."""
        checked_number("seq_len", self.seq_len, 1, 2**31 - 1)
        checked_number("seed", self.seed, 0, 2**64 - 1)
        checked_number("threads", self.threads, 1, 4096)
        checked_number("split_bytes", self.split_bytes, 1, LARGEST)
        if checked_number("spool_bytes", self.spool_bytes, 0, LARGEST) is None:
            raise ConfigError(
                "spool_bytes is None", remedy=f"give a whole number from 0 to {LARGEST}"
            )
        for name in ("tokenizer", "reuse"):
            path = getattr(self, name)
            checked_path(name, path)
            if path is not None and is_remote(path):
                # As text: a `Path` has taken one of the two slashes away.
                object.__setattr__(self, name, place_of(path))
        for name in ("strict", "overwrite", "resume", "keep_spool"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} is {getattr(self, name)!r}", remedy="give True or False")
        if self.reuse is not None and self.split_bytes is not None:
            raise ConfigError(
                "split_bytes cannot be set where a spool is reused",
                remedy="leave split_bytes out: the reused dataset decides it",
            )


def checked_path(name: str, value: StrPath | None) -> None:
    """Refuses a value that is neither None nor a path.

    Raises:
        ConfigError: If it is no ``str`` or ``os.PathLike[str]``, or empty.
    """
    if value is None:
        return
    # A path object may hold bytes, which the core does not take.
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        raise ConfigError(f"{name} is {value!r}", remedy="give a path as text or as a Path")
    if not os.fspath(value):
        raise ConfigError(f"{name} is an empty path", remedy='give a path; "." is this folder')


def checked_number(name: str, value: int | None, low: int, high: int) -> int | None:
    """Returns ``value`` if it is None or a whole number from ``low`` to ``high``.

    Raises:
        ConfigError: If it is anything else.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(
            f"{name} is {value!r}", remedy=f"give a whole number from {low} to {high}"
        )
    return value
