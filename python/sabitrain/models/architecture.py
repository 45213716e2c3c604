"""The protocol of an architecture, and the base class of all models.

No code outside this folder names an architecture. A model works on tokens laid end to end, with no
batch dimension: rows, documents and prompts of different lengths are all segments, told apart by
``cu_seqlens``.

Dimensions: N tokens, C width, V vocabulary, S segments; M positions that are wanted.
"""

from __future__ import annotations

import importlib
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.hooks import RemovableHandle

from sabiprep.errors import ConfigError
from sabitrain.data.settings import Compute
from sabitrain.models.quantised import QuantisedLinear
from sabitrain.models.registry import ARCHITECTURES
from sabitrain.models.settings import ModelConfig
from sabitrain.models.trained_rows import TrainedRows


@dataclass(frozen=True)
class Adapters:
    """The adapters of a model whose own weights are frozen.

    Attributes:
        written: The content of ``adapter_config.json``.
        ranks: The rank of each adapter, by the name of its module.
        dora: Whether the lengths of rows are trained apart.
        bits: Bits of a number of the base's blocks, if these are quantised.
        dropout: The share of their inputs that is dropped out in training.
        base: The sha256 of the weights of the base.
    """

    written: Mapping[str, Any]
    ranks: Mapping[str, int]
    dora: bool
    bits: int | None = None
    dropout: float = 0.0
    base: str = ""


class Unit(nn.Module):
    """A part of a model that is wrapped or compiled as a whole and recomputed in the backward pass.

    A transformer block is one.

    Attributes:
        recomputes: Whether only its inputs are kept for the backward pass.
        is_random: Whether it drops out in training, so that the state of the generators is kept to
            recompute it.
        compiled: The unit's ``forward``, compiled; None to run it as it is.
    """

    recomputes = False
    is_random = False
    compiled: Callable[..., Tensor] | None = None

    def run(self, *inputs: Any) -> Tensor:
        """Computes the unit, keeping the tensors of its backward pass, or its inputs alone."""
        if not torch.is_grad_enabled():
            out: Tensor = self(*inputs)
            return out
        call = self.compiled or self
        if not self.recomputes:
            return call(*inputs)
        out = checkpoint(call, *inputs, use_reentrant=False, preserve_rng_state=self.is_random)
        return out


