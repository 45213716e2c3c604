"""The checkpoint that a run starts from: found, opened, and its shape made the run's."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import msgspec

from sabiprep.errors import ConfigError, TrainError
from sabitrain.checkpoints.history import folders
from sabitrain.checkpoints.hub import find_checkpoint
from sabitrain.checkpoints.pretrained import (
    ADAPTED_FILE,
    CONFIG_FILE,
    Pretrained,
    open_pretrained,
    shape_of,
)
from sabitrain.config import TrainConfig
from sabitrain.models.settings import ModelConfig
from sabitrain.settings import require


def start_from(config: TrainConfig, weights: bool = True) -> tuple[TrainConfig, Pretrained | None]:
    """Returns the settings with the shape of the checkpoint of ``--init``, and that checkpoint.

    A run that goes on has its shape from its own newest checkpoint: the one that it began with is
    not needed, and None is returned.

    Args:
        config: The settings.
        weights: Whether the weights are needed; a plan needs none.

    Raises:
        ConfigError: If a setting of the model contradicts the checkpoint.
        InputError: If it cannot be fetched from the Hub.
        TrainError: If there is no such checkpoint, or it cannot be read or is unknown.
    """
    if config.init is None:
        require(not config.new_rows, "new_rows are those of a checkpoint to start from: use --init")
        for word in ("new-rows", "lora"):
            require(
                not config.trains(word),
                f"train {word} needs a checkpoint to start from",
                "name one with --init CHECKPOINT",
            )
        return config, None
    # Any checkpoint of the run does, damaged ones too: all have one shape.
    own = [folder for folder in folders(config.folder) if (folder / CONFIG_FILE).exists()]
    goes_on = config.resume and bool(own)
    folder, name = (own[-1], config.init) if goes_on else find_checkpoint(config.init, weights)
    base = dataclasses.replace(open_pretrained(folder, weights), name=name)
    shape, vocab_size = shape_of(base)
    shape = dataclasses.replace(shape, vocab_size=vocab_size)
    _refuse_other_shape(config, shape)
    config = dataclasses.replace(config, model=shape, new_rows=_new_rows(config, base, vocab_size))
    return config, None if goes_on else base


def _new_rows(config: TrainConfig, base: Pretrained, vocab_size: int) -> tuple[int, ...]:
    """Returns the first and the end of the rows that are trained alone; none where others are."""
    if not config.trains("new-rows"):
        # A run that goes on is told of the setting that has changed, which is another one.
        require(
            not config.new_rows or config.resume,
            f"new_rows are trained by --train new-rows, not by --train {config.train}",
        )
        return config.new_rows
    if config.new_rows:
        return (*config.new_rows, vocab_size)[:2]
    written = base.document(ADAPTED_FILE)
    if written is None:
        raise ConfigError(
            f"train new-rows: the checkpoint does not say which rows are new (no {ADAPTED_FILE})",
            file=str(base.folder),
            remedy="name the first of them with --new-rows, or adapt the checkpoint",
        )
    try:
        return tuple(msgspec.convert(written, _Adapted).new_rows)
    except msgspec.ValidationError as error:
        raise TrainError(
            f"its new_rows cannot be right: {error}", file=str(base.folder / ADAPTED_FILE)
        ) from error


class _Adapted(msgspec.Struct):
    """The part of `ADAPTED_FILE` that is read: the first of the new rows, and their end."""

    new_rows: tuple[Annotated[int, msgspec.Meta(ge=0)], Annotated[int, msgspec.Meta(ge=1)]]


def _refuse_other_shape(config: TrainConfig, shape: ModelConfig) -> None:
    """Refuses settings of the model that were given, and that are not the checkpoint's."""
    default = ModelConfig()
    for field in dataclasses.fields(ModelConfig):
        given, own = getattr(config.model, field.name), getattr(shape, field.name)
        if given not in (getattr(default, field.name), own):
            raise ConfigError(
                f"model.{field.name} is {given!r}, but {own!r} in the checkpoint {config.init}",
                remedy=f"leave --model.{field.name.replace('_', '-')} and --preset out: "
                "--init decides the shape",
            )
