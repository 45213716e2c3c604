"""A checkpoint of Hugging Face's layout, to start from: its configuration, weights and tokenizer.

Weights are read from safetensors alone, one file or several. A pickle can run any code when it is
opened, so none is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sabiprep.errors import ConfigError, TrainError
from sabiprep.files import CONFIG_LIMIT, MANIFEST_LIMIT, TOKENIZER_LIMIT, open_regular, read_whole
from sabitrain.data.tokenizer import CHAT_TEMPLATE
from sabitrain.models.architecture import CausalModel, architecture_of
from sabitrain.models.registry import TEXT_MODELS
from sabitrain.models.settings import ModelConfig

CONFIG_FILE = "config.json"
ADAPTER_CONFIG_FILE = "adapter_config.json"
GENERATION_FILE = "generation_config.json"
TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

ADAPTED_FILE = "adapt.json"
"""Says which rows of the embedding are new, in a checkpoint whose vocabulary has grown."""

# Files that a checkpoint of a run carries on from the one that it began with.
_CARRIED = (GENERATION_FILE, TOKENIZER_CONFIG_FILE, CHAT_TEMPLATE, ADAPTED_FILE)
_SHOWN = 3
_AGAIN = "fetch the checkpoint again"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True)
class Pretrained:
    """A checkpoint folder whose configuration and list of tensors were read.

    Attributes:
        folder: The folder.
        config: The content of ``config.json``.
        files: The file of each tensor, by its name.
        name: The name of the checkpoint, with its commit where it is of the Hub.
    """

    folder: Path
    config: Mapping[str, Any]
    files: Mapping[str, Path]
    name: str = ""

    @property
    def says_bf16(self) -> bool:
        """Whether ``config.json`` says that the weights are in bf16."""
        named = self.config.get("dtype", self.config.get("torch_dtype"))
        return isinstance(named, str) and named == "bfloat16"

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yields each tensor with its name, on the CPU in the type of the file, file by file.

        Raises:
            TrainError: If a file cannot be read, or lacks a tensor that the index names.
        """
        for file in sorted(set(self.files.values())):
            try:
                with safe_open(file, framework="pt") as opened:
                    for name in (name for name, place in self.files.items() if place == file):
                        yield name, opened.get_tensor(name)
            except (OSError, SafetensorError) as error:
                raise _unreadable(file, error) from error

    def document(self, name: str) -> dict[str, Any] | None:
        """Returns the JSON object in a file of the folder; None if there is no such file.

        Raises:
            TrainError: If it cannot be read, or is no JSON object.
        """
        place = self.folder / name
        return read_object(place) if place.exists() else None

    def content(self, name: str) -> bytes | None:
        """Returns the bytes of a file of the folder; None if there is no such file.

        Raises:
            TrainError: If it cannot be read.
        """
        place = self.folder / name
        if not place.exists():
            return None
        try:
            return read_whole(place, TOKENIZER_LIMIT)
        except OSError as error:
            raise _unreadable(place, error) from error


def open_pretrained(folder: Path, weights: bool = True) -> Pretrained:
    """Opens a checkpoint folder of Hugging Face's layout; no tensor is read yet.

    Args:
        folder: The folder.
        weights: Whether its weights are looked at; without, `Pretrained.files` is empty.

    Raises:
        TrainError: If it is no such folder, a file of it cannot be read, or its weights are no
            safetensors.
    """
    if not folder.is_dir():
        raise TrainError(
            "is a file, and a checkpoint is a folder"
            if folder.exists()
            else "no folder of a checkpoint is there",
            file=str(folder),
            remedy="name a folder with config.json and model.safetensors; "
            "a model of the Hub is hf://OWNER/NAME",
        )
    if not (folder / CONFIG_FILE).exists() and (folder / ADAPTER_CONFIG_FILE).exists():
        raise TrainError(
            "is an adapter, and no checkpoint to start from by itself",
            file=str(folder),
            remedy="merge it into its base and name OUT (`python -m sabitrain merge ADAPTER OUT`); "
            "a run with adapters goes on by --resume",
        )
    if not (folder / CONFIG_FILE).exists():
        raise TrainError(
            f"holds no {CONFIG_FILE}, so it is no checkpoint of Hugging Face's layout",
            file=str(folder),
            remedy="name a folder with config.json and model.safetensors; of a run of sabitrain "
            "that is RUN/checkpoint",
        )
    config = read_object(folder / CONFIG_FILE)
    tensors = _files_of_tensors(folder) if weights else {}
    return Pretrained(folder, config, tensors, str(folder))


