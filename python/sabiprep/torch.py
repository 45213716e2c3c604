"""Rows of a packed dataset as tensors, for any `torch.utils.data.DataLoader`.

    from sabiprep.torch import RowDataset
    loader = torch.utils.data.DataLoader(RowDataset("out"), batch_size=8, num_workers=2)

Every row has tensors of one length, so the loader's own collating stacks them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict

import numpy as np
import torch
from torch.utils.data import Dataset

from sabiprep.dataset import BatchDict, PackedDataset, open_dataset
from sabiprep.options import StrPath

__all__ = ["RowDataset", "RowTensors"]


class RowTensors(TypedDict):
    """One row of T tokens.

    Attributes:
        input_ids: int64[T]; the pad token in the padding.
        labels: int64[T], unshifted: ``input_ids`` where the token is trained, else -100.
        position_ids: int64[T]: from 0 in each document, and in the padding.
        document_ids: int64[T]: the index of each token's document in the row; -1 in the padding. A
            token may attend to those of the same document.
        roles: uint8[T]: 0 control and padding, 1 template text, 2 prompt data, 3 target.
        n_targets: int64[]: the trained tokens.
        loss_weights: float32[T]: the weight of the token's document where it is trained, else 0;
            only of a dataset with weights.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    position_ids: torch.Tensor
    document_ids: torch.Tensor
    roles: torch.Tensor
    n_targets: torch.Tensor
    loss_weights: NotRequired[torch.Tensor]


class RowDataset(Dataset[RowTensors]):
    """The rows of one split, map-style.

    It can be pickled, and used after a fork: each worker maps the files by itself.
    """

    def __init__(self, out: StrPath | PackedDataset, split: str = "train") -> None:
        """Opens a split.

        Args:
            out: The packed dataset, or its folder.
            split: "train" or "validation".

        Raises:
            DatasetError: If there is no such dataset or split.
        """
        self.dataset = out if isinstance(out, PackedDataset) else open_dataset(out)
        self._rows = self.dataset[split]

    def __len__(self) -> int:
        """Returns the number of rows."""
        return len(self._rows)

    def __getitem__(self, index: int) -> RowTensors:
        """Returns row ``index``, counted from the end if negative.

        Raises:
            IndexError: If there is no such row.
            DatasetError: If the shard is damaged there.
        """
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[RowTensors]:
        """Returns several rows, as a loader asks for those of a batch.

        Raises:
            IndexError: If there is no such row.
            DatasetError: If a shard is damaged there.
        """
        batch = self._rows.batch(indices)
        named: dict[str, np.ndarray[Any, Any]] = {
            "input_ids": batch["input_ids"],
            "labels": batch["labels"],
            "position_ids": batch["position_ids"],
            "document_ids": _document_ids(batch),
            "roles": batch["roles"],
            "n_targets": batch["n_targets"].astype(np.int64),
        }
        if "loss_weights" in batch:
            named["loss_weights"] = batch["loss_weights"]
        tensors = {name: torch.from_numpy(array) for name, array in named.items()}
        rows: Any = [
            {name: of_all[row] for name, of_all in tensors.items()} for row in range(len(indices))
        ]
        return list[RowTensors](rows)


def _document_ids(batch: BatchDict) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Returns the index of each token's document in its row, -1 in the padding: int64[B, T]."""
    rows, width = batch["input_ids"].shape
    documents_B = np.bincount(batch["doc_rows"], minlength=rows)
    starts_B = np.cumsum(documents_B) - documents_B
    number_D = np.arange(len(batch["doc_rows"])) - starts_B[batch["doc_rows"]]
    used_B = np.zeros(rows, np.int64)
    np.add.at(used_B, batch["doc_rows"], batch["seq_lengths"])
    ids_BT = np.full((rows, width), -1, np.int64)
    ids_BT[np.arange(width) < used_B[:, None]] = np.repeat(number_D, batch["seq_lengths"])
    return ids_BT
