"""Checks of an Arrow file's footer and heads, made before the Arrow library reads them.

The library allocates the sizes that a file claims: a dictionary of any size, a buffer that unpacks
to any number of bytes. A shard has neither dictionaries nor compression, so a file that names one
is refused from its footer and the heads of its record batches alone (Arrow's columnar format, "IPC
File Format"; FlatBuffers' binary format).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

MAGIC = b"ARROW1"
_CONTINUATION = 0xFFFFFFFF
# The number of a record batch in the union MessageHeader.
_RECORD_BATCH = 3


class Malformed(ValueError):
    """The error of a file that is no Arrow file of a shard; the message says why."""


def block_offsets(content: memoryview) -> list[int]:
    """Returns the offsets of the record batches of a file, each within the file.

    Raises:
        Malformed: If there is no footer, or it names a dictionary or a record batch outside of the
            file.
    """
    size = len(content)
    if size < 2 * len(MAGIC) + 6 or content[:6] != MAGIC or content[-6:] != MAGIC:
        raise Malformed("it does not begin and end as an Arrow file does")
    (length,) = struct.unpack_from("<i", content, size - 10)
    if not 0 < length <= size - 18:
        raise Malformed("its footer is longer than the file")
    footer = content[size - 10 - length : size - 10]
    try:
        table = _table(footer, 0)
        if _vector(footer, _field(footer, table, 2), 24):
            raise Malformed("it has dictionaries")
        blocks = [
            struct.unpack_from("<qi4xq", footer, place)
            for place in _vector(footer, _field(footer, table, 3), 24)
        ]
    except struct.error as error:
        raise Malformed(f"its footer is damaged: {error}") from error
    # Python's integers do not overflow, so that the sum below is right for any numbers.
    for offset, head, body in blocks:
        if offset < 8 or head < 8 or body < 0 or offset + head + body > size - 10 - length:
            raise Malformed("its footer names a record batch outside of the file")
    return [offset for offset, _, _ in blocks]


def refuse_compression(content: memoryview, offset: int) -> None:
    """Refuses the record batch at ``offset`` if it is compressed.

    Raises:
        Malformed: If it is, or there is no record batch.
    """
    try:
        mark, length = struct.unpack_from("<Ii", content, offset)
        if mark != _CONTINUATION or not 0 < length <= len(content) - offset - 8:
            raise Malformed("a record batch has no head")
        head = content[offset + 8 : offset + 8 + length]
        table = _table(head, 0)
        kind, batch = _field(head, table, 1), _field(head, table, 2)
        if kind is None or batch is None or head[kind] != _RECORD_BATCH:
            raise Malformed("what its footer calls a record batch is none")
        if _field(head, _table(head, batch), 3) is not None:
            raise Malformed("it is compressed, as no shard is")
    except (struct.error, IndexError) as error:
        raise Malformed(f"the head of a record batch is damaged: {error}") from error


def _table(buffer: memoryview, place: int) -> int:
    """Returns the position of the table that the offset at ``place`` leads to."""
    (offset,) = struct.unpack_from("<I", buffer, place)
    return place + int(offset)


def _field(buffer: memoryview, table: int, number: int) -> int | None:
    """Returns the position of field ``number`` of a table, or None if it is left out."""
    (back,) = struct.unpack_from("<i", buffer, table)
    fields = table - back
    if fields < 0:
        raise struct.error("a table leads out of it")
    (size,) = struct.unpack_from("<H", buffer, fields)
    if 4 + 2 * number + 2 > size:
        return None
    (offset,) = struct.unpack_from("<H", buffer, fields + 4 + 2 * number)
    return table + offset if offset else None


def _vector(buffer: memoryview, place: int | None, item: int) -> Sequence[int]:
    """Returns the positions of the structs, of ``item`` bytes each, in a vector."""
    if place is None:
        return ()
    start = _table(buffer, place)
    (count,) = struct.unpack_from("<I", buffer, start)
    if start + 4 + count * item > len(buffer):
        raise struct.error("a list leads out of it")
    return range(start + 4, start + 4 + count * item, item)
