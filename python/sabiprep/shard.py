"""One shard: an Arrow file, memory-mapped.

A shard takes a file with its entry in the manifest, and gives blocks (Arrow record batches;
"record" means a line of a corpus here). `sabiprep.dataset` derives positions, labels and boundaries
from them. A shard opens its file at its first read, once per process, so it can be pickled and
survives a fork.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sabiprep.arrow_file import Malformed, block_offsets, refuse_compression
from sabiprep.block import RAGGED_COLUMNS, REMEDY, WEIGHTS, Block, Limits, block_of
from sabiprep.errors import DatasetError
from sabiprep.files import open_regular
from sabiprep.manifest import Manifest, ShardInfo
from sabiprep.places import join
from sabiprep.remote_dataset import RemoteFiles


class _Mapped(NamedTuple):
    """A shard's file, mapped by one process."""

    process: int
    content: memoryview
    reader: Any
    blocks: list[int]


class Shard:
    """A shard of a dataset, read block by block."""

    def __init__(
        self, folder: Path, info: ShardInfo, manifest: Manifest, remote: RemoteFiles | None = None
    ) -> None:
        """Describes a shard; nothing is opened yet.

        Args:
            folder: The folder of the dataset.
            info: The entry of the shard in the manifest.
            manifest: The manifest.
            remote: The files of the dataset, if they are in an object store.
        """
        self.rows = info.rows
        self._info, self._remote = info, remote
        self._path = folder / info.file
        self._file = str(self._path) if remote is None else join(remote.place, info.file)
        self._size = info.size
        self._seq_len = manifest.seq_len
        self._id_dtype = manifest.id_dtype
        self._rows_per_block = manifest.rows_per_batch
        self._weighted = manifest.weighted
        self._limits = Limits(manifest.vocab_size, len(manifest.sources))
        self._mapped: _Mapped | None = None
        self._blocks: dict[int, Block] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Returns the state without the open file: the copy opens its own."""
        return {**self.__dict__, "_mapped": None, "_blocks": {}}

    def close(self) -> None:
        """Closes the file; a later read opens it again. Arrays that were given out stay valid."""
        self._mapped = None
        self._blocks = {}

    def check(self) -> None:
        """Checks the file's size, schema and number of rows, reading no row.

        Raises:
            DatasetError: If the file is missing or contradicts the manifest.
        """
        blocks = len(self._open().blocks)
        if blocks:
            self._record_batch(blocks - 1)

    def block(self, index: int) -> Block:
        """Returns the block at ``index``.

        Row i of the shard is row ``i % rows_per_batch`` of block ``i // rows_per_batch``.

        Raises:
            DatasetError: If the file is damaged there.
        """
        # Blocks are kept: each is views and a few KB, and making one takes as long as reading
        # several of its rows.
        block = self._blocks.get(index)
        if block is None:
            batch = self._record_batch(index)
            first = index * self._rows_per_block
            block = block_of(batch, self._seq_len, self._limits, file=self._file, first=first)
            self._blocks[index] = block
        return block

    def n_targets(self) -> npt.NDArray[np.int32]:
        """Returns the targets of every row of the shard: int32[rows].

        Raises:
            DatasetError: If one is below 0 or above the row's tokens, or the file is damaged there.
        """
        blocks = range(-(-self.rows // self._rows_per_block))
        counts_R = np.concatenate(
            [
                np.empty(0, np.int32),
                *(self._record_batch(i).column("n_targets").to_numpy() for i in blocks),
            ]
        )
        if len(counts_R) and not 0 <= counts_R.min() <= counts_R.max() <= self._seq_len:
            raise self._damaged(
                "a row is said to have more targets than tokens, or fewer than none"
            )
        return counts_R

    def _open(self) -> _Mapped:
        """Returns the open file, mapped anew in a forked process."""
        # After a fork, a lock of Arrow's that another thread held would never be released.
        mapped = self._mapped
        if mapped is None or mapped.process != os.getpid():
            self._blocks = {}
            content = self._map()
            try:
                blocks = block_offsets(content)
                # The copy of the view is Arrow's: it lives as long as any array of the file.
                source = pa.BufferReader(pa.py_buffer(content))
                reader = pa.ipc.open_file(source, options=pa.ipc.IpcReadOptions(use_threads=False))
                problem = _schema_problem(
                    reader.schema, self._seq_len, self._id_dtype, self._weighted
                )
            except Malformed as error:
                raise self._damaged(f"not a readable Arrow file: {error}") from error
            except UnicodeDecodeError as error:
                raise self._damaged(f"a column's name cannot be read: {error}") from error
            except (OSError, pa.ArrowException) as error:
                raise self._damaged(f"not a readable Arrow file: {error}") from error
            if problem is not None:
                raise self._damaged(problem)
            count = -(-self.rows // self._rows_per_block)
            if reader.num_record_batches != count:
                raise self._damaged(
                    f"{reader.num_record_batches} record batches, "
                    f"where the manifest makes it {count}"
                )
            # Another thread may close the shard: it keeps what this one has opened.
            mapped = self._mapped = _Mapped(os.getpid(), content, reader, blocks)
            if self._remote is not None:
                self._remote.opened(self, self._size)
        return mapped

    def _map(self) -> memoryview:
        """Returns the mapped bytes of the file, of the size in the manifest."""
        path = self._path if self._remote is None else self._remote.shard(self._info)
        try:
            descriptor = open_regular(path)
        except OSError as error:
            raise self._damaged(
                f"a shard that cannot be read: {error.strerror or error}", error.errno
            ) from error
        try:
            size = os.fstat(descriptor).st_size
            if size != self._size:
                raise self._damaged(f"{size} bytes, where the manifest says {self._size}")
            if size == 0:
                raise self._damaged("not a readable Arrow file: it is empty")
            return memoryview(mmap.mmap(descriptor, size, access=mmap.ACCESS_READ))
        except (OSError, OverflowError, ValueError) as error:
            raise self._damaged(f"a shard that cannot be mapped: {error}") from error
        finally:
            os.close(descriptor)

    def _record_batch(self, index: int) -> Any:
        """Returns a record batch of the file, its lengths checked."""
        rows = min(self._rows_per_block, self.rows - index * self._rows_per_block)
        mapped = self._open()
        try:
            refuse_compression(mapped.content, mapped.blocks[index])
            batch = mapped.reader.get_batch(index)
            # Arrow believes the lengths in the file: an altered one would have the views read
            # outside of the mapping.
            batch.validate()
        except (OSError, IndexError, Malformed, pa.ArrowException) as error:
            raise self._damaged(f"record batch {index} cannot be read: {error}") from error
        if batch.num_rows != rows or any(column.null_count for column in batch.columns):
            raise self._damaged(f"record batch {index} is not {rows} rows without nulls")
        return batch

    def _damaged(self, message: str, errno: int | None = None) -> DatasetError:
        """Returns an error that names this shard."""
        return DatasetError(message, file=self._file, remedy=REMEDY, errno=errno)


def _schema_problem(schema: Any, seq_len: int, id_dtype: str, weighted: bool) -> str | None:
    """Returns the fault of a shard's schema in words, or None."""
    # Types are compared without the names of list items, which differ between writers.
    expected = {
        "input_ids": (np.dtype(id_dtype), seq_len),
        "loss_mask": (np.dtype(np.bool_), seq_len),
        **{name: (np.dtype(dtype), None) for name, dtype in RAGGED_COLUMNS.items()},
        "n_targets": (np.dtype(np.int32), 0),
    }
    if weighted:
        expected[WEIGHTS] = (np.dtype(np.float32), None)
    if schema.names != list(expected):
        return f"columns {', '.join(schema.names)}, where the format has {', '.join(expected)}"
    for name, (dtype, size) in expected.items():
        of = schema.field(name).type
        item = pa.from_numpy_dtype(dtype)
        if size == 0:
            right = of == item
        elif size is None:
            right = pa.types.is_list(of) and of.value_type == item
        else:
            right = (
                pa.types.is_fixed_size_list(of) and of.value_type == item and of.list_size == size
            )
        if not right:
            shape = "" if size == 0 else f"[{'' if size is None else size}]"
            return f"column {name} is {of}, where the manifest makes it {item}{shape}"
    return None
