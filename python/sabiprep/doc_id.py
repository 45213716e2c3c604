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
        input: The index of its input within its source.
        offset: The byte of the decompressed input where it starts.
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
        source: The index of its source in the manifest.
        record: Its record.
        part: Its index among the documents of its record.
        copy: The index of its copy of the record.
        window: Its index among the windows of its document.
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
            source_id: Of the column ``source_ids``.
            record_id: Of the column ``record_ids``.
            doc_part: Of the column ``doc_parts``: ``copy << 24 | part << 16 | window``.
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
