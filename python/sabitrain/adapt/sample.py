"""Some rows of a packed dataset, run through a base's model, to prune by its activations.

Dimensions: N tokens of a row.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sabiprep.dataset import BatchDict, PackedDataset, open_dataset
from sabiprep.errors import TokenizerError, TrainError
from sabitrain.adapt.texts import check_tokenizer
from sabitrain.adapt.tokenizer_file import read_json
from sabitrain.checkpoints.pretrained import TOKENIZER_FILE, load_pretrained, open_pretrained
from sabitrain.models.architecture import CausalModel


class Sample:
    """Rows spread over the training split of a dataset, and the model to run them through.

    Attributes:
        model: The model of the base, in float32.
        rows: The number of rows.
    """

    def __init__(self, folder: Path, dataset: PackedDataset, count: int) -> None:
        """Loads the model of a checkpoint.

        Args:
            folder: The checkpoint.
            dataset: The dataset; one of few rows gives all of them.
            count: Rows to look at.

        Raises:
            TrainError: If the model is of no known architecture, its tensors are not those of its
                configuration, or the rows do not fit it.
        """
        self.model: CausalModel = load_pretrained(open_pretrained(folder)).eval()
        self._dataset = dataset
        self.rows = min(count, len(dataset.train))
        context = self.model.config.context
        if not self.rows:
            raise TrainError("has no row to look at", file=str(dataset.path))
        if dataset.seq_len > context:
            raise TrainError(
                f"has rows of {dataset.seq_len:,} tokens, and the model takes {context:,}",
                file=str(dataset.path),
                remedy=f"pack the corpus with --seq-len {context} or less",
            )

    def run(self, seen: Callable[[BatchDict], None], *, ends_only: bool = False) -> None:
        """Runs each row through the model, and calls ``seen`` after it.

        Args:
            seen: The function that takes the row.
            ends_only: Whether the last block need give the last token of each document alone.
        """
        for rows in self._each():
            at_M = torch.from_numpy(ends_of(rows)) if ends_only else None
            with torch.no_grad():
                self.model(
                    torch.from_numpy(rows["input_ids"].reshape(-1)),
                    torch.from_numpy(rows["position_ids"].reshape(-1)),
                    torch.from_numpy(rows["cu_seqlens"]),
                    rows["max_seqlen"],
                    at_M,
                )
            seen(rows)

    def _each(self) -> Iterator[BatchDict]:
        """Yields the rows one by one."""
        split = self._dataset.train
        for index in range(self.rows):
            yield split.batch([index * len(split) // self.rows], labels=False)


@contextlib.contextmanager
def open_sample(folder: Path, rows: Path, count: int, tokenizer: bytes | None) -> Iterator[Sample]:
    """Opens the rows of a dataset that was packed with a base's tokenizer, and the base's model.

    Args:
        folder: The base.
        rows: The folder of the dataset.
        count: Rows to look at.
        tokenizer: The content of the base's ``tokenizer.json``.

    Raises:
        TokenizerError: If the base has no tokenizer, or it is no JSON.
        DatasetError: If the dataset is damaged, or was packed with another tokenizer.
        TrainError: If the model cannot be loaded, or the rows do not fit it.
    """
    file = str(folder / TOKENIZER_FILE)
    if tokenizer is None:
        raise TokenizerError("is missing: the rows cannot be held against it", file=file)
    with open_dataset(rows) as dataset:
        check_tokenizer(dataset, read_json(tokenizer, file), file)
        yield Sample(folder, dataset, count)


def ends_of(rows: BatchDict) -> npt.NDArray[np.int64]:
    """Returns the last token of each document of one row: int64[D]."""
    return rows["seq_lengths"].cumsum(dtype=np.int64) - 1


def without_padding(states_NX: Tensor, rows: BatchDict) -> Tensor:
    """Returns the states of the documents' tokens of one row alone."""
    return states_NX[: int(rows["seq_lengths"].sum())]
