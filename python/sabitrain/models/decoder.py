"""The parts that decoders share: attention, the gated MLP, the blocks' frame and the model.

Parameters bear the names of ``transformers``. A family of models is a file beside this one, which
says how its blocks are put together.

Dimensions: N tokens, C width, H query heads, K key and value heads, D dimensions of a head, V
vocabulary; M positions that are wanted; T rotary tables.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sabitrain.attention.documents import document_attention
from sabitrain.models.architecture import CausalModel, Unit
from sabitrain.models.precision import product_dtype
from sabitrain.models.rotary import RopeScaling, frequencies, rotary_tables, rotate
from sabitrain.models.settings import ModelConfig

# Cosines and sines of each token, [N, 1, D / 2].
Rotary = tuple[Tensor, Tensor]
# Positions in a new model's rotary tables: those of a context of a million would take half a GB.
_POSITIONS = 8192


class Attention(nn.Module):
    """Self-attention within a segment.

    Attributes:
        window: The tokens that a token attends to; 0 for all of its segment before it.
    """

    def __init__(self, config: ModelConfig, bias: bool = False, window: int = 0) -> None:
        """Makes the four projections; ``bias`` gives one to all but the last."""
        super().__init__()
        self.head_size, self.window = config.head_size, window
        self.q_proj = nn.Linear(config.width, config.heads * self.head_size, bias=bias)
        self.k_proj = nn.Linear(config.width, config.key_heads * self.head_size, bias=bias)
        self.v_proj = nn.Linear(config.width, config.key_heads * self.head_size, bias=bias)
        self.o_proj = nn.Linear(config.heads * self.head_size, config.width, bias=False)

    def queries_and_keys(self, x_NC: Tensor) -> tuple[Tensor, Tensor]:
        """Returns queries [N, H, D] and keys [N, K, D] before they are turned.

        A family that changes them more than to project them overrides this.
        """
        q_NHD = self.q_proj(x_NC).view(len(x_NC), -1, self.head_size)
        k_NKD = self.k_proj(x_NC).view(len(x_NC), -1, self.head_size)
        return q_NHD, k_NKD

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
        q_NHD, k_NKD = self.queries_and_keys(x_NC)
        v_NKD = self.v_proj(x_NC).view(len(x_NC), -1, self.head_size)
        # A norm of queries may have widened them; the kernels take one type.
        out_NHD = document_attention(
            rotate(q_NHD, *rotary).to(v_NKD.dtype),
            rotate(k_NKD, *rotary).to(v_NKD.dtype),
            v_NKD,
            cu_seqlens,
            max_seqlen,
            self.window,
        )
        # The projection mixes no positions, so that it runs on the wanted ones alone.
        attended_NC = out_NHD.flatten(1)
        out_MC: Tensor = self.o_proj(
            attended_NC if at_M is None else attended_NC.index_select(0, at_M)
        )
        return out_MC


class MLP(nn.Module):
    """A gated MLP (arXiv:2002.05202)."""

    def __init__(self, config: ModelConfig, activation: Callable[[Tensor], Tensor]) -> None:
        """Makes the three projections, none with a bias; ``activation`` is the gate's."""
        super().__init__()
        self.activation = activation
        self.gate_proj = nn.Linear(config.width, config.mlp_width, bias=False)
        self.up_proj = nn.Linear(config.width, config.mlp_width, bias=False)
        self.down_proj = nn.Linear(config.mlp_width, config.width, bias=False)

    def forward(self, x_NC: Tensor) -> Tensor:
        """Returns the output of the layer, [N, C]."""
        gate_NF = self.activation(self.gate_proj(x_NC))
        out_NC: Tensor = self.down_proj(gate_NF * self.up_proj(x_NC))
        return out_NC


class Block(Unit):
    """Attention, then an MLP, each added to the residual stream.

    Attributes:
        table: The rotary table of its attention, by number.
    """

    table = 0

    @abstractmethod
    def forward(
        self,
        x_NC: Tensor,
        rotary: Rotary,
        cu_seqlens: Tensor,
        max_seqlen: int,
        at_M: Tensor | None = None,
    ) -> Tensor:
        """Returns [N, C], or [M, C] at the positions ``at_M``: only attention needs all of them."""


class PreNormBlock(Block):
    """A block that normalises the input of each layer, as Llama's (RMSNorm, SwiGLU)."""

    def __init__(self, config: ModelConfig, attention: Attention) -> None:
        """Makes the MLP and both norms."""
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.self_attn = attention
        self.post_attention_layernorm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.mlp = MLP(config, F.silu)

    def forward(
        self,
        x_NC: Tensor,
        rotary: Rotary,
        cu_seqlens: Tensor,
        max_seqlen: int,
        at_M: Tensor | None = None,
    ) -> Tensor:
        """Returns [N, C], or [M, C] at the positions ``at_M``."""
        # Narrowed once for all projections: each would keep its own copy for the backward pass.
        dtype = product_dtype(x_NC)
        attended_MC = self.self_attn(
            self.input_layernorm(x_NC).to(dtype), rotary, cu_seqlens, max_seqlen, at_M
        )
        x_MC = attended_MC + (x_NC if at_M is None else x_NC.index_select(0, at_M))
        out_MC: Tensor = x_MC + self.mlp(self.post_attention_layernorm(x_MC).to(dtype))
        return out_MC


