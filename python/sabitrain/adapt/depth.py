"""Fewer layers: those that change their input least, by its angle (arXiv:2403.17887).

Dimensions: L layers, S starts of a run of layers, D documents of a row, C width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sabiprep.dataset import BatchDict
from sabiprep.errors import ConfigError, TrainError
from sabitrain.adapt.draft import Draft, by_layer
from sabitrain.adapt.sample import Sample, ends_of
from sabitrain.models.architecture import architecture_of


@dataclass(frozen=True)
class Distances:
    """The angular distances between the inputs of layers that are N apart.

    Attributes:
        mean_S: The mean over documents, by the first of the N layers: float64[S].
        documents: The number of documents.
    """

    mean_S: Tensor
    documents: int

    @property
    def first(self) -> int:
        """The first layer of those to drop: the lowest of the least distances."""
        return int(self.mean_S.argmin())


def check_layers(draft: Draft, count: int) -> None:
    """Refuses to drop as many layers as there are.

    Raises:
        TrainError: If no layer would be left.
    """
    if count >= draft.layers:
        raise TrainError(
            f"has {draft.layers} layers, and {count} are to be dropped",
            file=str(draft.folder),
            remedy=f"name a number below {draft.layers}",
        )


def angular_distances(sample: Sample, count: int) -> Distances:
    """Returns the distance d(x_l, x_l+n) for each layer l, where n layers are to be dropped.

    d is arccos of the cosine, over pi, at the last token of each document (formula 7).

    Args:
        sample: The rows and the model.
        count: Layers to drop: n.
    """
    units = sample.model.units()
    states_LDC: list[Tensor] = []
    total_S = torch.zeros(len(units) - count + 1, dtype=torch.float64)
    documents = 0

    def keep_input(unit: Any, inputs: tuple[Any, ...]) -> None:
        states_LDC.append(inputs[0])

    def keep_output(unit: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        states_LDC.append(output)

    def add(rows: BatchDict) -> None:
        nonlocal documents
        ends_D = torch.from_numpy(ends_of(rows))
        # The last block gives the ends alone.
        at_ends = [x_NC[ends_D] for x_NC in states_LDC[:-1]] + states_LDC[-1:]
        x_LDC = torch.stack(at_ends).double()
        cosine_SD = F.cosine_similarity(x_LDC[:-count], x_LDC[count:], dim=-1).clamp(-1, 1)
        total_S.add_((cosine_SD.arccos() / math.pi).sum(1))
        documents += len(ends_D)
        states_LDC.clear()

    hooks = [unit.register_forward_pre_hook(keep_input) for unit in units]
    hooks.append(units[-1].register_forward_hook(keep_output))
    try:
        sample.run(add, ends_only=True)
    finally:
        for hook in hooks:
            hook.remove()
    return Distances(total_S / documents, documents)


def drop_layers(draft: Draft, first: int, count: int) -> Draft:
    """Returns a checkpoint without ``count`` layers from layer ``first`` on.

    Args:
        draft: The checkpoint.
        first: The first layer to drop, from 0.
        count: Layers to drop.
    """
    dropped = range(first, first + count)
    kept = [layer for layer in range(draft.layers) if layer not in dropped]
    new_layers = {old: new for new, old in enumerate(kept)}
    tensors = dict(draft.tensors)
    for _, _, name in by_layer(draft):
        tensors.pop(name)
    for layer, inner, name in by_layer(draft):
        if layer in new_layers:
            tensors[f"model.layers.{new_layers[layer]}.{inner}"] = draft.tensors[name]
    config = {**draft.config, "num_hidden_layers": len(kept)}
    types = _layer_types(draft.config)
    if types is not None:
        config["layer_types"] = [types[layer] for layer in kept]
    return replace(draft, config=config, tensors=tensors)


def _layer_types(config: Mapping[str, Any]) -> list[str] | None:
    """Returns the kind of each layer, where they differ; None where the configuration has none."""
    written = config.get("layer_types")
    if isinstance(written, list):
        return written
    # A family may have kinds by a pattern that the file does not spell out.
    try:
        family = architecture_of(str(config.get("model_type")))
        described = family.to_huggingface(*family.from_huggingface(config))
    except ConfigError:
        return None
    types: list[str] | None = described.get("layer_types")
    return types
