"""The needs of a run, found without a GPU: steps, memory, operations.

The command is ``python -m sabitrain plan --data OUT --preset 125m``.

Activations are not estimated by a formula: a forward pass runs on tensors that have shapes and
types but no numbers, in bf16 as on a GPU, and the tensors that autograd keeps for the backward pass
are added up.

All other memory is computed: parameters, gradients and optimizer states from their number; the
copies in bf16 that autocast keeps of the matrices; three chunks of logits
(`sabitrain.models.loss`); by the architecture, the bytes of its kernels and of the backward pass of
the widest layer; and 1 GB for CUDA itself and its allocator.
"""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from sabitrain.config import TrainConfig
from sabitrain.data.batches import PAD_TO, Step, make_batch, make_step, micro_batches
from sabitrain.data.datasets import Datasets, open_datasets
from sabitrain.data.held_out import all_fit_the_run, sample_rows
from sabitrain.data.masking import masking_of, prompt_tokens
from sabitrain.data.order import Order, make_order
from sabitrain.data.rows import RowSource
from sabitrain.models.architecture import CausalModel, architecture_of
from sabitrain.models.flops import Flops, forward_flops, step_flops
from sabitrain.models.loss import MAX_LOGITS
from sabitrain.optim.optimizers import parameter_groups
from sabitrain.optim.settings import OptimConfig
from sabitrain.preflight import check_datasets

_RESERVE = 10**9
# Shares and operations are means over this many steps, and this many held-out rows.
_SAMPLE = 4
_ROWS_LOOKED_AT = 64
# Columns of a description; a longer word stays whole.
_WIDTH = 80


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
        """The sum of all kinds."""
        return sum(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True)
class ValidationPlan:
    """The needs of a run's validations.

    Attributes:
        held_out_rows: Rows of the validation split.
        rows: Rows of a validation before the last.
        times: Validations before the last.
        last_rows: Rows of the last validation; under ``--hours`` at most.
        flops: Operations of all validations together.
    """

    held_out_rows: int
    rows: int
    times: int
    last_rows: int
    flops: float


@dataclass(frozen=True)
class Plan:
    """The needs of a run.

    Attributes:
        parameters: Parameters of the model.
        steps: Optimizer steps.
        micro_rows: Rows of a micro-batch as configured, on a GPU.
        memory: The memory at the peak with these micro-batches.
        largest_micro_rows: Most rows of a micro-batch within the limit; 0 if not even one fits.
        flops: Operations of a step, a mean over the first steps.
        repeats: Passes over each dataset.
        validation: The needs of the validations.
    """

    parameters: int
    steps: int
    micro_rows: int
    memory: Memory
    largest_micro_rows: int
    flops: Flops
    repeats: dict[str, float]
    validation: ValidationPlan


def plan_run(config: TrainConfig, data: Datasets) -> Plan:
    """Returns the needs of a run with the settings ``config`` on the datasets ``data``.

    Raises:
        DatasetError: If a dataset cannot be read, or has no row to train on.
        TrainError: If the datasets do not fit the model.
    """
    # Refused here as before a run: a plan is for a run that can begin.
    check_datasets(config, data)
    dataset, seq_len = data.rows, data.rows.seq_len
    steps, rows_per_step, micro_rows = config.step_plan(
        len(dataset.train), seq_len, "cuda"
    ).values()
    # A step may be smaller than a micro-batch may be.
    micro_rows = min(micro_rows, rows_per_step)
    order = make_order(data, config.mix, rows_per_step, config.seed, steps)
    sample = _sampled_steps(config, dataset, order, min(_SAMPLE, steps))
    # Memory depends on the share of positions that predict, which a few steps tell well enough.
    share = sum(step.targets for step in sample) / (len(sample) * rows_per_step * seq_len)

    def memory(rows: int) -> Memory:
        return memory_of(config, dataset.vocab_size, rows * seq_len, share)

    limit = int(config.memory_limit * 1e9)
    names = [str(path) for path in config.datasets]
    return Plan(
        parameters=_imagined(config, dataset.vocab_size).n_parameters(),
        steps=steps,
        micro_rows=micro_rows,
        memory=memory(micro_rows),
        largest_micro_rows=_largest(rows_per_step, lambda rows: memory(rows).total <= limit),
        flops=_mean_flops(config, dataset.vocab_size, sample),
        repeats=dict(zip(names, order.repeats(steps), strict=True)),
        validation=plan_validation(config, dataset, steps, rows_per_step, micro_rows),
    )


