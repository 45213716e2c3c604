"""`DocId` unpacks the words of a row as the contract packs them, and the loader agrees."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sabiprep.doc_id import DocId, RecordId, windows_of


@given(
    st.integers(0, (1 << 24) - 1),
    st.integers(0, (1 << 40) - 1),
    st.integers(0, 254),
    st.integers(0, 255),
    st.integers(0, (1 << 16) - 1),
)
def test_the_words_of_a_document_are_unpacked_as_they_are_packed(
    nth_input: int, offset: int, copy: int, part: int, window: int
) -> None:
    record_id, doc_part = nth_input * 2**40 + offset, copy * 2**24 + part * 2**16 + window
    document = DocId.unpack(3, record_id, doc_part)
    assert document == (3, RecordId(nth_input, offset), part, copy, window)
    assert windows_of(np.array([doc_part], np.uint32)).tolist() == [window]
