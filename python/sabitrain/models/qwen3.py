"""Qwen3, dense: Llama's shape, with a norm on each head of queries and keys.

Dimensions: N tokens, C width, H query heads, K key heads, D dimensions of a head.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sabitrain.models.decoder import Attention, Parts, PreNormBlock, plain_parts
from sabitrain.models.family import DecoderFamily, Specifics, rope_settings
from sabitrain.models.qwen2 import refuse_windows
from sabitrain.models.settings import ModelConfig
from sabitrain.models.written import WrittenConfig


class Qwen3Attention(Attention):
    """Attention whose queries and keys are normalised, head by head."""

    def __init__(self, config: ModelConfig) -> None:
        """Makes the projections and both norms."""
        super().__init__(config)
        self.q_norm = nn.RMSNorm(self.head_size, eps=config.norm_eps)
        self.k_norm = nn.RMSNorm(self.head_size, eps=config.norm_eps)

    def queries_and_keys(self, x_NC: Tensor) -> tuple[Tensor, Tensor]:
        """Returns queries [N, H, D] and keys [N, K, D] before they are turned."""
        q_NHD, k_NKD = super().queries_and_keys(x_NC)
        return self.q_norm(q_NHD), self.k_norm(k_NKD)


class Qwen3Architecture(DecoderFamily[Specifics]):
    """Qwen3 for `sabitrain.models.registry`."""

    model_type, class_name, specifics = "qwen3", "Qwen3ForCausalLM", Specifics
    head_dim = 128

    def parts(self, config: ModelConfig, specifics: Specifics) -> Parts:
        """Makes the parts of a model."""
        blocks = [PreNormBlock(config, Qwen3Attention(config)) for _ in range(config.layers)]
        return plain_parts(config, blocks, specifics.rope_scaling)

    def take(self, written: WrittenConfig) -> tuple[float, Specifics]:
        """Takes the rotary settings; biases and sliding windows are refused."""
        written.expect("attention_bias", False)
        refuse_windows(written)
        theta, scaling = written.rope(self.theta)
        return theta, Specifics(scaling)

    def describe(self, config: ModelConfig, specifics: Specifics) -> dict[str, Any]:
        """Returns the rotary settings, and that there are neither biases nor windows."""
        rope = rope_settings(config.rope_theta, specifics.rope_scaling)
        return {**rope, "attention_bias": False, "use_sliding_window": False}
