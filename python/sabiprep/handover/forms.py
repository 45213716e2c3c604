"""A form: one way to write a dataset as files. The table of all is in `exporting`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sabiprep.dataset import PackedDataset
from sabiprep.handover.chunks import Chunk
from sabiprep.handover.folder import NewFolder

Write = Callable[[Chunk], None]


class Form(Protocol):
    """A writer of one dataset, shard by shard."""

    def shard(self, split: str, index: int, count: int) -> AbstractContextManager[Write]:
        """Returns a context that writes one shard of a split: its chunks are given in order.

        Args:
            split: The name of the split.
            index: The index of the shard in it.
            count: The shards of the split.
        """

    def finish(self) -> None:
        """Writes what describes the files, after all shards."""


MakeForm = Callable[[PackedDataset, NewFolder], Form]


def shard_name(split: str, index: int, count: int, suffix: str) -> str:
    """Returns the name of a file, from which `datasets` also tells its split."""
    return f"{split}-{index:05d}-of-{count:05d}.{suffix}"


def id_type(dataset: PackedDataset) -> Any:
    """Returns the Arrow type of exported ids: int32 where every id fits."""
    return pa.int32() if dataset.vocab_size <= 1 << 31 else pa.int64()


def lists(lengths: npt.NDArray[Any], values: npt.NDArray[Any], of: Any) -> Any:
    """Returns an Arrow array of lists of the type ``of``: values, cut by lengths."""
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values).cast(of))
