"""Every change that training makes to a disk, one operation at a time, and the hook by which tests
tear any of them.

A file is written whole under another name, synced, and renamed: what bears its own name is
complete. The one exception is the record of a run, which grows line by line and is cut back to a
known length when the run is resumed.

With ``SABITRAIN_TEST_FAULT=abort:N`` in the environment the process dies by SIGKILL in the middle
of its N-th operation: a write is then half done, a rename or a removal not at all.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import signal
import stat
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sabiprep.errors import OutputError
from sabiprep.files import open_regular

FAULT = "SABITRAIN_TEST_FAULT"

_operations = 0


def make_folder(path: Path) -> None:
    """Make a folder and those it lies in, unless they are there."""
    if not path.is_dir():
        _is_torn()
        path.mkdir(parents=True, exist_ok=True)


def write_file(path: Path, content: bytes) -> None:
    """Write a new file and have the disk hold it.

    Raises:
        OSError: If it cannot be written, or a link bears its name: what that leads to is left
            alone.
    """
    with os.fdopen(_open_no_link(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
        if _is_torn(die=False):
            content = content[: len(content) // 2]
        file.write(content)
    _die_if_torn()
    sync(path)


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors (on the CPU, contiguous, sharing nothing) as a new safetensors file, and have
    the disk hold it.

    The file has the mode that the umask gives every new file; safetensors alone would let only its
    owner read it.

    Raises:
        OSError: If it cannot be written.
    """
    torn = _is_torn(die=False)
    with path.open("xb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    try:
        save_file(dict(tensors), path, metadata=None if metadata is None else dict(metadata))
    except SafetensorError as error:
        raise _os_error(error) from error
    path.chmod(mode)
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
    """Remove a file, a link, or a folder with all that is in it, entry by entry; nothing, if it is
    not there.

    Of a link, the link alone goes: whatever it leads to stays.
    """
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


def output_error(
    error: OSError, what: str, path: Path, going_on: str = "the same command with --resume"
) -> OutputError:
    """Returns the error to raise where ``path`` could not be written, with a remedy if the disk is
    full.

    Args:
        error: What the system said.
        what: What could not be done, to stand before it.
        path: Where.
        going_on: How to go on once there is room.
    """
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    remedy = (
        f"make room on that disk (or raise its quota), then go on with: {going_on}"
        if full
        else None
    )
    return OutputError(f"{what}: {error.strerror or error}", file=str(path), remedy=remedy)


class Lock:
    """The lock file of a run folder, held by one process at a time; a context manager.

    The system lets go of it when the process ends, however it ends. The file holds the id of the
    process, and is removed in the end; one that a killed process has left is taken over.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock.

        Raises:
            BlockingIOError: If another process holds it; its ``strerror`` is the id of that
                process, as far as known.
            OSError: If the file cannot be made, or the file system knows no locks.
        """
        self._path = path
        while True:
            _is_torn()
            self._descriptor = _open_no_link(path, os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_named():
                    self._sign()
                    return
            except BlockingIOError as error:
                holder = os.pread(self._descriptor, 20, 0).decode("ascii", "replace").strip()
                os.close(self._descriptor)
                raise BlockingIOError(error.errno, holder) from error
            except OSError:
                os.close(self._descriptor)
                raise
            os.close(self._descriptor)  # its holder has removed the file since it was opened

    def _sign(self) -> None:
        """Write down who holds the lock, if there is room: it is only for people."""
        with contextlib.suppress(OSError):
            os.truncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def _is_named(self) -> bool:
        """Whether the file that is locked is the one that others will open."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._path.lstat())
        except FileNotFoundError:
            return False

    def __enter__(self) -> Self:
        """The lock, let go at the end of the ``with``."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the file while it is still held, then let go."""
        _is_torn()
        with contextlib.suppress(OSError):
            if self._is_named():
                self._path.unlink()
        os.close(self._descriptor)


class Log:
    """A file that grows line by line; each line is with the operating system when `write` returns."""

    def __init__(self, path: Path, keep: int) -> None:
        """Open the file, cut to its first ``keep`` bytes: what a run had written when its
        checkpoint was made.
        """
        _is_torn()
        self._file = os.fdopen(_open_no_link(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab")
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


def _open_no_link(path: Path, flags: int) -> int:
    """A descriptor of a file opened or made, and never of what a link of that name leads to."""
    return open_regular(path, flags | os.O_NOFOLLOW)


def _os_error(error: SafetensorError) -> OSError:
    """What the system said to safetensors, which has it in its words alone: ``(os error 28)``."""
    number = re.search(r"os error (\d+)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else OSError(str(error))


def _is_torn(die: bool = True) -> bool:
    """Count an operation; if it is the one to tear, die at once, or let the caller do half of it
    first.
    """
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
