"""Files compressed by Python's own libraries, and by pyarrow, which has zstd."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable

import pyarrow as pa


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def zipped(*entries: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An archive of files; a name that ends with ``/`` is a folder."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return file.getvalue()


MEMBERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "zst": zstd,
    "bz2": bz2.compress,
    "xz": lzma.compress,
}
"""By suffix: how a content becomes one member."""

TESTS = {"gz": "gzip -t", "zst": "zstd -t", "bz2": "bzip2 -t", "xz": "xz -t", "zip": "unzip -t"}
"""By suffix: the command that an error names."""


def compressed(suffix: str, name: str, content: bytes) -> bytes:
    """The content of the file ``name``, compressed."""
    return zipped((name, content)) if suffix == "zip" else MEMBERS[suffix](content)
