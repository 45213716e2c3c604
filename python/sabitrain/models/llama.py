"""The model: a Llama-shaped decoder whose parameters bear the names of
``transformers.LlamaForCausalLM``.

RMSNorm before each layer, grouped-query attention with half-split rotary positions, SwiGLU, and a
head tied to the embedding. It works on tokens laid end to end, with no batch dimension: rows,
documents and prompts of different lengths are all segments, told apart by ``cu_seqlens``.

Dimensions: N tokens, C width, H query heads, K key and value heads, D dimensions of a head, V
vocabulary; M positions that are wanted.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sabitrain.attention.documents import document_attention
from sabitrain.config import ModelConfig

# Cosines and sines of each token, [N, 1, D / 2].
Rotary = tuple[Tensor, Tensor]


class Attention(nn.Module):
    """Self-attention within a segment."""

    def __init__(self, config: ModelConfig) -> None:
        """Make the four projections, none with a bias."""
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
        """[N, C] from [N, C], or [M, C] at the positions ``at_M``; every token is attended to
        either way.
        """
        q_NHD = self.q_proj(x_NC).view(len(x_NC), -1, self.head_size)
        k_NKD = self.k_proj(x_NC).view(len(x_NC), -1, self.head_size)
        v_NKD = self.v_proj(x_NC).view(len(x_NC), -1, self.head_size)
        out_NHD = document_attention(
            rotate(q_NHD, *rotary), rotate(k_NKD, *rotary), v_NKD, cu_seqlens, max_seqlen
        )
        attended_NC = out_NHD.flatten(1)
        out_MC: Tensor = self.o_proj(
            attended_NC if at_M is None else attended_NC.index_select(0, at_M)
        )
        return out_MC


class MLP(nn.Module):
    """SwiGLU (arXiv:2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        """Make the three projections, none with a bias."""
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.mlp_width, bias=False)
        self.up_proj = nn.Linear(config.width, config.mlp_width, bias=False)
        self.down_proj = nn.Linear(config.mlp_width, config.width, bias=False)

    def forward(self, x_NC: Tensor) -> Tensor:
        """[N, C] from [N, C]."""
        out_NC: Tensor = self.down_proj(F.silu(self.gate_proj(x_NC)) * self.up_proj(x_NC))
        return out_NC


class Block(nn.Module):
    """Attention, then the MLP, each added to the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        """Make both layers and their norms."""
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
        """[N, C] from [N, C], or [M, C]: all that follows attention is computed at the positions
        ``at_M`` only.
        """
        attended_MC = self.self_attn(
            self.input_layernorm(x_NC), rotary, cu_seqlens, max_seqlen, at_M
        )
        x_MC = attended_MC + (x_NC if at_M is None else x_NC.index_select(0, at_M))
        out_MC: Tensor = x_MC + self.mlp(self.post_attention_layernorm(x_MC))
        return out_MC


class Decoder(nn.Module):
    """Embedding, blocks and the last norm."""

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        """Make the layers and the rotary tables."""
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab_size, config.width)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.recomputes = False
        cosines, sines = rotary_tables(config)
        self.register_buffer("cosines", cosines, persistent=False)
        self.register_buffer("sines", sines, persistent=False)
        self.cosines: Tensor
        self.sines: Tensor

    def forward(
        self,
        ids_N: Tensor,
        positions_N: Tensor,
        cu_seqlens: Tensor,
        max_seqlen: int,
        at_M: Tensor | None = None,
    ) -> Tensor:
        """The residual stream after the last norm, [N, C] or [M, C]."""
        rotary = self.cosines[positions_N].unsqueeze(1), self.sines[positions_N].unsqueeze(1)
        x_NC = self.embed_tokens(ids_N)
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            inputs = (x_NC, rotary, cu_seqlens, max_seqlen, at_M if index == last else None)
            if self.recomputes and torch.is_grad_enabled():
                x_NC = checkpoint(
                    layer, *inputs, use_reentrant=False, preserve_rng_state=False
                )  # nothing is random
            else:
                x_NC = layer(*inputs)
        out_MC: Tensor = self.norm(x_NC)
        return out_MC


class Llama(nn.Module):
    """The causal language model.

    Attributes:
        config: Its shape.
        vocab_size: Tokens it knows: exactly the dataset's, never padded.
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        """Make and initialise the parameters, from torch's global random state.

        As in GPT-2 and Llama: normal weights, the two projections that write to the residual stream
        smaller by sqrt(2 layers), so that its size at the end does not depend on the depth; norms
        are one.
        """
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
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
        """The weight of the head, which is the embedding's."""
        return self.model.embed_tokens.weight

    def forward(
        self,
        ids_N: Tensor,
        positions_N: Tensor,
        cu_seqlens: Tensor,
        max_seqlen: int,
        at_M: Tensor | None = None,
    ) -> Tensor:
        """The hidden states that the head reads; ``F.linear(hidden, head_VC)`` are the logits of
        the next token.

        Args:
            ids_N: int64[N], segments laid end to end.
            positions_N: int64[N], from 0 in each segment, below ``config.context``.
            cu_seqlens: int32[S + 1]: where each segment starts, and N; segments may be empty.
            max_seqlen: At least the length of the longest segment.
            at_M: int64[M]: the positions wanted, if not all. In the last block, output projection,
                MLP and norms then run on those alone; what is computed for them is the same.

        Returns:
            float[N, C], or float[M, C].
        """
        hidden_MC: Tensor = self.model(ids_N, positions_N, cu_seqlens, max_seqlen, at_M)
        return hidden_MC

    def recompute(self, wanted: bool) -> None:
        """Whether to keep only the input of each block for the backward pass, and compute the rest
        of it again.
        """
        self.model.recomputes = wanted

    def n_parameters(self) -> int:
        """The number of parameters, the tied embedding counted once."""
        return sum(parameter.numel() for parameter in self.parameters())


def rotary_tables(config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Cosines and sines of every position's angles, float32[context, D / 2] each.

    Dimension i and dimension i + D / 2 turn together, by position * theta ** (-2i / D)
    (arXiv:2104.09864, in the half-split layout of ``transformers``).
    """
    frequencies = config.rope_theta ** -(
        torch.arange(0, config.head_size, 2, dtype=torch.float32) / config.head_size
    )
    angles = torch.outer(torch.arange(config.context, dtype=torch.float32), frequencies)
    return angles.cos(), angles.sin()


def rotate(x_NHD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each head's two halves by the token's angles; in float32 at least, and back to the type
    of ``x_NHD``.
    """
    first, second = x_NHD.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(
        x_NHD.dtype
    )
