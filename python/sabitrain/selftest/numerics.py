"""The numbers of training: bf16 against float64, and steps that must change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from sabitrain.config import TrainConfig
from sabitrain.data.batches import Batch
from sabitrain.device import precision
from sabitrain.models.architecture import CausalModel, architecture_of
from sabitrain.models.compiling import compile_units, sizes_apart
from sabitrain.models.loss import (
    Chunk,
    compiled_chunk,
    eager_chunk,
    predicting_states,
    weighted_loss,
)
from sabitrain.models.settings import ModelConfig
from sabitrain.optim.guard import NOT_FINITE
from sabitrain.optim.settings import OptimConfig, Optimizer
from sabitrain.selftest.bench import Bench, Outcome, Part
from sabitrain.selftest.data import batch_of, random_rows
from sabitrain.training_state import TrainingState, make_training_state

_LOSS_TOLERANCE, _LEAST_COSINE = 1e-3, 0.999


def eager_parts(bench: Bench) -> Sequence[Part]:
    """Returns the parts that compile nothing: gradients, and a bad step for each optimizer."""
    return (
        Part("gradients, eager", 10, partial(_gradients, bench, False)),
        Part("NaN leaves AdamW alone", 10, partial(_bad_step, bench, "adamw")),
        Part("NaN leaves Muon alone", 10, partial(_bad_step, bench, "muon")),
    )


def compiled_parts(bench: Bench) -> Sequence[Part]:
    """Returns the part that compiles the model."""
    return [Part("gradients, compiled", 40, partial(_gradients, bench, True))]


def _shape(bench: Bench, compiles: bool = False) -> tuple[ModelConfig, int, int]:
    """Returns a shape, a vocabulary and the tokens of a row."""
    if bench.small:
        # The one block is the last, which is compiled by itself.
        layers = 1 if compiles else 2
        return ModelConfig(layers=layers, width=64, heads=4, kv_heads=2, mlp_width=96), 300, 256
    return ModelConfig(layers=4, width=512, heads=8, kv_heads=2, mlp_width=1408), 5000, 1024


def _gradients(bench: Bench, compiles: bool) -> Outcome:
    """Compares loss and gradients under bf16 with those of the same weights in float64."""
    if compiles:
        missing = bench.cannot_compile()
        if missing is not None:
            return Outcome(None, why=missing)
    shape, vocab_size, seq_len = _shape(bench, compiles)
    torch.manual_seed(0)
    model = architecture_of(shape.architecture).make(shape, vocab_size).to(bench.device)
    exact = architecture_of(shape.architecture).make(shape, vocab_size).to(bench.device).double()
    exact.load_state_dict(model.state_dict())
    batch = batch_of(random_rows(0, 4, seq_len, 5, 0.5, vocab_size), bench.bf16).to(bench.device)
    chunk: Chunk = eager_chunk
    if compiles:
        compile_units(model)
        chunk = compiled_chunk()
    with sizes_apart():
        with precision(bench.device, True):
            loss = _loss(model, batch, chunk)
        loss.backward()  # type: ignore[no-untyped-call]
    expected = _loss(exact, batch, eager_chunk)
    expected.backward()  # type: ignore[no-untyped-call]
    error = abs(float(loss.detach() / expected.detach()) - 1)
    cosines = {
        name: _cosine(ours.grad, theirs.grad)
        for (name, ours), theirs in zip(model.named_parameters(), exact.parameters(), strict=True)
    }
    worst = min(cosines, key=lambda name: cosines[name])
    numbers = {
        "least_cosine": cosines[worst],
        "error_loss": error,
        "loss": float(loss.detach()),
        "of": worst,
        "parameters": len(cosines),
    }
    faults = []
    if not error <= _LOSS_TOLERANCE:
        faults.append(f"the loss is off by {error:.2g}")
    if not cosines[worst] > _LEAST_COSINE:
        faults.append(f"the gradient of {worst} has cosine {cosines[worst]:.5f}")
    return Outcome(not faults, numbers, "; ".join(faults) or None)


def _loss(model: CausalModel, batch: Batch, chunk: Chunk) -> Tensor:
    """Returns the loss of a micro-batch as training computes it."""
    return weighted_loss(predicting_states(model, batch), model.head_VC, batch, chunk=chunk)[0]


def _cosine(ours: Tensor | None, theirs: Tensor | None) -> float:
    """Returns the cosine between two gradients; -1 if one is missing or no number."""
    if ours is None or theirs is None or not ours.isfinite().all():
        return -1.0
    return float(
        torch.nn.functional.cosine_similarity(ours.double().flatten(), theirs.flatten(), dim=0)
    )


def _bad_step(bench: Bench, name: Optimizer) -> Outcome:
    """Takes a step of NaN gradients between two good ones, and compares all bits around it."""
    shape, vocab_size, seq_len = _shape(bench)
    config = TrainConfig(
        data=("none",), run=Path("none"), model=shape, optim=OptimConfig(name=name), compile="off"
    )
    state = make_training_state(config, vocab_size, bench.device, bench.bf16, lambda note: None)
    batch = batch_of(random_rows(0, 2, seq_len, 3, 0.5, vocab_size), bench.bf16).to(bench.device)
    _step(state, batch, 1, spoilt=False)
    before = _copies(state)
    outcome = _step(state, batch, 2, spoilt=True)
    after = _copies(state)
    _step(state, batch, 3, spoilt=False)
    later = _copies(state)
    changed = [key for key in before if not torch.equal(before[key], after[key])]
    faults = []
    if outcome != NOT_FINITE:
        faults.append("the guard did not see it")
    if changed:
        faults.append(f"it changed {len(changed)} of {len(before)} tensors, as {changed[0]}")
    # Otherwise nothing would have shown a change.
    still = [key for key in after if torch.equal(after[key], later[key])]
    if still:
        faults.append(f"a good step left {still[0]} as it was")
    return Outcome(not faults, {"tensors": len(before)}, "; ".join(faults) or None)


def _step(state: TrainingState, batch: Batch, number: int, spoilt: bool) -> int:
    """Takes a step, its gradients NaN if ``spoilt``, and returns the outcome by the guard."""
    with precision(state.device, state.bf16):
        loss = _loss(state.model, batch, eager_chunk)
    loss.backward()  # type: ignore[no-untyped-call]
    if spoilt:
        for parameter in state.model.parameters():
            if parameter.grad is not None:
                parameter.grad.fill_(torch.nan)
    return int(state.take(loss.detach(), number, batch.targets, 1e-3)[2])


def _copies(state: TrainingState) -> dict[str, Tensor]:
    """Returns copies of all parameters, and of all tensors that the optimizers keep."""
    names: dict[Tensor, str] = {
        parameter: name for name, parameter in state.model.named_parameters()
    }
    kept = {name: parameter.detach().clone() for parameter, name in names.items()}
    for optimizer in state.optimizers:
        for parameter, values in optimizer.state.items():
            for key, value in values.items():
                if isinstance(value, Tensor):
                    kept[f"{key} of {names[parameter]}"] = value.detach().clone()
    return kept
