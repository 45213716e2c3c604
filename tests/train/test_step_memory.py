"""The planned memory of a step, against a plain simulation of two steps that shares no code with
it.

The simulation holds a weak reference to the storage of every tensor that an operation returns, in a
step of the real model, loss and optimizers on tensors without numbers. What is otherwise on a GPU
is written here a second time.
"""

from __future__ import annotations

import weakref
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from sabitrain.command_line import parse_command_line
from sabitrain.config import ModelConfig, OptimConfig, TrainConfig
from sabitrain.data.batches import Batch
from sabitrain.fitting import RowSizes, fit_run
from sabitrain.memory import RESERVE, MicroBatch, memory_of
from sabitrain.models.architecture import make_model
from sabitrain.models.loss import predicting_states, weighted_loss
from sabitrain.optim.optimizers import clip_gradient, make_optimizers, skip_where
from support.train.tiny import VOCAB_SIZE, tiny_config

SHAPE = ModelConfig(layers=3, width=64, heads=4, kv_heads=2, mlp_width=96, context=1024)
SEQ_LEN = 2048
CARD = int(23.2e9)


class Storages(TorchDispatchMode):
    """The bytes of the storages that some tensor still refers to, and the most at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, tuple[weakref.ref, int]] = {}
        self.now = self.most = 0
        self.backward = False

    def add(self, tensor: Tensor, more: int = 0) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.alive:
            return

        def gone(_: weakref.ref) -> None:
            self.now -= self.alive.pop(key)[1]

        size = storage.nbytes() + more
        self.alive[key] = (weakref.ref(storage, gone), size)
        self.now += size

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name, inside = str(func), 0
        tensors = [x for x in (out if isinstance(out, tuple | list) else [out])]
        if name == "sabitrain.document_attention.default":
            # float32 log-sum-exps, a number a query head and token
            self.add(out[0], more=4 * args[0].shape[0] * args[0].shape[1])
        if name == "sabitrain.document_attention_backward.default":
            tokens, heads, size = args[1].shape
            rows = tokens + 128 * (args[6].shape[0] - 1)
            # FlashAttention-2: dq in float32 and a sum a row; dk and dv of every query head
            inside = 4 * heads * rows * (-(-size // 32) * 32) + 4 * heads * rows
            if args[2].shape[1] != heads:
                inside += 2 * (2 * tokens * heads * size)
        for x in tensors:
            if isinstance(x, Tensor):
                self.add(x)
        # Autograd sums gradients in place where no mode is on: then the sum is no new storage.
        if not (self.backward and name == "aten.add.Tensor"):
            self.most = max(self.most, self.now + inside)
        return out


class Norm(torch.autograd.Function):
    """RMSNorm in one kernel: it keeps its input and a number a token."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight, torch.empty(len(x), 1))
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx, grad):
        x, weight, _ = ctx.saved_tensors
        return torch.empty_like(x), torch.empty_like(weight)


def fused_chunk(logits, targets, weights, z_loss):
    return torch.empty(2), logits


