"""Every change that training makes to a disk, one operation at a time.

A hook lets tests tear any of them.

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

from sabiprep.errors import OutputError, SabiprepError
from sabiprep.files import open_regular

FAULT = "SABITRAIN_TEST_FAULT"

_operations = 0


def make_folder(path: Path) -> None:
    """Makes a folder and those it lies in, unless they are there."""
    if not path.is_dir():
        _is_torn()
        path.mkdir(parents=True, exist_ok=True)


def write_file(path: Path, content: bytes) -> None:
    """Writes a new file and has the disk hold it.

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
    """Writes tensors as a new safetensors file, and has the disk hold it.

    The tensors are on the CPU and contiguous, and share no memory.

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
    """Reads a safetensors file, onto the CPU.

    Raises:
        OSError: If it is no regular file, or cannot be read.
        SafetensorError: If it is no safetensors file.
    """
    os.close(open_regular(path))  # the library opens it by its name
    return load_file(path)


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all, in the place of one of the same name."""
    unfinished = unfinished_name(path)
    write_file(unfinished, content)
    rename(unfinished, path)


def point(link: Path, target: str) -> None:
    """Has the symbolic link ``link`` lead to ``target`` (relative to its folder), in one step."""
    unfinished = unfinished_name(link)
    if unfinished.is_symlink():
        remove(unfinished)
    _is_torn()
    unfinished.symlink_to(target)
    rename(unfinished, link)


def rename(old: Path, new: Path) -> None:
    """Gives a file or folder another name in the same folder; a file of that name is replaced."""
    _is_torn()
    old.rename(new)
    sync(new.parent)


def remove(path: Path) -> None:
    """Removes a file, a link, or a folder with its content, entry by entry.

    It does nothing if there is none.

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
    """Has the disk hold what was written to a file or folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _is_torn()
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unfinished_name(path: Path) -> Path:
    """Returns where a file or folder lies until it is complete: hidden, beside its place."""
    return path.with_name(f".{path.name}.unfinished")


def sha256(path: Path) -> str:
    """Returns the sha256 of a file's content, in hexadecimal."""
    with os.fdopen(open_regular(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def output_error(
    error: OSError, what: str, path: Path, going_on: str = "the same command with --resume"
) -> OutputError:
    """Returns the error to raise where ``path`` could not be written.

    It has a remedy if the disk is full.

    Args:
        error: What the system said.
        what: What could not be done, to stand before it.
        path: Where.
        going_on: How to go on once there is room.
    """
    if isinstance(error, SabiprepError):  # it has its place and its remedy already
        raise error
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
        """Takes the lock.

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
        """Writes down who holds the lock, if there is room: it is only for people."""
        with contextlib.suppress(OSError):
            os.truncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def _is_named(self) -> bool:
        """Returns whether the locked file is the one that others will open."""
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
        _is_torn()
        with contextlib.suppress(OSError):
            if self._is_named():
                self._path.unlink()
        os.close(self._descriptor)


class Log:
    """A file that grows line by line.

    Each line is with the operating system when `write` returns.
    """

    def __init__(self, path: Path, keep: int) -> None:
        """Opens the file, cut to its first ``keep`` bytes.

        A checkpoint notes how many a run had written when it was made.
        """
        _is_torn()
        self._file = os.fdopen(_open_no_link(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab")
        self._file.truncate(min(keep, self._file.tell()))
        self._file.seek(0, os.SEEK_END)
        self.size = self._file.tell()

    def write(self, line: str) -> None:
        """Adds a line."""
        content = f"{line}\n".encode()
        if _is_torn(die=False):
            content = content[: len(content) // 2]
        self._file.write(content)
        self._file.flush()
        self.size += len(content)
        _die_if_torn()

    def sync(self) -> None:
        """Has the disk hold every line so far, so that a checkpoint may count on them."""
        _is_torn()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _open_no_link(path: Path, flags: int) -> int:
    """Opens or makes a file and returns its descriptor, never that of a link's target."""
    return open_regular(path, flags | os.O_NOFOLLOW)


def _os_error(error: SafetensorError) -> OSError:
    """Returns the system's error, which safetensors gives in words: ``(os error 28)``."""
    number = re.search(r"os error (\d+)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else OSError(str(error))


def _is_torn(die: bool = True) -> bool:
    """Counts an operation and returns whether it is the one to tear.

    If it is, the process dies at once, or the caller does half of it first.
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
    """Ends the process as ``kill -9`` does, if the operation at hand is the one to tear."""
    if _at_fault():
        os.kill(os.getpid(), signal.SIGKILL)
