"""Rows of the embedding and of the head that are trained while all other rows stay as they are.

The rows are a parameter of their own, which shares the memory of the whole matrix. The matrix is
frozen: optimizers, clipping and weight decay see the rows alone, so no other row can move.

Dimensions: N tokens, C width, R rows that are trained.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.hooks import RemovableHandle


class TrainedRows(NamedTuple):
    """Rows of a matrix that are trained.

    Attributes:
        first: The index of the first row.
        rows_RC: The rows, in the memory of the matrix.
    """

    first: int
    rows_RC: nn.Parameter


def rows_of(weight: nn.Parameter, first: int, end: int) -> TrainedRows:
    """Returns the rows ``first`` to before ``end`` of a matrix, and freezes the matrix."""
    weight.requires_grad_(False)
    return TrainedRows(first, nn.Parameter(weight.detach()[first:end]))


def train_looked_up(embedding: nn.Embedding, rows: TrainedRows) -> RemovableHandle:
    """Has the backward pass of an embedding give the rows their gradient, until it is removed."""

    def give_gradient(_: nn.Module, inputs: tuple[Tensor], out_NC: Tensor) -> Tensor:
        through_NC: Tensor = _LookUp.apply(out_NC, rows.rows_RC, inputs[0], rows.first)
        return through_NC

    return embedding.register_forward_hook(give_gradient)


class _LookUp(torch.autograd.Function):
    """The states that were looked up, as they are; backward, the gradient of the trained rows."""

    @staticmethod
    def forward(ctx: Any, out_NC: Tensor, rows_RC: Tensor, ids_N: Tensor, first: int) -> Tensor:
        """Returns the states, and keeps the ids."""
        ctx.save_for_backward(ids_N)
        ctx.first, ctx.count = first, len(rows_RC)
        return out_NC.view_as(out_NC)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NC: Tensor) -> tuple[None, Tensor, None, None]:
        """Adds up the gradients of each row."""
        (ids_N,) = ctx.saved_tensors
        place_N = ids_N - ctx.first
        # Tokens of other rows go to one row more, which the operation leaves out.
        inside_N = (place_N >= 0) & (place_N < ctx.count)
        place_N = torch.where(inside_N, place_N, ctx.count)
        grad_RC = torch.ops.aten.embedding_dense_backward(
            grad_NC, place_N, ctx.count + 1, ctx.count, False
        )
        return None, grad_RC[: ctx.count], None, None