def shape_of(base: Pretrained) -> tuple[ModelConfig, int]:
    """Returns the shape of a checkpoint's model, and the rows of its embedding.

    Raises:
        TrainError: If its architecture is unknown, or a setting is unknown or cannot be right.
    """
    file = base.folder / CONFIG_FILE
    kind = base.config.get("model_type")
    if kind is None:
        raise TrainError(
            "names no model_type",
            file=str(file),
            remedy="name a checkpoint of Hugging Face's layout",
        )
    if isinstance(base.config.get("text_config"), dict):
        known = TEXT_MODELS.get(str(kind))
        raise TrainError(
            f"model_type {kind!r} is a model of more than text, and text models alone are trained",
            file=str(file),
            remedy="start from a text model" + ("" if known is None else f": {known}"),
        )
    try:
        return architecture_of(str(kind)).from_huggingface(base.config)
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        message = error.message if isinstance(error, ConfigError) else f"is damaged: {error!r}"
        remedy = error.remedy if isinstance(error, ConfigError) else None
        # The place says it already.
        told = message.removeprefix(f"{CONFIG_FILE}: ")
        raise TrainError(told, file=str(file), remedy=remedy) from error


def load_pretrained(base: Pretrained) -> CausalModel:
    """Loads the model of a checkpoint in float32 on the CPU.

    Raises:
        TrainError: If its architecture or a setting is unknown, a tensor is missing, left over or
            of another shape, or a weight is no finite number.
    """
    shape, vocab_size = shape_of(base)
    architecture = architecture_of(shape.architecture)
    # Its parameters take no memory until the checkpoint's own are put in their place.
    with torch.device("meta"):
        model = architecture.make(shape, vocab_size)
    weights = {name: _float32(base, name, tensor) for name, tensor in base.tensors()}
    try:
        state = architecture.from_weights(shape, weights)
    except ConfigError as error:
        raise TrainError(error.message, file=str(base.folder), remedy=error.remedy) from error
    _check_tensors(base, model.state_dict(), state)
    model.load_state_dict(state, assign=True)
    model.beside = files_beside(base)
    return model


def files_beside(base: Pretrained) -> dict[str, bytes]:
    """Returns the content of the files that checkpoints of a model carry on, by name.

    Raises:
        TrainError: If one cannot be read, or is no JSON object where it should be.
    """
    for name in (GENERATION_FILE, TOKENIZER_CONFIG_FILE, ADAPTED_FILE):
        base.document(name)
    return {name: content for name in _CARRIED if (content := base.content(name)) is not None}


def _float32(base: Pretrained, name: str, tensor: Tensor) -> Tensor:
    """Returns a tensor of a checkpoint as float32; refuses whole numbers and what is not finite."""
    file = str(base.files[name])
    if not tensor.is_floating_point() or tensor.dtype.itemsize < 2:
        raise TrainError(
            f"{name} is {tensor.dtype}: quantised weights cannot be trained on from",
            file=file,
            remedy="start from the checkpoint that they were made from",
        )
    wide = tensor.float()
    if not wide.isfinite().all():
        raise TrainError(
            f"{name} holds a weight that is no finite number",
            file=file,
            remedy="take another revision, or an earlier checkpoint of that training",
        )
    return wide


