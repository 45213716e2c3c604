"""The checkpoint that a run starts from: found, opened, and its shape made the run's."""

from __future__ import annotations

import dataclasses

from sabiprep.errors import ConfigError
from sabitrain.checkpoints.history import folders
from sabitrain.checkpoints.hub import find_checkpoint
from sabitrain.checkpoints.pretrained import CONFIG_FILE, Pretrained, open_pretrained, shape_of
from sabitrain.config import TrainConfig
from sabitrain.models.settings import ModelConfig


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
        return config, None
    # Any checkpoint of the run does, damaged ones too: all have one shape.
    own = [folder for folder in folders(config.run) if (folder / CONFIG_FILE).exists()]
    goes_on = config.resume and bool(own)
    folder, name = (own[-1], config.init) if goes_on else find_checkpoint(config.init, weights)
    base = dataclasses.replace(open_pretrained(folder, weights), name=name)
    shape, vocab_size = shape_of(base)
    shape = dataclasses.replace(shape, vocab_size=vocab_size)
    _refuse_other_shape(config, shape)
    return dataclasses.replace(config, model=shape), None if goes_on else base


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
