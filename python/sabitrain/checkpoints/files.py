"""The files of a run on the disk: each complete under its own name.

A file is written whole under another name, synced, and renamed: a file with its own name is
complete. The one exception is the record of a run, which grows line by line and is cut back to a
known length when the run is resumed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from safetensors.torch import load_file
from torch import Tensor

from sabiprep.errors import OutputError, SabiprepError
from sabiprep.files import open_regular
from sabitrain.checkpoints.disk import Disk

disk = Disk()
"""The disk of the process; every change goes through it."""


def make_folder(path: Path) -> None:
    """Makes a folder and its parents, unless they exist."""
    if not path.is_dir():
        disk.make_folder(path)


def write_file(path: Path, content: bytes) -> None:
    """Writes a new file and waits until the disk holds it.

    Raises:
        OSError: If it cannot be written, or is a link: the target of a link is left alone.
    """
    disk.write(path, content)
    sync(path)


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes tensors as a new safetensors file and waits until the disk holds it.

    Args:
        path: The file, which must not exist.
        tensors: The tensors, contiguous, on the CPU, sharing no memory.
        metadata: The texts in the head of the file.

    Raises:
        OSError: If it cannot be written.
    """
    disk.write_tensors(path, tensors, metadata)
    sync(path)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Reads a safetensors file, onto the CPU.

    Raises:
        OSError: If it is no regular file, or cannot be read.
        SafetensorError: If it is no safetensors file.
    """
    # The library opens the file by its name, whatever kind of file that is.
    os.close(open_regular(path))
    return load_file(path)


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all, in the place of one of the same name."""
    unfinished = unfinished_name(path)
    write_file(unfinished, content)
    rename(unfinished, path)


def point(link: Path, target: str) -> None:
    """Points the symbolic link ``link`` to ``target`` (relative to its folder), in one step."""
    # A link cannot be changed in place, but another one can be renamed over it.
    unfinished = unfinished_name(link)
    if unfinished.is_symlink():
        remove(unfinished)
    disk.link(unfinished, target)
    rename(unfinished, link)


def rename(old: Path, new: Path) -> None:
    """Gives a file or folder another name in the same folder; a file of that name is replaced."""
    disk.rename(old, new)
    sync(new.parent)


def remove(path: Path) -> None:
    """Removes a file, a link, or a folder with its content, entry by entry, if there is one.

    The target of a link stays.
    """
    if path.is_dir() and not path.is_symlink():
        for entry in sorted(path.iterdir()):
            remove(entry)
        disk.remove_folder(path)
    elif path.exists() or path.is_symlink():
        disk.unlink(path)


def sync(path: Path) -> None:
    """Waits until the disk holds a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        disk.sync(descriptor)
    finally:
        os.close(descriptor)


def unfinished_name(path: Path) -> Path:
    """Returns the name of a file or folder until it is complete: hidden, beside its place."""
    return path.with_name(f".{path.name}.unfinished")


def sha256(path: Path) -> str:
    """Returns the sha256 of a file's content, in hexadecimal."""
    with os.fdopen(open_regular(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def output_error(
    error: OSError, what: str, path: Path, going_on: str = "the same command with --resume"
) -> OutputError:
    """Returns the error for a file that cannot be written, with a remedy if the disk is full.

    Args:
        error: The error of the system.
        what: The failed action in words, which begin the message.
        path: The file or folder.
        going_on: The command that goes on once there is room.
    """
    # Such an error has its place and its remedy already.
    if isinstance(error, SabiprepError):
        raise error
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    remedy = (
        f"make room on that disk (or raise its quota), then go on with: {going_on}"
        if full
        else None
    )
    return OutputError(
        f"{what}: {error.strerror or error}", file=str(path), remedy=remedy, errno=error.errno
    )


class Lock:
    """The lock file of a run folder, held by one process at a time; a context manager.

    The system releases the lock when the process ends, however it ends. The file holds the id of
    the process and is removed at the end. The lock of a killed process is taken over.
    """

    def __init__(self, path: Path) -> None:
        """Takes the lock.

        Raises:
            BlockingIOError: If another process holds the lock; ``strerror`` is the id of that
                process, as far as known.
            OSError: If the file cannot be made, or the file system knows no locks.
        """
        self._path = path
        while True:
            self._descriptor = disk.open(path, os.O_RDWR | os.O_CREAT)
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
            # The holder has removed the file since it was opened: others would lock a new one.
            os.close(self._descriptor)

    def _sign(self) -> None:
        """Writes the id of the process into the file, if there is room: only people read it."""
        with contextlib.suppress(OSError):
            os.truncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def _is_named(self) -> bool:
        """Returns whether the locked file is the one that other processes will open."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._path.lstat())
        except FileNotFoundError:
            return False

    def __enter__(self) -> Self:
        """Returns the lock, let go at the end of the ``with``."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Removes the file while it is still held, then lets go."""
        with contextlib.suppress(OSError):
            if self._is_named():
                disk.unlink(self._path)
        os.close(self._descriptor)


class Log:
    """A file that grows line by line.

    Each line is with the operating system when `write` returns.
    """

    def __init__(self, path: Path, keep: int) -> None:
        """Opens the file, cut to its first ``keep`` bytes.

        A checkpoint notes the length of the file at that time.
        """
        descriptor = disk.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._file = os.fdopen(descriptor, "ab")
        self._file.truncate(min(keep, self._file.tell()))
        self._file.seek(0, os.SEEK_END)
        self.size = self._file.tell()

    def write(self, line: str) -> None:
        """Adds a line."""
        content = f"{line}\n".encode()
        disk.append(self._file, content)
        self.size += len(content)

    def sync(self) -> None:
        """Waits until the disk holds every line so far: a checkpoint counts on them."""
        disk.sync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
