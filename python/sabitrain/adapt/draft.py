"""A checkpoint under adaptation, in memory: configuration, weights and the files beside them.

Each step of `sabitrain.adapt.run` takes a draft and returns another one. A draft is checked when
it is read and written once, at the end.

Dimensions: V rows of the embedding, C width.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sabiprep.errors import TokenizerError, TrainError
from sabitrain.adapt.tokenizer_file import BpeFile, parse_bpe
from sabitrain.checkpoints import files
from sabitrain.checkpoints.checkpoint import new_checkpoint
from sabitrain.checkpoints.pretrained import (
    ADAPTED_FILE,
    CONFIG_FILE,
    GENERATION_FILE,
    TOKENIZER_CONFIG_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    open_pretrained,
)
from sabitrain.data.tokenizer import CHAT_TEMPLATE
from sabitrain.models.registry import ARCHITECTURES

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
BY_TOKEN = (EMBEDDING, HEAD, "lm_head.bias")
"""The tensors with a row for each token; a tied head has none of its own."""

_DOCUMENTS = (GENERATION_FILE, TOKENIZER_CONFIG_FILE, ADAPTED_FILE)
_CARRIED = (
    TOKENIZER_FILE,
    CHAT_TEMPLATE,
    "special_tokens_map.json",
    "chat_template.json",
    "LICENSE",
    "LICENSE.txt",
    "LICENSE.md",
    "NOTICE",
)
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
# Tokens behind the embedding's last row: control tokens alone, and few (Gemma 3 has one).
_MOST_WITHOUT_ROWS = 4096


@dataclass(frozen=True)
class Draft:
    """A checkpoint under adaptation.

    Attributes:
        folder: The folder it was read from, for messages.
        config: The content of ``config.json``.
        documents: Other JSON files, by name.
        files: Files that are carried as they are, by name; ``tokenizer.json`` among them.
        tensors: The weights, by name.
    """

    folder: Path
    config: Mapping[str, Any]
    documents: Mapping[str, dict[str, Any]]
    files: Mapping[str, bytes]
    tensors: Mapping[str, Tensor]

    @property
    def rows(self) -> int:
        """Rows of the embedding: V."""
        return len(self.tensors[EMBEDDING])

    @property
    def layers(self) -> int:
        """Layers of the model."""
        layers: int = self.config["num_hidden_layers"]
        return layers

    def parameters(self) -> int:
        """Returns the number of parameters; a tied head counts once, stored or not."""
        tied = self.config.get("tie_word_embeddings") and HEAD in self.tensors
        again = self.tensors[HEAD].numel() if tied else 0
        return sum(tensor.numel() for tensor in self.tensors.values()) - again

    @cached_property
    def tokenizer(self) -> BpeFile:
        """The parsed ``tokenizer.json``.

        Raises:
            TokenizerError: If there is none, it is no BPE that can be adapted, or a token of its
                vocabulary has no row in the embedding.
        """
        file = str(self.folder / TOKENIZER_FILE)
        if TOKENIZER_FILE not in self.files:
            raise TokenizerError(
                "is missing, and the vocabulary is to change",
                file=file,
                remedy="fetch the whole checkpoint; one with tokenizer.model alone is converted by "
                "transformers: AutoTokenizer.from_pretrained(…).save_pretrained(…)",
            )
        parsed = parse_bpe(self.files[TOKENIZER_FILE], file)
        for token, id_ in parsed.ids.items():
            allowed = _MOST_WITHOUT_ROWS if token in parsed.added else 0
            if id_ >= self.rows + allowed:
                raise TokenizerError(
                    f"gives {token!r} the id {id_:,}, and the embedding has {self.rows:,} rows",
                    file=file,
                    remedy="fetch the checkpoint again: its tokenizer and weights do not belong "
                    "together",
                )
        return parsed

    def with_tokenizer(
        self, content: bytes, tensors: Mapping[str, Tensor], config: Mapping[str, Any] | None = None
    ) -> Draft:
        """Returns the draft with another vocabulary: its file, and the tensors with a row each."""
        changed = {**self.tensors, **tensors}
        return replace(
            self,
            config={**(config or self.config), "vocab_size": len(changed[EMBEDDING])},
            files={**self.files, TOKENIZER_FILE: content},
            tensors=changed,
        )


def by_token(draft: Draft) -> Iterator[tuple[str, Tensor]]:
    """Yields the name and content of each tensor with a row for each token."""
    return ((name, draft.tensors[name]) for name in BY_TOKEN if name in draft.tensors)


def by_layer(draft: Draft) -> Iterator[tuple[int, str, str]]:
    """Yields the layer, the name within the layer and the whole name of each layer's tensors."""
    for name in draft.tensors:
        found = _LAYER.fullmatch(name)
        if found:
            yield int(found[1]), found[2], name


