"""Mistral: Llama's shape, with attention within a sliding window in its first version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sabitrain.models.decoder import Attention, Parts, PreNormBlock, plain_parts
from sabitrain.models.family import DecoderFamily, Specifics, rope_settings
from sabitrain.models.settings import ModelConfig
from sabitrain.models.written import WrittenConfig


class MistralSpecifics(Specifics, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The settings of Mistral alone.

    Attributes:
        sliding_window: The tokens that a token attends to; 0 for all before it.
    """

    sliding_window: int = 0


class MistralArchitecture(DecoderFamily[MistralSpecifics]):
    """Mistral for `sabitrain.models.registry`."""

    model_type, class_name, specifics = "mistral", "MistralForCausalLM", MistralSpecifics

    def parts(self, config: ModelConfig, specifics: MistralSpecifics) -> Parts:
        """Makes the parts of a model."""
        windows = self.windows(config, specifics)
        blocks = [PreNormBlock(config, Attention(config, window=window)) for window in windows]
        return plain_parts(config, blocks, specifics.rope_scaling)

    def take(self, written: WrittenConfig) -> tuple[float, MistralSpecifics]:
        """Takes the rotary settings and the window."""
        theta, scaling = written.rope(self.theta)
        # A file that does not name it has the default of ``transformers``; null is no window.
        is_full = written.is_null("sliding_window")
        window = 0 if is_full else written.count("sliding_window", 4096)
        return theta, MistralSpecifics(scaling, window)

    def describe(self, config: ModelConfig, specifics: MistralSpecifics) -> dict[str, Any]:
        """Returns the rotary settings and the window."""
        rope = rope_settings(config.rope_theta, specifics.rope_scaling)
        return {**rope, "sliding_window": specifics.sliding_window or None}

    def windows(self, config: ModelConfig, specifics: MistralSpecifics) -> Sequence[int]:
        """Returns the same window for each layer."""
        return [specifics.sliding_window] * config.layers
