"""The slow, obvious reader of a corpus file: every line that is a record, with its place.

JSON itself is left to Python's `json`, which takes more than JSON has: of malformed lines it knows
`MALFORMED` alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from support.packer import is_blank


class File(NamedTuple):
    """A file of a corpus."""

    name: str
    format: str
    content: bytes


MALFORMED = [b'{"a": 1', b"[1]", b'"a"', b"\x80\xfe", b"nul", b'{"a": 1} x', b'{"a": "b\x01"}']


def read(file: File) -> Iterator[tuple[int, int, dict[str, Any] | None]]:
    """The (line, byte offset, fields) of each record of a file; no fields where the line is
    malformed.
    """
    offset, header = 0, None
    for number, line in enumerate(file.content.split(b"\n"), 1):
        start, offset = offset, offset + len(line) + 1
        if start == len(file.content):
            return
        if offset <= len(file.content):
            line = line.removesuffix(b"\r")
        if start == 0:
            line = line.removeprefix("\ufeff".encode())
        if file.format == "tsv" and header is None:
            header = line.decode().split("\t")
        elif not _blank(line, file.format):
            yield number, start, _fields(line, file.format, header or [])


def _blank(line: bytes, format: str) -> bool:
    match format:
        case "jsonl":
            return not line.strip(b" \t\r\n\f")
        case "tsv":
            return not line
    try:
        return is_blank(line.decode())
    except UnicodeDecodeError:
        return False


def _fields(line: bytes, format: str, header: list[str]) -> dict[str, Any] | None:
    if format == "jsonl" and line in MALFORMED:
        return None
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return None
    if format == "jsonl":
        fields: dict[str, Any] = json.loads(text)
        return fields
    if format == "text":
        return {"text": text}
    cells = text.split("\t")
    return dict(zip(header, cells, strict=True)) if len(cells) == len(header) else None
