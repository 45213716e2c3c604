"""Folders of object stores: objects read, put, listed and removed, by ``obstore``.

Requests that falter are made again, and a body that breaks is read on from the chunk that broke.
Errors bear the place and a remedy, never a credential: those come from the environment and go to
``obstore`` alone.
"""

from __future__ import annotations

import errno
import functools
import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

from sabiprep.errors import InputError, SabiprepError
from sabiprep.places import StrPath, checked, join

ATTEMPTS = 4
"""How often a request or a chunk is asked for, beside what ``obstore`` tries by itself."""
PAUSE = 0.5
"""Seconds before the second attempt; each later pause is twice as long."""
CHUNK = 8 << 20
"""Bytes of a request for a part of an object."""
PARALLEL = 8
"""Requests for parts of one object at a time."""
RETRIES: dict[str, Any] = {
    "max_retries": 5,
    "retry_timeout": timedelta(seconds=60),
    "backoff": {
        "init_backoff": timedelta(milliseconds=200),
        "max_backoff": timedelta(seconds=10),
        "base": 2,
    },
}
"""How ``obstore`` tries a request again that is answered by 429 or 5xx, or not at all."""
_CLIENT = {"timeout": "120s", "connect_timeout": "10s"}

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w{1,64})</Code>")
_CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION (AWS_ENDPOINT_URL for "
    "another server than Amazon's; AWS_SKIP_SIGNATURE=true for a public bucket)",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ACCOUNT_KEY or another credential",
    "http": "check that the page is public",
    "https": "check that the page is public",
}
# The process that began to use obstore: its threads do not live on in a fork.
_user: list[int] = []

T = TypeVar("T")


@dataclass(frozen=True)
class Head:
    """What a store says about an object.

    Attributes:
        size: Its bytes.
        e_tag: The tag of its content.
        version: Its version, in stores that know such.
    """

    size: int
    e_tag: str | None
    version: str | None = None


class Conflict(SabiprepError):
    """The error of a conditional put: the object is there already, or another than was said."""


class Unsupported(SabiprepError):
    """The error of a conditional put in a store that knows none."""


