"""What a run will take, found without a GPU: ``python -m sabitrain plan --data OUT --preset 125m``.

Activations are not estimated by a formula: a forward pass is run on tensors that have shapes and types but no numbers,
in bf16 as on a GPU, and what autograd keeps for the backward pass is added up.

What is not seen that way is reckoned: parameters, gradients and optimizer states by their number; the copies in bf16
that autocast keeps of the matrices; three chunks of logits (`sabitrain.loss`); in the backward pass the gradients of
the widest layer; and for CUDA itself and for what its allocator leaves unused, 1 GB.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from sabiprep.dataset import PackedDataset
from sabitrain.config import OptimConfig, TrainConfig
from sabitrain.data import PAD_TO, make_step
from sabitrain.flops import Flops, step_flops
from sabitrain.loss import MAX_LOGITS
from sabitrain.masking import masking_of
from sabitrain.mixture import MixedOrder, make_order, open_datasets
from sabitrain.model import Llama
from sabitrain.optim import parameter_groups
from sabitrain.preflight import check_dataset

_RESERVE = 10**9
_SAMPLE = 4  # steps looked at for shares and operations


@dataclass(frozen=True)
class Memory:
    """Bytes on a GPU at the peak of a step, by kind."""

    parameters: int
    gradients: int
    optimizer: int
    autocast: int
    activations: int
    logits: int
    backward: int
    reserve: int = _RESERVE

    @property
    def total(self) -> int:
        """All of them."""
        return sum(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True)
class Plan:
    """What a run will take.

    Attributes:
        parameters: Of the model.
        steps: Optimizer steps.
        micro_rows: Rows of a micro-batch as configured, on a GPU.
        memory: At the peak, with those.
        largest_micro_rows: Most rows of a micro-batch within the limit; 0 if not even one fits.
        flops: Of a step, the mean of the first few.
        repeats: Passes over each dataset.
    """

    parameters: int
    steps: int
    micro_rows: int
    memory: Memory
    largest_micro_rows: int
    flops: Flops
    repeats: dict[str, float]


def plan_run(config: TrainConfig, dataset: PackedDataset) -> Plan:
    """What training on ``dataset`` as ``config`` says will take.

    Raises:
        DatasetError, TrainError: If it cannot be trained on.
    """
    check_dataset(config, dataset)
    seq_len = dataset.seq_len
    steps, rows_per_step, micro_rows = config.step_plan(len(dataset.train), seq_len, "cuda").values()
    micro_rows = min(micro_rows, rows_per_step)
    order = make_order(dataset, config, rows_per_step, steps)
    masking = masking_of(config, dataset.sources)
    made = [
        make_step(dataset.train, order.step(step), 16, masking, config.compute) for step in range(min(_SAMPLE, steps))
    ]
    counted = [step_flops(config.model, dataset.vocab_size, step, config.compute, config.recompute) for step in made]
    share = sum(step.targets for step in made) / (len(made) * rows_per_step * seq_len)

    def memory(rows: int) -> Memory:
        return memory_of(config, dataset.vocab_size, rows * seq_len, share)

    limit = int(config.memory_limit * 1e9)
    names = [str(path) for path in config.datasets]
    repeats = order.repeats(steps) if isinstance(order, MixedOrder) else [order.epoch(steps)]
    return Plan(
        parameters=sum(parameter.numel() for parameter in _imagined(config, dataset.vocab_size).parameters()),
        steps=steps,
        micro_rows=micro_rows,
        memory=memory(micro_rows),
        largest_micro_rows=_largest(rows_per_step, lambda rows: memory(rows).total <= limit),
        flops=Flops(*(sum(getattr(one, name) for one in counted) / len(counted) for name in ("executed", "dense"))),
        repeats=dict(zip(names, repeats, strict=True)),
    )


def memory_of(config: TrainConfig, vocab_size: int, tokens: int, share: float) -> Memory:
    """Bytes at the peak of a step whose micro-batches have ``tokens`` tokens, ``share`` of them targets."""
    model, shape = _imagined(config, vocab_size), config.model
    predictions = tokens if config.compute == "dense" else -(-max(1, round(share * tokens)) // PAD_TO) * PAD_TO
    parameters = sum(parameter.numel() for parameter in model.parameters())
    matrices = sum(parameter.numel() for parameter in model.parameters() if parameter.ndim == 2)
    logits = min(predictions * vocab_size, MAX_LOGITS)
    # SwiGLU's two inputs, their product and its gradient in bf16, the stream and its gradient in float32.
    widest = tokens * (4 * shape.mlp_width * 2 + 2 * shape.width * 4)
    return Memory(
        parameters=4 * parameters,
        gradients=4 * parameters,
        optimizer=4 * _optimizer_numbers(model, config.optim),
        autocast=2 * matrices,
        # On a GPU attention keeps a float32 for each token and head too.
        activations=saved_bytes(model, tokens, predictions if config.compute == "full" else None)
        + 4 * tokens * shape.heads * (1 if config.recompute else shape.layers),
        logits=3 * 4 * logits,
        backward=widest,
    )


def saved_bytes(model: Llama, tokens: int, predictions: int | None) -> int:
    """Bytes that autograd keeps of a forward pass in bf16 over ``tokens`` tokens, parameters and their copies aside.

    Args:
        model: A model, of fake tensors or real ones.
        tokens: N.
        predictions: Positions wanted of the last block; None for all.
    """
    mode = getattr(model.head_VC, "fake_mode", contextlib.nullcontext())
    seen: dict[int, tuple[Tensor, int]] = {}
    known = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    shapes = {parameter.shape for parameter in model.parameters()} | {
        p.mT.shape for p in model.parameters() if p.ndim == 2
    }

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known and tensor.shape not in shapes:
            seen[storage._cdata] = (tensor, storage.nbytes())  # the tensor too, so that no other takes its place
        return tensor

    with mode, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        ids = torch.zeros(tokens, dtype=torch.int64)
        at = None if predictions is None else torch.zeros(predictions, dtype=torch.int64)
        cu_seqlens = torch.tensor([0, *[tokens] * PAD_TO], dtype=torch.int32)
        with torch.autocast("cpu", torch.bfloat16):
            out = model(ids, ids, cu_seqlens, model.config.context, at)
        del out
    return sum(size for _, size in seen.values())


def describe(config: TrainConfig) -> str:
    """The plan of a run, in lines for people.

    Raises:
        DatasetError, TrainError: If it cannot be run.
    """
    with open_datasets(config.datasets) as dataset:
        plan, seq_len = plan_run(config, dataset), dataset.seq_len
    kinds = {field.name: getattr(plan.memory, field.name) / 1e9 for field in fields(plan.memory)}
    largest = plan.largest_micro_rows
    fits = (
        f"{largest:,} rows, {largest * seq_len:,} tokens (--batch.micro-tokens)"
        if largest
        else "not even one row fits: use --recompute, another preset or a larger limit"
    )
    rows_per_step = config.batch.rows(seq_len)
    lines = [
        f"{config.preset}: {plan.parameters:,} parameters",
        f"{plan.steps:,} steps of {rows_per_step:,} rows of {seq_len:,} tokens",
        f"memory with micro-batches of {plan.micro_rows:,} rows: {plan.memory.total / 1e9:.2f} GB "
        f"of {config.memory_limit:g} GB",
        *(f"  {name:12}{size:8.2f} GB" for name, size in kinds.items()),
        f"largest micro-batch within {config.memory_limit:g} GB: {fits}",
        f"{plan.flops.executed / 1e12:,.3f} TFLOP a step, {plan.flops.skipped:.1%} of the dense computation skipped",
        *(f"{name}: {passes:.2f} passes" for name, passes in plan.repeats.items()),
    ]
    return "\n".join(lines)


def _imagined(config: TrainConfig, vocab_size: int) -> Llama:
    """The model without its numbers."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = Llama(config.model, vocab_size)
    model.recompute(config.recompute)
    return model


def _optimizer_numbers(model: Llama, config: OptimConfig) -> int:
    """Numbers that the optimizers keep: two a parameter for AdamW, one for Muon."""
    groups = parameter_groups(model, config.weight_decay)
    sizes = {name: sum(p.numel() for _, p in group["params"]) for name, group in groups.items()}
    return sum((1 if config.name == "muon" and name == "matrices" else 2) * size for name, size in sizes.items())


def _largest(most: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to ``most`` that fits, where every smaller one does too; 0 if none does."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
