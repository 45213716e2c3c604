"""What is refused before a run leaves anything behind."""

from __future__ import annotations

from sabiprep.dataset import PackedDataset
from sabiprep.errors import DatasetError, TrainError
from sabitrain.config import TrainConfig
from sabitrain.generate import check_tasks
from sabitrain.mixture import Mixture
from sabitrain.tokenizer import open_tokenizer


def check_dataset(config: TrainConfig, dataset: PackedDataset) -> None:
    """Refuse a dataset that this run cannot train on.

    Raises:
        DatasetError: If it has no row to train on, or its tokenizer is not the one it was packed with.
        TrainError: If its rows are longer than the model's context, or a task to answer is none of its own.
    """
    place = str(dataset.path)
    for part in dataset.parts if isinstance(dataset, Mixture) else [dataset]:
        if len(part.train) == 0:
            raise DatasetError("there is no row to train on", file=str(part.path), remedy="pack it with more records")
    if dataset.seq_len > config.model.context:
        raise TrainError(
            f"its rows have {dataset.seq_len} tokens, the model's context {config.model.context}",
            file=place,
            remedy=f"use --model.context {dataset.seq_len}, or pack with a smaller --seq-len",
        )
    check_tasks(dataset, (*config.answer_tasks, *config.weight_of_task()))
    open_tokenizer(dataset)
