"""An architecture unlike Llama: an MLP on each token, a head of its own, other names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from sabitrain.models.architecture import AttentionHeads, CausalModel, Unit, Work
from sabitrain.models.settings import ModelConfig

MODEL_TYPE = "per_token"
ENTRY = "support.train.second_architecture:PerTokenArchitecture"


class PerTokenBlock(Unit):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.inner = nn.Linear(config.width, config.mlp_width)
        self.outer = nn.Linear(config.mlp_width, config.width)

    def forward(self, x_NC: Tensor) -> Tensor:
        return x_NC + self.outer(F.gelu(self.inner(x_NC)))


class PerToken(CausalModel):
    """Predicts each token from the one before it alone."""

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        self.embed = nn.Embedding(vocab_size, config.width)
        self.blocks = nn.ModuleList(PerTokenBlock(config) for _ in range(config.layers))
        self.out = nn.Linear(config.width, vocab_size, bias=False)

    @property
    def head_VC(self) -> Tensor:
        return self.out.weight

    def units(self) -> Sequence[Unit]:
        return list(self.blocks)

    def forward(
        self,
        ids_N: Tensor,
        positions_N: Tensor,
        cu_seqlens: Tensor,
        max_seqlen: int,
        at_M: Tensor | None = None,
    ) -> Tensor:
        x_NC = self.embed(ids_N if at_M is None else ids_N.index_select(0, at_M))
        for block in self.units():
            x_NC = block.run(x_NC)
        return x_NC


class PerTokenArchitecture:
    def make(self, config: ModelConfig, vocab_size: int) -> PerToken:
        return PerToken(config, vocab_size)

    def to_huggingface(self, config: ModelConfig, vocab_size: int) -> dict[str, Any]:
        shape = {"n_embd": config.width, "n_inner": config.mlp_width, "n_layer": config.layers}
        return {
            "model_type": MODEL_TYPE,
            "vocab_size": vocab_size,
            "n_ctx": config.context,
            "n_head": config.heads,
            **shape,
        }

    def from_huggingface(self, written: Mapping[str, Any]) -> tuple[ModelConfig, int]:
        config = ModelConfig(
            architecture=MODEL_TYPE,
            layers=written["n_layer"],
            width=written["n_embd"],
            heads=written["n_head"],
            mlp_width=written["n_inner"],
            context=written["n_ctx"],
        )
        return config, written["vocab_size"]

    def to_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {f"transformer.{name}": value for name, value in state.items()}

    def from_weights(self, config: ModelConfig, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name.removeprefix("transformer."): value for name, value in weights.items()}

    def attention_heads(self, config: ModelConfig) -> AttentionHeads:
        return AttentionHeads(config.heads, config.key_heads, config.head_size)

    def training_flops(self, config: ModelConfig, vocab_size: int, work: Work) -> float:
        positions = work.predictions if work.compute == "full" else work.tokens
        predictions = work.tokens if work.compute == "dense" else work.predictions
        blocks = positions * config.layers * 4 * config.width * config.mlp_width
        forward = blocks + predictions * 2 * config.width * vocab_size
        return 3.0 * forward + (blocks if work.recompute else 0)