@dataclass(frozen=True)
class Parts:
    """The parts of a decoder that a family decides.

    Attributes:
        blocks: The blocks, in order.
        norm: The norm after the last block.
        frequencies: The frequencies of each rotary table, float32[D / 2].
        scale: The factor of the embeddings.
    """

    blocks: Sequence[Block]
    norm: nn.Module
    frequencies: Sequence[Tensor]
    scale: float = 1.0


def plain_parts(config: ModelConfig, blocks: Sequence[Block], scaling: RopeScaling | None) -> Parts:
    """Returns the parts of a decoder with one rotary table and RMSNorm at its end."""
    norm = nn.RMSNorm(config.width, eps=config.norm_eps)
    return Parts(blocks, norm, [frequencies(config.head_size, config.rope_theta, scaling)])


class Decoder(nn.Module):
    """Embedding, blocks and the last norm."""

    def __init__(self, config: ModelConfig, vocab_size: int, parts: Parts) -> None:
        """Makes the embedding and the rotary tables, and joins the parts."""
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab_size, config.width)
        self.layers = nn.ModuleList(parts.blocks)
        self.norm, self.scale = parts.norm, parts.scale
        self._context, self._frequencies = config.context, parts.frequencies
        cosines, sines = self._tables(min(config.context, _POSITIONS))
        # Not persistent: they follow from the configuration; ``transformers`` knows no such key.
        self.register_buffer("cosines", cosines, persistent=False)
        self.register_buffer("sines", sines, persistent=False)
        self.cosines: Tensor
        self.sines: Tensor

    def blocks(self) -> Sequence[Block]:
        """Returns the blocks, in order."""
        return cast(Sequence[Block], self.layers)

    def _tables(self, positions: int) -> tuple[Tensor, Tensor]:
        """Returns cosines and sines of the first positions, [T, positions, D / 2] each."""
        tables = [rotary_tables(each, positions) for each in self._frequencies]
        return torch.stack([cos for cos, _ in tables]), torch.stack([sin for _, sin in tables])

    def _reach(self, positions: int) -> None:
        """Makes the tables longer if they are shorter than a segment."""
        # A caller may say more than there is, but no segment is longer than the context.
        if min(positions, self._context) <= self.cosines.shape[1]:
            return
        longer = min(self._context, max(positions, 2 * self.cosines.shape[1]))
        # Made anew from float32, whatever type the model has by now.
        self.cosines, self.sines = (each.to(self.cosines) for each in self._tables(longer))

    def forward(
        self,
        ids_N: Tensor,
        positions_N: Tensor,
        cu_seqlens: Tensor,
        max_seqlen: int,
        at_M: Tensor | None = None,
    ) -> Tensor:
        """Returns the residual stream after the last norm, [N, C] or [M, C]."""
        self._reach(max_seqlen)
        # Once for all blocks, by the positions within each segment.
        rotary_T = [
            (cos[positions_N].unsqueeze(1), sin[positions_N].unsqueeze(1))
            for cos, sin in zip(self.cosines, self.sines, strict=True)
        ]
        x_NC = self.embed_tokens(ids_N)
        if self.scale != 1.0:
            x_NC = x_NC * self.scale
        last = len(self.layers) - 1
        for index, layer in enumerate(self.blocks()):
            # Blocks before the last one need every position: later attention reads them.
            at_end_M = at_M if index == last else None
            x_NC = layer.run(x_NC, rotary_T[layer.table], cu_seqlens, max_seqlen, at_end_M)
        out_MC: Tensor = self.norm(x_NC)
        return out_MC


class DecoderModel(CausalModel):
    """A causal language model with the names of ``transformers``."""

    def __init__(self, config: ModelConfig, vocab_size: int, parts: Parts) -> None:
        """Joins the parts and initialises the parameters, from torch's global random state.

        As in GPT-2 and Llama: normal weights, the two projections that write to the residual stream
        smaller by sqrt(2 layers), so that its size at the end does not depend on the depth; norms
        and biases change nothing.
        """
        super().__init__(config, vocab_size)
        self.model = Decoder(config, vocab_size, parts)
        if config.untied_head:
            self.lm_head = nn.Linear(config.width, vocab_size, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                writes = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(
                    parameter,
                    std=config.init_std / (math.sqrt(2 * config.layers) if writes else 1.0),
                )
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    @property
    def head_VC(self) -> Tensor:
        """The weight of the head, [V, C]; the embedding's where the two are tied."""
        untied = self.config.untied_head
        return self.lm_head.weight if untied else self.model.embed_tokens.weight

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
