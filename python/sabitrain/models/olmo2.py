"""OLMo 2: norms after each layer instead of before, and on all queries and keys of a token at once.

Dimensions: N tokens, C width, H query heads, K key heads, D dimensions of a head; M positions that
are wanted.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from sabitrain.models.decoder import MLP, Attention, Block, Parts, Rotary, plain_parts
from sabitrain.models.family import DecoderFamily, Specifics, rope_settings
from sabitrain.models.precision import product_dtype
from sabitrain.models.settings import ModelConfig
from sabitrain.models.written import WrittenConfig


class Olmo2Attention(Attention):
    """Attention whose queries and keys are normalised, all heads of a token together."""

    def __init__(self, config: ModelConfig) -> None:
        """Makes the projections and both norms."""
        super().__init__(config)
        self.q_norm = nn.RMSNorm(config.heads * self.head_size, eps=config.norm_eps)
        self.k_norm = nn.RMSNorm(config.key_heads * self.head_size, eps=config.norm_eps)

    def queries_and_keys(self, x_NC: Tensor) -> tuple[Tensor, Tensor]:
        """Returns queries [N, H, D] and keys [N, K, D] before they are turned."""
        q_NHD, k_NKD = super().queries_and_keys(x_NC)
        q_NHD = self.q_norm(q_NHD.flatten(1)).view_as(q_NHD)
        return q_NHD, self.k_norm(k_NKD.flatten(1)).view_as(k_NKD)


class Olmo2Block(Block):
    """A block that normalises the output of each layer (arXiv:2501.00656, section 3.2)."""

    def __init__(self, config: ModelConfig) -> None:
        """Makes both layers and their norms."""
        super().__init__()
        self.self_attn = Olmo2Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.mlp = MLP(config, F.silu)
        self.post_feedforward_layernorm = nn.RMSNorm(config.width, eps=config.norm_eps)

    def forward(
        self,
        x_NC: Tensor,
        rotary: Rotary,
        cu_seqlens: Tensor,
        max_seqlen: int,
        at_M: Tensor | None = None,
    ) -> Tensor:
        """Returns [N, C], or [M, C] at the positions ``at_M``."""
        dtype = product_dtype(x_NC)
        attended_MC = self.self_attn(x_NC.to(dtype), rotary, cu_seqlens, max_seqlen, at_M)
        x_MC = x_NC if at_M is None else x_NC.index_select(0, at_M)
        x_MC = x_MC + self.post_attention_layernorm(attended_MC)
        out_MC: Tensor = x_MC + self.post_feedforward_layernorm(self.mlp(x_MC.to(dtype)))
        return out_MC


class Olmo2Architecture(DecoderFamily[Specifics]):
    """OLMo 2 for `sabitrain.models.registry`."""

    model_type, class_name, specifics = "olmo2", "Olmo2ForCausalLM", Specifics
    norm_after = True
    norm_eps = 1e-5

    def parts(self, config: ModelConfig, specifics: Specifics) -> Parts:
        """Makes the parts of a model."""
        blocks = [Olmo2Block(config) for _ in range(config.layers)]
        return plain_parts(config, blocks, specifics.rope_scaling)

    def take(self, written: WrittenConfig) -> tuple[float, Specifics]:
        """Takes the rotary settings; biases are refused."""
        written.expect("attention_bias", False)
        theta, scaling = written.rope(self.theta)
        return theta, Specifics(scaling)

    def describe(self, config: ModelConfig, specifics: Specifics) -> dict[str, Any]:
        """Returns the rotary settings, and that there is no bias."""
        rope = rope_settings(config.rope_theta, specifics.rope_scaling)
        return {**rope, "attention_bias": False}