def simulated(
    config: TrainConfig, vocab_size: int, size: MicroBatch, recompute: bool, micro_batches: int
) -> int:
    """The most bytes alive at any time of two optimizer steps."""
    # The tables of states in 8 bits have their numbers.
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = make_model(config.model, vocab_size)
        for module in model.modules():
            if isinstance(module, nn.RMSNorm):
                module.forward = lambda x, weight=module.weight: Norm.apply(x, weight)
        model.recompute(recompute)
        predictions = -(-max(1, size.targets) // 256) * 256
        batch = Batch(
            *(torch.empty(size.tokens, dtype=torch.int64) for _ in range(2)),
            torch.empty(-(-size.documents // 64) * 64 + 1, dtype=torch.int32),
            size.tokens,
            *(torch.empty(predictions, dtype=torch.int64) for _ in range(2)),
            torch.empty(predictions, dtype=torch.float64),
            size.targets,
            size.tokens,
        )
        optimizers = make_optimizers(model, model.units(), config.optim)
        storages = Storages()
        for tensor in (*model.parameters(), *model.buffers()):
            storages.add(tensor)
        with storages:
            for _ in range(2):
                for _ in range(micro_batches):
                    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
                        states = predicting_states(model, batch)
                        loss, _ = weighted_loss(states, model.head_VC, batch, chunk=fused_chunk)
                    del states
                    storages.backward = True
                    torch.autograd.backward(loss)
                    storages.backward = False
                    del loss
                clip_gradient(model, config.optim.clip)
                skip_where(optimizers, torch.empty(()))
                for optimizer in optimizers:
                    optimizer.step()
                    optimizer.zero_grad()
    return storages.most


def preset(name: str) -> TrainConfig:
    return parse_command_line(["--data", "out", "--run", "run", "--preset", name])


def sizes_of(prompts: float) -> RowSizes:
    """Rows of 16 documents, a share of whose tokens are prompts."""
    return RowSizes(SEQ_LEN, np.array([round((1 - prompts) * SEQ_LEN)]), np.array([16]))


VOCABULARIES, PROMPTS = (16_000, 52_000, 128_256), (0.0, 0.5, 0.9)
CASES = [
    *(("125m", 16, *case) for case in product(VOCABULARIES, PROMPTS)),
    # Each vocabulary and each share once: a step of these takes seconds without numbers, too.
    *(("350m", 4, *case) for case in zip(VOCABULARIES, PROMPTS, strict=True)),
    *(("1b", 2, *case) for case in zip(VOCABULARIES, reversed(PROMPTS), strict=True)),
]


@pytest.mark.parametrize(("name", "rows", "vocab_size", "prompts"), CASES)
def test_the_plan_is_at_most_a_tenth_above_a_simulation_and_never_below(
    name, rows, vocab_size, prompts
):
    config, size = preset(name), sizes_of(prompts).micro_batch(rows)
    recompute = name == "1b"
    planned = memory_of(config, vocab_size, size, recompute).total - RESERVE
    live = simulated(config, vocab_size, size, recompute, micro_batches=2)
    assert live <= planned <= 1.1 * live


@pytest.mark.parametrize("optim", ["adamw", "muon", "adamw8bit"])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_so_is_that_of_any_optimizer_and_of_a_step_of_one_micro_batch(
    optim, recompute, micro_batches
):
    config = tiny_config("data", "run", model=SHAPE, optim=OptimConfig(name=optim))
    for tokens, vocab_size in ((256, VOCAB_SIZE), (1024, 5_003)):
        size = MicroBatch(tokens, tokens // 2, 9)
        planned = memory_of(config, vocab_size, size, recompute, micro_batches > 1).total - RESERVE
        live = simulated(config, vocab_size, size, recompute, micro_batches)
        assert live <= planned <= 1.1 * live


@pytest.mark.parametrize("name", ["125m", "350m", "1b"])
def test_each_preset_fits_a_card_of_24_gb_with_1_gb_to_spare(name):
    """An A10 or L4 has 23.2 GB. Every token is a target, of the largest vocabulary."""
    config = preset(name)
    rows_per_step = config.batch.rows(SEQ_LEN)
    fit = fit_run(config, 128_256, sizes_of(0.0), rows_per_step, CARD)
    assert fit.fits and fit.memory.total <= CARD and fit.memory.reserve >= 1e9
    # As few micro-batches as can be, and recomputed only where it must be.
    assert fit.micro_rows * SEQ_LEN >= 4096 or fit.recompute
    assert fit.recompute == (name == "1b")


def test_on_a_card_of_80_gb_nothing_is_recomputed():
    config = preset("1b")
    fit = fit_run(config, 52_000, sizes_of(0.5), config.batch.rows(SEQ_LEN), 79 * 10**9)
    assert not fit.recompute and fit.micro_rows * SEQ_LEN >= 8192


def test_copies_of_weights_are_told_by_storage_not_by_shape():
    """The activations of as many tokens as a matrix has rows were taken for its copy."""
    config = tiny_config("data", "run", model=replace(SHAPE, width=64, mlp_width=256))
    # [256, 64] is the shape of up_proj, and of the residual stream of 256 tokens.
    by_tokens = [
        memory_of(config, VOCAB_SIZE, MicroBatch(tokens, 128, 4)).activations
        for tokens in (128, 256, 384)
    ]
    assert by_tokens[1] - by_tokens[0] == by_tokens[2] - by_tokens[1] > 0


def test_the_kinds_are_those_of_the_model():
    config = tiny_config("data", "run", model=SHAPE)
    memory = memory_of(config, VOCAB_SIZE, MicroBatch(1024, 512, 9))
    model = make_model(SHAPE, VOCAB_SIZE)
    weights = sum(parameter.nbytes for parameter in model.parameters())
    tensors = [*model.parameters(), *model.buffers()]
    # The allocator hands out multiples of 512 bytes.
    assert memory.parameters == sum(-(-tensor.nbytes // 512) * 512 for tensor in tensors)
    assert memory.gradients >= weights and memory.optimizer >= 2 * weights
    assert memory.total == sum(vars(memory).values())