def _check_tensors(
    base: Pretrained, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]
) -> None:
    """Refuses a checkpoint whose tensors are not those of the model that it describes."""
    missing = [name for name in expected if name not in found]
    more = [name for name in found if name not in expected]
    shapes = [
        f"{name} is {list(found[name].shape)}, not {list(value.shape)}"
        for name, value in expected.items()
        if name in found and found[name].shape != value.shape
    ]
    for what, names in (
        ("its weights lack", missing),
        (f"its weights hold what {base.config.get('model_type')} has not:", more),
        ("its weights do not fit config.json:", shapes),
    ):
        if names:
            rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            raise TrainError(
                f"{what} {', '.join(names[:_SHOWN])}{rest}",
                file=str(base.folder),
                remedy="fetch the checkpoint again, whole",
            )


def _files_of_tensors(folder: Path) -> dict[str, Path]:
    """Returns the safetensors file of each tensor, by the tensor's name."""
    index, single = folder / INDEX_FILE, folder / WEIGHTS_FILE
    if single.exists():
        return dict.fromkeys(_names_in(single), single)
    if not index.exists():
        raise _without_weights(folder)
    named = read_object(index).get("weight_map")
    if not isinstance(named, dict) or not all(isinstance(file, str) for file in named.values()):
        raise TrainError(
            "holds no table `weight_map` of names of files", file=str(index), remedy=_AGAIN
        )
    held: dict[str, set[str]] = {}
    for file in sorted(set(named.values())):
        # A name in the index leads nowhere but into this folder.
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise TrainError(
                f"names {file!r}, which is no safetensors file of its folder",
                file=str(index),
                remedy=_AGAIN,
            )
        held[file] = set(_names_in(folder / file))
    for name, file in named.items():
        if name not in held[file]:
            raise TrainError(
                f"names {file} as the file of {name}, which does not hold it",
                file=str(index),
                remedy=_AGAIN,
            )
    return {name: folder / file for name, file in named.items()}


def _names_in(file: Path) -> list[str]:
    """Returns the names of the tensors in a safetensors file."""
    try:
        # The library opens whatever bears the name, a FIFO too.
        os.close(open_regular(file))
        with safe_open(file, framework="pt") as opened:
            return list(opened.keys())
    except (OSError, SafetensorError) as error:
        raise _unreadable(file, error) from error


def _without_weights(folder: Path) -> TrainError:
    """Returns the error of a folder without safetensors."""
    pickle = next((path.name for kind in _PICKLES for path in sorted(folder.glob(kind))), None)
    if pickle is None:
        return TrainError(
            f"holds neither {WEIGHTS_FILE} nor {INDEX_FILE}",
            file=str(folder),
            remedy="fetch the whole checkpoint",
        )
    return TrainError(
        f"holds its weights as a pickle ({pickle}), which can run any code when it is opened",
        file=str(folder),
        remedy="take a revision with safetensors, or convert it where you trust it: "
        "transformers' save_pretrained writes safetensors",
    )


def read_object(file: Path) -> dict[str, Any]:
    """Returns the JSON object in a file."""
    limit = MANIFEST_LIMIT if file.name == INDEX_FILE else CONFIG_LIMIT
    try:
        written = json.loads(read_whole(file, limit))
    except OSError as error:
        raise _unreadable(file, error) from error
    except (ValueError, RecursionError) as error:
        raise TrainError(f"is no JSON: {error}", file=str(file), remedy=_AGAIN) from error
    if not isinstance(written, dict):
        raise TrainError("is no JSON object", file=str(file), remedy=_AGAIN)
    return written


def _unreadable(file: Path, error: OSError | SafetensorError) -> TrainError:
    """Returns the error of a file that cannot be read."""
    system = error if isinstance(error, OSError) else None
    return TrainError(
        f"cannot be read: {(system and system.strerror) or error}",
        file=str(file),
        remedy=_AGAIN,
        errno=None if system is None else system.errno,
    )
