"""Places: folders and files on a disk or in an object store, as text.

A place is a path or a URL such as ``s3://BUCKET/FOLDER``. ``pathlib`` makes one slash of two, so
places are joined and taken apart here; a URL that has lost a slash on its way through a `Path` gets
it back.
"""

from __future__ import annotations

import os
import re

from sabiprep.errors import ConfigError

StrPath = str | os.PathLike[str]

SCHEMES = ("s3", "gs", "az", "http", "https")
"""The schemes of object stores; ``http`` and ``https`` are for reading alone."""

_URL = re.compile(rf"({'|'.join(SCHEMES)})://", re.IGNORECASE)
# Only a `Path` loses a slash; a text with one is the name of a local folder.
_URL_OF_PATH = re.compile(_URL.pattern + "?", re.IGNORECASE)


def is_remote(path: StrPath) -> bool:
    """Returns whether a place is a URL of an object store."""
    return _URL.match(place_of(path)) is not None


def place_of(path: StrPath) -> str:
    """Returns a place as text, its scheme in small letters and with both slashes."""
    text = os.fspath(path)
    match = (_URL if isinstance(path, str) else _URL_OF_PATH).match(text)
    return text if match is None else f"{match[1].lower()}://{text[match.end() :]}"


def join(place: StrPath, *names: str) -> str:
    """Returns the place of an entry of a folder; each name may be several joined by slashes."""
    text = place_of(place)
    if not is_remote(place):
        return os.path.join(text, *names)
    return "/".join([text.rstrip("/"), *(name.strip("/") for name in names)])


def parent(place: StrPath) -> str:
    """Returns the folder that holds a place; that of a bucket is the bucket."""
    text = place_of(place)
    if not is_remote(place):
        return os.path.dirname(text.rstrip("/")) or ("/" if text.startswith("/") else ".")
    scheme, rest = text.split("://", 1)
    return f"{scheme}://{rest.rstrip('/').rpartition('/')[0] or rest.rstrip('/')}"


def name(place: StrPath) -> str:
    """Returns the last name of a place; that of a bucket is empty."""
    text = place_of(place).rstrip("/")
    if is_remote(place) and "/" not in text.split("://", 1)[1]:
        return ""
    return text.rpartition("/")[2]


def checked(place: StrPath) -> str:
    """Returns the place of a URL, which holds nothing but a bucket and a path.

    Raises:
        ConfigError: If it names no bucket, or holds a user, a password, a query or a fragment: a
            URL is kept in files and shown, and those are secrets often. The message has none.
    """
    text = place_of(place)
    scheme, rest = text.split("://", 1)
    bucket = rest.partition("/")[0]
    secret = "a user or a password" if "@" in bucket else "a query" if "?" in rest else "a fragment"
    if "@" in bucket or "?" in rest or "#" in rest:
        raise ConfigError(
            f"a URL of {scheme}:// with {secret}, which may be a secret",
            remedy=f"write {scheme}://BUCKET/FOLDER alone, and leave credentials to the "
            "environment (docs/datasets.md)",
        )
    if not bucket or any(name in (".", "..") for name in rest.split("/")):
        raise ConfigError(
            f"{text!r} names no folder of an object store",
            remedy=f"write it as {scheme}://BUCKET/FOLDER",
        )
    return text.rstrip("/")
