"""The progress of a run: everything that its next step depends on beside the weights.

Nothing is pickled.

Two files of a checkpoint: ``trainer.safetensors`` (the state of the optimizers, of the watch over
steps and of the random generators) and ``trainer.json`` (the rest, with the sha256 of every other
file and of itself, so that damage is seen).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import torch
from safetensors import SafetensorError
from torch import Tensor, cuda, nn

from sabiprep.errors import TrainError
from sabiprep.files import MANIFEST_LIMIT, read_whole
from sabitrain.checkpoints import files
from sabitrain.checkpoints.adapter import restore_adapter
from sabitrain.models.architecture import CausalModel, architecture_of
from sabitrain.optim.guard import StepGuard
from sabitrain.optim.optimizers import trained_parameters

TENSORS_FILE = "trainer.safetensors"
FACTS_FILE = "trainer.json"
_VERSION = 2


@dataclass(frozen=True)
class Progress:
    """How far a run is, and the decisions that bind it from there on.

    Attributes:
        step: Optimizer steps taken; with the seed, this decides the order of the rows.
        seconds: Time spent in training, earlier sessions included.
        metrics_bytes: Length of ``metrics.jsonl``.
        plan: The sizes of steps: ``steps``, ``rows_per_step`` and ``micro_rows``; and whether units
            ``recompute``, 1 or 0, which a checkpoint of an earlier version has not.
        config: The resolved configuration.
        dataset: The fingerprint of `sabitrain.checkpoints.fingerprint.fingerprint_of`.
    """

    step: int
    seconds: float
    metrics_bytes: int
    plan: Mapping[str, int]
    config: Mapping[str, Any]
    dataset: Mapping[str, Any]


class _Plan(msgspec.Struct, forbid_unknown_fields=True):
    """The plan in ``trainer.json``."""

    steps: Annotated[int, msgspec.Meta(ge=1)]
    rows_per_step: Annotated[int, msgspec.Meta(ge=1)]
    micro_rows: Annotated[int, msgspec.Meta(ge=1)]
    recompute: Annotated[int, msgspec.Meta(ge=0, le=1)] = 0


class _Facts(msgspec.Struct):
    """``trainer.json`` as it is written."""

    version: int
    files: dict[str, str]
    optimizers: list[list[dict[str, Any]]]
    step: Annotated[int, msgspec.Meta(ge=0)]
    seconds: Annotated[float, msgspec.Meta(ge=0)]
    metrics_bytes: Annotated[int, msgspec.Meta(ge=0)]
    plan: _Plan
    config: dict[str, Any]
    dataset: dict[str, Any]


def save_state(
    folder: Path,
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    guard: StepGuard,
    progress: Progress,
) -> None:
    """Writes both files to a folder that has the other files of its checkpoint already."""
    tensors = {f"rng.{name}": state for name, state in _random_states(guard.device).items()}
    tensors |= {f"guard.{name}": value.cpu().contiguous() for name, value in guard.state.items()}
    # By name: the order of parameters in an optimizer is its own business.
    names = _trained_names(model)
    for optimizer in optimizers:
        for parameter, state in optimizer.state.items():
            for key, value in state.items():
                tensors[f"optimizer.{names[parameter]}.{key}"] = (
                    value.detach().to("cpu").contiguous()
                )
    files.save_tensors(folder / TENSORS_FILE, tensors)
    facts = {
        "version": _VERSION,
        "files": {
            path.name: files.sha256(path)
            for path in sorted(folder.iterdir())
            if path.name != FACTS_FILE
        },
        "optimizers": [_hyperparameters(optimizer, names) for optimizer in optimizers],
        **dataclasses.asdict(progress),
    }
    # Last, since it holds the sha256 of all other files: without it a checkpoint is no checkpoint.
    text = json.dumps({"sha256": _digest(facts), **facts}, indent=1, ensure_ascii=False)
    files.write_file(folder / FACTS_FILE, f"{text}\n".encode())


def read_progress(folder: Path) -> Progress:
    """Returns the progress of a checkpoint, after a check of the sha256 of every file.

    Raises:
        TrainError: If a file is damaged or cannot be read.
    """
    facts = _facts(folder)
    for name, digest in facts["files"].items():
        try:
            right = files.sha256(folder / name) == digest
        except OSError as error:
            raise TrainError(
                f"cannot be read: {error.strerror or error}",
                file=str(folder / name),
                errno=error.errno,
            ) from error
        if not right:
            raise TrainError("is damaged: its sha256 does not hold", file=str(folder / name))
    return Progress(**{field.name: facts[field.name] for field in dataclasses.fields(Progress)})


def restore_state(
    folder: Path, model: CausalModel, optimizers: Sequence[torch.optim.Optimizer], guard: StepGuard
) -> None:
    """Puts the model, optimizers, guard and random generators back to a checkpoint.

    Args:
        folder: A checkpoint that `read_progress` has passed.
        model: A model of the same configuration, on the device to train on.
        optimizers: The optimizers of the model, in the order of the checkpoint.
        guard: A guard on the same device.

    Raises:
        TrainError: If the checkpoint is of another model or other optimizers.
    """
    try:
        if model.adapters is not None:
            restore_adapter(folder, model)
        else:
            architecture = architecture_of(model.config.architecture)
            weights = files.load_tensors(folder / "model.safetensors")
            model.load_state_dict(architecture.from_weights(model.config, weights))
        tensors = files.load_tensors(folder / TENSORS_FILE)
        names = _trained_names(model)
        for optimizer, saved in zip(optimizers, _facts(folder)["optimizers"], strict=True):
            _restore_optimizer(optimizer, names, saved, tensors)
        # A checkpoint of an earlier version has not all of them.
        kept = {name: tensors.get(f"guard.{name}", value) for name, value in guard.state.items()}
        guard.state = {name: value.to(guard.device) for name, value in kept.items()}
    except torch.OutOfMemoryError:
        raise
    except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
        raise TrainError(
            f"not a checkpoint of this model and optimizer: {error}", file=str(folder)
        ) from error
    # Making the model has drawn from these generators, so they are put back after it.
    torch.set_rng_state(tensors["rng.cpu"])
    if "rng.cuda" in tensors and guard.device.type == "cuda":
        cuda.set_rng_state(tensors["rng.cuda"], guard.device)


def _trained_names(model: nn.Module) -> dict[Tensor, str]:
    """Returns the name of each parameter that is trained."""
    return {parameter: name for name, parameter in trained_parameters(model).items()}


def _restore_optimizer(
    optimizer: torch.optim.Optimizer,
    names: Mapping[Tensor, str],
    saved: Sequence[Mapping[str, Any]],
    tensors: Mapping[str, Tensor],
) -> None:
    """Hands an optimizer its saved state in the form of its own ``state_dict``."""
    # ``load_state_dict`` knows parameters by their index, the file by their name.
    own = optimizer.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    grouped = [
        [names[parameter] for parameter in group["params"]] for group in optimizer.param_groups
    ]
    # Weight decay goes by group: another grouping would train on in another way.
    if grouped != [group["params"] for group in saved]:
        raise ValueError("its parameters are grouped differently")
    for group_names, own_group, saved_group in zip(
        grouped, own["param_groups"], saved, strict=True
    ):
        own_group.update(
            {
                key: _like(own_group[key], value)
                for key, value in saved_group.items()
                if key != "params"
            }
        )
        for index, name in zip(own_group["params"], group_names, strict=True):
            # A name may begin another name, so nothing but the key may follow the prefix.
            prefix = f"optimizer.{name}."
            keys = [
                key for key in tensors if key.startswith(prefix) and "." not in key[len(prefix) :]
            ]
            state[index] = {key[len(prefix) :]: tensors[key] for key in keys}
    # A step that was never taken has left no state.
    own["state"] = {index: values for index, values in state.items() if values}
    optimizer.load_state_dict(own)


def _hyperparameters(
    optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str]
) -> list[dict[str, Any]]:
    """Returns the groups of an optimizer with the names of their parameters.

    Tensors among the values become numbers.
    """
    return [
        {
            key: [names[parameter] for parameter in value] if key == "params" else _plain(value)
            for key, value in group.items()
        }
        for group in optimizer.param_groups
    ]


def _plain(value: Any) -> Any:
    """Returns the number of a tensor, any other value as it is."""
    return value.item() if isinstance(value, Tensor) else value


def _like(own: Any, saved: Any) -> Any:
    """Returns a saved hyperparameter in the type of the optimizer's own.

    JSON knows neither tuples nor tensors.
    """
    if isinstance(own, Tensor):
        return torch.as_tensor(saved, dtype=own.dtype, device=own.device)
    return tuple(saved) if isinstance(own, tuple) else saved


def _random_states(device: torch.device) -> dict[str, Tensor]:
    """Returns the states of torch's generators: for the CPU, and for the GPU that trains.

    Other GPUs are left alone: asking one for its state sets up CUDA, which takes hundreds of
    megabytes there. Training draws nothing from Python's or NumPy's global generators.
    """
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = cuda.get_rng_state(device)
    return states


def _facts(folder: Path) -> dict[str, Any]:
    """Returns the content of ``trainer.json``, checked against its own sha256."""
    place = folder / FACTS_FILE
    try:
        facts = json.loads(read_whole(place, MANIFEST_LIMIT))
        digest = facts.pop("sha256")
    except OSError as error:
        raise TrainError(
            f"cannot be read: {error.strerror or error}", file=str(place), errno=error.errno
        ) from error
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise TrainError("is damaged: not the JSON that was written", file=str(place)) from error
    if digest != _digest(facts):
        raise TrainError("is damaged: its sha256 does not hold", file=str(place))
    # After the digest: only a whole file can say that it is of another version.
    version = facts.get("version")
    if version != _VERSION:
        raise TrainError(
            f"is of version {version}, this program reads {_VERSION}",
            file=str(place),
            remedy="resume with the version of sabitrain that wrote it",
        )
    try:
        msgspec.convert(facts, _Facts)
    except msgspec.ValidationError as error:
        raise TrainError(
            f"is damaged: a field is missing or cannot be right: {error}", file=str(place)
        ) from error
    checked: dict[str, Any] = facts
    return checked


def _digest(facts: Mapping[str, Any]) -> str:
    """Returns the sha256 of facts, whatever their layout: JSON gives numbers back exactly."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
