"""Adapters of low rank, which ``peft`` injects into a model: LoRA, rsLoRA and DoRA.

The modules of a model bear the names of ``transformers``, so an adapter that is trained here loads
onto the same checkpoint there. ``peft`` is an extra, and imported only where it is needed.
"""

from __future__ import annotations

import difflib
import fnmatch
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sabiprep.errors import ConfigError, SabiprepError
from sabitrain.models.architecture import Adapters, CausalModel
from sabitrain.models.quantised import quantise
from sabitrain.partial.settings import LoraConfig

# Where ``transformers`` puts a model inside the module that ``peft`` wraps around it.
_PREFIX = "base_model.model."
_ADAPTER = "default"


def add_adapters(
    model: CausalModel,
    config: LoraConfig,
    freeze: Sequence[str] = (),
    device: torch.device | None = None,
) -> None:
    """Adds adapters to the linear layers of the blocks, and freezes everything else.

    With ``config.bits`` these layers are quantised first, on the device.

    Args:
        model: The model; the initial weights come from torch's global random state.
        config: The settings.
        freeze: Patterns of parameters; a matrix whose name one matches gets no adapter.
        device: The device to quantise on; by default, that of the model.

    Raises:
        ConfigError: If a target is no linear layer of a block, or no matrix is left to adapt.
        SabiprepError: If ``peft`` is not installed, nor ``bitsandbytes`` where it is needed.
    """
    peft = import_peft()
    modules = _adapted_modules(model, config.targets, freeze)
    # Short names say the same where every layer of a name is adapted, and people read them.
    every = len(modules) == len(_adapted_modules(model, config.targets))
    if config.bits is not None:
        quantise(model.units(), config.bits, device)
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=sorted(config.targets if every else modules),
        use_rslora=config.rslora,
        use_dora=config.dora,
        task_type="CAUSAL_LM",
    )
    peft.inject_adapter_in_model(settings, model, _ADAPTER)
    for name in modules:
        # Autocast chooses the type of products; a copy in float32 would be kept until they are
        # differentiated. DoRA measures rows in the type of the input.
        setattr(model.get_submodule(name), "cast_input_dtype_enabled", config.dora)  # noqa: B010
    for unit in model.units():
        unit.is_random = config.dropout > 0
    ranks = dict.fromkeys(modules, config.rank)
    model.adapters = Adapters(_written(settings), ranks, config.dora, config.bits, config.dropout)


def adapter_tensors(model: CausalModel) -> dict[str, Tensor]:
    """Returns the tensors of a model's adapters under the names of ``peft``'s files."""
    state = import_peft().get_peft_model_state_dict(
        model, adapter_name=_ADAPTER, save_embedding_layers=False
    )
    return {f"{_PREFIX}{name}": tensor for name, tensor in state.items()}


def take_adapter_tensors(model: CausalModel, tensors: Mapping[str, Tensor]) -> None:
    """Puts tensors from one of ``peft``'s files into a model's adapters.

    Raises:
        ValueError: If they are not those of the model's adapters.
    """
    own = adapter_tensors(model)
    if own.keys() != tensors.keys():
        name = sorted(own.keys() ^ tensors.keys())[0]
        raise ValueError(f"{name} is {'missing' if name in own else 'of no adapter of this model'}")
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise ValueError(f"{name} is {list(tensor.shape)}, not {list(own[name].shape)}")
        # The state of ``peft`` holds the parameters themselves, detached.
        own[name].copy_(tensor)


def merge_adapter(
    model: CausalModel, written: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> CausalModel:
    """Returns a model with an adapter of ``peft`` merged into its weights.

    Args:
        model: The base of the adapter.
        written: The content of ``adapter_config.json``.
        tensors: The tensors of the adapter, by name.

    Raises:
        ConfigError: If it is no adapter of low rank, or its settings are unknown to ``peft``.
        ValueError: If the tensors are not those of the adapter on this model.
    """
    peft = import_peft()
    if written.get("peft_type") != "LORA":
        raise ConfigError(f"peft_type is {written.get('peft_type')!r}: LORA alone can be merged")
    try:
        settings = peft.LoraConfig(**{**written, "inference_mode": False})
        wrapped = peft.LoraModel(model, settings, _ADAPTER)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"peft does not take its settings: {error}") from error
    take_adapter_tensors(model, tensors)
    merged: CausalModel = wrapped.merge_and_unload(safe_merge=True)
    return merged


def import_peft() -> Any:
    """Returns the module ``peft``.

    Raises:
        SabiprepError: If it is not installed.
    """
    try:
        return importlib.import_module("peft")
    except ImportError as error:
        raise SabiprepError(
            f"adapters need the package peft: {error}", remedy="pip install 'sabiprep[lora]'"
        ) from error


def _adapted_modules(
    model: CausalModel, targets: Sequence[str], freeze: Sequence[str] = ()
) -> list[str]:
    """Returns the names of the linear layers of the blocks that ``targets`` name."""
    in_units = {module for unit in model.units() for module in unit.modules()}
    linear = [
        name
        for name, module in model.named_modules()
        if module in in_units and isinstance(module, nn.Linear)
    ]
    kinds = list(dict.fromkeys(name.rpartition(".")[2] for name in linear))
    for target in targets:
        if target not in kinds:
            near = difflib.get_close_matches(target, kinds, n=1, cutoff=0.0)[0]
            raise ConfigError(
                f"lora.targets: the blocks have no linear layer {target!r}",
                remedy=f"did you mean {near}? they have {', '.join(kinds)}",
            )
    found = [
        name
        for name in linear
        if name.rpartition(".")[2] in targets
        and not any(fnmatch.fnmatchcase(f"{name}.weight", pattern) for pattern in freeze)
    ]
    if not found:
        raise ConfigError(
            "nothing is left to train: freeze matches all that --lora.targets names",
            remedy="leave a pattern of --freeze out",
        )
    return found


def _written(settings: Any) -> dict[str, Any]:
    """Returns the content of ``adapter_config.json`` as ``peft`` writes it."""
    values: dict[str, Any] = settings.to_dict()
    # ``peft`` holds targets as a set, whose order differs from run to run.
    return {
        name: sorted(value) if isinstance(value, set) else value for name, value in values.items()
    } | {"inference_mode": True}
