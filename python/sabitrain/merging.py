"""Merges an adapter into its base: ``python -m sabitrain merge ADAPTER OUT``.

OUT is a whole checkpoint, which ``transformers`` reads without ``peft``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from sabiprep.places import is_remote
from sabitrain.checkpoints import files
from sabitrain.checkpoints.adapter import bits_of, load_adapted
from sabitrain.checkpoints.checkpoint import new_checkpoint, write_weights
from sabitrain.checkpoints.pretrained import (
    CONFIG_FILE,
    GENERATION_FILE,
    TOKENIZER_CONFIG_FILE,
    TOKENIZER_FILE,
    Pretrained,
)
from sabitrain.checkpoints.remote_checkpoint import fetch_checkpoint
from sabitrain.data.tokenizer import CHAT_TEMPLATE
from sabitrain.models.architecture import CausalModel, architecture_of

_COPIED = (GENERATION_FILE, TOKENIZER_FILE, TOKENIZER_CONFIG_FILE, CHAT_TEMPLATE)
_CONTROL = ("bos_token_id", "eos_token_id", "pad_token_id")


@dataclass(frozen=True)
class Merge:
    """Merge an adapter into its base, and write a whole checkpoint."""

    adapter: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="ADAPTER")]
    """The adapter: RUN/checkpoint of a run with --train lora, or a folder that peft wrote; or the
    URL of either in an object store."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """The folder to write, which must not exist."""
    base: Annotated[str | None, tyro.conf.arg(metavar="CHECKPOINT")] = None
    """The checkpoint to merge into: a folder or hf://OWNER/NAME; by default, the adapter's own."""


def merge(adapter: Path, out: Path, base: str | None = None) -> None:
    """Writes the checkpoint of an adapter merged into its base.

    Args:
        adapter: A folder of ``peft``'s format, or its URL in an object store.
        out: The folder to write.
        base: The checkpoint to merge into; by default, the one that the adapter names.

    Raises:
        OutputError: If ``out`` exists, or cannot be written.
        TrainError: If the adapter or its base cannot be read, or they do not fit together.
        SabiprepError: If ``peft`` is not installed.
    """
    if is_remote(adapter):
        adapter = fetch_checkpoint(adapter)
    model, opened = load_adapted(adapter, base)
    with new_checkpoint(out, "the same command") as unfinished:
        config = json.dumps(_configuration(adapter, model, opened), indent=2)
        files.write_file(unfinished / CONFIG_FILE, f"{config}\n".encode())
        for name in _COPIED:
            # The adapter's tokenizer is that of its data, and says the same as the base's.
            folder = adapter if (adapter / name).exists() else opened.folder
            content = Pretrained(folder, {}, {}).content(name)
            if content is not None:
                files.write_file(unfinished / name, content)
        write_weights(unfinished, model)


def _configuration(adapter: Path, model: CausalModel, base: Pretrained) -> dict[str, Any]:
    """Returns the content of ``config.json``, with the control tokens of adapter and base."""
    architecture = architecture_of(model.config.architecture)
    beside = Pretrained(adapter, {}, {}).document(GENERATION_FILE) or {}
    ids = {name: beside.get(name, base.config.get(name)) for name in _CONTROL}
    return {**architecture.to_huggingface(model.config, model.vocab_size), **ids}


def main(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit code."""
    asked = tyro.cli(Merge, prog="python -m sabitrain merge", args=arguments)
    merge(asked.adapter, asked.out, asked.base)
    print(f"merged {asked.adapter} into {asked.out}", flush=True)
    bits = bits_of(asked.adapter)
    if bits is not None:
        print(
            f"it was trained on its base in {bits} bits, and is merged into the base as it is;\n"
            "scores may differ a little from those of its run",
            flush=True,
        )
    return 0
