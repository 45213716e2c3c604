"""The parameters that a run trains: chosen by their names, all others frozen.

A frozen parameter needs no gradient, so autograd makes none: it takes no memory, and the backward
pass ends at the lowest block that is trained.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Sequence

import torch
from torch import nn

from sabiprep.errors import ConfigError
from sabitrain.models.architecture import CausalModel, make_model
from sabitrain.models.settings import ModelConfig
from sabitrain.models.trained_rows import rows_of, train_looked_up
from sabitrain.partial.adapters import add_adapters
from sabitrain.partial.settings import PartialConfig

_NEAR = 3


def set_trained(model: CausalModel, config: PartialConfig) -> None:
    """Freezes the parameters of a model that its run does not train.

    Args:
        model: The model, on the device to train on.
        config: The settings; ``new_rows`` are resolved.

    Raises:
        ConfigError: If a pattern matches no parameter, blocks or rows are not there, or nothing is
            left to train.
    """
    if config.train == "lora":
        _check_patterns(model, config)
        add_adapters(model, config.lora, config.freeze)
        return
    names = _trained_names(model, config)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    if config.train == "new-rows":
        _train_rows(model, *config.new_rows)


def check_trained(shape: ModelConfig, vocab_size: int, config: PartialConfig) -> None:
    """Raises the errors of `set_trained` without a model.

    Raises:
        ConfigError: As `set_trained`.
    """
    with torch.device("meta"):
        set_trained(make_model(shape, vocab_size), config)


def _trained_names(model: CausalModel, config: PartialConfig) -> set[str]:
    """Returns the names of the parameters that are trained, whole or in some rows."""
    frozen = _check_patterns(model, config)
    chosen = _chosen(model, config)
    trained = {
        name
        for name, parameter in model.named_parameters()
        if parameter in chosen and name not in frozen
    }
    if not trained:
        raise ConfigError(
            f"nothing is left to train: freeze matches all that --train {config.train} trains",
            remedy="leave a pattern of --freeze out",
        )
    return trained


def _check_patterns(model: CausalModel, config: PartialConfig) -> set[str]:
    """Returns the names that ``freeze`` matches; a pattern that matches none is refused."""
    names = [name for name, _ in model.named_parameters()]
    return {name for pattern in config.freeze for name in _matches(pattern, names)}


def _matches(pattern: str, names: Sequence[str]) -> list[str]:
    """Returns the names that a pattern matches, at least one."""
    found = fnmatch.filter(names, pattern)
    if not found:
        near = difflib.get_close_matches(pattern, names, n=_NEAR, cutoff=0.0)
        raise ConfigError(
            f"freeze {pattern!r} matches no parameter",
            remedy=f"near ones are {', '.join(near)}; `*` stands for any text",
        )
    return found


def _chosen(model: CausalModel, config: PartialConfig) -> set[nn.Parameter]:
    """Returns the parameters that ``train`` names."""
    at_ends = {model.head_VC, *_embeddings(model)}
    if config.train == "all":
        return set(model.parameters())
    if config.last_blocks is None:
        return {parameter for parameter in model.parameters() if parameter in at_ends}
    units = model.units()
    if config.last_blocks > len(units):
        raise ConfigError(
            f"train {config.train}: the model has {len(units)} blocks",
            remedy="use a smaller N, or --train all",
        )
    in_units = {parameter for unit in units for parameter in unit.parameters()}
    last = {parameter for unit in units[-config.last_blocks :] for parameter in unit.parameters()}
    # The last norm, and the head where it is not the embedding.
    after = {*model.parameters()} - in_units - _embeddings(model)
    return last | after


def _embeddings(model: CausalModel) -> set[nn.Parameter]:
    """Returns the weights of the embeddings."""
    embeddings = (module for module in model.modules() if isinstance(module, nn.Embedding))
    return {parameter for module in embeddings for parameter in module.parameters()}


def _train_rows(model: CausalModel, first: int, end: int) -> None:
    """Has rows alone be trained of the matrices that are trained."""
    if not first < end <= model.vocab_size:
        raise ConfigError(
            f"new_rows are {first:,} to {end:,}, and the embedding has {model.vocab_size:,}",
            remedy="name rows that are there",
        )
    for name, parameter in list(model.named_parameters()):
        if parameter.requires_grad:
            model.rows[name] = rows_of(parameter, first, end)
            for module in model.modules():
                if isinstance(module, nn.Embedding) and module.weight is parameter:
                    train_looked_up(module, model.rows[name])
