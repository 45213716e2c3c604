"""Adapters on the disk in the format of ``peft``: the base by its name, and the adapter's tensors.

``base.json`` holds the sha256 of the base's weights: an adapter means nothing on other weights. It
says too in how many bits the run held them, if it quantised them: they are quantised again from the
same weights when the run goes on, and an adapter is merged into the weights as they are.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from sabiprep.errors import ConfigError, TrainError
from sabitrain.checkpoints import files
from sabitrain.checkpoints.hub import SCHEME, find_checkpoint
from sabitrain.checkpoints.pretrained import (
    ADAPTER_CONFIG_FILE,
    CONFIG_FILE,
    Pretrained,
    load_pretrained,
    open_pretrained,
    read_object,
)
from sabitrain.models.architecture import CausalModel
from sabitrain.partial.adapters import adapter_tensors, merge_adapter, take_adapter_tensors

ADAPTER_WEIGHTS_FILE = "adapter_model.safetensors"
BASE_FILE = "base.json"
ADAPTER_FILES = (ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, BASE_FILE)


def name_base(model: CausalModel, base: Pretrained) -> None:
    """Notes in the settings of a model's adapters which checkpoint they are for."""
    assert model.adapters is not None
    name, revision = base.name or str(base.folder), None
    if name.startswith(SCHEME):
        name, _, revision = name.removeprefix(SCHEME).partition("@")
    else:
        # So that it is found from any folder.
        name = str(base.folder.resolve())
    written = {
        **model.adapters.written,
        "base_model_name_or_path": name,
        "revision": revision,
    }
    model.adapters = dataclasses.replace(model.adapters, written=written, base=digest_of(base))


def digest_of(base: Pretrained) -> str:
    """Returns a sha256 over the weights of a checkpoint, file by file."""
    digests = [files.sha256(file) for file in sorted(set(base.files.values()))]
    return (
        digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    )


def write_adapter(folder: Path, model: CausalModel) -> None:
    """Writes `ADAPTER_FILES` for ``peft`` to a folder."""
    assert model.adapters is not None
    base = {
        "name": model.adapters.written["base_model_name_or_path"],
        "sha256": model.adapters.base,
        **({} if model.adapters.bits is None else {"bits": model.adapters.bits}),
    }
    for name, content in ((ADAPTER_CONFIG_FILE, model.adapters.written), (BASE_FILE, base)):
        text = json.dumps(content, indent=2, sort_keys=True)
        files.write_file(folder / name, f"{text}\n".encode())
    tensors = {
        name: value.detach().to("cpu", torch.float32).contiguous()
        for name, value in adapter_tensors(model).items()
    }
    files.save_tensors(folder / ADAPTER_WEIGHTS_FILE, tensors, {"format": "pt"})


def restore_adapter(folder: Path, model: CausalModel) -> None:
    """Puts a model's adapters back to those of a checkpoint.

    Raises:
        TrainError: If they were trained on other weights.
        ValueError: If they are not those of the model.
        OSError, SafetensorError: If the file cannot be read.
    """
    assert model.adapters is not None
    _check_base(folder, model.adapters.base, "its base now")
    take_adapter_tensors(model, files.load_tensors(folder / ADAPTER_WEIGHTS_FILE))


def load_adapted(folder: Path, base: str | None = None) -> tuple[CausalModel, Pretrained]:
    """Loads an adapter merged into its base, in float32 on the CPU, and returns the base too.

    Args:
        folder: A folder of ``peft``'s format.
        base: The checkpoint to merge into; by default, the one that the adapter names.

    Raises:
        ConfigError: If the base is named wrongly.
        TrainError: If the adapter or its base cannot be read, or they do not fit together.
        SabiprepError: If ``peft`` is not installed.
    """
    if not (folder / ADAPTER_CONFIG_FILE).exists():
        raise TrainError(
            "is a whole checkpoint, and no adapter: there is nothing to merge"
            if (folder / CONFIG_FILE).exists()
            else f"holds no {ADAPTER_CONFIG_FILE}, so it is no adapter"
            if folder.is_dir()
            else "no folder of an adapter is there",
            file=str(folder),
            remedy="name RUN/checkpoint of a run with --train lora, or a folder that peft wrote",
        )
    written = read_object(folder / ADAPTER_CONFIG_FILE)
    place, name = find_checkpoint(base or _base_of(folder, written))
    opened = dataclasses.replace(open_pretrained(place), name=name)
    try:
        tensors = files.load_tensors(folder / ADAPTER_WEIGHTS_FILE)
        # Only a run of ours notes it.
        if (folder / BASE_FILE).exists():
            _check_base(folder, digest_of(opened), base or "its base now")
        return merge_adapter(load_pretrained(opened), written, tensors), opened
    except ConfigError as error:
        raise TrainError(
            error.message, file=str(folder / ADAPTER_CONFIG_FILE), remedy=error.remedy
        ) from error
    except (OSError, ValueError, SafetensorError) as error:
        raise TrainError(
            f"is no adapter for {opened.folder}: {error}", file=str(folder / ADAPTER_WEIGHTS_FILE)
        ) from error


def bits_of(folder: Path) -> int | None:
    """Returns the bits in which the base of an adapter was held in its run; None if in full.

    Raises:
        TrainError: If the file that says so cannot be read.
    """
    place = folder / BASE_FILE
    bits = read_object(place).get("bits") if place.exists() else None
    return bits if isinstance(bits, int) else None


def _base_of(folder: Path, written: dict[str, Any]) -> str:
    """Returns the checkpoint that an adapter names, as ``--init`` takes it."""
    name, revision = written.get("base_model_name_or_path"), written.get("revision")
    if not isinstance(name, str) or not name:
        raise TrainError(
            "names no base (base_model_name_or_path)",
            file=str(folder / ADAPTER_CONFIG_FILE),
            remedy="name the checkpoint that it was trained on with --base",
        )
    if Path(name).exists() or name.startswith("/") or name.count("/") != 1:
        return name
    return f"{SCHEME}{name}@{revision}" if revision else f"{SCHEME}{name}"


def _check_base(folder: Path, digest: str, base: str) -> None:
    """Raises `TrainError` unless an adapter was trained on the weights of ``base``."""
    noted = read_object(folder / BASE_FILE)
    if noted.get("sha256") != digest:
        raise TrainError(
            f"was trained on other weights than those of {base}",
            file=str(folder / ADAPTER_WEIGHTS_FILE),
            remedy="take the checkpoint that it was trained on, as it was then: "
            f"{noted.get('name')}",
        )
