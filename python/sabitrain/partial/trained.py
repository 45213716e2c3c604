"""The parameters that a run trains: chosen by their names, all others frozen.

A frozen parameter needs no gradient, so autograd makes none: it takes no memory, and the backward
pass ends at the lowest block that is trained.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

from sabiprep.errors import ConfigError
from sabitrain.models.architecture import CausalModel, make_model
from sabitrain.models.settings import ModelConfig
from sabitrain.models.trained_rows import rows_of, train_looked_up
from sabitrain.partial.adapters import add_adapters
from sabitrain.partial.patterns import matching
from sabitrain.partial.settings import PartialConfig, last_blocks


def set_trained(
    model: CausalModel, config: PartialConfig, device: torch.device | None = None
) -> None:
    """Freezes the parameters of a model that its run does not train.

    Args:
        model: The model, on the device to train on; one that gets adapters may be moved there
            afterwards.
        config: The settings; ``new_rows`` are resolved.
        device: The device to quantise matrices on; by default, that of the model.

    Raises:
        ConfigError: If a pattern matches no parameter, blocks or rows are not there, or nothing is
            left to train.
    """
    _forget(model)
    if config.train == "lora":
        _check_patterns(model, config)
        add_adapters(model, config.lora, config.freeze, device)
        return
    names = _trained_names(model, config)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    if config.train == "new-rows":
        _train_rows(model, *config.new_rows)


def _forget(model: CausalModel) -> None:
    """Takes back what an earlier phase has done to a model."""
    for hook in model.hooks:
        hook.remove()
    model.hooks.clear()
    model.rows.clear()


def check_trained(
    shape: ModelConfig, vocab_size: int, config: PartialConfig, patterns: Collection[str] = ()
) -> None:
    """Raises the errors of `set_trained` without a model, and of patterns that match nothing.

    Raises:
        ConfigError: As `set_trained`.
    """
    with torch.device("meta"):
        model = make_model(shape, vocab_size)
        set_trained(model, config)
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        matching(pattern, names, "optim.rates")


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
    return {name for pattern in config.freeze for name in matching(pattern, names, "freeze")}


def _chosen(model: CausalModel, config: PartialConfig) -> set[nn.Parameter]:
    """Returns the parameters that ``train`` names."""
    at_ends = {model.head_VC, *_embeddings(model)}
    if config.train == "all":
        return set(model.parameters())
    last = last_blocks(config.train)
    if last is None:
        return {parameter for parameter in model.parameters() if parameter in at_ends}
    units = model.units()
    if last > len(units):
        raise ConfigError(
            f"train {config.train}: the model has {len(units)} blocks",
            remedy="use a smaller N, or --train all",
        )
    in_units = {parameter for unit in units for parameter in unit.parameters()}
    of_last = {parameter for unit in units[-last:] for parameter in unit.parameters()}
    # The last norm, and the head where it is not the embedding.
    after = {*model.parameters()} - in_units - _embeddings(model)
    return of_last | after


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
                    model.hooks.append(train_looked_up(module, model.rows[name]))
