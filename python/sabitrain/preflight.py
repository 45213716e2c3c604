"""The checks of the datasets before a run leaves anything behind."""

from __future__ import annotations

from sabiprep.errors import DatasetError, TrainError
from sabitrain.checkpoints.pretrained import TOKENIZER_FILE, Pretrained
from sabitrain.config import TrainConfig
from sabitrain.data.batches import micro_batches
from sabitrain.data.datasets import Datasets
from sabitrain.data.masking import masking_of
from sabitrain.data.rows import RowSource
from sabitrain.data.tokenizer import check_same_tokenizer, open_tokenizer
from sabitrain.evaluation.generate import check_tasks
from sabitrain.extras import import_bitsandbytes
from sabitrain.partial.phases import phase_configs, spans_of
from sabitrain.partial.trained import check_trained

_ROWS_AT_ONCE = 256


def check_datasets(config: TrainConfig, data: Datasets, base: Pretrained | None = None) -> None:
    """Refuses datasets that a run cannot train on.

    Args:
        config: The settings.
        data: The datasets.
        base: The checkpoint that the run starts from, whose tokenizer must be theirs.

    Raises:
        DatasetError: If a dataset has no row to train on, or its tokenizer is not the one that it
            was packed with, nor the checkpoint's.
        ConfigError: If parameters that are to be trained or frozen are not there.
        TrainError: If rows are longer than the model's context, a task to answer or to weigh is
            unknown, or no token has a weight.
        SabiprepError: If a package that the settings need is not installed.
    """
    if config.optim.name == "adamw8bit":
        import_bitsandbytes("optim.name adamw8bit")
    for part in data.parts:
        if len(part.train) == 0:
            raise DatasetError(
                "there is no row to train on",
                file=str(part.path),
                remedy="pack it with more records",
            )
    dataset = data.rows
    if dataset.seq_len > config.model.context:
        raise TrainError(
            f"its rows have {dataset.seq_len} tokens, the model's context {config.model.context}",
            file=str(dataset.path),
            remedy="pack with a smaller --seq-len"
            if config.init
            else f"use --model.context {dataset.seq_len}, or pack with a smaller --seq-len",
        )
    check_tasks(dataset, (*config.answer_tasks, *config.weight_of_task()))
    open_tokenizer(dataset)
    if base is not None:
        check_same_tokenizer(dataset, base.content(TOKENIZER_FILE), str(base.folder))
    _check_rows(config, dataset)
    _check_phases(config, dataset)
    _check_targets(config, dataset)


def _check_phases(config: TrainConfig, dataset: RowSource) -> None:
    """Raises `ConfigError` if a phase has no step, or trains what is not there."""
    if config.phase:
        plan = config.step_plan(len(dataset.train), dataset.seq_len, "cpu")
        spans_of(config, plan["steps"])
    rows, factors = config.model.rows(dataset.vocab_size), config.optim.factors()
    for own in phase_configs(config):
        check_trained(config.model, rows, own, factors)


def _check_rows(config: TrainConfig, dataset: RowSource) -> None:
    """Raises `TrainError` if the model has fewer rows of the embedding than the dataset tokens."""
    rows = config.model.rows(dataset.vocab_size)
    if rows < dataset.vocab_size:
        raise TrainError(
            f"its vocabulary has {dataset.vocab_size:,} tokens, and the model's embedding "
            f"{rows:,} rows",
            file=str(dataset.path),
            remedy="pack with the tokenizer of the checkpoint"
            if config.init
            else "leave --model.vocab-size out",
        )


def _check_targets(config: TrainConfig, dataset: RowSource) -> None:
    """Raises `TrainError` if no token of the training split has a weight."""
    # Mostly the first batch has a target, so that no more is read.
    masking = masking_of(config, dataset.sources)
    batches = micro_batches(dataset.train, range(len(dataset.train)), _ROWS_AT_ONCE)
    if any(masking.weights(rows).any() for rows in batches):
        return
    tasks = ", ".join(sorted({source.task for source in dataset.sources}))
    raise TrainError(
        "there is nothing to learn: no token of its training split counts for anything",
        file=str(dataset.path),
        remedy=f"give a task that it has ({tasks}) a weight above 0 with --task-weights TASK=WEIGHT"
        if any(weight == 0 for weight in config.weight_of_task().values())
        else "use --loss full, a --prompt-weight above 0, or pack it with targets",
    )
