"""Llama: a decoder whose parameters bear the names of ``transformers.LlamaForCausalLM``.

RMSNorm before each layer, grouped-query attention with half-split rotary positions, SwiGLU, and a
head tied to the embedding.

Dimensions: N tokens, C width, H query heads, K key and value heads, D dimensions of a head, V
vocabulary; M positions that are wanted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sabitrain.attention.documents import document_attention
from sabitrain.models.architecture import AttentionHeads, CausalModel, Unit, Work
from sabitrain.models.precision import product_dtype
from sabitrain.models.settings import ModelConfig

# Cosines and sines of each token, [N, 1, D / 2].
Rotary = tuple[Tensor, Tensor]


class Attention(nn.Module):
    """Self-attention within a segment."""

    def __init__(self, config: ModelConfig) -> None:
        """Makes the four projections, none with a bias."""
        super().__init__()
        self.head_size = config.head_size
        self.q_proj = nn.Linear(config.width, config.heads * self.head_size, bias=False)
        self.k_proj = nn.Linear(config.width, config.key_heads * self.head_size, bias=False)
        self.v_proj = nn.Linear(config.width, config.key_heads * self.head_size, bias=False)
        self.o_proj = nn.Linear(config.heads * self.head_size, config.width, bias=False)

    def forward(
        self,
        x_NC: Tensor,
        rotary: Rotary,
        cu_seqlens: Tensor,
        max_seqlen: int,
        at_M: Tensor | None = None,
    ) -> Tensor:
        """Returns [N, C], or [M, C]: the output at the positions ``at_M`` only.

        Queries attend to every token of their segment either way.
        """
        q_NHD = self.q_proj(x_NC).view(len(x_NC), -1, self.head_size)
        k_NKD = self.k_proj(x_NC).view(len(x_NC), -1, self.head_size)
        v_NKD = self.v_proj(x_NC).view(len(x_NC), -1, self.head_size)
        out_NHD = document_attention(
            rotate(q_NHD, *rotary), rotate(k_NKD, *rotary), v_NKD, cu_seqlens, max_seqlen
        )
        # The projection mixes no positions, so that it runs on the wanted ones alone.
        attended_NC = out_NHD.flatten(1)
        out_MC: Tensor = self.o_proj(
            attended_NC if at_M is None else attended_NC.index_select(0, at_M)
        )
        return out_MC


class MLP(nn.Module):
    """SwiGLU (arXiv:2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        """Makes the three projections, none with a bias."""
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.mlp_width, bias=False)
        self.up_proj = nn.Linear(config.width, config.mlp_width, bias=False)
        self.down_proj = nn.Linear(config.mlp_width, config.width, bias=False)

    def forward(self, x_NC: Tensor) -> Tensor:
        """Returns the output of the layer, [N, C]."""
        out_NC: Tensor = self.down_proj(F.silu(self.gate_proj(x_NC)) * self.up_proj(x_NC))
        return out_NC


class Block(Unit):
    """Attention, then the MLP, each added to the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        """Makes both layers and their norms."""
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.mlp = MLP(config)

    def forward(
        self,
        x_NC: Tensor,
        rotary: Rotary,
        cu_seqlens: Tensor,
        max_seqlen: int,
        at_M: Tensor | None = None,
    ) -> Tensor:
        """Returns [N, C], or [M, C] at the positions ``at_M``: only attention needs all of them."""
        # Narrowed once for all projections: each would keep its own copy for the backward pass.
        dtype = product_dtype(x_NC)
        attended_MC = self.self_attn(
            self.input_layernorm(x_NC).to(dtype), rotary, cu_seqlens, max_seqlen, at_M
        )
        x_MC = attended_MC + (x_NC if at_M is None else x_NC.index_select(0, at_M))
        out_MC: Tensor = x_MC + self.mlp(self.post_attention_layernorm(x_MC).to(dtype))
        return out_MC


class Decoder(nn.Module):
    """Embedding, blocks and the last norm."""

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        """Makes the layers and the rotary tables."""
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab_size, config.width)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        cosines, sines = rotary_tables(config)
        # Not persistent: they follow from the configuration; ``transformers`` knows no such key.
        self.register_buffer("cosines", cosines, persistent=False)
        self.register_buffer("sines", sines, persistent=False)
        self.cosines: Tensor
        self.sines: Tensor

    def blocks(self) -> Sequence[Block]:
        """Returns the blocks, in order."""
        return cast(Sequence[Block], self.layers)

    def forward(
        self,
        ids_N: Tensor,
        positions_N: Tensor,
        cu_seqlens: Tensor,
        max_seqlen: int,
        at_M: Tensor | None = None,
    ) -> Tensor:
        """Returns the residual stream after the last norm, [N, C] or [M, C]."""
        # Once for all blocks, by the positions within each segment.
        rotary = self.cosines[positions_N].unsqueeze(1), self.sines[positions_N].unsqueeze(1)
        x_NC = self.embed_tokens(ids_N)
        last = len(self.layers) - 1
        for index, layer in enumerate(self.blocks()):
            # Blocks before the last one need every position: later attention reads them.
            at_end_M = at_M if index == last else None
            x_NC = layer.run(x_NC, rotary, cu_seqlens, max_seqlen, at_end_M)
        out_MC: Tensor = self.norm(x_NC)
        return out_MC


class Llama(CausalModel):
    """The causal language model."""

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        """Makes and initialises the parameters, from torch's global random state.

        As in GPT-2 and Llama: normal weights, the two projections that write to the residual stream
        smaller by sqrt(2 layers), so that its size at the end does not depend on the depth; norms
        are one.
        """
        super().__init__(config, vocab_size)
        self.model = Decoder(config, vocab_size)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                writes = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(
                    parameter,
                    std=config.init_std / (math.sqrt(2 * config.layers) if writes else 1.0),
                )

    @property
    def head_VC(self) -> Tensor:
        """The weight of the head, [V, C]: the embedding's weight."""
        return self.model.embed_tokens.weight

    def units(self) -> Sequence[Unit]:
        """Returns the blocks."""
        return self.model.blocks()

    def forward(
        self,
        ids_N: Tensor,
        positions_N: Tensor,
        cu_seqlens: Tensor,
        max_seqlen: int,
        at_M: Tensor | None = None,
    ) -> Tensor:
        """Computes the states that the head reads, as `CausalModel.forward` says."""
        hidden_MC: Tensor = self.model(ids_N, positions_N, cu_seqlens, max_seqlen, at_M)
        return hidden_MC