def _sampled_steps(config: TrainConfig, dataset: RowSource, order: Order, count: int) -> list[Step]:
    """Returns the first steps of a run, cut into micro-batches of any size."""
    masking = masking_of(config, dataset.sources)
    return [
        make_step(dataset.train, order.step(step), 16, masking, config.compute)
        for step in range(count)
    ]


def _mean_flops(config: TrainConfig, vocab_size: int, steps: list[Step]) -> Flops:
    """Returns the mean operations of some steps."""
    counted = [
        step_flops(config.model, vocab_size, step, config.compute, config.recompute)
        for step in steps
    ]
    return Flops(
        sum(one.executed for one in counted) / len(counted),
        sum(one.dense for one in counted) / len(counted),
    )


def plan_validation(
    config: TrainConfig, dataset: RowSource, steps: int, rows_per_step: int, micro_rows: int
) -> ValidationPlan:
    """Returns the needs of the validations of a run of ``steps`` steps.

    The operations are estimated from the first rows of the sample.

    Raises:
        DatasetError: If a shard is damaged.
    """
    split = dataset.validation
    sample = sample_rows(dataset, split, config.eval_rows, config.seed)
    # Without `go_on` nothing ends the sampling.
    assert sample is not None
    times = (steps - 1) // config.eval_every if config.eval_every else 0
    takes_all = config.hours is not None or all_fit_the_run(len(split), steps * rows_per_step)
    last = len(split) if takes_all else len(sample)
    flops, looked_at = 0.0, sample[:_ROWS_LOOKED_AT]
    for rows in micro_batches(split, looked_at, micro_rows):
        read_N = rows["loss_mask"].reshape(-1) | prompt_tokens(rows)
        flops += forward_flops(config.model, dataset.vocab_size, make_batch(rows, read_N))
    flops *= (times * len(sample) + last) / max(1, len(looked_at))
    return ValidationPlan(len(split), len(sample), times, last, flops)


