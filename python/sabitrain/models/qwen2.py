"""Qwen2 and Qwen2.5: Llama's shape, with biases on queries, keys and values."""

from __future__ import annotations

from typing import Any

from sabitrain.models.decoder import Attention, Parts, PreNormBlock, plain_parts
from sabitrain.models.family import DecoderFamily, Specifics, rope_settings
from sabitrain.models.settings import ModelConfig
from sabitrain.models.written import WrittenConfig


class Qwen2Architecture(DecoderFamily[Specifics]):
    """Qwen2 for `sabitrain.models.registry`."""

    model_type, class_name, specifics = "qwen2", "Qwen2ForCausalLM", Specifics

    def parts(self, config: ModelConfig, specifics: Specifics) -> Parts:
        """Makes the parts of a model."""
        blocks = [PreNormBlock(config, Attention(config, bias=True)) for _ in range(config.layers)]
        return plain_parts(config, blocks, specifics.rope_scaling)

    def take(self, written: WrittenConfig) -> tuple[float, Specifics]:
        """Takes the rotary settings; sliding windows are refused."""
        refuse_windows(written)
        theta, scaling = written.rope(self.theta)
        return theta, Specifics(scaling)

    def describe(self, config: ModelConfig, specifics: Specifics) -> dict[str, Any]:
        """Returns the rotary settings, and that there are no windows."""
        rope = rope_settings(config.rope_theta, specifics.rope_scaling)
        return {**rope, "use_sliding_window": False}


def refuse_windows(written: WrittenConfig) -> None:
    """Refuses sliding windows, which no checkpoint of Qwen2.5 or Qwen3 turns on.

    Raises:
        ConfigError: If ``config.json`` turns them on.
    """
    written.expect("use_sliding_window", False)
    # Without effect then.
    written.ignore("sliding_window", "max_window_layers")
    if any(kind != "full_attention" for kind in written.texts("layer_types") or ()):
        written.expect("layer_types", ["full_attention"])
