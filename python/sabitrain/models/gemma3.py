"""Gemma 3, text alone: norms around each layer, and five windowed layers for each full one.

Dimensions: N tokens, C width, H query heads, K key heads, D dimensions of a head; M positions that
are wanted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sabiprep.errors import ConfigError
from sabitrain.models.decoder import MLP, Attention, Block, Parts, Rotary
from sabitrain.models.family import MOST_LAYERS, DecoderFamily, Specifics, scaling_table
from sabitrain.models.precision import product_dtype
from sabitrain.models.rotary import RopeScaling, frequencies
from sabitrain.models.settings import ModelConfig
from sabitrain.models.written import WrittenConfig

# By the number of their rotary table.
_KINDS = ("full_attention", "sliding_attention")
_LOCAL_THETA = 10_000.0
_WINDOW = 4096
# One full layer in so many, where ``layer_types`` is not written.
_PATTERN = 6


class Gemma3Specifics(Specifics, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The settings of Gemma 3 alone.

    Attributes:
        layer_types: The kind of each layer's attention; one full layer in six if empty.
        sliding_window: The tokens that a token attends to in a windowed layer.
        rope_local_base_freq: The rotary base of windowed layers.
        query_pre_attn_scalar: Scores are divided by its square root; 0 for the size of a head.
    """

    layer_types: tuple[str, ...] = ()
    sliding_window: int = _WINDOW
    rope_local_base_freq: float = _LOCAL_THETA
    query_pre_attn_scalar: float = 0.0


class OffsetNorm(nn.RMSNorm):
    """RMSNorm whose gain is 1 + weight, so that a weight of zero changes nothing."""

    def reset_parameters(self) -> None:
        """Sets the weight to zero."""
        nn.init.zeros_(self.weight)

    def forward(self, x_NC: Tensor) -> Tensor:
        """Returns the input normalised, in float32 at least."""
        wide = torch.promote_types(x_NC.dtype, self.weight.dtype)
        return F.rms_norm(x_NC.to(wide), self.normalized_shape, 1 + self.weight.to(wide), self.eps)


class Gemma3Attention(Attention):
    """Attention whose queries and keys are normalised head by head, and queries scaled."""

    def __init__(self, config: ModelConfig, window: int, scalar: float) -> None:
        """Makes the projections and both norms; ``scalar`` is ``query_pre_attn_scalar``."""
        super().__init__(config, window=window)
        self.q_norm = OffsetNorm(self.head_size, eps=config.norm_eps)
        self.k_norm = OffsetNorm(self.head_size, eps=config.norm_eps)
        # The kernels divide scores by the square root of the head's size.
        self.scale = math.sqrt(self.head_size / (scalar or self.head_size))

    def queries_and_keys(self, x_NC: Tensor) -> tuple[Tensor, Tensor]:
        """Returns queries [N, H, D] and keys [N, K, D] before they are turned."""
        q_NHD, k_NKD = super().queries_and_keys(x_NC)
        q_NHD = self.q_norm(q_NHD)
        return (q_NHD if self.scale == 1.0 else q_NHD * self.scale), self.k_norm(k_NKD)


class Gemma3Block(Block):
    """A block that normalises the input and the output of each layer."""

    def __init__(self, config: ModelConfig, attention: Attention, table: int) -> None:
        """Makes the MLP and the four norms; ``table`` is the number of its rotary table."""
        super().__init__()
        norm = partial(OffsetNorm, config.width, eps=config.norm_eps)
        self.table = table
        self.input_layernorm = norm()
        self.self_attn = attention
        self.post_attention_layernorm = norm()
        self.pre_feedforward_layernorm = norm()
        self.mlp = MLP(config, partial(F.gelu, approximate="tanh"))
        self.post_feedforward_layernorm = norm()

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
        attended_MC = self.self_attn(
            self.input_layernorm(x_NC).to(dtype), rotary, cu_seqlens, max_seqlen, at_M
        )
        x_MC = x_NC if at_M is None else x_NC.index_select(0, at_M)
        x_MC = x_MC + self.post_attention_layernorm(attended_MC)
        inner_MC = self.mlp(self.pre_feedforward_layernorm(x_MC).to(dtype))
        out_MC: Tensor = x_MC + self.post_feedforward_layernorm(inner_MC)
        return out_MC


