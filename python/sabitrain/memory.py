"""The memory of a GPU that a step takes at its peak, found without a GPU.

A step is run on tensors that have shapes and types but no numbers (``FakeTensorMode``), in bf16 as
on a GPU, and the bytes of the storages that are alive are added up. So whatever the model, the loss
and the optimizers allocate is counted, and freed when they free it.

Three things are otherwise on a GPU than in such a run, which is on a CPU: the attention is flash
attention, whose kernels allocate memory inside; RMSNorm is one kernel that keeps its input; and the
loss's chunk is compiled. Each is put in its place here. A product of a quantised matrix allocates
the wide one inside. Blocks are counted uncompiled: compiled
ones take less. For CUDA itself, and what torch's allocator cannot use, 1 GB is added.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cache, partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.function import once_differentiable
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sabitrain.attention import flash
from sabitrain.config import TrainConfig
from sabitrain.data.batches import Batch, padded_predictions, padded_segments
from sabitrain.data.settings import Compute
from sabitrain.models.architecture import CausalModel, make_model
from sabitrain.models.loss import predicting_states, weighted_loss
from sabitrain.models.quantised import bytes_to_widen
from sabitrain.optim.optimizers import clip_gradient, make_optimizers, skip_where
from sabitrain.partial.narrowing import narrow_frozen
from sabitrain.partial.phases import phase_configs
from sabitrain.partial.trained import set_trained

RESERVE = 10**9
"""Bytes that are left to CUDA, its libraries, and the gaps of torch's allocator."""
CARD = int(23.2e9)
"""Bytes that a card of 24 GB has free."""

# torch's allocator hands out multiples of so many bytes (CUDACachingAllocator.cpp, kMinBlockSize).
_BLOCK = 512

Kind = Literal[
    "parameters", "gradients", "optimizer", "copies", "activations", "loss", "backward", "update"
]


@dataclass(frozen=True)
class Memory:
    """Bytes on a GPU at the peak of a step, by kind.

    Attributes:
        parameters: The weights and the tables of the model.
        gradients: The gradients that are whole by then.
        optimizer: The states of the optimizers.
        copies: The 16-bit copies of weights.
        activations: The tensors of the forward pass that are still needed.
        loss: The logits, their gradient, and the gradients of states and head.
        backward: The tensors of the backward pass, the workspace of its kernels included.
        update: The temporary tensors of clipping and of the optimizers.
        reserve: `RESERVE`.
    """

    parameters: int
    gradients: int = 0
    optimizer: int = 0
    copies: int = 0
    activations: int = 0
    loss: int = 0
    backward: int = 0
    update: int = 0
    reserve: int = RESERVE

    @property
    def total(self) -> int:
        """The sum of all kinds."""
        return sum(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True)
class MicroBatch:
    """The size of a micro-batch.

    Attributes:
        tokens: N, tokens with padding.
        targets: Predictions with a weight, before they are padded.
        documents: Documents and paddings, before empty segments are added.
    """

    tokens: int
    targets: int
    documents: int


@cache
def memory_of(
    config: TrainConfig,
    vocab_size: int,
    size: MicroBatch,
    recompute: bool = False,
    accumulate: bool = True,
    lossless: bool = False,
) -> Memory:
    """Returns the bytes at the peak of a step, by kind.

    Args:
        config: The settings.
        vocab_size: Tokens of the vocabulary.
        size: The size of the step's micro-batches.
        recompute: Whether the units keep their inputs alone.
        accumulate: Whether the step has several micro-batches, so that gradients are there when a
            backward pass begins.
        lossless: Whether bf16 holds the checkpoint that the run starts from without loss, so that
            every frozen matrix is in it.
    """
    if config.phase:
        # What an earlier phase may have trained has all the bits of float32.
        needs = [
            memory_of(own, vocab_size, size, recompute, accumulate, lossless and not number)
            for number, own in enumerate(phase_configs(config))
        ]
        return max(needs, key=lambda memory: memory.total)
    update = _peak_of_update(config, vocab_size, lossless)
    live, model = _LiveBytes(), _shaped(config, vocab_size)
    with FakeTensorMode(allow_non_fake_inputs=True):
        _prepare(model, config, lossless)
        model.recompute(recompute)
        batch = _batch(size, config.compute)
        live.watch(model)
        with live:
            if accumulate:
                _fill_gradients(model, live)
            live.hold("optimizer", update["optimizer"])
            _forward_and_backward(model, batch, config, live)
    peak = max(live.at_peak, update, key=lambda kinds: sum(kinds.values()))
    return Memory(**{str(kind): size for kind, size in peak.items()})