class CausalModel(nn.Module):
    """A causal language model.

    Attributes:
        config: The architecture and shape.
        vocab_size: Rows of the embedding: the dataset's vocabulary, or as many as the checkpoint
            has that the model began from.
        beside: The content of files that stand beside the weights in the checkpoint that the model
            began from, by name; its own checkpoints carry them on.
        rows: The rows that are trained of matrices that are otherwise frozen, by the matrix's name.
        adapters: The adapters that are trained in the place of the model's own weights, if any.
        hooks: The hooks of what is trained now, removed when that changes.
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        """Notes shape and vocabulary; an architecture makes the parameters."""
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.beside: Mapping[str, bytes] = {}
        self.rows: dict[str, TrainedRows] = {}
        self.adapters: Adapters | None = None
        self.hooks: list[RemovableHandle] = []

    @property
    @abstractmethod
    def head_VC(self) -> Tensor:
        """The weight of the head, [V, C]."""

    @abstractmethod
    def units(self) -> Sequence[Unit]:
        """Returns the units of the model, in the order they are computed in."""

    @abstractmethod
    def forward(
        self,
        ids_N: Tensor,
        positions_N: Tensor,
        cu_seqlens: Tensor,
        max_seqlen: int,
        at_M: Tensor | None = None,
    ) -> Tensor:
        """Computes the states that the head reads; ``F.linear(states, head_VC)`` are the logits.

        Args:
            ids_N: int64[N], segments laid end to end.
            positions_N: int64[N], from 0 in each segment, below ``config.context``.
            cu_seqlens: int32[S + 1]: where each segment starts, and N; segments may be empty.
            max_seqlen: At least the length of the longest segment.
            at_M: int64[M]: the positions wanted, if not all. The end of the last block, and
                everything after that block, run on these positions alone, with the same result.

        Returns:
            float[N, C], or float[M, C].
        """

    def recompute(self, wanted: bool) -> None:
        """Has the units keep only their inputs for the backward pass, or all its tensors."""
        for unit in self.units():
            unit.recomputes = wanted

    def n_parameters(self) -> int:
        """Returns the number of parameters, those that are shared counted once."""
        quantised = sum(
            module.in_features * module.out_features
            for module in self.modules()
            if isinstance(module, QuantisedLinear)
        )
        return quantised + sum(parameter.numel() for parameter in self.parameters())

    def trained(self) -> dict[str, nn.Parameter]:
        """Returns the parameters that are trained, by name; rows bear the name of their matrix."""
        whole = {
            name: parameter
            for name, parameter in self.named_parameters()
            if parameter.requires_grad
        }
        return whole | {name: rows.rows_RC for name, rows in self.rows.items()}

    def n_trained(self) -> int:
        """Returns the number of parameters that are trained."""
        return sum(parameter.numel() for parameter in self.trained().values())

    @property
    def head_rows(self) -> TrainedRows | None:
        """The rows of the head that are trained, if not all or none are."""
        for name, rows in self.rows.items():
            if self.get_parameter(name) is self.head_VC:
                return rows
        return None


class Trained(NamedTuple):
    """The parameters that a step trains, as far as its operations depend on them.

    Attributes:
        modules: The names of the modules with a trained parameter; None for all.
        weights: The names of those whose weight is trained; None for all.
        rows: The rows that are trained of a weight, by module, if not all are.
        ranks: The rank of each adapter, by the name of its module.
        dora: Whether the lengths of rows are trained apart.
    """

    modules: frozenset[str] | None = None
    weights: frozenset[str] | None = None
    rows: Mapping[str, int] = MappingProxyType({})
    ranks: Mapping[str, int] = MappingProxyType({})
    dora: bool = False

    def has(self, module: str) -> bool:
        """Returns whether a parameter of a module is trained."""
        return self.modules is None or module in self.modules

    def has_weight(self, module: str) -> bool:
        """Returns whether the weight of a module is trained, or rows of it."""
        return self.weights is None or module in self.weights


ALL = Trained()
"""Every parameter is trained."""


def trained_in(model: CausalModel) -> Trained:
    """Returns the parameters of a model that are trained."""
    if model.adapters is not None:
        ranks = model.adapters.ranks
        return Trained(frozenset(ranks), frozenset(), {}, ranks, model.adapters.dora)
    names = [name.rpartition(".") for name in model.trained()]
    return Trained(
        frozenset(module for module, _, _ in names),
        frozenset(module for module, _, kind in names if kind == "weight"),
        {name.rpartition(".")[0]: len(rows.rows_RC) for name, rows in model.rows.items()},
    )


@dataclass(frozen=True)
class Work:
    """The work of a forward and a backward pass.

    Attributes:
        tokens: Tokens, padding included.
        predictions: Positions that predict, if not all do.
        lengths: int64[S]: the tokens of each segment.
        compute: The computation that is left out.
        recompute: Whether units are computed again in the backward pass.
        trained: The parameters that are trained.
    """

    tokens: int
    predictions: int
    lengths: Tensor
    compute: Compute
    recompute: bool = False
    trained: Trained = ALL

    def pairs(self, window: int = 0) -> int:
        """Returns the pairs of a query and a key that attention computes, over all segments.

        Args:
            window: The tokens that a token attends to; 0 for all of its segment before it.
        """
        within = self.lengths.clamp(max=window) if window else self.lengths
        # Queries beyond the window have as many keys as it has tokens.
        return int((within * (within + 1) // 2 + (self.lengths - within) * within).sum())


class AttentionHeads(NamedTuple):
    """The heads that an architecture hands to `sabitrain.attention`.

    Attributes:
        query: Query heads.
        key: Key and value heads.
        size: Dimensions of a head.
        windowed: Whether some layers attend within a window.
    """

    query: int
    key: int
    size: int
    windowed: bool = False


class Architecture(Protocol):
    """A family of models: how one is made, described to Hugging Face, counted and planned."""

    def make(self, config: ModelConfig, vocab_size: int) -> CausalModel:
        """Makes a model, its weights drawn from torch's global random state.

        Raises:
            ConfigError: If the architecture has no such shape.
        """

    def to_huggingface(self, config: ModelConfig, vocab_size: int) -> dict[str, Any]:
        """Returns the content of ``config.json``, the control tokens aside."""

    def from_huggingface(self, written: Mapping[str, Any]) -> tuple[ModelConfig, int]:
        """Returns the shape and the vocabulary that a ``config.json`` describes.

        Raises:
            KeyError: If a key is missing.
            ConfigError: If a value cannot be right.
        """

    def to_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the tensors of a model's ``state_dict`` under Hugging Face's names."""

    def from_weights(self, config: ModelConfig, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the ``state_dict`` of a model from tensors under Hugging Face's names.

        Raises:
            ConfigError: If tensors contradict the configuration.
        """

    def attention_heads(self, config: ModelConfig) -> AttentionHeads:
        """Returns the heads of the attention, for the check before a run."""

    def training_flops(self, config: ModelConfig, vocab_size: int, work: Work) -> float:
        """Returns the operations of a forward and a backward pass.

        A backward pass takes twice the operations of the forward pass, but for the gradients that
        frozen parameters save. `sabitrain.models.flops` names the operations that count.
        """


def architecture_of(model_type: str) -> Architecture:
    """Returns an architecture by its name in `sabitrain.models.registry.ARCHITECTURES`.

    Raises:
        ConfigError: If there is none of that name.
    """
    if model_type not in ARCHITECTURES:
        raise ConfigError(
            f"no architecture {model_type!r}", remedy=f"use one of {', '.join(ARCHITECTURES)}"
        )
    # Imported only now: settings read the table without torch.
    module, _, name = ARCHITECTURES[model_type].partition(":")
    made: Architecture = getattr(importlib.import_module(module), name)()
    return made


def make_model(config: ModelConfig, vocab_size: int) -> CausalModel:
    """Makes a model of any architecture, its weights drawn from torch's global random state.

    Args:
        config: The architecture and shape.
        vocab_size: Rows of the embedding.

    Raises:
        ConfigError: If the architecture has no such shape.
    """
    return architecture_of(config.architecture).make(config, vocab_size)
