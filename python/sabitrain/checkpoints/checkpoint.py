"""Checkpoints: folders that ``transformers`` reads, written whole or not at all.

Nothing is pickled.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from sabiprep.errors import OutputError
from sabiprep.places import is_remote, place_of
from sabitrain.checkpoints import files
from sabitrain.checkpoints.adapter import load_adapted, write_adapter
from sabitrain.checkpoints.pretrained import (
    ADAPTED_FILE,
    ADAPTER_CONFIG_FILE,
    CONFIG_FILE,
    GENERATION_FILE,
    TOKENIZER_CONFIG_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    load_pretrained,
    open_pretrained,
)
from sabitrain.data.rows import RowSource
from sabitrain.data.tokenizer import (
    CHAT_TEMPLATE,
    control_ids,
    open_tokenizer,
    tokenizer_config,
    tokenizer_file,
)
from sabitrain.models.architecture import CausalModel, architecture_of

FILES = (CONFIG_FILE, GENERATION_FILE, WEIGHTS_FILE, TOKENIZER_FILE, TOKENIZER_CONFIG_FILE)
"""The files that ``transformers`` reads; `CHAT_TEMPLATE` and `ADAPTED_FILE` are others where
there are such."""


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
def new_checkpoint(
    folder: Path, going_on: str = "the same command with --resume"
) -> Iterator[Path]:
    """Makes an empty folder to write a checkpoint in, and renames it to ``folder`` at the end.

    ``folder`` must not exist yet. After an error there is neither.

    Args:
        folder: The folder of the checkpoint.
        going_on: The command that goes on once a full disk has room.

    Raises:
        OutputError: If it exists, or something cannot be written.
    """
    if is_remote(folder):
        raise OutputError(
            "a checkpoint is written to this machine",
            file=place_of(folder),
            remedy="name a folder, and upload it afterwards",
        )
    if folder.exists():
        raise OutputError(
            "there is a checkpoint already",
            file=str(folder),
            remedy="name another folder, or remove this one",
        )
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
        what = "the checkpoint cannot be written"
        raise files.output_error(error, what, folder, going_on) from error


def write_model(folder: Path, model: CausalModel, dataset: RowSource) -> None:
    """Writes a model for ``transformers`` to an empty folder, adapters alone for ``peft``."""
    tokenizer = open_tokenizer(dataset)
    documents = {
        GENERATION_FILE: _generation_config(model, dataset),
        TOKENIZER_CONFIG_FILE: {
            **_beside(model, TOKENIZER_CONFIG_FILE),
            **tokenizer_config(dataset, tokenizer, model.config.context),
        },
    }
    for name, content in documents.items():
        files.write_file(folder / name, f"{json.dumps(content, indent=2)}\n".encode())
    files.write_file(folder / TOKENIZER_FILE, tokenizer_file(dataset, tokenizer))
    written = dataset.manifest["tokenizer"].get("chat_template")
    chat_template = model.beside.get(CHAT_TEMPLATE) if written is None else written.encode()
    if chat_template is not None:
        files.write_file(folder / CHAT_TEMPLATE, chat_template)
    if ADAPTED_FILE in model.beside:
        files.write_file(folder / ADAPTED_FILE, model.beside[ADAPTED_FILE])
    if model.adapters is not None:
        write_adapter(folder, model)
        return
    config = {
        **architecture_of(model.config.architecture).to_huggingface(model.config, model.vocab_size),
        **control_ids(dataset),
    }
    files.write_file(folder / CONFIG_FILE, f"{json.dumps(config, indent=2)}\n".encode())
    write_weights(folder, model)


def write_weights(folder: Path, model: CausalModel) -> None:
    """Writes the weights of a model to a folder, in float32, a tied head once.

    Raises:
        OSError: If they cannot be written.
    """
    # In float32 on the CPU, whatever the run computes in: a reader needs no GPU.
    weights = {
        name: value.detach().to("cpu", torch.float32)
        for name, value in architecture_of(model.config.architecture)
        .to_weights(model.state_dict())
        .items()
    }
    files.save_tensors(folder / WEIGHTS_FILE, weights, {"format": "pt"})


def _generation_config(model: CausalModel, dataset: RowSource) -> dict[str, Any]:
    """Returns the content of ``generation_config.json``.

    A checkpoint that the model began from may end answers at more tokens than the dataset does; all
    of them stay.
    """
    ids = control_ids(dataset)
    before = _beside(model, GENERATION_FILE)
    if not before:
        return {**ids, "do_sample": False}
    ends = before.get("eos_token_id")
    all_ends = [] if ends is None else ends if isinstance(ends, list) else [ends]
    if dataset.eos_id is not None and dataset.eos_id not in all_ends:
        all_ends = [*all_ends, dataset.eos_id]
    known = {name: id_ for name, id_ in ids.items() if id_ is not None}
    return {**before, **known, "eos_token_id": all_ends[0] if len(all_ends) == 1 else all_ends}


def _beside(model: CausalModel, name: str) -> dict[str, Any]:
    """Returns the JSON object in a file that the model carries on; an empty one without it."""
    content = model.beside.get(name)
    return {} if content is None else dict(json.loads(content))


def load_checkpoint(folder: Path) -> CausalModel:
    """Loads the model of a checkpoint, on the CPU in float32, to generate.

    An adapter is merged into its base.

    Raises:
        TrainError: If there is none, or it does not fit together.
    """
    if (folder / ADAPTER_CONFIG_FILE).exists():
        return load_adapted(folder)[0].eval()
    return load_pretrained(open_pretrained(folder)).eval()
