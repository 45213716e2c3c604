"""The operations of a decoder, product by product: forward, backward and computed again.

Backward, a product may be two: the gradient of its input, where something below is trained, and
that of its weight, where that is trained. So the backward pass ends at the lowest parameter that is
trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sabitrain.models.architecture import Work
from sabitrain.models.settings import ModelConfig


@dataclass
class _Pass:
    """The operations of a training pass, added up from its first product to its last.

    Attributes:
        work: The work.
        reached: Whether a parameter before this place is trained, so that gradients go on down.
        forward: The operations of the forward pass.
        backward: The operations of the backward pass.
        again: The operations that a recomputed block takes a second time.
    """

    work: Work
    reached: bool
    forward: float = 0.0
    backward: float = 0.0
    again: float = 0.0

    def vectors(self, *modules: str) -> None:
        """Passes norms, which take no product."""
        self.reached |= any(map(self.work.trained.has, modules))

    def product(self, module: str, inputs: int, outputs: int, positions: int) -> float:
        """Passes the product of a matrix; others of the same input may follow.

        Returns:
            The operations at its end that a recomputed block may leave out.
        """
        operations = 2.0 * positions * inputs * outputs
        self.forward += operations
        self.backward += operations * self.reached
        if self.work.trained.has_weight(module):
            rows = self.work.trained.rows.get(module, outputs)
            self.backward += 2.0 * positions * inputs * rows
        rank = self.work.trained.ranks.get(module)
        return operations if rank is None else self.adapter(rank, inputs, outputs, positions)

    def adapter(self, rank: int, inputs: int, outputs: int, positions: int) -> float:
        """Passes the two products of an adapter.

        Returns:
            The operations at its end that a recomputed block may leave out.
        """
        down, up = 2.0 * positions * inputs * rank, 2.0 * positions * rank * outputs
        self.forward += down + up
        # The gradients of both weights, and of what lies between them.
        self.backward += down + 2 * up + down * self.reached
        if not self.work.trained.dora:
            return up
        # The update of the matrix, by which its rows are measured.
        self.forward += 2.0 * inputs * rank * (inputs + outputs)
        return 0.0

    def attention(self, operations: float) -> None:
        """Passes scores and values."""
        self.forward += operations
        self.backward += 2 * operations * self.reached


def decoder_flops(
    config: ModelConfig,
    vocab_size: int,
    work: Work,
    windows: Sequence[int],
    norm_after: bool,
) -> float:
    """Returns the operations of a forward and a backward pass of a decoder.

    Args:
        config: The shape.
        vocab_size: Rows of the embedding.
        work: The work.
        windows: The attention window of each layer; 0 for none.
        norm_after: Whether blocks end with a norm.
    """
    embedding = "model.embed_tokens"
    done = _Pass(work, work.trained.has(embedding))
    # Only the last block may leave out positions after its attention.
    at_end = work.predictions if work.compute == "full" else work.tokens
    pairs = {window: work.pairs(window) for window in set(windows)}
    for index, window in enumerate(windows):
        positions = at_end if index == len(windows) - 1 else work.tokens
        block = f"model.layers.{index}"
        first, last = done.forward, _add_block(done, config, block, pairs[window], positions)
        # The backward pass needs the input of the last product alone, unless a norm follows.
        if done.reached:
            done.again += done.forward - first - (0.0 if norm_after else last)
    done.vectors("model.norm")
    at_head = work.tokens if work.compute == "dense" else work.predictions
    head = "lm_head" if config.untied_head else embedding
    done.product(head, config.width, vocab_size, at_head)
    return done.forward + done.backward + (done.again if work.recompute else 0.0)


def _add_block(done: _Pass, config: ModelConfig, block: str, pairs: int, positions: int) -> float:
    """Adds the operations of a block; ``positions`` are those after its attention.

    Returns:
        The operations at its end that recomputing it may leave out.
    """
    tokens, width = done.work.tokens, config.width
    attention, mlp = f"{block}.self_attn", f"{block}.mlp"
    heads, keys = config.heads * config.head_size, config.key_heads * config.head_size
    done.vectors(f"{block}.input_layernorm")
    for name, outputs in (("q_proj", heads), ("k_proj", keys), ("v_proj", keys)):
        done.product(f"{attention}.{name}", width, outputs, tokens)
    names = ("q_proj", "k_proj", "v_proj", "q_norm", "k_norm")
    done.vectors(*(f"{attention}.{name}" for name in names))
    # Scores and values: two products of a head's size for each pair.
    done.attention(4.0 * pairs * heads)
    done.product(f"{attention}.o_proj", heads, width, positions)
    norms = ("post_attention_layernorm", "pre_feedforward_layernorm")
    done.vectors(f"{attention}.o_proj", *(f"{block}.{name}" for name in norms))
    for name in ("gate_proj", "up_proj"):
        done.product(f"{mlp}.{name}", width, config.mlp_width, positions)
    done.vectors(f"{mlp}.gate_proj", f"{mlp}.up_proj")
    last = done.product(f"{mlp}.down_proj", config.mlp_width, width, positions)
    done.vectors(f"{mlp}.down_proj", f"{block}.post_feedforward_layernorm")
    return last
