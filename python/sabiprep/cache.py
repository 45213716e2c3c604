"""Files of object stores, kept on this machine: found by checksum, and bounded.

The cache is the folder of ``SABIPREP_CACHE``, by default ``sabiprep`` in ``XDG_CACHE_HOME`` or
``~/.cache``. Several processes may share it. A file appears whole, by a rename, and is held against
its checksum when a process first opens it. Beyond ``SABIPREP_CACHE_GB`` the files that were used
longest ago are removed. A process that has mapped a removed file keeps reading it, and its room on
the disk is free once the file is closed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from sabiprep.errors import ConfigError, DatasetError, SabiprepError
from sabiprep.files import open_regular
from sabiprep.places import name as name_of

FOLDER_VARIABLE = "SABIPREP_CACHE"
BOUND_VARIABLE = "SABIPREP_CACHE_GB"
DEFAULT_GB = 50.0
"""GB (10^9 bytes) of the cache, or half of the free disk if that is less."""

KEPT_FOLDERS = ("shards", "datasets", "checkpoints")
"""The folders of the cache whose entries are counted and removed; runs are neither."""
_PART = ".part"

Fill = Callable[[Callable[[int, bytes], object]], None]
"""A function that fetches a file: it is given one that writes bytes at a place."""


def cache_folder() -> Path:
    """Returns the folder of the cache, made or not."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    # As its specification says, a relative one is none.
    root = Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache"
    return root / "sabiprep"


def cache_bound() -> int:
    """Returns the bytes that the cache may hold.

    Raises:
        ConfigError: If ``SABIPREP_CACHE_GB`` is no number above 0.
    """
    text = os.environ.get(BOUND_VARIABLE)
    if text:
        try:
            bound = float(text)
        except ValueError:
            bound = 0.0
        if not 0 < bound < 1e9:
            raise ConfigError(
                f"{BOUND_VARIABLE} is {text!r}, not a number of GB above 0",
                remedy=f"as in {BOUND_VARIABLE}=50",
            )
        return int(bound * 1e9)
    folder = cache_folder()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    held = sum(size for _, _, size in _entries())
    return min(int(DEFAULT_GB * 1e9), (free + held) // 2)


# The files that this process has held against their checksums: the process (a fork begins anew),
# the path, the number of the file. A file that appears in its place has another number.
_checked: set[tuple[int, str, int]] = set()


def cached_file(name: str, size: int, is_right: Callable[[Path], bool], fill: Fill) -> Path:
    """Returns a file of the cache, fetched if it is not there or not right.

    Args:
        name: The name of the file in the cache's folder of shards, by its content.
        size: Its bytes.
        is_right: Whether the content of a file is that of the name.
        fill: The function that fetches it.

    Raises:
        DatasetError: If there is no room, or what is fetched is not right.
        InputError: As ``fill``.
    """
    path = cache_folder() / "shards" / name
    if _is_held(path, size, is_right):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_name(name + _PART)) as part:
            # Another process may have fetched it while this one waited.
            if _is_held(path, size, is_right):
                return path
            make_room(size, keep=path)
            unfinished = path.with_name(name + _PART)
            try:
                os.ftruncate(part, 0)
                fill(functools.partial(write_at, part))
                if os.fstat(part).st_size != size or not is_right(unfinished):
                    raise DatasetError(
                        "is not what the manifest says: its checksum does not hold",
                        remedy="upload the dataset again, whole, or pack it again",
                    )
                unfinished.rename(path)
            finally:
                unfinished.unlink(missing_ok=True)
            _note_checked(path)
            return path
    except SabiprepError:
        raise
    except OSError as error:
        raise cache_error(error, path.parent) from error


def cache_error(error: OSError, folder: Path) -> DatasetError:
    """Returns the error of a cache that cannot be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return DatasetError(
        f"the cache cannot be written: {error.strerror or error}",
        file=str(folder),
        remedy=f"set {BOUND_VARIABLE} to fewer GB, or {FOLDER_VARIABLE} to a folder of a larger "
        "disk"
        if full
        else f"set {FOLDER_VARIABLE} to a folder that may be written to",
        errno=error.errno,
    )


def make_room(size: int, keep: Path) -> None:
    """Removes the entries that were used longest ago until ``size`` more bytes fit.

    An entry that a process holds (`held`) stays, and so does ``keep``.
    """
    bound = cache_bound()
    with _locked(cache_folder() / ".lock"):
        entries = sorted(_entries(), key=lambda entry: entry[1])
        total = sum(entry_size for _, _, entry_size in entries)
        for path, _, entry_size in entries:
            if total + size <= bound:
                return
            if path != keep and _remove(path):
                total -= entry_size


def hold(folder: Path) -> int:
    """Keeps an entry from being removed as long as this process lives. Returns its descriptor."""
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    os.utime(folder)
    return descriptor


def _entries() -> Iterator[tuple[Path, int, int]]:
    """Yields every entry of the cache, the time of its last use, and its bytes."""
    for kind in KEPT_FOLDERS:
        folder = cache_folder() / kind
        for path in folder.iterdir() if folder.is_dir() else ():
            # Another process may remove it meanwhile.
            with contextlib.suppress(FileNotFoundError):
                status = path.lstat()
                inner = path.rglob("*") if path.is_dir() and not path.is_symlink() else (path,)
                yield path, status.st_mtime_ns, sum(each.lstat().st_size for each in inner)


def _remove(path: Path) -> bool:
    """Removes an entry of the cache unless a process holds it, and returns whether it is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        # A part that is being fetched and a folder in use are locked; a mapped shard is not, since
        # its reader keeps it.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _is_held(path: Path, size: int, is_right: Callable[[Path], bool]) -> bool:
    """Returns whether a file is in the cache; one that is not right is removed."""
    try:
        status = path.stat()
        is_known = (os.getpid(), str(path), status.st_ino) in _checked
        if status.st_size == size and (is_known or is_right(path)):
            os.utime(path)
            _note_checked(path)
            return True
        path.unlink(missing_ok=True)
    except OSError:
        return False
    return False


def _note_checked(path: Path) -> None:
    """Notes that this process has held a file against its checksum."""
    _checked.add((os.getpid(), str(path), path.stat().st_ino))


def run_folder(run: str) -> Path:
    """Returns the folder of the cache for a training run whose place is a URL.

    It may hold checkpoints that are nowhere else yet, so it is neither counted nor removed.
    """
    digest = hashlib.sha256(run.encode()).hexdigest()[:16]
    return cache_folder() / "runs" / f"{name_of(run) or 'run'}-{digest}"


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Makes and locks a file; the lock is waited for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = open_regular(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Its holder may have renamed or removed it meanwhile.
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                yield descriptor
                return
        finally:
            os.close(descriptor)


def write_at(descriptor: int, start: int, content: bytes) -> None:
    """Writes bytes at a place of a file."""
    view = memoryview(content)
    while view:
        written = os.pwrite(descriptor, view, start)
        view, start = view[written:], start + written
