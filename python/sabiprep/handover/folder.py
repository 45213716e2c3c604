"""A folder that appears whole or not at all: made beside its name, then renamed.

The folder carries a marker (`MARKER`), and only a folder with one is ever replaced. While it is
made it holds a lock, so that what a killed process left is told from what another one writes.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from sabiprep.errors import ConfigError, OutputError, SabiprepError
from sabiprep.options import StrPath, checked_path
from sabiprep.places import is_remote

MARKER = ".sabiprep-export.json"
"""Its first character hides it from tools that read every file of a folder."""
_LOCK = ".lock"


class NewFolder:
    """A folder in the making.

    Attributes:
        path: The place where its files are written now.
        final: The place where they will be.
        marker: The content of the marker.
    """

    def __init__(self, path: Path, final: Path) -> None:
        """Describes the folder; `new_folder` makes it."""
        self.path = path
        self.final = final
        self.marker: dict[str, Any] = {}

    @contextmanager
    def file(self, name: str) -> Iterator[IO[bytes]]:
        """Yields a new file.

        Args:
            name: The name, with the folders it is in.
        """
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            yield file

    def append(self, name: str, content: bytes) -> None:
        """Writes to the end of a file, which is made if it is missing."""
        with (self.path / name).open("ab") as file:
            file.write(content)

    def write(self, name: str, content: bytes) -> None:
        """Writes a file whole."""
        with self.file(name) as file:
            file.write(content)

    def write_json(self, name: str, content: object) -> None:
        """Writes an object as indented JSON, its keys in their order."""
        self.write(name, json.dumps(content, ensure_ascii=False, indent=2).encode() + b"\n")


@contextmanager
def new_folder(folder: StrPath, *, apart_from: StrPath, overwrite: bool) -> Iterator[NewFolder]:
    """Yields a folder to fill; it is at ``folder`` after the ``with``, and nowhere after an error.

    Args:
        folder: The place: missing, an empty folder, or with ``overwrite`` one that was made here.
        apart_from: The folder that is read. Nothing is written into it.
        overwrite: Whether to replace a folder that was made here before.

    Raises:
        ConfigError: If ``folder`` is no path.
        OutputError: If ``folder`` is taken, or lies in the folder that is read, or around it; or
            if another process is filling it, or a file cannot be written.
    """
    checked_path("folder", folder)
    if folder is None:
        raise ConfigError("folder is None", remedy="name the folder to make")
    if is_remote(folder):
        raise ConfigError(
            "exports are written to this machine alone",
            remedy="name a folder here, and upload it afterwards",
        )
    try:
        final = Path(folder).resolve()
        _refuse_nesting(folder, final, Path(apart_from).resolve())
        _refuse_taken(folder, final, overwrite)
        final.parent.mkdir(parents=True, exist_ok=True)
        partial = final.parent / f".{final.name}.partial"
        lock = _locked(partial)
        try:
            made = NewFolder(partial, final)
            yield made
            made.write_json(MARKER, made.marker)
            _refuse_taken(folder, final, overwrite)
            (partial / _LOCK).unlink()
            _swap(partial, final)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        finally:
            os.close(lock)
    except SabiprepError:
        raise
    except (OSError, RuntimeError) as error:
        number = error.errno if isinstance(error, OSError) else None
        raise OutputError(
            f"cannot be written: {getattr(error, 'strerror', None) or error}",
            file=os.fspath(folder),
            remedy="make room, or name a folder that you may write to",
            errno=number,
        ) from error


def _refuse_nesting(folder: StrPath, final: Path, read: Path) -> None:
    """Refuses a folder inside the one that is read, or around it."""
    if final.is_relative_to(read) or read.is_relative_to(final):
        raise OutputError(
            f"this folder and {read}, which is read, lie in each other",
            file=os.fspath(folder),
            remedy="name a folder beside it",
        )


def _refuse_taken(folder: StrPath, final: Path, overwrite: bool) -> None:
    """Refuses a place where something is that may not be replaced."""
    if not final.exists():
        return
    if not final.is_dir():
        raise OutputError(
            "a file is there, where a folder is to be made",
            file=os.fspath(folder),
            remedy="name another folder",
            errno=errno.ENOTDIR,
        )
    if (final / MARKER).is_file():
        if not overwrite:
            raise OutputError(
                "an export is there already",
                file=os.fspath(folder),
                remedy="replace it with --overwrite (overwrite=True), or name another folder",
                errno=errno.EEXIST,
            )
    elif any(final.iterdir()):
        raise OutputError(
            "not empty, and no export of sabiprep",
            file=os.fspath(folder),
            remedy="name another folder: only an export is ever replaced",
            errno=errno.EEXIST,
        )


def _locked(partial: Path) -> int:
    """Makes the folder ``partial``, empty but for its lock, and returns the lock's descriptor.

    Raises:
        OutputError: If another process holds it, or something else is there.
    """
    try:
        partial.mkdir()
        fresh = True
    except FileExistsError:
        fresh = False
    flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if fresh else os.O_NOFOLLOW)
    try:
        lock = os.open(partial / _LOCK, flags, 0o666)
    except (FileNotFoundError, NotADirectoryError):
        raise OutputError(
            "something is there, where the folder is made until it is whole",
            file=str(partial),
            remedy="remove it if no export is running",
            errno=errno.EEXIST,
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for left in () if fresh else list(partial.iterdir()):
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            elif left.name != _LOCK:
                left.unlink()
    except BlockingIOError:
        os.close(lock)
        raise OutputError(
            "another process is writing it", file=str(partial), remedy="wait until it is done"
        ) from None
    except BaseException:
        os.close(lock)
        raise
    return lock


def _swap(partial: Path, final: Path) -> None:
    """Renames ``partial`` to ``final``, and removes the folder that was there."""
    for folder, _, files in os.walk(partial):
        for name in (*files, "."):
            _sync(Path(folder, name))
    replaced = final.parent / f".{final.name}.replaced"
    if final.exists() and any(final.iterdir()):
        shutil.rmtree(replaced, ignore_errors=True)
        final.rename(replaced)
    partial.rename(final)
    _sync(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _sync(path: Path) -> None:
    """Puts a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
