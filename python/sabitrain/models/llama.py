"""Llama 1 to 3, and models of its shape (SmolLM2, TinyLlama): ``LlamaForCausalLM``.

RMSNorm before each layer, grouped-query attention with half-split rotary positions, and SwiGLU.
"""

from __future__ import annotations

from typing import Any

from sabitrain.models.decoder import Attention, Parts, PreNormBlock, plain_parts
from sabitrain.models.family import DecoderFamily, Specifics, rope_settings
from sabitrain.models.settings import ModelConfig
from sabitrain.models.written import WrittenConfig


class LlamaArchitecture(DecoderFamily[Specifics]):
    """Llama for `sabitrain.models.registry`."""

    model_type, class_name, specifics = "llama", "LlamaForCausalLM", Specifics

    def parts(self, config: ModelConfig, specifics: Specifics) -> Parts:
        """Makes the parts of a model."""
        blocks = [PreNormBlock(config, Attention(config)) for _ in range(config.layers)]
        return plain_parts(config, blocks, specifics.rope_scaling)

    def take(self, written: WrittenConfig) -> tuple[float, Specifics]:
        """Takes the rotary settings; biases and a split computation are refused."""
        written.expect("attention_bias", False)
        written.expect("mlp_bias", False)
        written.expect("pretraining_tp", 1)
        theta, scaling = written.rope(self.theta)
        return theta, Specifics(scaling)

    def describe(self, config: ModelConfig, specifics: Specifics) -> dict[str, Any]:
        """Returns the rotary settings, and that there is no bias."""
        rope = rope_settings(config.rope_theta, specifics.rope_scaling)
        return {**rope, "attention_bias": False, "mlp_bias": False}