def read_draft(folder: Path) -> Draft:
    """Reads a checkpoint of Hugging Face's layout, and checks that its parts fit together.

    Raises:
        TrainError: If it is no such checkpoint, a file cannot be read, or a tensor is missing, has
            a wrong shape or holds no finite numbers.
    """
    opened = open_pretrained(folder)
    documents = {name: opened.document(name) for name in _DOCUMENTS}
    carried = {name: opened.content(name) for name in _CARRIED}
    draft = Draft(
        folder,
        opened.config,
        {name: document for name, document in documents.items() if document is not None},
        {name: content for name, content in carried.items() if content is not None},
        dict(opened.tensors()),
    )
    _check(draft)
    return draft


def write_draft(draft: Draft, folder: Path) -> None:
    """Writes a checkpoint that ``transformers`` reads, whole or not at all.

    Raises:
        OutputError: If the folder exists, or cannot be written.
    """
    documents = {CONFIG_FILE: draft.config, **draft.documents}
    with new_checkpoint(folder, "the same command") as unfinished:
        for name, document in documents.items():
            text = json.dumps(document, indent=2, ensure_ascii=False)
            files.write_file(unfinished / name, f"{text}\n".encode())
        for name, content in draft.files.items():
            files.write_file(unfinished / name, content)
        # Slices share memory with the tensor that they are cut from, which safetensors refuses.
        tensors = {name: tensor.clone() for name, tensor in draft.tensors.items()}
        files.save_tensors(unfinished / WEIGHTS_FILE, tensors, {"format": "pt"})


def _check(draft: Draft) -> None:
    """Refuses a checkpoint whose parts do not fit together."""
    config, file = draft.config, str(draft.folder / CONFIG_FILE)
    for key in ("vocab_size", "hidden_size", "num_hidden_layers"):
        value = config.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise TrainError(
                f"holds no whole number above 0 as `{key}`",
                file=file,
                remedy="name a checkpoint of a text model whose config.json has its sizes at the "
                f"top: one of {', '.join(ARCHITECTURES)}, or their like",
            )
    if "vocab_size_per_layer_input" in config:
        raise TrainError("has embeddings in each layer, which cannot be adapted", file=file)
    if EMBEDDING not in draft.tensors:
        raise TrainError(
            f"lacks the tensor {EMBEDDING}",
            file=str(draft.folder),
            remedy="name a checkpoint of a causal language model, saved whole",
        )
    shape = (config["vocab_size"], config["hidden_size"])
    for name, tensor in by_token(draft):
        _check_rows(draft, name, tensor, shape[: tensor.ndim])
    _check_layers(draft)


def _check_rows(draft: Draft, name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Refuses a tensor of another shape, or with rows that hold no finite numbers."""
    whole = tensor.dtype.is_floating_point and tensor.dtype.itemsize > 1
    if tuple(tensor.shape) != shape or not whole:
        raise TrainError(
            f"{name} is {_described(tensor)}, where config.json asks for "
            f"{' x '.join(map(str, shape))} floating-point numbers of 16 bits or more",
            file=str(draft.folder),
            remedy="fetch the checkpoint again; of a quantised one, that which it was made from",
        )
    # In pieces: one mask over the embedding of a large model would be hundreds of megabytes.
    for start in range(0, len(tensor), 65_536):
        good = torch.isfinite(tensor[start : start + 65_536]).reshape(-1, *shape[1:]).flatten(1)
        bad = (~good.all(1)).nonzero() if len(shape) > 1 else (~good).nonzero()
        if len(bad):
            raise TrainError(
                f"{name} holds NaN or infinity in row {start + int(bad[0][0]):,}",
                file=str(draft.folder),
                remedy="fetch the checkpoint again, or take one from before its training diverged",
            )


def _check_layers(draft: Draft) -> None:
    """Refuses a checkpoint that lacks a layer, or a tensor that the other layers have."""
    found: dict[int, set[str]] = {}
    for layer, name, _ in by_layer(draft):
        found.setdefault(layer, set()).add(name)
    # Every layer of a family that is known has the same tensors.
    regular = draft.config.get("model_type") in ARCHITECTURES
    wanted = set.union(*found.values()) if found and regular else set()
    for layer in range(draft.layers):
        lacking = min(wanted - found.get(layer, set()), default=None)
        if layer not in found or lacking is not None:
            lacks = (
                f"layer {layer} of the {draft.layers} that config.json has"
                if layer not in found
                else f"the tensor model.layers.{layer}.{lacking}"
            )
            raise TrainError(
                f"lacks {lacks}", file=str(draft.folder), remedy="fetch the whole checkpoint"
            )


def _described(tensor: Tensor) -> str:
    """Returns a tensor's shape and type in words."""
    return f"{' x '.join(map(str, tensor.shape))} {str(tensor.dtype).removeprefix('torch.')}"