class Gemma3Architecture(DecoderFamily[Gemma3Specifics]):
    """Gemma 3, text alone, for `sabitrain.models.registry`."""

    model_type, class_name, specifics = "gemma3_text", "Gemma3ForCausalLM", Gemma3Specifics
    tied, theta, head_dim = True, 1_000_000.0, 256
    norm_after = True
    activation_key, activation = "hidden_activation", "gelu_pytorch_tanh"

    def parts(self, config: ModelConfig, specifics: Gemma3Specifics) -> Parts:
        """Makes the parts of a model."""
        scalar = specifics.query_pre_attn_scalar
        blocks = [
            Gemma3Block(config, Gemma3Attention(config, window, scalar), table=int(window > 0))
            for window in self.windows(config, specifics)
        ]
        size = config.head_size
        return Parts(
            blocks,
            OffsetNorm(config.width, eps=config.norm_eps),
            [
                frequencies(size, config.rope_theta, specifics.rope_scaling),
                frequencies(size, specifics.rope_local_base_freq),
            ],
            # Rounded, as the models were trained: ``transformers`` keeps it in float32.
            scale=torch.tensor(math.sqrt(config.width), device="cpu").item(),
        )

    def take(self, written: WrittenConfig) -> tuple[float, Gemma3Specifics]:
        """Takes the rotary settings and the windows; what other Gemmas have is refused."""
        written.expect("attention_bias", False)
        written.expect("attn_logit_softcapping")
        written.expect("final_logit_softcapping")
        written.expect("use_bidirectional_attention", False)
        theta, local, scaling = self._rope(written)
        pattern = written.count("sliding_window_pattern", _PATTERN)
        layers = written.count("num_hidden_layers", most=MOST_LAYERS)
        types = tuple(written.texts("layer_types") or _types(layers, pattern))
        if len(types) != layers or not set(types) <= set(_KINDS):
            raise ConfigError(
                f"config.json: layer_types must name {layers} layers as {' or '.join(_KINDS)}: "
                f"{', '.join(types[:8])}{', …' if len(types) > 8 else ''}"
            )
        return theta, Gemma3Specifics(
            scaling,
            () if types == _types(layers, _PATTERN) else types,
            self._window(written, types),
            local,
            written.number("query_pre_attn_scalar", 256.0),
        )

    def _window(self, written: WrittenConfig, types: tuple[str, ...]) -> int:
        """Takes the window, which windowed layers must have."""
        if written.is_null("sliding_window") and _KINDS[1] in types:
            raise ConfigError("config.json: sliding_window is null, and some layers have a window")
        return written.count("sliding_window", _WINDOW)

    def _rope(self, written: WrittenConfig) -> tuple[float, float, RopeScaling | None]:
        """Takes both rotary bases, and the scaling of full layers.

        Since transformers 5 they stand in ``rope_parameters``, by the kind of the layer.
        """
        theta = written.number("rope_theta", self.theta)
        local = written.number("rope_local_base_freq", _LOCAL_THETA)
        scaling = written.scaling("rope_scaling", written.table("rope_scaling"))
        both = written.table("rope_parameters")
        if both is None:
            return theta, local, scaling
        inner = WrittenConfig(both)
        tables: list[Mapping[str, Any] | None] = [inner.table(kind) for kind in _KINDS]
        inner.refuse_rest("rope_parameters.")
        full, sliding = tables
        if sliding is not None:
            if written.scaling("rope_parameters", sliding) is not None:
                raise ConfigError("config.json: rotary scaling of windowed layers is not supported")
            local = WrittenConfig(sliding).number("rope_theta", local)
        if full is not None:
            scaling = written.scaling("rope_parameters", full)
            theta = WrittenConfig(full).number("rope_theta", theta)
        return theta, local, scaling

    def describe(self, config: ModelConfig, specifics: Gemma3Specifics) -> dict[str, Any]:
        """Returns the rotary settings, the kinds of the layers, and what this Gemma has not."""
        local, scaling = specifics.rope_local_base_freq, specifics.rope_scaling
        scalar = float(specifics.query_pre_attn_scalar or config.head_size)
        table = {"rope_type": "default"} if scaling is None else scaling_table(scaling)
        return {
            "rope_theta": config.rope_theta,
            "rope_local_base_freq": local,
            **({} if scaling is None else {"rope_scaling": table}),
            "rope_parameters": {
                "full_attention": {**table, "rope_theta": config.rope_theta},
                "sliding_attention": {"rope_type": "default", "rope_theta": local},
            },
            "layer_types": list(specifics.layer_types or _types(config.layers, _PATTERN)),
            "sliding_window": specifics.sliding_window,
            # ``transformers`` takes a whole number alone where it is one.
            "query_pre_attn_scalar": int(scalar) if scalar.is_integer() else scalar,
            "attention_bias": False,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "use_bidirectional_attention": False,
        }

    def windows(self, config: ModelConfig, specifics: Gemma3Specifics) -> Sequence[int]:
        """Returns the window of each layer; 0 for a full one.

        Raises:
            ConfigError: If ``layer_types`` are not as many as layers.
        """
        types = specifics.layer_types or _types(config.layers, _PATTERN)
        if len(types) != config.layers:
            raise ConfigError(
                f"layer_types names {len(types)} layers, and the model has {config.layers}"
            )
        return [0 if kind == _KINDS[0] else specifics.sliding_window for kind in types]


def _types(layers: int, pattern: int) -> tuple[str, ...]:
    """Returns the kinds of layers where one in ``pattern`` is full."""
    return tuple(_KINDS[(index + 1) % pattern > 0] for index in range(layers))