@cache
def _peak_of_update(config: TrainConfig, vocab_size: int, lossless: bool) -> Mapping[Kind, int]:
    """Returns the bytes of each kind at the peak of clipping and of the optimizers.

    They depend on no micro-batch.
    """
    live, model = _LiveBytes(), _shaped(config, vocab_size)
    with FakeTensorMode(allow_non_fake_inputs=True):
        _prepare(model, config, lossless)
        optimizers = make_optimizers(model, model.units(), config.optim)
        live.watch(model)
        with live:
            # A step before, so that the states of the optimizers are there.
            for kind in ("optimizer", "update"):
                _fill_gradients(model, live)
                live.forget_peak()
                with live.counting(kind):
                    clip_gradient(model, config.optim.clip)
                    skip_where(optimizers, torch.empty((), dtype=torch.float32))
                    for optimizer in optimizers:
                        optimizer.step()
                        optimizer.zero_grad()
    return live.at_peak


def _shaped(config: TrainConfig, vocab_size: int) -> CausalModel:
    """Makes a model without memory; ``peft`` adds adapters to no tensors without numbers."""
    with torch.device("meta"):
        model = make_model(config.model, vocab_size)
        if config.train == "lora":
            set_trained(model, config)
    return model


def _prepare(model: CausalModel, config: TrainConfig, lossless: bool) -> None:
    """Gives a model of `_shaped` tensors without numbers, of which a run's are trained."""
    for module in model.modules():
        for name, value in module.named_parameters(recurse=False):
            tensor = torch.empty(value.shape, dtype=value.dtype)
            module.register_parameter(name, nn.Parameter(tensor, value.requires_grad))
        for name, table in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty(table.shape, dtype=table.dtype))
    if config.train != "lora":
        set_trained(model, config)
    narrow_frozen(model, lossless)
    _fuse_norms(model)


def _fill_gradients(model: CausalModel, live: _LiveBytes) -> None:
    """Makes the gradients that an earlier micro-batch leaves."""
    with live.counting("gradients"):
        for parameter in model.trained().values():
            parameter.grad = torch.empty_like(parameter)


def _fuse_norms(model: CausalModel) -> None:
    """Has each RMSNorm keep its input and a number a token, as its kernel on a GPU does."""
    for module in model.modules():
        if isinstance(module, nn.RMSNorm):
            module.forward = partial(  # type: ignore[method-assign]
                _fused_norm, module.weight
            )


def _batch(size: MicroBatch, compute: Compute) -> Batch:
    """Returns a micro-batch of a size, its tensors without numbers."""
    predictions = size.tokens if compute == "dense" else padded_predictions(size.targets)
    return Batch(
        ids_N=torch.empty(size.tokens, dtype=torch.int64),
        positions_N=torch.empty(size.tokens, dtype=torch.int64),
        cu_seqlens=torch.empty(padded_segments(size.documents) + 1, dtype=torch.int32),
        max_seqlen=size.tokens,
        predict_at_M=torch.empty(predictions, dtype=torch.int64),
        targets_M=torch.empty(predictions, dtype=torch.int64),
        weights_M=torch.empty(predictions, dtype=torch.float64),
        targets=size.targets,
        tokens=size.tokens,
    )


def _forward_and_backward(
    model: CausalModel, batch: Batch, config: TrainConfig, live: _LiveBytes
) -> None:
    """Runs a micro-batch as `sabitrain.trainer.Trainer` does."""
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        with live.counting("activations"):
            hidden_MC = predicting_states(model, batch, config.compute)
        with live.counting("loss"):
            loss, _ = weighted_loss(
                hidden_MC,
                model.head_VC,
                batch,
                config.z_loss,
                _compiled_chunk,
                model.head_rows,
            )
    del hidden_MC
    with live.counting("backward"):
        loss.backward()  # type: ignore[no-untyped-call]


def _compiled_chunk(
    logits_MP: Tensor, targets_M: Tensor, weights_M: Tensor, z_loss: Tensor
) -> tuple[Tensor, Tensor]:
    """Allocates what the compiled chunk of the loss allocates: its sums."""
    wide = torch.promote_types(logits_MP.dtype, torch.float32)
    return logits_MP.new_empty(2, dtype=wide), logits_MP


