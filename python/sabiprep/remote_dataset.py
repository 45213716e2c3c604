"""The files of a packed dataset in an object store: fetched into the cache when they are needed.

The manifest and the tokenizer are fetched when the dataset is opened, a shard when a row of it is
first read. Shards stay mapped up to the bound of the cache; beyond it the one that was opened first
is closed, and fetched again for the next row of it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from sabiprep.cache import cache_bound, cache_error, cache_folder, cached_file, hold, make_room
from sabiprep.errors import DatasetError, SabiprepError
from sabiprep.files import MANIFEST_LIMIT, TOKENIZER_LIMIT
from sabiprep.manifest import MANIFEST_FILE, Manifest, ShardInfo, manifest_of
from sabiprep.object_stores import Bucket, Head, is_forked
from sabiprep.places import StrPath, join


class Closable(Protocol):
    """A shard, for `RemoteFiles.opened`."""

    def close(self) -> None:
        """Closes it; the next read opens it again."""


# The shards that this process has mapped, with their bytes, in the order of their opening.
_mapped: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
_mapped_lock = threading.Lock()


class RemoteFiles:
    """The files of one dataset. Threads may share it; it can be pickled, and used after a fork.

    Attributes:
        place: The URL of the dataset.
        folder: The folder of the cache with its manifest and its tokenizer.
    """

    def __init__(self, place: StrPath) -> None:
        """Names the dataset; nothing is asked yet.

        Raises:
            ConfigError: If the URL names no folder, or holds a password or a query.
        """
        self._bucket = Bucket(place)
        self.place = self._bucket.place
        self.folder = Path()

    def open(self) -> Manifest:
        """Fetches the manifest and the tokenizer, and returns the manifest.

        Raises:
            DatasetError: If there is no manifest, or it or the tokenizer cannot be read.
            ConfigError: If the bound of the cache is no number.
        """
        file = join(self.place, MANIFEST_FILE)
        # A bound that is wrong is the fault of no dataset.
        cache_bound()
        try:
            content = self._bucket.read(MANIFEST_FILE, MANIFEST_LIMIT)
        except FileNotFoundError as error:
            raise DatasetError(
                f"no packed dataset here: {MANIFEST_FILE} is written last, and is missing",
                file=self.place,
                remedy="name the OUT of sabiprep pack, uploaded with all its files; "
                "and check the bucket's name",
                errno=error.errno,
            ) from error
        except SabiprepError as error:
            raise _dataset_error(error) from error
        manifest = manifest_of(content, file, self.place)
        self.folder = cache_folder() / "datasets" / manifest.digest
        tokenizer = self.folder / manifest.tokenizer_file
        try:
            if not (self._hold() and tokenizer.is_file()):
                self._fill(manifest, content)
        except SabiprepError as error:
            raise _dataset_error(error) from error
        except OSError as error:
            raise cache_error(error, self.folder.parent) from error
        self._warn(manifest)
        return manifest

    def _hold(self) -> bool:
        """Keeps the folder from being removed. Returns whether it is there."""
        try:
            descriptor = hold(self.folder)
        except FileNotFoundError:
            return False
        weakref.finalize(self, os.close, descriptor)
        return True

    def _fill(self, manifest: Manifest, content: bytes) -> None:
        """Makes the folder, whole, unless another process has made it meanwhile."""
        head = self._bucket.head(manifest.tokenizer_file)
        if head.size > TOKENIZER_LIMIT:
            raise DatasetError(
                f"{head.size:,} bytes, where at most {TOKENIZER_LIMIT:,} can be right",
                file=join(self.place, manifest.tokenizer_file),
            )
        tokenizer = self._bucket.read(manifest.tokenizer_file, TOKENIZER_LIMIT)
        make_room(len(content) + len(tokenizer), keep=self.folder)
        unfinished = self.folder.with_name(f".{self.folder.name}.{secrets.token_hex(8)}")
        unfinished.mkdir(parents=True)
        # Another process that makes room leaves it alone.
        held = hold(unfinished)
        try:
            for name, written in (
                (manifest.tokenizer_file, tokenizer),
                (MANIFEST_FILE, content),
            ):
                (unfinished / name).parent.mkdir(parents=True, exist_ok=True)
                (unfinished / name).write_bytes(written)
            # A folder that lacks its tokenizer is in the way of the rename.
            with contextlib.suppress(OSError):
                unfinished.rename(self.folder)
                self._hold()
                return
            shutil.copytree(unfinished, self.folder, dirs_exist_ok=True)
            self._hold()
        finally:
            os.close(held)
            shutil.rmtree(unfinished, ignore_errors=True)

    def _warn(self, manifest: Manifest) -> None:
        """Warns if the shards of a split do not fit the cache together."""
        bound = cache_bound()
        for name, infos in manifest.shards.items():
            size = sum(info.size for info in infos)
            if size > bound:
                warnings.warn(
                    f"{self.place}: the shards of {name} take {size / 1e9:.3g} GB, and the cache "
                    f"holds {bound / 1e9:.3g}: reading them in any order fetches them again and "
                    "again. SABIPREP_CACHE_GB sets the bound.",
                    RuntimeWarning,
                    stacklevel=4,
                )

    def shard(self, info: ShardInfo, stopped: Callable[[], bool] = lambda: False) -> Path:
        """Returns the file of a shard in the cache, fetched if it is not there or damaged.

        Args:
            info: The shard.
            stopped: The question asked after each part; a yes ends the fetching.

        Raises:
            DatasetError: If it cannot be fetched, or is not what the manifest says.
            Stopped: If ``stopped`` says so.
        """
        file = join(self.place, info.file)

        def fill(write: Callable[[int, bytes], object]) -> None:
            if is_forked():
                # Filled in by the other process; what is read is this one's own file.
                raise _Forked
            head = self._bucket.head(info.file)
            if head.size != info.size:
                raise DatasetError(
                    f"{head.size} bytes, where the manifest says {info.size}",
                    remedy="upload the dataset again, whole, or pack it again",
                )

            def write_on(start: int, content: bytes) -> None:
                if stopped():
                    raise Stopped(file)
                write(start, content)

            self._bucket.fetch(info.file, Head(info.size, head.e_tag), write_on)

        name = f"{info.xxh3_128}-{info.size}"
        try:
            return cached_file(name, info.size, lambda path: _checksum(path) == info.xxh3_128, fill)
        except _Forked:
            self._fetch_elsewhere(info)
            return cached_file(name, info.size, lambda path: _checksum(path) == info.xxh3_128, fill)
        except Stopped:
            raise
        except SabiprepError as error:
            raise _dataset_error(error, file) from error

    def _fetch_elsewhere(self, info: ShardInfo) -> None:
        """Fetches a shard in a process of its own: after a fork this one cannot.

        Raises:
            DatasetError: If it cannot be fetched.
        """
        words = [self.place, info.file, str(info.rows), str(info.size), info.xxh3_128]
        done = subprocess.run(
            [sys.executable, "-m", "sabiprep.remote_dataset", *words],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            what, _, remedy = done.stderr.strip().partition("\nRemedy: ")
            message = what.rpartition("\n")[2].removeprefix(f"{join(self.place, info.file)}: ")
            raise DatasetError(
                message or "cannot be fetched",
                file=join(self.place, info.file),
                remedy=remedy or None,
            )

    def opened(self, shard: Closable, size: int) -> None:
        """Notes that a shard is mapped, and closes others beyond the bound of the cache."""
        bound = cache_bound()
        with _mapped_lock:
            _mapped.pop(shard, None)
            total = size + sum(_mapped.values())
            for other in list(_mapped):
                if total <= bound:
                    break
                total -= _mapped.pop(other)
                other.close()
            _mapped[shard] = size


class Stopped(Exception):
    """The end of a fetch that nobody waits for any more."""


class _Forked(Exception):
    """The sign that a shard must be fetched in another process."""


class FetchAhead:
    """A thread that fetches shards before they are needed, in order, as far as the cache goes.

    What it cannot fetch is left to the reader, who meets the error.
    """

    def __init__(self, remote: RemoteFiles, infos: Iterable[ShardInfo]) -> None:
        """Begins to fetch."""
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._fetch, args=(remote, list(infos)), name="sabiprep-ahead", daemon=True
        )
        self._thread.start()

    def _fetch(self, remote: RemoteFiles, infos: list[ShardInfo]) -> None:
        left = cache_bound()
        for info in infos:
            left -= info.size
            if left < 0 or self._stop.is_set():
                return
            try:
                remote.shard(info, self._stop.is_set)
            except (SabiprepError, Stopped):
                return

    def close(self) -> None:
        """Ends the thread, after the parts that it is reading."""
        self._stop.set()
        self._thread.join()


def _checksum(path: Path) -> str:
    """Returns the xxh3-128 of a file, as manifests have it.

    Raises:
        SabiprepError: If ``xxhash`` is not installed.
    """
    try:
        import xxhash
    except ImportError as error:
        raise SabiprepError(
            f"datasets in object stores need xxhash: {error}",
            remedy="pip install 'sabiprep[cloud]'",
        ) from error
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _dataset_error(error: SabiprepError, file: str | None = None) -> DatasetError:
    """Returns an error of a store as one of the dataset."""
    return DatasetError(
        error.message, file=error.file or file, remedy=error.remedy, errno=error.errno
    )


def _main(words: list[str]) -> int:
    """Fetches one shard for a process that was forked; see `RemoteFiles._fetch_elsewhere`."""
    place, file, rows, size, checksum = words
    try:
        RemoteFiles(place).shard(ShardInfo(file, int(rows), int(size), checksum))
    except SabiprepError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