def memory_of(config: TrainConfig, vocab_size: int, tokens: int, share: float) -> Memory:
    """Returns the bytes at the peak of a step, by kind.

    Args:
        config: The settings.
        vocab_size: Tokens of the vocabulary.
        tokens: Tokens of a micro-batch.
        share: The share of the tokens that are targets.
    """
    model = _imagined(config, vocab_size)
    architecture = architecture_of(config.model.architecture)
    predictions = (
        tokens
        if config.compute == "dense"
        else -(-max(1, round(share * tokens)) // PAD_TO) * PAD_TO
    )
    # Parameters, gradients and optimizer states are float32: four bytes each.
    parameters = sum(parameter.numel() for parameter in model.parameters())
    matrices = sum(parameter.numel() for parameter in model.parameters() if parameter.ndim == 2)
    logits = min(predictions * vocab_size, MAX_LOGITS)
    return Memory(
        parameters=4 * parameters,
        gradients=4 * parameters,
        optimizer=4 * _optimizer_numbers(model, config.optim),
        autocast=2 * matrices,
        activations=saved_bytes(model, tokens, predictions if config.compute == "full" else None)
        + architecture.kernel_bytes(config.model, tokens, config.recompute),
        logits=3 * 4 * logits,
        backward=architecture.backward_bytes(config.model, tokens),
    )


def saved_bytes(model: CausalModel, tokens: int, predictions: int | None) -> int:
    """Returns the bytes that autograd keeps of a forward pass in bf16.

    Parameters and their copies are not counted.

    Args:
        model: A model, of fake tensors or real ones.
        tokens: N.
        predictions: Positions wanted of the last block; None for all.
    """
    # Inputs must be made in the mode that the model's own tensors were made in.
    mode = getattr(model.head_VC, "fake_mode", contextlib.nullcontext())
    seen: dict[int, tuple[Tensor, int]] = {}
    known = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    # autocast copies matrices to bf16; the copies have storage of their own, and known shapes.
    shapes = {parameter.shape for parameter in model.parameters()} | {
        p.mT.shape for p in model.parameters() if p.ndim == 2
    }

    def keep(tensor: Tensor) -> Tensor:
        """Notes the storage of a tensor that autograd keeps, once however often it is kept."""
        storage = tensor.untyped_storage()
        if storage._cdata not in known and tensor.shape not in shapes:
            # The tensor is kept too, so that no other takes its address.
            seen[storage._cdata] = (tensor, storage.nbytes())
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
    """Returns the plan of a run, in lines for people.

    Raises:
        DatasetError: If a dataset cannot be read, or has no row to train on.
        TrainError: If the datasets do not fit the model.
    """
    with open_datasets(config.datasets) as data:
        plan, seq_len = plan_run(config, data), data.rows.seq_len
    # In GB of 10^9 bytes, as the memory limit is given.
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
        f"{plan.flops.executed / 1e12:,.3f} TFLOP a step, "
        f"{plan.flops.skipped:.1%} of the dense computation skipped",
        *_described_validation(config, plan),
        *(f"{name}: {passes:.2f} passes" for name, passes in plan.repeats.items()),
    ]
    return "\n".join(_wrapped(line) for line in lines)


def _described_validation(config: TrainConfig, plan: Plan) -> list[str]:
    """Returns the lines about validations, beside the training."""
    validation, training = plan.validation, plan.steps * plan.flops.executed
    if not validation.held_out_rows:
        return ["no validation: no row is held out"]
    during = (
        f"{validation.rows:,} rows every {config.eval_every:,} steps, " if validation.times else ""
    )
    allowed = " at most, as the hours allow" if config.hours is not None else ""
    return [
        f"validation: {during}{validation.last_rows:,} at the end{allowed}, "
        f"of {validation.held_out_rows:,} held out",
        f"{training / 1e12:,.3f} TFLOP of training, {validation.flops / 1e12:,.3f} of validation "
        f"({validation.flops / training:.1%})",
    ]


def _wrapped(line: str) -> str:
    """Returns a line broken at `_WIDTH` columns, no word cut."""
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    parts = textwrap.wrap(
        line,
        _WIDTH,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
    )
    return "\n".join(parts)


def _imagined(config: TrainConfig, vocab_size: int) -> CausalModel:
    """Returns the model with shapes and types, but no numbers."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = architecture_of(config.model.architecture).make(config.model, vocab_size)
    model.recompute(config.recompute)
    return model


def _optimizer_numbers(model: CausalModel, config: OptimConfig) -> int:
    """Returns how many numbers the optimizers keep: two a parameter for AdamW, one for Muon."""
    # The groups of the optimizers themselves, so that no rule is written twice.
    groups = parameter_groups(model, model.units(), config.weight_decay)
    sizes = {name: sum(p.numel() for _, p in group["params"]) for name, group in groups.items()}
    return sum(
        (1 if config.name == "muon" and name == "matrices" else 2) * size
        for name, size in sizes.items()
    )


def _largest(most: int, fits: Callable[[int], bool]) -> int:
    """Returns the largest number up to ``most`` that fits; 0 if none does.

    Every number below one that fits must fit too.
    """
    # By halving: each try runs a forward pass of the whole model.
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
