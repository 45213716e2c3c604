"""The tokenizer that a dataset came with, checked, and its files of a checkpoint.

The tokenizer of a checkpoint gives the ids that the rows hold: BOS first if the dataset was packed
with BOS, and nothing at the end. Pack never runs a tokenizer's post-processor, so its additions are
taken out.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

from tokenizers import Tokenizer

from sabiprep.errors import DatasetError
from sabiprep.tokenizer_file import REMEDY, read_tokenizer
from sabitrain.data.rows import RowSource

CHAT_TEMPLATE = "chat_template.jinja"
"""The file of a chat template beside a tokenizer, as ``transformers`` names it."""


def open_tokenizer(dataset: RowSource) -> Tokenizer:
    """Opens the tokenizer of a dataset.

    Raises:
        DatasetError: If it cannot be read, its vocabulary is not the dataset's, or it has drifted:
            it gives the manifest's probe strings other ids.
    """
    file = str(dataset.tokenizer_path)
    tokenizer, known, drifted = _load(dataset, read_tokenizer(dataset))
    if known != dataset.vocab_size:
        raise DatasetError(
            f"the dataset was packed with a vocabulary of {dataset.vocab_size}, "
            f"but this tokenizer has one of {known}",
            file=file,
            remedy=REMEDY,
        )
    if drifted is not None:
        raise DatasetError(
            f"gives {drifted!r} other ids than when the dataset was packed: "
            "the tokenizer has drifted",
            file=file,
            remedy=REMEDY,
        )
    return tokenizer


def check_same_tokenizer(dataset: RowSource, content: bytes | None, folder: str) -> None:
    """Refuses a dataset that was not packed with the tokenizer of a checkpoint.

    The two files may differ in what pack never runs: post-processor, truncation, padding, decoder.

    Args:
        dataset: The dataset.
        content: The checkpoint's ``tokenizer.json``; None if it has none.
        folder: The checkpoint, for errors.

    Raises:
        DatasetError: If they differ; the message names the part.
    """
    if content is None:
        raise DatasetError(
            "holds no tokenizer.json, so nothing shows that its tokenizer packed the dataset",
            file=folder,
            remedy="write one with transformers: "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)",
        )
    try:
        theirs, ours = (_as_encoded(each) for each in (content, read_tokenizer(dataset)))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DatasetError(
            f"its tokenizer.json is none: {error}", file=folder, remedy="fetch it again"
        ) from error
    differing = [part for part in theirs if theirs[part] != ours[part]]
    if differing:
        raise DatasetError(
            f"was packed with another tokenizer than {folder} has: they differ in "
            f"{', '.join(differing)}",
            file=str(dataset.path),
            remedy=f"pack it again with --tokenizer {shlex.quote(folder)}",
        )


def _as_encoded(content: bytes) -> dict[str, Any]:
    """Returns the parts of a tokenizer file that decide ids, in one form each."""
    written = json.loads(content)
    model = dict(written["model"])
    # Merges are written as texts or, since version 0.20 of the library, as pairs.
    merges = [
        each if isinstance(each, str) else " ".join(each)
        for each in model.pop("merges", None) or ()
    ]
    added = [
        {
            key: each.get(key)
            for key in ("id", "content", "special", "normalized", "lstrip", "rstrip")
        }
        for each in written.get("added_tokens") or ()
    ]
    return {
        "vocabulary": model.pop("vocab", None),
        "merges": merges,
        "added tokens": added,
        "normalizer": written.get("normalizer"),
        "pre-tokenizer": written.get("pre_tokenizer"),
        "model": {key: value for key, value in model.items() if value},
    }


def _load(dataset: RowSource, content: bytes) -> tuple[Tokenizer, int, str | None]:
    """Returns a tokenizer, its vocabulary's size, and the first probe with other ids, if any.

    Raises:
        DatasetError: If the library cannot load it.
    """
    try:
        tokenizer = Tokenizer.from_buffer(content)
        known = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        # Rows are packed without either, whatever the file says.
        tokenizer.no_padding()
        tokenizer.no_truncation()
        drifted = next(
            (text for text, ids in _probes(dataset) if _ids(tokenizer, text) != ids), None
        )
    # The library raises `Exception`; where it panics, a class that is no `Exception`.
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise DatasetError(
            f"cannot be read as a tokenizer: {error}",
            file=str(dataset.tokenizer_path),
            remedy=REMEDY,
        ) from error
    return tokenizer, known, drifted


def _probes(dataset: RowSource) -> Iterator[tuple[str, list[int]]]:
    return ((probe["text"], probe["ids"]) for probe in dataset.manifest["tokenizer"]["probes"])


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def control_ids(dataset: RowSource) -> dict[str, int | None]:
    """Returns the control tokens under the names of ``transformers``."""
    return {
        "bos_token_id": dataset.bos_id,
        "eos_token_id": dataset.eos_id,
        "pad_token_id": dataset.pad_id,
    }


def tokenizer_config(dataset: RowSource, tokenizer: Tokenizer, context: int) -> dict[str, Any]:
    """Returns the content of ``tokenizer_config.json``.

    The content names the class that takes ``tokenizer.json`` as it is, and the control tokens by
    text. ``add_bos_token`` and ``add_eos_token`` repeat the post-processor of `tokenizer_file`:
    some versions of ``transformers`` follow the keys, some the post-processor.

    Args:
        dataset: The dataset.
        tokenizer: The tokenizer of the dataset.
        context: The longest text that the model takes, in tokens.
    """
    ids = control_ids(dataset)
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
        "add_bos_token": dataset.bos_id is not None,
        "add_eos_token": False,
        **{
            name.removesuffix("_id"): tokenizer.id_to_token(id_)
            for name, id_ in ids.items()
            if id_ is not None
        },
    }


def tokenizer_file(dataset: RowSource, tokenizer: Tokenizer) -> bytes:
    """Returns the ``tokenizer.json`` of a checkpoint, made to begin a text as the rows do.

    The tokenizer in it neither cuts nor pads. Returns the dataset's own bytes if nothing changes.

    Args:
        dataset: The dataset.
        tokenizer: The tokenizer of the dataset.

    Raises:
        DatasetError: If the file cannot be read.
    """
    file = dataset.tokenizer_path
    token = None if dataset.bos_id is None else tokenizer.id_to_token(dataset.bos_id)
    bos = None if dataset.bos_id is None or token is None else (token, dataset.bos_id)
    content = read_tokenizer(dataset)
    try:
        written = json.loads(content)
        wanted = {"post_processor": _post_processor(written.get("post_processor"), bos)}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(
            f"cannot be read as a tokenizer: {error}", file=str(file), remedy=REMEDY
        ) from error
    wanted |= {"truncation": None, "padding": None}
    # The very bytes where possible, so that the file's sha256 is still the dataset's.
    if all(written.get(name) == value for name, value in wanted.items()):
        return content
    return json.dumps({**written, **wanted}, ensure_ascii=False, indent=2).encode()


def _post_processor(written: Any, bos: tuple[str, int] | None) -> dict[str, Any] | None:
    """Returns a post-processor that puts BOS first, if there is one, and adds nothing else.

    Args:
        written: The post-processor of the file, if any.
        bos: The text and the id of BOS, if there is one.
    """
    # ByteLevel only trims offsets, and adds no token.
    parts = [part for part in _parts(written) if part["type"] == "ByteLevel"]
    if bos is not None:
        token, id_ = bos
        first = {"SpecialToken": {"id": token, "type_id": 0}}
        text, second = (
            {"Sequence": {"id": name, "type_id": type_}} for type_, name in enumerate("AB")
        )
        special = {token: {"id": token, "ids": [id_], "tokens": [token]}}
        template = {
            "type": "TemplateProcessing",
            "single": [first, text],
            "pair": [first, text, second],
        }
        parts.append({**template, "special_tokens": special})
    if len(parts) > 1:
        return {"type": "Sequence", "processors": parts}
    return parts[0] if parts else None


def _parts(written: Any) -> list[Any]:
    """Returns the post-processors of a sequence, at any depth; another one alone in a list."""
    if written is None:
        return []
    if written["type"] == "Sequence":
        return [part for inner in written["processors"] for part in _parts(inner)]
    return [written]
