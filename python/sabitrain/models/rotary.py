"""Rotary positions: frequencies and their scalings, tables, and the turning of heads.

Dimensions: N tokens, H heads, D dimensions of a head.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec
import torch
from torch import Tensor

from sabitrain.settings import require


class RopeScaling(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A change of the rotary frequencies for longer texts, by the names of ``transformers``.

    Attributes:
        rope_type: ``linear`` divides every frequency by ``factor``; ``llama3`` only the low ones.
        factor: The divisor.
        low_freq_factor: A frequency that turns less than so often within the original context is
            low (``llama3``).
        high_freq_factor: One that turns more often stays as it is (``llama3``).
        original_max_position_embeddings: The original context (``llama3``).
    """

    rope_type: Literal["linear", "llama3"]
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192

    def __post_init__(self) -> None:
        """Checks every number."""
        require(1 <= self.factor < math.inf, f"the rotary factor must be 1 or more: {self.factor}")
        require(
            0 < self.low_freq_factor < self.high_freq_factor < math.inf,
            "the rotary low_freq_factor must be above 0 and below high_freq_factor: "
            f"{self.low_freq_factor}, {self.high_freq_factor}",
        )
        require(
            self.original_max_position_embeddings >= 1,
            "the rotary original_max_position_embeddings must be 1 or more: "
            f"{self.original_max_position_embeddings}",
        )


def frequencies(head_size: int, theta: float, scaling: RopeScaling | None = None) -> Tensor:
    """Returns the angle a position that each pair of dimensions turns by, float32[D / 2].

    Pair i turns by theta ** (-2i / D) (arXiv:2104.09864). ``llama3`` scaling divides low
    frequencies by its factor, leaves high ones, and goes from one to the other in between, as
    ``transformers`` does (modeling_rope_utils.py, after Llama 3.1's own code).
    """
    # In the order of operations of ``transformers``, for the same bits. The device is named: under
    # the meta device, too, tables have numbers.
    exponents = torch.arange(0, head_size, 2, dtype=torch.int64, device="cpu").float() / head_size
    plain = 1.0 / (theta**exponents)
    if scaling is None:
        return plain
    if scaling.rope_type == "linear":
        return plain / scaling.factor
    original = scaling.original_max_position_embeddings
    wavelengths = 2 * math.pi / plain
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    share = (original / wavelengths - low) / (high - low)
    between = (1 - share) * plain / scaling.factor + share * plain
    scaled = torch.where(wavelengths > original / low, plain / scaling.factor, plain)
    is_between = (wavelengths >= original / high) & (wavelengths <= original / low)
    return torch.where(is_between, between, scaled)


def rotary_tables(frequencies: Tensor, context: int) -> tuple[Tensor, Tensor]:
    """Returns cosines and sines of every position's angles, float32[context, D / 2] each."""
    positions = torch.arange(context, dtype=torch.float32, device=frequencies.device)
    angles = torch.outer(positions, frequencies)
    return angles.cos(), angles.sin()


def rotate(x_NHD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Returns each head's two halves turned by the token's angles, in the type of ``x_NHD``.

    Dimension i and dimension i + D / 2 turn together (the half-split layout of ``transformers``).
    The computation is in float32 at least.
    """
    # The tables are float32, which promotes the products.
    first, second = x_NHD.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(
        x_NHD.dtype
    )
