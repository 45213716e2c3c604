"""The needs of a run, found without a GPU: steps, memory, operations.

The command is ``python -m sabitrain plan --data OUT --preset 125m``. `sabitrain.memory` finds the
memory of a step, and `sabitrain.fitting` the micro-batches that fit.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch

from sabiprep.errors import TrainError
from sabiprep.places import place_of
from sabiprep.terminal import counted
from sabitrain.config import TrainConfig
from sabitrain.data.batches import Step, make_batch, make_step, micro_batches
from sabitrain.data.datasets import Datasets, open_datasets
from sabitrain.data.held_out import all_fit_the_run, sample_rows
from sabitrain.data.masking import masking_of, prompt_tokens
from sabitrain.data.order import Order, make_order
from sabitrain.data.rows import RowSource
from sabitrain.device import choose_device, memory_limit
from sabitrain.fitting import Fit, fit_run, most_rows, sample_sizes
from sabitrain.memory import CARD
from sabitrain.models.architecture import CausalModel, make_model, trained_in
from sabitrain.models.flops import Flops, forward_flops, step_flops
from sabitrain.monitoring.report import parameters_in_words, states_in_words
from sabitrain.optim.optimizers import states_in_8_bits
from sabitrain.partial.phases import Span, spans_of
from sabitrain.partial.trained import set_trained
from sabitrain.preflight import check_datasets
from sabitrain.starting import start_from

# Shares and operations are means over this many steps, and this many held-out rows.
_SAMPLE = 4
_ROWS_LOOKED_AT = 64
# Columns of a description; a longer word stays whole.
_WIDTH = 80


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
class PhasePlan:
    """What a phase trains; a run without phases has one.

    Attributes:
        span: Its steps and its settings.
        parameters: Parameters of the model, its adapters included.
        trained_parameters: Parameters that are trained.
        in_8_bits: Those whose states are held in 8 bits; None under another optimizer.
    """

    span: Span
    parameters: int
    trained_parameters: int
    in_8_bits: int | None


@dataclass(frozen=True)
class Plan:
    """The needs of a run.

    Attributes:
        phases: What is trained, by phase.
        steps: Optimizer steps.
        fit: The cut of a step on a GPU, and its memory.
        largest_micro_rows: Most rows of a micro-batch within the limit, with the same
            recomputation; 0 if not even one fits.
        flops: Operations of a step, a mean over the first steps.
        repeats: Passes over each dataset.
        validation: The needs of the validations.
    """

    phases: Sequence[PhasePlan]
    steps: int
    fit: Fit
    largest_micro_rows: int
    flops: Flops
    repeats: dict[str, float]
    validation: ValidationPlan

    @property
    def parameters(self) -> int:
        """The parameters of the model, its adapters included."""
        return self.phases[0].parameters

    @property
    def trained_parameters(self) -> int:
        """The parameters that are trained, in the phase that trains the most."""
        return max(phase.trained_parameters for phase in self.phases)


def plan_run(config: TrainConfig, data: Datasets, limit: int = CARD) -> Plan:
    """Returns the needs of a run with the settings ``config`` on the datasets ``data``.

    Args:
        config: The settings.
        data: The datasets.
        limit: Bytes of a GPU that the run may take.

    Raises:
        DatasetError: If a dataset cannot be read, or has no row to train on.
        TrainError: If the datasets do not fit the model.
    """
    # Refused here as before a run: a plan is for a run that can begin.
    config, base = start_from(config, weights=False)
    check_datasets(config, data, base)
    vocab_size = config.model.rows(data.rows.vocab_size)
    dataset, seq_len = data.rows, data.rows.seq_len
    cut = config.step_plan(len(dataset.train), seq_len, "cuda")
    steps, rows_per_step = cut["steps"], cut["rows_per_step"]
    order = make_order(data, config.mix, rows_per_step, config.seed, steps)
    sizes = sample_sizes(config, dataset, order, steps)
    lossless = base is not None and base.says_bf16
    fit = fit_run(
        config, vocab_size, sizes, rows_per_step, limit, cut.get("micro_rows"), lossless=lossless
    )
    sample = _sampled_steps(config, dataset, order, min(_SAMPLE, steps))
    spans = spans_of(config, steps)
    phases = [_planned(span, vocab_size) for span in spans]
    names = [place_of(path) for path in config.datasets]
    return Plan(
        phases=phases,
        steps=steps,
        fit=fit,
        largest_micro_rows=most_rows(
            config, vocab_size, sizes, rows_per_step, limit, fit.recompute, lossless
        ),
        flops=_mean_flops(config, vocab_size, sample, fit.recompute, spans),
        repeats=dict(zip(names, order.repeats(steps), strict=True)),
        validation=plan_validation(config, dataset, steps, rows_per_step, fit.micro_rows),
    )


def _planned(span: Span, vocab_size: int) -> PhasePlan:
    """Returns what a phase trains."""
    model = _model(span.config, vocab_size)
    in_8_bits = states_in_8_bits(span.config.optim, model)
    return PhasePlan(span, model.n_parameters(), model.n_trained(), in_8_bits)


def _model(config: TrainConfig, vocab_size: int) -> CausalModel:
    """Returns the model of a run, which takes no memory."""
    with torch.device("meta"):
        model = make_model(config.model, vocab_size)
        set_trained(model, config)
    return model


def _sampled_steps(config: TrainConfig, dataset: RowSource, order: Order, count: int) -> list[Step]:
    """Returns the first steps of a run, cut into micro-batches of any size."""
    masking = masking_of(config, dataset.sources)
    return [
        make_step(dataset.train, order.step(step), 16, masking, config.compute)
        for step in range(count)
    ]


def _mean_flops(
    config: TrainConfig, vocab_size: int, steps: list[Step], recompute: bool, spans: Sequence[Span]
) -> Flops:
    """Returns the mean operations of a step: those of some steps, in every phase."""
    executed = dense = 0.0
    for span in spans:
        trained = trained_in(_model(span.config, vocab_size))
        share = (span.end - span.first) / spans[-1].end / len(steps)
        for step in steps:
            counted = step_flops(config.model, vocab_size, step, config.compute, recompute, trained)
            executed += share * counted.executed
            dense += share * counted.dense
    return Flops(executed, dense)


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
    vocab_size = config.model.rows(dataset.vocab_size)
    flops, looked_at = 0.0, sample[:_ROWS_LOOKED_AT]
    for rows in micro_batches(split, looked_at, micro_rows):
        read_N = rows["loss_mask"].reshape(-1) | prompt_tokens(rows)
        flops += forward_flops(config.model, vocab_size, make_batch(rows, read_N))
    flops *= (times * len(sample) + last) / max(1, len(looked_at))
    return ValidationPlan(len(split), len(sample), times, last, flops)


def describe(config: TrainConfig) -> str:
    """Returns the plan of a run, in lines for people.

    Raises:
        DatasetError: If a dataset cannot be read, or has no row to train on.
        TrainError: If the datasets do not fit the model.
    """
    limit, card = limit_of(config)
    with open_datasets(config.datasets) as data:
        plan, seq_len = plan_run(config, data, limit), data.rows.seq_len
    fit, memory = plan.fit, plan.fit.memory
    # In GB of 10^9 bytes, as the memory limit is given. What takes nothing is left out.
    kinds = {field.name: getattr(memory, field.name) / 1e9 for field in fields(memory)}
    most = plan.largest_micro_rows
    fits = (
        f"{counted(most, 'row')}, {most * seq_len:,} tokens"
        if most
        else "not even one row fits: take a smaller preset or a larger limit, or pack shorter rows"
    )
    rows_per_step = config.batch.rows(seq_len)
    cut = f"{counted(fit.micro_rows, 'row')} ({fit.micro_rows * seq_len:,} tokens)"
    lines = [
        f"{config.preset}: {parameters_in_words(plan.parameters, plan.trained_parameters)}",
        f"{counted(plan.steps, 'step')} of {counted(rows_per_step, 'row')} of {seq_len:,} tokens",
        *_described_phases(plan),
        f"memory on a GPU with micro-batches of {cut}, "
        f"{'recomputing' if fit.recompute else 'without recomputing'}: "
        f"{memory.total / 1e9:.2f} GB of {limit / 1e9:g} GB{card}",
        *(f"  {name:12}{size:8.2f} GB" for name, size in kinds.items() if size),
        *(["  a run is likely to run out of memory"] if not fit.fits else []),
        f"largest micro-batch within {limit / 1e9:g} GB: {fits}",
        f"{plan.flops.executed / 1e12:,.3f} TFLOP a step, "
        f"{plan.flops.skipped:.1%} of the dense computation skipped",
        *_described_validation(config, plan),
        *(f"{name}: {passes:.2f} passes" for name, passes in plan.repeats.items()),
    ]
    return "\n".join(wrapped(line) for line in lines)


def _described_phases(plan: Plan) -> list[str]:
    """Returns a line for each phase of a run that has some, and one about states in 8 bits."""
    lines, several = [], len(plan.phases) > 1
    for phase in plan.phases:
        span = phase.span
        states = states_in_words(phase.in_8_bits, phase.trained_parameters)
        trained = (
            f"phase {span.number}, steps {span.first + 1:,} to {span.end:,}: train "
            f"{span.config.train}, {counted(phase.trained_parameters, 'parameter')}"
        )
        lines += [", ".join([trained, *states])] if several else states
    return lines


def _described_validation(config: TrainConfig, plan: Plan) -> list[str]:
    """Returns the lines about validations, beside the training."""
    validation, training = plan.validation, plan.steps * plan.flops.executed
    if not validation.held_out_rows:
        return ["no validation: no row is held out"]
    during = (
        f"{counted(validation.rows, 'row')} every {counted(config.eval_every, 'step')}, "
        if validation.times
        else ""
    )
    allowed = " at most, as the hours allow" if config.hours is not None else ""
    return [
        f"validation: {during}{validation.last_rows:,} at the end{allowed}, "
        f"of {validation.held_out_rows:,} held out",
        f"{training / 1e12:,.3f} TFLOP of training, {validation.flops / 1e12:,.3f} of validation "
        f"({validation.flops / training:.1%})",
    ]


def wrapped(line: str) -> str:
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


def limit_of(config: TrainConfig) -> tuple[int, str]:
    """Returns the bytes of a GPU that a plan is for, and in words which GPU that is."""
    if not isinstance(config.memory_limit, str):
        return int(config.memory_limit * 1e9), ""
    # A plan needs no GPU: one that no run could take is not asked.
    why = "no GPU to ask"
    device = torch.device("cpu")
    try:
        device = choose_device("auto" if config.device == "cpu" else config.device)
    except TrainError as error:
        why = error.message
    if device.type == "cpu":
        return CARD, f", as a card of 24 GB has ({why})"
    return memory_limit(device, "auto"), f" free on {device}"
