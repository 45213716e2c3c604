"""Every change that training makes to a disk, one operation at a time, and the hook by which tests tear any of them.

A file is written whole under another name, synced, and renamed: what bears its own name is complete. The one exception
is the record of a run, which grows line by line and is cut back to a known length when the run is resumed.

With ``SABITRAIN_TEST_FAULT=abort:N`` in the environment the process dies by SIGKILL in the middle of its N-th
operation: a write is then half done, a rename or a removal not at all.
"""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from sabiprep.files import open_regular

FAULT = "SABITRAIN_TEST_FAULT"

_operations = 0


def make_folder(path: Path) -> None:
    """Make a folder and those it lies in, unless they are there."""
    if not path.is_dir():
        _is_torn()
        path.mkdir(parents=True, exist_ok=True)


def write_file(path: Path, content: bytes) -> None:
    """Write a new file and have the disk hold it."""
    with path.open("wb") as file:
        if _is_torn(die=False):
            content = content[: len(content) // 2]
        file.write(content)
    _die_if_torn()
    sync(path)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors (on the CPU, contiguous, sharing nothing) as a new safetensors file, and have the disk hold it."""
    torn = _is_torn(die=False)
    save_file(dict(tensors), path, metadata=None if metadata is None else dict(metadata))
    if torn:
        os.truncate(path, path.stat().st_size // 2)
    _die_if_torn()
    sync(path)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file, onto the CPU.

    Raises:
        OSError: If it is no regular file, or cannot be read.
        SafetensorError: If it is no safetensors file.
    """
    os.close(open_regular(path))  # the library opens it by its name
    return load_file(path)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, in the place of one of the same name."""
    unfinished = unfinished_name(path)
    write_file(unfinished, content)
    rename(unfinished, path)


def point(link: Path, target: str) -> None:
    """Have the symbolic link ``link`` lead to ``target`` (relative to its folder), in one step."""
    unfinished = unfinished_name(link)
    if unfinished.is_symlink():
        remove(unfinished)
    _is_torn()
    unfinished.symlink_to(target)
    rename(unfinished, link)


def rename(old: Path, new: Path) -> None:
    """Give a file or folder another name in the same folder; a file of that name is replaced."""
    _is_torn()
    old.rename(new)
    sync(new.parent)


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all that is in it, entry by entry; nothing, if it is not there."""
    if path.is_dir() and not path.is_symlink():
        for entry in sorted(path.iterdir()):
            remove(entry)
        _is_torn()
        path.rmdir()
    elif path.exists() or path.is_symlink():
        _is_torn()
        path.unlink()


def sync(path: Path) -> None:
    """Have the disk hold what was written to a file or folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _is_torn()
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unfinished_name(path: Path) -> Path:
    """Where something lies until it is complete: hidden, beside the place it will have."""
    return path.with_name(f".{path.name}.unfinished")


def sha256(path: Path) -> str:
    """The sha256 of a file's content, in hexadecimal."""
    with os.fdopen(open_regular(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Log:
    """A file that grows line by line; each line is with the operating system when `write` returns."""

    def __init__(self, path: Path, keep: int) -> None:
        """Open the file, cut to its first ``keep`` bytes: what a run had written when its checkpoint was made."""
        _is_torn()
        self._file = os.fdopen(open_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab")
        self._file.truncate(min(keep, self._file.tell()))
        self._file.seek(0, os.SEEK_END)
        self.size = self._file.tell()

    def write(self, line: str) -> None:
        """Add a line."""
        content = f"{line}\n".encode()
        if _is_torn(die=False):
            content = content[: len(content) // 2]
        self._file.write(content)
        self._file.flush()
        self.size += len(content)
        _die_if_torn()

    def sync(self) -> None:
        """Have the disk hold every line so far, so that a checkpoint may count on them."""
        _is_torn()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _is_torn(die: bool = True) -> bool:
    """Count an operation; if it is the one to tear, die at once, or let the caller do half of it first."""
    global _operations
    _operations += 1
    torn = _at_fault()
    if torn and die:
        _die_if_torn()
    return torn


def _at_fault() -> bool:
    return os.environ.get(FAULT) == f"abort:{_operations}"


def _die_if_torn() -> None:
    """End the process as ``kill -9`` does, if the operation at hand is the one to tear."""
    if _at_fault():
        os.kill(os.getpid(), signal.SIGKILL)
