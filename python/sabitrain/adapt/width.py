"""Narrower layers: the heads and MLP channels whose activations are largest (arXiv:2407.14679).

The importance of a query head is the norm of its output before ``o_proj``, that of a channel its
absolute activation before ``down_proj``: the mean over a row's tokens, then the root of the sum of
squares over rows. Each layer keeps its own. A key head goes with all of its query heads.

Dimensions: L layers, N tokens of a row, H query heads, K key heads, D dimensions of a head, F
channels of an MLP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sabiprep.dataset import BatchDict
from sabiprep.errors import TrainError
from sabitrain.adapt.draft import Draft, by_layer
from sabitrain.adapt.sample import Sample, without_padding


class Importance(NamedTuple):
    """The importance of heads and of channels: float64[L, K] and float64[L, F]."""

    heads_LK: Tensor
    channels_LF: Tensor


class Heads(NamedTuple):
    """The heads of a configuration: query heads, key heads, dimensions of each."""

    queries: int
    keys: int
    size: int

    @property
    def group(self) -> int:
        """Query heads of a key head."""
        return self.queries // self.keys


def heads_of(config: Mapping[str, Any]) -> Heads:
    """Returns the heads of a ``config.json`` that a model was loaded by."""
    queries = config["num_attention_heads"]
    keys = config.get("num_key_value_heads") or queries
    return Heads(queries, keys, config.get("head_dim") or config["hidden_size"] // queries)


def check_widths(draft: Draft, widths: Mapping[str, int]) -> None:
    """Refuses widths that a model of this shape cannot have.

    Raises:
        TrainError: If heads are no whole groups, or there are not as many to keep.
    """
    heads, config = heads_of(draft.config), draft.config
    channels = config["intermediate_size"]
    wanted = widths.get("heads", heads.queries)
    # Some configurations of `transformers` must have a width that the heads divide.
    width = config["hidden_size"]
    fitting = [
        count for count in range(heads.group, heads.queries + 1, heads.group) if width % count == 0
    ]
    if wanted not in fitting:
        raise TrainError(
            f"has {heads.queries} query heads, {heads.group} for each key head: {wanted} cannot "
            f"be kept, since they must be whole groups and divide the width of {width:,}",
            file=str(draft.folder),
            remedy=f"keep one of {', '.join(map(str, fitting))}",
        )
    if widths.get("mlp", channels) > channels:
        raise TrainError(
            f"has {channels:,} channels in each MLP, and {widths['mlp']:,} are to be kept",
            file=str(draft.folder),
            remedy=f"name a number up to {channels:,}",
        )


def importance(sample: Sample, heads: Heads) -> Importance:
    """Returns the importance of each key head with its query heads, and of each MLP channel.

    Args:
        sample: The rows and the model.
        heads: The heads of the model.
    """
    units = sample.model.units()
    attended = [_Inputs(_module(unit, "self_attn.o_proj")) for unit in units]
    inner = [_Inputs(_module(unit, "mlp.down_proj")) for unit in units]
    squares_LH = torch.zeros(len(units), heads.queries, dtype=torch.float64)
    squares_LF: list[Tensor] = [torch.zeros(()) for _ in units]

    def add(rows: BatchDict) -> None:
        for layer, (outputs, activations) in enumerate(zip(attended, inner, strict=True)):
            out_NX = without_padding(outputs.take(), rows)
            out_NHD = out_NX.reshape(len(out_NX), heads.queries, -1)
            squares_LH[layer] += out_NHD.double().norm(dim=-1).mean(0).square()
            act_NF = without_padding(activations.take(), rows)
            squares_LF[layer] = squares_LF[layer] + act_NF.double().abs().mean(0).square()

    try:
        sample.run(add)
    finally:
        for inputs in (*attended, *inner):
            inputs.remove()
    by_head_LK = squares_LH.sqrt().reshape(len(units), heads.keys, heads.group).sum(-1)
    return Importance(by_head_LK, torch.stack(squares_LF).sqrt())


def prune_width(draft: Draft, found: Importance, widths: Mapping[str, int]) -> Draft:
    """Returns a checkpoint with the most important heads and channels of each layer alone.

    Args:
        draft: The checkpoint.
        found: Their importance, by the layers of ``draft``.
        widths: Query ``heads`` to keep, and channels of each ``mlp``; one left out stays.
    """
    heads = heads_of(draft.config)
    keys = widths.get("heads", heads.queries) // heads.group
    channels = widths.get("mlp", draft.config["intermediate_size"])
    tensors = dict(draft.tensors)
    for layer, inner, name in by_layer(draft):
        groups_K = _largest(found.heads_LK[layer], keys)
        queries = [group * heads.group + each for group in groups_K for each in range(heads.group)]
        cut = _Cut(
            _dimensions(queries, heads.size),
            _dimensions(groups_K, heads.size),
            _largest(found.channels_LF[layer], channels),
        )
        tensors[name] = cut.of(inner, draft.tensors[name], heads)
    config = {
        **draft.config,
        "num_attention_heads": keys * heads.group,
        "num_key_value_heads": keys,
        # No longer the width over the heads.
        "head_dim": heads.size,
        "intermediate_size": channels,
    }
    return replace(draft, config=config, tensors=tensors)


class _Cut(NamedTuple):
    """The places that a layer keeps: dimensions of queries and of keys, and MLP channels."""

    queries: Sequence[int]
    keys: Sequence[int]
    channels: Sequence[int]

    def of(self, name: str, tensor: Tensor, heads: Heads) -> Tensor:
        """Returns the kept part of a layer's tensor, by its name within the layer."""
        part = name.removesuffix(".weight").removesuffix(".bias").rpartition(".")[-1]
        if part == "q_proj" or (part == "q_norm" and len(tensor) == heads.queries * heads.size):
            return tensor[list(self.queries)]
        # A norm over one head alone is the same for all of them.
        if part in ("k_proj", "v_proj") or (
            part == "k_norm" and len(tensor) == heads.keys * heads.size > heads.size
        ):
            return tensor[list(self.keys)]
        if part in ("gate_proj", "up_proj"):
            return tensor[list(self.channels)]
        columns = {"o_proj": self.queries, "down_proj": self.channels}.get(part)
        return tensor if columns is None or tensor.ndim < 2 else tensor[:, list(columns)]


class _Inputs:
    """The inputs of a module, noted at each call."""

    def __init__(self, module: nn.Module) -> None:
        """Begins to note them."""
        self._last: Tensor | None = None
        self._hook = module.register_forward_pre_hook(self._note)

    def _note(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Notes an input."""
        self._last = inputs[0]

    def take(self) -> Tensor:
        """Returns the input of the last call, and lets go of it."""
        taken, self._last = self._last, None
        assert taken is not None
        return taken

    def remove(self) -> None:
        """Ends the noting."""
        self._hook.remove()


def _module(unit: nn.Module, name: str) -> nn.Module:
    """Returns a module of a unit."""
    try:
        return unit.get_submodule(name)
    except AttributeError as error:
        raise TrainError(
            f"its blocks have no {name}, so their width cannot be pruned",
            remedy="leave --prune-width out",
        ) from error


def _largest(values: Tensor, count: int) -> list[int]:
    """Returns the places of the largest values, in their order; of equal ones the first."""
    order = values.sort(descending=True, stable=True).indices[:count]
    return sorted(order.tolist())


def _dimensions(heads: Sequence[int], size: int) -> list[int]:
    """Returns the places of all dimensions of some heads."""
    return [head * size + dimension for head in heads for dimension in range(size)]