class Bucket:
    """A folder of an object store. Threads may share it; it can be pickled.

    Every method raises `InputError` if the store cannot be reached, or refuses; it is also a
    `FileNotFoundError` if there is no such object, and a `PermissionError` if access is denied.

    Attributes:
        place: The URL of the folder.
    """

    def __init__(self, place: StrPath) -> None:
        """Names the folder; nothing is asked yet.

        Raises:
            ConfigError: If the URL names no bucket, or holds a password or a query.
        """
        self.place = checked(place)

    @functools.cached_property
    def _store(self) -> Any:
        """The client of the store."""
        obstore = _obstore(self.place)
        options: dict[str, Any] = dict(_CLIENT)
        # Options given here go before those of the environment, so that they are asked for.
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3", os.environ.get("AWS_ENDPOINT_URL", ""))
        options["allow_http"] = (
            self.place.startswith("http://")
            or (self.place.startswith("s3://") and endpoint.startswith("http://"))
            or os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true", "yes", "on")
        )
        try:
            return obstore.store.from_url(
                self.place, client_options=options, retry_config=dict(RETRIES)
            )
        except Exception as error:
            raise _refused(error, self.place, "cannot be opened") from error

    def __getstate__(self) -> dict[str, Any]:
        """Returns the state without the client: a copy makes its own."""
        return {"place": self.place}

    def head(self, name: str) -> Head:
        """Returns the size and the tag of an object."""
        obstore = _obstore(self.place)
        meta = self._tried(lambda: obstore.head(self._store, name), name)
        return Head(int(meta["size"]), meta["e_tag"], meta["version"])

    def has(self, name: str) -> bool:
        """Returns whether there is an object."""
        try:
            self.head(name)
        except FileNotFoundError:
            return False
        return True

    def read(self, name: str, limit: int) -> bytes:
        """Returns the content of an object of at most ``limit`` bytes."""
        return self.read_with_head(name, limit)[1]

    def read_with_head(self, name: str, limit: int) -> tuple[Head, bytes]:
        """Returns what the store says of an object, and its content, of at most ``limit`` bytes."""
        obstore = _obstore(self.place)

        def got() -> tuple[Head, bytes | None]:
            answer = obstore.get(self._store, name)
            meta = answer.meta
            head = Head(int(meta["size"]), meta["e_tag"], meta["version"])
            if head.size > limit:
                raise InputError(
                    f"{head.size:,} bytes, where at most {limit:,} can be right",
                    file=join(self.place, name),
                )
            # A large one is read part by part.
            content = bytes(answer.bytes()) if head.size <= CHUNK else None
            if content is not None and len(content) != head.size:
                raise _CutShort(f"{len(content):,} bytes came, of {head.size:,}")
            return head, content

        head, whole = self._tried(got, name)
        if whole is not None:
            return head, whole
        content = bytearray(head.size)

        def write(start: int, chunk: bytes) -> None:
            content[start : start + len(chunk)] = chunk

        self.fetch(name, head, write)
        return head, bytes(content)

    def fetch(self, name: str, head: Head, write: Callable[[int, bytes], object]) -> None:
        """Reads an object, several parts at a time.

        A part whose body breaks is asked for again; the others are kept.

        Args:
            name: The object.
            head: Its size, and its tag if it must be of that content.
            write: The function that takes each part, with its first byte; threads call it.
        """
        starts = range(0, head.size, CHUNK)
        if len(starts) == 1:
            write(0, self._part(name, head, 0))
            return
        pool = ThreadPoolExecutor(PARALLEL, "sabiprep-fetch")
        try:
            parts = [
                pool.submit(lambda at: write(at, self._part(name, head, at)), start)
                for start in starts
            ]
            for part in as_completed(parts):
                part.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _part(self, name: str, head: Head, start: int) -> bytes:
        """Returns the part of an object that begins at a byte."""
        obstore = _obstore(self.place)
        end = min(start + CHUNK, head.size)
        options: dict[str, Any] = {"range": (start, end)}
        if head.e_tag is not None:
            options["if_match"] = head.e_tag

        def got() -> bytes:
            content = bytes(obstore.get(self._store, name, options=options).bytes())
            if len(content) != end - start:
                raise _CutShort(f"{len(content):,} bytes came, of {end - start:,}")
            return content

        return self._tried(got, name)

    def put(
        self, name: str, content: bytes, replaces: Head | Literal["any"] | None = "any"
    ) -> Head:
        """Puts an object and returns what the store then says about it.

        Args:
            name: The object.
            content: Its content.
            replaces: The object that it may replace; None if there must be none.

        Raises:
            Conflict: If there is another object than ``replaces`` says.
            Unsupported: If the store knows no such condition.
        """
        obstore = _obstore(self.place)
        mode: Any = "create" if replaces is None else "overwrite"
        if isinstance(replaces, Head):
            known = {"e_tag": replaces.e_tag, "version": replaces.version}
            mode = {key: value for key, value in known.items() if value is not None}

        def put() -> Head:
            try:
                made = obstore.put(self._store, name, content, mode=mode, use_multipart=False)
                return Head(len(content), made["e_tag"], made["version"])
            except (
                obstore.exceptions.AlreadyExistsError,
                obstore.exceptions.PreconditionError,
            ) as error:
                raise Conflict("another object is there", file=join(self.place, name)) from error
            except Exception as error:
                is_unknown = isinstance(error, obstore.exceptions.NotSupportedError)
                if mode != "overwrite" and (is_unknown or _status_of(str(error)) == 501):
                    raise Unsupported(
                        "the store knows no conditional put", file=join(self.place, name)
                    ) from error
                raise

        return self._tried(put, name, "cannot be written")

    def upload(self, name: str, file: Path) -> None:
        """Puts the content of a file as an object, which appears whole or not at all."""
        obstore = _obstore(self.place)
        self._tried(
            lambda: obstore.put(self._store, name, file, chunk_size=CHUNK, max_concurrency=4),
            name,
            "cannot be written",
        )

    def delete(self, name: str) -> None:
        """Removes an object, if there is one."""
        obstore = _obstore(self.place)

        def delete() -> None:
            try:
                obstore.delete(self._store, name)
            except FileNotFoundError:
                return

        self._tried(delete, name, "cannot be removed")

    def names(self) -> dict[str, int]:
        """Returns the bytes of every object of the folder, by its name within it."""
        obstore = _obstore(self.place)

        def listed() -> dict[str, int]:
            return {
                str(meta["path"]): int(meta["size"])
                for batch in obstore.list(self._store)
                for meta in batch
                # Some programs make an empty object that bears the name of its folder.
                if meta["path"]
            }

        return self._tried(listed, "", "cannot be listed")

    def _tried(self, request: Callable[[], T], name: str, failed: str = "cannot be read") -> T:
        """Returns what ``request`` gives, asked again while the store falters."""
        for pause in (*_pauses(), None):
            try:
                return request()
            except SabiprepError:
                raise
            except Exception as error:
                if pause is None or not _may_pass(error):
                    place = join(self.place, name) if name else self.place
                    raise _refused(error, place, failed) from error
                time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")


