"""Settings of the model: its architecture and shape, and how it is computed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, get_args

import tyro

from sabitrain.attention.settings import Kernel
from sabitrain.data.settings import Compute
from sabitrain.models.registry import ARCHITECTURES
from sabitrain.settings import MAY_CHANGE, Section, Switch, require


@dataclass(frozen=True)
class ModelConfig:
    """The architecture and its shape; the vocabulary is the dataset's."""

    architecture: str = "llama"
    """The family of models, by the name that Hugging Face has for it (model_type)."""
    layers: int = 4
    """Transformer blocks."""
    width: int = 128
    """Size of the residual stream (Hugging Face: hidden_size)."""
    heads: int = 4
    """Query heads; width / heads is the size of a head, an even number, unless head-dim says."""
    kv_heads: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Key and value heads, a divisor of heads (grouped-query attention); as many as heads where not
    given.
    """
    head_dim: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Dimensions of a head, an even number; width / heads where not given."""
    mlp_width: int = 384
    """Inner size of the gated MLP (Hugging Face: intermediate_size)."""
    context: int = 2048
    """Longest row the model takes, in tokens (Hugging Face: max_position_embeddings)."""
    rope_theta: float = 10_000.0
    """Base of the rotary frequencies."""
    norm_eps: float = 1e-5
    """The number that RMSNorm adds to the mean square."""
    init_std: float = 0.02
    """Standard deviation of the initial weights, divided by sqrt(2 layers) for o_proj and
    down_proj.
    """
    untied_head: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Give the head weights of its own, not the embedding's (Hugging Face: tie_word_embeddings)."""
    vocab_size: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Rows of the embedding, at least the dataset's vocabulary, which it is where not given."""
    specifics: str = ""
    """Settings of this architecture alone, as JSON by the names of Hugging Face: those of a
    checkpoint (--init).
    """

    def __post_init__(self) -> None:
        """Checks every setting, and that heads and width fit together."""
        require(
            self.architecture in ARCHITECTURES,
            f"model.architecture must be one of {', '.join(ARCHITECTURES)}, "
            f"not {self.architecture!r}",
        )
        for name in ("layers", "width", "heads", "mlp_width", "context"):
            require(
                getattr(self, name) >= 1,
                f"model.{name} must be at least 1, not {getattr(self, name)}",
            )
        if self.head_dim is None:
            require(
                self.width % (2 * self.heads) == 0,
                f"model.width must be a multiple of twice model.heads ({2 * self.heads}), "
                f"not {self.width}",
            )
        else:
            require(
                self.head_dim >= 2 and self.head_dim % 2 == 0,
                f"model.head_dim must be an even number from 2, not {self.head_dim}",
            )
        require(
            self.vocab_size is None or self.vocab_size >= 1,
            f"model.vocab_size must be at least 1, not {self.vocab_size}",
        )
        require(
            self.key_heads >= 1 and self.heads % self.key_heads == 0,
            "model.kv_heads must divide model.heads: "
            f"{self.key_heads} does not divide {self.heads}",
        )
        require(self.rope_theta > 1, f"model.rope_theta must be above 1, not {self.rope_theta}")
        require(
            0 < self.norm_eps < 1, f"model.norm_eps must be between 0 and 1, not {self.norm_eps}"
        )
        require(
            0 < self.init_std < 1, f"model.init_std must be between 0 and 1, not {self.init_std}"
        )

    @property
    def head_size(self) -> int:
        """Dimensions of one head."""
        return self.width // self.heads if self.head_dim is None else self.head_dim

    @property
    def key_heads(self) -> int:
        """Key and value heads."""
        return self.heads if self.kv_heads is None else self.kv_heads

    def rows(self, vocabulary: int) -> int:
        """Returns the rows of the embedding of a model for a vocabulary of so many tokens."""
        return vocabulary if self.vocab_size is None else self.vocab_size


@dataclass(frozen=True, kw_only=True)
class ComputeConfig(Section):
    """How the model and its loss are computed."""

    z_loss: float = 0.0
    """Times the square of each prediction's log-sum-exp, added to its loss so that logits do not
    drift (PaLM: 1e-4).
    """
    compute: Compute = "full"
    """What to leave out where nothing is trained, with the same gradients: full, the end of the
    last block and the head; head, the head; dense, nothing."""
    recompute: Switch = field(default="auto", metadata=MAY_CHANGE)
    """Keep of each block its input alone and compute the rest again in the backward pass
    (activation checkpointing): up to a third more computation for a fraction of the memory. auto
    does so on a GPU where less than 4096 tokens would fit otherwise."""
    compile: Switch = field(default="auto", metadata=MAY_CHANGE)
    """Compile the blocks and the loss first (torch.compile), which takes a C compiler and a minute.
    auto does so on a GPU; there the loss is compiled under off too."""
    attention: Kernel = field(default="flash2", metadata=MAY_CHANGE)
    """The kernel of attention on a GPU: flash2 (FlashAttention-2), cudnn, or flash3, which needs
    the package flash_attn_interface and an H100 or H200."""

    def __post_init__(self) -> None:
        """Checks every setting."""
        super().__post_init__()
        for name in ("recompute", "compile"):
            value = getattr(self, name)
            require(value in get_args(Switch), f"{name} must be auto, on or off, not {value!r}")
        require(0 <= self.z_loss < math.inf, f"z_loss must be 0 or more, not {self.z_loss}")