class LlamaArchitecture:
    """Llama for `sabitrain.models.registry`: an `sabitrain.models.architecture.Architecture`."""

    def make(self, config: ModelConfig, vocab_size: int) -> Llama:
        """Makes a model, its weights drawn from torch's global random state."""
        return Llama(config, vocab_size)

    def to_huggingface(self, config: ModelConfig, vocab_size: int) -> dict[str, Any]:
        """Returns the content of ``config.json``, the control tokens aside.

        The rotary base stands under its name before and since transformers 5.
        """
        # transformers takes defaults of its own for keys that are missing, so every key is written.
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "dtype": "float32",
            "vocab_size": vocab_size,
            "hidden_size": config.width,
            "intermediate_size": config.mlp_width,
            "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads,
            "num_key_value_heads": config.key_heads,
            "head_dim": config.head_size,
            "max_position_embeddings": config.context,
            "rope_theta": config.rope_theta,
            "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
            "rms_norm_eps": config.norm_eps,
            "initializer_range": config.init_std,
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": True,
        }

    def from_huggingface(self, written: Mapping[str, Any]) -> tuple[ModelConfig, int]:
        """Returns the shape and the vocabulary that a ``config.json`` describes.

        Raises:
            KeyError: If a key is missing.
            ConfigError: If a value cannot be right.
        """
        config = ModelConfig(
            architecture="llama",
            layers=written["num_hidden_layers"],
            width=written["hidden_size"],
            heads=written["num_attention_heads"],
            kv_heads=written["num_key_value_heads"],
            mlp_width=written["intermediate_size"],
            context=written["max_position_embeddings"],
            rope_theta=written["rope_theta"],
            norm_eps=written["rms_norm_eps"],
            init_std=written["initializer_range"],
        )
        return config, written["vocab_size"]

    def to_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the tensors as they are: the parameters bear Hugging Face's names."""
        return dict(state)

    def from_weights(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the tensors as they are."""
        return dict(weights)

    def attention_heads(self, config: ModelConfig) -> AttentionHeads:
        """Returns the heads of the attention."""
        return AttentionHeads(config.heads, config.key_heads, config.head_size)

    def training_flops(self, config: ModelConfig, vocab_size: int, work: Work) -> float:
        """Returns the operations of a forward and a backward pass.

        Recomputing a block leaves out the last product: the backward pass needs the product's input
        alone.
        """
        heads_width = config.heads * config.head_size
        # Operations a token: of the projections before attention, and of everything after it.
        projections = 2 * config.width * (heads_width + 2 * config.key_heads * config.head_size)
        last_product = 2 * config.mlp_width * config.width
        after_attention = 2 * heads_width * config.width + 3 * last_product
        at_head = work.tokens if work.compute == "dense" else work.predictions
        at_end = work.predictions if work.compute == "full" else work.tokens
        # Only the last block may leave out positions after its attention.
        positions = (config.layers - 1) * work.tokens + at_end
        # Scores and values: two products of a head's size for each pair.
        attention = work.tokens * projections + 4 * work.pairs * heads_width
        blocks = config.layers * attention + positions * after_attention
        forward = blocks + at_head * 2 * config.width * vocab_size
        again = blocks - positions * last_product if work.recompute else 0
        # Backward, each product is two: the gradients of its input and of its weight.
        return 3.0 * forward + again


def rotary_tables(config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Returns cosines and sines of every position's angles, float32[context, D / 2] each.

    Dimension i and dimension i + D / 2 turn together, by position * theta ** (-2i / D)
    (arXiv:2104.09864, in the half-split layout of ``transformers``).
    """
    frequencies = config.rope_theta ** -(
        torch.arange(0, config.head_size, 2, dtype=torch.float32) / config.head_size
    )
    angles = torch.outer(torch.arange(config.context, dtype=torch.float32), frequencies)
    return angles.cos(), angles.sin()


def rotate(x_NHD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Returns each head's two halves turned by the token's angles, in the type of ``x_NHD``.

    The computation is in float32 at least.
    """
    # The tables are float32, which promotes the products.
    first, second = x_NHD.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(
        x_NHD.dtype
    )
