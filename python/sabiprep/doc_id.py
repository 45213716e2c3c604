"""`DocId`: the identity of a document of a row.

The columns ``record_ids`` and ``doc_parts`` hold it packed in two words; they are packed and
unpacked here and nowhere else (in Rust: ``rust/core/schema/doc_id.rs``).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_OFFSET_BITS = 40
_COPY_SHIFT, _PART_SHIFT = 24, 16
_PART_MASK, _WINDOW_MASK = 0xFF, 0xFFFF


class RecordId(NamedTuple):
    """The identity of a record of a source: a word of ``record_ids``, unpacked.

    Attributes:
        input: The index of the input within the source.
        offset: The first byte of the record in the decompressed input.
    """

    input: int
    offset: int

    @classmethod
    def unpack(cls, record_id: int) -> RecordId:
        """Returns the record of a word of ``record_ids``: ``input << 40 | offset``."""
        return cls(record_id >> _OFFSET_BITS, record_id & (1 << _OFFSET_BITS) - 1)


class DocId(NamedTuple):
    """The identity of a document of a row.

    Attributes:
        source: The index of the source in the manifest.
        record: The record of the document.
        part: The index among the documents of the record.
        copy: The index of the copy of the record.
        window: The index among the windows of the document.
    """

    source: int
    record: RecordId
    part: int
    copy: int
    window: int

    @classmethod
    def unpack(cls, source_id: int, record_id: int, doc_part: int) -> DocId:
        """Returns the document of three words of a row.

        Args:
            source_id: A value of the column ``source_ids``.
            record_id: A value of the column ``record_ids``.
            doc_part: A value of the column ``doc_parts``: ``copy << 24 | part << 16 | window``.
        """
        return cls(
            source=source_id,
            record=RecordId.unpack(record_id),
            part=doc_part >> _PART_SHIFT & _PART_MASK,
            copy=doc_part >> _COPY_SHIFT,
            window=doc_part & _WINDOW_MASK,
        )


def windows_of(doc_parts: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Returns the window of each document, uint32[D], from the column ``doc_parts``, uint32[D]."""
    return doc_parts & np.uint32(_WINDOW_MASK)
