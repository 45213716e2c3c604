"""Checkpoints: folders that ``transformers`` reads, written whole or not at all.

Nothing is pickled.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError

from sabiprep.errors import ConfigError, OutputError, TrainError
from sabiprep.files import CONFIG_LIMIT, read_whole
from sabitrain.checkpoints import files
from sabitrain.data.rows import RowSource
from sabitrain.data.tokenizer import (
    CHAT_TEMPLATE,
    control_ids,
    open_tokenizer,
    tokenizer_config,
    tokenizer_file,
)
from sabitrain.models.architecture import CausalModel, architecture_of

FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)
"""The files that ``transformers`` reads; `CHAT_TEMPLATE` is one more where the dataset has one."""


def save_checkpoint(folder: Path, model: CausalModel, dataset: RowSource) -> None:
    """Writes a model with the tokenizer of its dataset to ``folder``, which must not exist yet.

    The files are written and synced in a folder beside it, and that folder is then renamed:
    ``folder`` is complete as soon as it exists. Weights are float32; the tied head is stored once,
    as the embedding, as ``transformers`` does.

    Raises:
        OutputError: If it cannot be written.
    """
    with new_checkpoint(folder) as unfinished:
        write_model(unfinished, model, dataset)


@contextlib.contextmanager
def new_checkpoint(folder: Path) -> Iterator[Path]:
    """Makes an empty folder to write a checkpoint in, and renames it to ``folder`` at the end.

    ``folder`` must not exist yet. After an error there is neither.

    Raises:
        OutputError: If it exists, or something cannot be written.
    """
    if folder.exists():
        raise OutputError("there is a checkpoint already", file=str(folder))
    unfinished = files.unfinished_name(folder)
    try:
        files.remove(unfinished)
        files.make_folder(unfinished)
        yield unfinished
        files.sync(unfinished)
        files.rename(unfinished, folder)
    except OSError as error:
        # Half a checkpoint would only keep a full disk full.
        with contextlib.suppress(OSError):
            files.remove(unfinished)
        raise files.output_error(error, "the checkpoint cannot be written", folder) from error


def write_model(folder: Path, model: CausalModel, dataset: RowSource) -> None:
    """Writes `FILES` for ``transformers`` to an empty folder."""
    tokenizer = open_tokenizer(dataset)
    architecture = architecture_of(model.config.architecture)
    documents = {
        "config.json": {
            **architecture.to_huggingface(model.config, model.vocab_size),
            **control_ids(dataset),
        },
        "generation_config.json": {**control_ids(dataset), "do_sample": False},
        "tokenizer_config.json": tokenizer_config(dataset, tokenizer, model.config.context),
    }
    for name, content in documents.items():
        files.write_file(folder / name, f"{json.dumps(content, indent=2)}\n".encode())
    files.write_file(folder / "tokenizer.json", tokenizer_file(dataset, tokenizer))
    chat_template = dataset.manifest["tokenizer"].get("chat_template")
    if chat_template is not None:
        files.write_file(folder / CHAT_TEMPLATE, chat_template.encode())
    # In float32 on the CPU, whatever the run computes in: a reader needs no GPU.
    weights = {
        name: value.detach().to("cpu", torch.float32)
        for name, value in architecture.to_weights(model.state_dict()).items()
    }
    files.save_tensors(folder / "model.safetensors", weights, {"format": "pt"})


def load_checkpoint(folder: Path) -> CausalModel:
    """Loads the model of a checkpoint that `save_checkpoint` wrote, on the CPU, to generate.

    Raises:
        TrainError: If there is none, or it does not fit together.
    """
    try:
        written = json.loads(read_whole(folder / "config.json", CONFIG_LIMIT))
        architecture = architecture_of(written["model_type"])
        model = architecture.make(*architecture.from_huggingface(written))
        weights = files.load_tensors(folder / "model.safetensors")
        model.load_state_dict(architecture.from_weights(weights))
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        RuntimeError,
        ConfigError,
        SafetensorError,
    ) as error:
        raise TrainError(
            f"not a checkpoint of sabitrain: {error}",
            file=str(folder),
            remedy="name RUN/checkpoint of a run",
        ) from error
    return model.eval()
