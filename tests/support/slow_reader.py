"""The slow, obvious reader of a corpus file: every line that is a record, with its place.

JSON itself is left to Python's `json`, which takes more than JSON has: of malformed lines it knows
`MALFORMED` alone.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from itertools import accumulate
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
    if file.format == "quoted":
        yield from _quoted(file.content)
        return
    offset, header = 0, None
    for number, line in enumerate(file.content.split(b"\n"), 1):
        start, offset = offset, offset + len(line) + 1
        if start == len(file.content):
            return
        if offset <= len(file.content):
            line = line.removesuffix(b"\r")
        # At the start of the file, or where files were put together.
        line = line.removeprefix("\ufeff".encode())
        if file.format == "tsv" and header is None:
            header = line.decode().split("\t")
        elif not _blank(line, file.format):
            yield number, start, _fields(line, file.format, header or [])


def _quoted(content: bytes) -> Iterator[tuple[int, int, dict[str, Any] | None]]:
    """The records of a quoted file with tabs, by Python's `csv`, as `read` gives them."""
    lines = content.decode().splitlines(keepends=True)
    starts = list(accumulate((len(line.encode()) for line in lines), initial=0))
    rows = csv.reader(lines, "excel-tab")
    header = next(rows)
    first = rows.line_num
    for cells in rows:
        if cells:
            whole = len(cells) == len(header)
            fields = dict(zip(header, cells, strict=True)) if whole else None
            yield first + 1, starts[first], fields
        first = rows.line_num


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


def text_units(content: bytes, unit: str) -> Iterator[tuple[int, str]]:
    """The byte offset and the text of each record of a text file."""
    offset, lines = 0, []
    for line in content.split(b"\n"):
        text = line.removesuffix(b"\r").removeprefix(b"\xef\xbb\xbf" if offset == 0 else b"")
        lines.append((offset, text.decode()))
        offset += len(line) + 1
    groups: list[list[tuple[int, str]]] = [[]]
    for start, text in lines:
        if unit == "file" or not is_blank(text):
            groups[-1].append((start, text))
        if unit == "line" or (unit == "paragraph" and is_blank(text)):
            groups.append([])
    for group in groups:
        while group and is_blank(group[0][1]):
            group.pop(0)
        while group and is_blank(group[-1][1]):
            group.pop()
        if group:
            yield group[0][0], "\n".join(text for _, text in group)


def nested(value: Any, path: str) -> list[dict[str, Any]]:
    """The objects at the end of a path, each with the fields of those around it."""
    found = [({}, item) for item in value] if isinstance(value, list) else [({}, value)]
    for step in path.split("."):
        name = step.removesuffix("[]")
        found = [
            ({**around, **{key: v for key, v in outer.items() if key != name}}, inner)
            for around, outer in found
            for inner in (outer[name] if step.endswith("[]") else [outer[name]])
        ]
    return [{**around, **inner} for around, inner in found]


def chunks(tags: list[str]) -> list[tuple[str, int, int]]:
    """The (type, start, end) of each span of tags, as conlleval finds them."""
    spans: list[tuple[str, int, int]] = []
    begun, previous, of = 0, "O", ""
    for nth, tag in enumerate([*tags, "O"]):
        prefix, _, kind = tag.partition("-")
        prefix = {"L": "E", "U": "S"}.get(prefix, prefix)
        changes = kind != of
        ends = (
            (previous == "B" and prefix in "BSO")
            or (previous == "I" and prefix in "BSO")
            or previous in "ES"
            or (previous != "O" and changes)
        )
        starts = (
            prefix in "BS" or (previous in "ESO" and prefix in "EI") or (prefix != "O" and changes)
        )
        if previous != "O" and ends:
            spans.append((of, begun, nth))
        if prefix != "O" and starts:
            begun = nth
        previous, of = prefix, kind
    return spans


def sentences(content: bytes) -> Iterator[tuple[int, int, list[list[str]]]]:
    """The (line, byte offset, rows) of each sentence of a file whose columns a tab separates."""
    offset, rows, first = 0, [], (0, 0)
    for number, line in enumerate([*content.split(b"\n"), b""], 1):
        text = line.removesuffix(b"\r").decode()
        if is_blank(text) or text.split("\t")[0] == "-DOCSTART-":
            if rows:
                yield (*first, rows)
            rows = []
        elif not text.startswith("# "):
            first = first if rows else (number, offset)
            rows.append(text.split("\t"))
        offset += len(line) + 1
