"""Files that are read: regular ones of a sane size, checked on the open descriptor.

A name may lead to a FIFO, a device, a file of ``/proc`` or a sparse file of terabytes. Each is
refused before a byte of it is read, by an `OSError`, which the caller gives its place and its
remedy.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

MIB = 1 << 20
MANIFEST_LIMIT = 256 * MIB
TOKENIZER_LIMIT = 512 * MIB
CONFIG_LIMIT = 16 * MIB

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)
# Without O_NONBLOCK the opening of a FIFO waits for whoever writes to it.
_CAUTION = sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY"))


def open_regular(path: str | Path, flags: int = os.O_RDONLY) -> int:
    """Opens a regular file and returns its descriptor, which the caller closes.

    Args:
        path: The file.
        flags: The flags of `os.open`.

    Raises:
        OSError: If it cannot be opened, is no regular file, or its name holds a NUL.
    """
    try:
        descriptor = os.open(path, flags | _CAUTION, 0o666)
    except ValueError as error:
        raise OSError(errno.EINVAL, "no file can have a NUL in its name", str(path)) from error
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "something else")
            number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
            raise OSError(number, f"{kind}, where a regular file should be", str(path))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_whole(path: str | Path, limit: int) -> bytes:
    """Returns the content of a regular file of at most ``limit`` bytes.

    Raises:
        OSError: If it cannot be read, is no regular file, is larger, or does not end where it says
            (as files of ``/proc`` do).
    """
    with os.fdopen(open_regular(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise OSError(
                errno.EFBIG, f"{size:,} bytes, where at most {limit:,} can be right", str(path)
            )
        content = file.read(size + 1)
    if len(content) != size:
        raise OSError(
            errno.EINVAL,
            f"not the {size:,} bytes that it says: no plain file, or it is being written",
            str(path),
        )
    return content
