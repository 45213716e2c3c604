"""One block of a shard, an Arrow record batch.

The columns are views of the file that copy nothing, and the rows are checked.

Bounds and lengths are checked once for the whole block, so that reading a row later takes a few
slices. The views are memoryviews: rows are cut and joined by the hundred thousand a second, and
arrays take twice as long.

Dimensions: R rows of the block, T tokens of a row, K bytes of a row's mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sabiprep.errors import DatasetError

RAGGED_COLUMNS = {
    "seq_lengths": np.int32,
    "segment_lengths": np.int32,
    "segment_roles": np.uint8,
    "source_ids": np.uint16,
    "record_ids": np.uint64,
    "doc_parts": np.uint32,
}
DOCUMENT_COLUMNS = ("seq_lengths", "source_ids", "record_ids", "doc_parts")
WEIGHTS = "doc_weights"
"""The column of weights, of a dataset that has some."""
RUN_COLUMNS = ("segment_lengths", "segment_roles")
LAST_ROLE = 3
REMEDY = "copy the dataset again, or pack it again; `sabiprep verify` finds what else is damaged"


class Ragged(NamedTuple):
    """Columns of lists with the same bounds: row r is ``values[bounds[r]:bounds[r + 1]]``."""

    bounds: memoryview
    columns: Mapping[str, memoryview]


class Limits(NamedTuple):
    """The bounds of a shard's values: the vocabulary's size for ids, the number of sources."""

    ids: int = 1 << 32
    sources: int = 1 << 16


@dataclass(frozen=True, slots=True)
class Block:
    """The columns of one record batch as read-only views of the mapped file.

    Attributes:
        ids: The ids of row after row, R * T of them, uint16 or uint32.
        mask_bits: The loss mask of row after row, R * K bytes: a bit a token, the least significant
            of a byte first.
        documents: The columns of `DOCUMENT_COLUMNS`, and `WEIGHTS` if there is one; a value a
            document.
        runs: The columns of `RUN_COLUMNS`, a value a run of one role.
        n_targets: True bits of each row's mask.
        padding: Tokens behind the documents of each row.
        sound: Rows before the first damaged one; later values mean nothing.
        vocab_size: The bound below which every id is.
        file: The shard's file.
        first: The block's first row, as the shard counts them.
    """

    ids: memoryview
    mask_bits: memoryview
    documents: Ragged
    runs: Ragged
    n_targets: memoryview
    padding: memoryview
    sound: int
    vocab_size: int
    file: str
    first: int

    def damaged(self, row: int, why: str) -> DatasetError:
        """Returns the error for a damaged row of the block."""
        return DatasetError(
            f"row {self.first + row} is damaged: {why}", file=self.file, remedy=REMEDY
        )


_ANY = Limits()


def block_of(
    batch: Any, seq_len: int, limits: Limits = _ANY, *, file: str = "", first: int = 0
) -> Block:
    """Returns the columns of a record batch as views, wherever in their buffers they start.

    Ids and mask are not checked: that would read the whole block from the disk for one row of it.

    Args:
        batch: The Arrow record batch.
        seq_len: T.
        limits: The bounds of ids and sources.
        file: The file of the shard, for errors.
        first: The first row of the block, as the shard counts them.
    """
    rows, ids = batch.num_rows, batch.column("input_ids")
    # Arrow may hand out a slice of its buffers, which begins at an offset.
    begin = ids.offset * seq_len
    of_documents: tuple[str, ...] = DOCUMENT_COLUMNS
    names = list(RAGGED_COLUMNS)
    if WEIGHTS in batch.schema.names:
        of_documents, names = (*of_documents, WEIGHTS), [*names, WEIGHTS]
    bounds = {name: _bounds(batch.column(name)) for name in names}
    values = {name: batch.column(name).values.to_numpy() for name in names}
    used_R = _sums(bounds["seq_lengths"], values["seq_lengths"])
    # Noted, not raised: rows before the first damaged one can still be read.
    right_R = _agree(bounds, values) & (used_R <= seq_len)
    right_R &= _sums(bounds["source_ids"], values["source_ids"] >= limits.sources) == 0
    right_R &= _sums(bounds["segment_roles"], values["segment_roles"] > LAST_ROLE) == 0
    if WEIGHTS in values:
        weights = values[WEIGHTS]
        # Also of what is no number at all, which no comparison holds for.
        right_R &= _sums(bounds[WEIGHTS], ~((weights >= 0) & np.isfinite(weights))) == 0
    return Block(
        ids=ids.values.to_numpy()[begin : begin + rows * seq_len].data,
        mask_bits=_mask_bits(batch.column("loss_mask"), rows, seq_len).data,
        documents=Ragged(
            bounds["seq_lengths"].data, {name: values[name].data for name in of_documents}
        ),
        runs=Ragged(
            bounds["segment_lengths"].data, {name: values[name].data for name in RUN_COLUMNS}
        ),
        n_targets=batch.column("n_targets").to_numpy().data,
        padding=(seq_len - used_R).data,
        sound=rows if right_R.all() else int(right_R.argmin()),
        vocab_size=limits.ids,
        file=file,
        first=first,
    )


def _bounds(column: Any) -> npt.NDArray[np.int64]:
    """Returns the bounds of the rows in the values of a column of lists: int64[R + 1].

    Arrow has checked the first and the last bound alone: bounds between may be anything in a
    damaged file.
    """
    bounds: npt.NDArray[np.int64] = column.offsets.to_numpy().astype(np.int64)
    return bounds.clip(0, len(column.values), out=bounds)


def _agree(
    bounds: Mapping[str, npt.NDArray[np.int64]], values: Mapping[str, npt.NDArray[Any]]
) -> npt.NDArray[np.bool_]:
    """Returns for each row whether its lengths agree with each other: bool[R].

    Otherwise a flipped bit in a length would surface as an error of NumPy far from its file.
    """
    documents, runs = bounds["seq_lengths"], bounds["segment_lengths"]
    lengths, run_lengths = values["seq_lengths"], values["segment_lengths"]
    right_R: npt.NDArray[np.bool_] = np.diff(documents) > 0
    right_R &= _sums(documents, lengths) == _sums(runs, run_lengths)
    right_R &= (_sums(documents, lengths < 1) == 0) & (_sums(runs, run_lengths < 1) == 0)
    for columns, shared in (
        ([*DOCUMENT_COLUMNS, WEIGHTS], documents),
        (RUN_COLUMNS, runs),
    ):
        for name in bounds.keys() & set(columns):
            right_R &= (bounds[name][:-1] == shared[:-1]) & (bounds[name][1:] == shared[1:])
    return right_R


def _sums(bounds: npt.NDArray[np.int64], values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Returns the sum of each row's values: int64[R]."""
    totals = np.concatenate(([0], np.cumsum(values, dtype=np.int64)))
    sums: npt.NDArray[np.int64] = totals[bounds[1:]] - totals[bounds[:-1]]
    return sums


def _mask_bits(mask: Any, rows: int, seq_len: int) -> npt.NDArray[np.uint8]:
    """Returns the bits of a boolean column, each row starting on a byte: uint8[R * K]."""
    bits = mask.values
    buffer = np.frombuffer(bits.buffers()[1], np.uint8)
    first = bits.offset + mask.offset * seq_len
    # Rows on whole bytes, as every shard of ours has them, need no copy.
    if first % 8 == 0 and seq_len % 8 == 0:
        return buffer[first // 8 : (first + rows * seq_len) // 8]
    unpacked = np.unpackbits(buffer, count=first + rows * seq_len, bitorder="little")[first:]
    return np.packbits(unpacked.reshape(rows, seq_len), axis=1, bitorder="little").reshape(-1)