class _CutShort(Exception):
    """The error of an answer that ends too soon."""


def _pauses() -> Iterator[float]:
    """Yields the seconds to wait after each attempt but the last."""
    for attempt in range(ATTEMPTS - 1):
        yield PAUSE * 2**attempt


def _obstore(place: str) -> Any:
    """Returns the library, imported at its first use.

    Raises:
        SabiprepError: If it is not installed, or a process before the fork has used it: its threads
            and connections do not survive one.
    """
    try:
        import obstore
        import obstore.store
    except ImportError as error:
        raise SabiprepError(
            f"object stores need obstore: {error}",
            file=place,
            remedy="pip install 'sabiprep[cloud]'",
        ) from error
    if not _user:
        _user.append(os.getpid())
    if is_forked():
        raise SabiprepError(
            "object stores cannot be asked after a fork",
            file=place,
            remedy="start worker processes by spawn",
        )
    return obstore


def is_forked() -> bool:
    """Returns whether this process was forked from one that has used object stores."""
    return bool(_user) and _user[0] != os.getpid()


def _may_pass(error: Exception) -> bool:
    """Returns whether another attempt may succeed. A 4xx will not pass, but for 408 and 429."""
    if isinstance(error, _CutShort):
        return True
    if isinstance(error, OSError | ValueError | TypeError):
        return False
    from obstore import exceptions

    if not isinstance(error, exceptions.GenericError):
        return False
    # Answers of 5xx have been tried often enough by obstore itself.
    return _status_of(str(error)) is None and "error decoding response body" in str(error).lower()


def _refused(error: Exception, place: str, failed: str) -> InputError:
    """Returns the error of a request that failed, with its place and its remedy."""
    from obstore import exceptions

    text, scheme = str(error), place.partition(":")[0]
    status, found_code = _status_of(text), _CODE.search(text)
    code = found_code[1] if found_code else ""
    number: int | None = None
    denied = exceptions.PermissionDeniedError | exceptions.UnauthenticatedError
    if code in ("NoSuchBucket", "ContainerNotFound") or "bucket does not exist" in text:
        what, remedy = "no such bucket", "check the URL, and the region or endpoint"
        number = errno.ENOENT
    elif isinstance(error, FileNotFoundError) or status == 404:
        what, remedy = "no such object", "check the URL"
        number = errno.ENOENT
    elif isinstance(error, denied) or status in (401, 403):
        what, remedy = f"access is denied{_in_brackets(status, code)}", _CREDENTIALS[scheme]
        number = errno.EACCES
    elif isinstance(error, exceptions.PreconditionError):
        what, remedy = "has changed while it was read", "run it again"
    elif status is not None:
        what = f"{failed}: the store answers {status}{_in_brackets(None, code)}"
        remedy = "try again later; what was fetched whole is kept"
    elif "credential" in text.lower() or "169.254.169.254" in text:
        what, remedy = f"{failed}: no credentials are found", _CREDENTIALS[scheme]
        number = errno.EACCES
    else:
        what = f"{failed}: {_in_short(text) or type(error).__name__}"
        remedy = "check the connection, the endpoint and the credentials; " + _CREDENTIALS[scheme]
    return InputError(what, file=place, remedy=remedy, errno=number)


def _status_of(text: str) -> int | None:
    """Returns the status of a store's answer, which ``obstore`` gives in words."""
    found = _STATUS.search(text)
    return int(found[1]) if found else None


def _in_brackets(status: int | None, code: str) -> str:
    """Returns the words of a store's answer that are known, in brackets."""
    words = [str(word) for word in (status, code) if word]
    return f" ({', '.join(words)})" if words else ""


def _in_short(text: str) -> str:
    """Returns the start of a message, without bodies, queries and what follows for debugging."""
    line = text.partition("Debug source")[0].strip().partition("\n")[0]
    line = re.sub(r"\?[^\s'\")]*", "?…", line.partition("<")[0])
    # As in redirects and proxies that name a user.
    return re.sub(r"//[^\s/@]*@", "//…@", line)[:300].rstrip(" :")