def _rounded(size: int) -> int:
    """Returns the bytes that torch's allocator hands out for so many."""
    return -(-size // _BLOCK) * _BLOCK


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the bytes of the storages that are alive, by kind, and remembers the peak.

    Attributes:
        peak: The most bytes since `forget_peak`.
        at_peak: The bytes of each kind at the peak.
    """

    def __init__(self) -> None:
        """Counts nothing yet."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak, self.at_peak = 0, dict[Kind, int]()
        self._kind: Kind = "activations"
        self._live: Counter[Kind] = Counter()
        # By the storage's address, which no other storage takes while it lives.
        self._storages: dict[int, tuple[Kind, int]] = {}
        self._parameters: set[int] = set()

    def watch(self, model: CausalModel) -> None:
        """Counts the tensors of a model, and its gradients as they become whole."""
        self._parameters = {
            tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())
        }
        for tensor in (*model.parameters(), *model.buffers()):
            self._count(tensor, "parameters")
        for parameter in model.trained().values():
            parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                lambda whole: self.keep("gradients", whole.grad)
            )

    @contextmanager
    def counting(self, kind: Kind) -> Iterator[None]:
        """Counts what is allocated inside the ``with`` as of a kind."""
        before, self._kind = self._kind, kind
        yield
        self._kind = before

    def keep(self, kind: Kind, tensor: Tensor) -> None:
        """Counts a tensor as of another kind than it was made for."""
        address = tensor.untyped_storage()._cdata
        before, size = self._storages[address]
        self._storages[address] = (kind, size)
        self._live[before] -= size
        self._live[kind] += size

    def hold(self, kind: Kind, size: int) -> None:
        """Counts bytes that stay, of tensors that are not here."""
        self._live[kind] += size

    def forget_peak(self) -> None:
        """Begins to look for a peak."""
        self.peak = 0
        self._look(0)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Runs an operation, and counts the storages of its results."""
        out = func(*args, **(kwargs or {}))
        ours = torch.ops.sabitrain
        if func is ours.document_attention.default:
            query = args[0]
            # Kept as long as the output: the backward pass takes both.
            self._count(out[0], self._kind, flash.kept_bytes(*query.shape[:2]))
            return out
        copies = func is torch.ops.aten._to_copy.default and self._is_parameter(args[0])
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._count(tensor, "copies" if copies else self._kind)
        inside = 0
        if func is ours.document_attention_backward.default:
            query, key, segments = args[1], args[2], len(args[6]) - 1
            tokens, heads, head_size = query.shape
            inside = flash.workspace_bytes(tokens, segments, heads, key.shape[1], head_size)
        if func is ours.quantised_product.default:
            bits, outputs, inputs = args[6:9]
            inside = bytes_to_widen(outputs, inputs, bits, args[0].element_size())
        # Autograd adds gradients in place, but not under a mode as this one: what it adds out of
        # place is gone by the next operation (torch/csrc/autograd/input_buffer.cpp).
        if self._kind != "backward" or func is not torch.ops.aten.add.Tensor:
            self._look(inside)
        return out

    def _is_parameter(self, tensor: Tensor) -> bool:
        """Returns whether a tensor is a parameter, or a view of one."""
        return tensor.untyped_storage()._cdata in self._parameters

    def _count(self, tensor: Tensor, kind: Kind, beside: int = 0) -> None:
        """Counts the storage of a tensor, and bytes beside it, until nothing refers to it."""
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address not in self._storages:
            size = _rounded(storage.nbytes()) + beside
            self._storages[address] = (kind, size)
            self._live[kind] += size
            weakref.finalize(storage, self._free, address)

    def _free(self, address: int) -> None:
        """Forgets a storage."""
        kind, size = self._storages.pop(address)
        self._live[kind] -= size

    def _look(self, inside: int) -> None:
        """Takes the bytes that are alive for the peak, if they are more.

        Args:
            inside: Bytes that an operation has allocated and freed again.
        """
        now = self._live.total() + inside
        if now > self.peak:
            self.peak, self.at_peak = now, dict(self._live)
            # Of the kind at work: attention allocates in the backward pass alone.
            self.at_peak[self._kind] = self.at_peak.get(self._kind, 0) + inside


class _FusedNorm(torch.autograd.Function):
    """The memory of the kernel of RMSNorm, without its numbers."""

    @staticmethod
    def forward(ctx: Any, x_NC: Tensor, weight_C: Tensor) -> Tensor:
        """Allocates the output, and keeps what the backward pass reads."""
        ctx.save_for_backward(x_NC, weight_C, x_NC.new_empty(*x_NC.shape[:-1], 1))
        return torch.empty_like(x_NC)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NC: Tensor) -> tuple[Tensor, Tensor]:
        """Allocates the gradients."""
        x_NC, weight_C, _ = ctx.saved_tensors
        return torch.empty_like(x_NC), torch.empty_like(weight_C)


def _fused_norm(weight_C: Tensor, x_NC: Tensor) -> Tensor:
    """Allocates what RMSNorm allocates."""
    out_NC: Tensor = _FusedNorm.apply(x_NC, weight_C)
    return out_NC
