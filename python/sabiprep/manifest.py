"""The manifest of a packed dataset: reading it, and refusing one that is missing, foreign or altered.

It takes a dataset's folder and gives a `Manifest`: the fields the loader needs, beside the parsed JSON. It opens no
shard.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sabiprep.errors import DatasetError

FORMAT = "sabiprep"
FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """One source of a dataset, as its manifest lists it.

    Attributes:
        id: What ``source_ids`` calls it: its place in the manifest, from 0.
        name: Its name in ``corpus.toml``.
        task: Its task; empty if it has none.
        lang: Its language; empty if it has none.
    """

    id: int
    name: str
    task: str
    lang: str


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """One shard as the manifest describes it: its file, relative to the dataset's folder, its rows and its bytes."""

    file: str
    rows: int
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a manifest says, checked.

    Attributes:
        raw: The parsed JSON.
        digest: The manifest's sha256 over itself: the dataset's fingerprint.
        seq_len: Tokens in a row.
        rows_per_batch: Rows in every Arrow record batch but a shard's last.
        id_dtype: How ids are stored, ``"uint16"`` or ``"uint32"``.
        vocab_size: Largest id of the tokenizer + 1.
        bos_id: The token that opens each document, if one does.
        eos_id: The token that closes a document.
        pad_id: The token that fills a row up.
        tokenizer_file: The tokenizer's file, relative to the dataset's folder.
        sources: The sources, by id.
        shards: The shards of each split, in order.
    """

    raw: dict[str, Any]
    digest: str
    seq_len: int
    rows_per_batch: int
    id_dtype: str
    vocab_size: int
    bos_id: int | None
    eos_id: int
    pad_id: int
    tokenizer_file: str
    sources: tuple[SourceInfo, ...]
    shards: Mapping[str, tuple[ShardInfo, ...]]


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of the dataset in ``folder``.

    Raises:
        DatasetError: If there is none (the dataset is unfinished), it is not one of format version 1, its digest
            does not hold, or it contradicts itself.
    """
    path = folder / MANIFEST_FILE
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        if not folder.is_dir():
            raise DatasetError(
                "no such folder", file=str(folder), remedy="name the OUT folder of sabiprep pack"
            ) from None
        raise DatasetError(
            f"no packed dataset here: {MANIFEST_FILE} is written last, and is missing",
            file=str(folder),
            remedy=f"if packing was stopped, start it again: sabiprep pack CORPUS {folder} --overwrite",
        ) from None
    except OSError as error:
        raise DatasetError(
            f"cannot be read: {error.strerror or error}",
            file=str(path),
            remedy="check the folder and its permissions",
        ) from error
    altered = f"copy the dataset again, or pack it again: sabiprep pack CORPUS {folder} --overwrite"
    try:
        raw = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"not a JSON file: {error}", file=str(path), remedy=altered) from error
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise DatasetError(
            "not the manifest of a packed dataset", file=str(path), remedy="name the OUT folder of sabiprep pack"
        )
    if raw.get("format_version") != FORMAT_VERSION:
        raise DatasetError(
            f"format version {raw.get('format_version')!r}; this program reads version {FORMAT_VERSION}",
            file=str(path),
            remedy="use the sabiprep that wrote it, or pack it again with this one",
        )
    digest = raw.get("sha256")
    if not isinstance(digest, str) or digest != _own_digest(content, digest):
        raise DatasetError("altered since it was written: its sha256 does not hold", file=str(path), remedy=altered)
    try:
        return _parse(raw, digest)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DatasetError(
            f"a field is missing or cannot be right: {error!r}", file=str(path), remedy=altered
        ) from error


def _own_digest(content: bytes, digest: str) -> str:
    """The sha256 of ``content`` with ``digest``, where it stands in it, replaced by as many zeros."""
    return hashlib.sha256(content.replace(digest.encode(errors="replace"), b"0" * len(digest))).hexdigest()


def _parse(raw: dict[str, Any], digest: str) -> Manifest:
    tokenizer = raw["tokenizer"]
    shards: dict[str, tuple[ShardInfo, ...]] = {}
    for name, split in raw["splits"].items():
        shards[name] = tuple(ShardInfo(str(s["file"]), int(s["rows"]), int(s["bytes"])) for s in split["shards"])
        if sum(shard.rows for shard in shards[name]) != split["rows"]:
            raise ValueError(f"the shards of {name} do not add up to its {split['rows']} rows")
    if missing := {"train", "validation"} - shards.keys():
        raise ValueError(f"no split {', '.join(sorted(missing))}")
    if raw["id_dtype"] not in ("uint16", "uint32"):
        raise ValueError(f"id_dtype {raw['id_dtype']!r}")
    if min(raw["seq_len"], raw["rows_per_batch"]) < 1:
        raise ValueError("seq_len and rows_per_batch must be positive")
    return Manifest(
        raw=raw,
        digest=digest,
        seq_len=int(raw["seq_len"]),
        rows_per_batch=int(raw["rows_per_batch"]),
        id_dtype=raw["id_dtype"],
        vocab_size=int(tokenizer["vocab_size"]),
        bos_id=None if tokenizer["bos_id"] is None else int(tokenizer["bos_id"]),
        eos_id=int(tokenizer["eos_id"]),
        pad_id=int(tokenizer["pad_id"]),
        tokenizer_file=str(tokenizer["file"]),
        sources=tuple(
            SourceInfo(i, str(s["name"]), s.get("task") or "", s.get("lang") or "")
            for i, s in enumerate(raw["sources"])
        ),
        shards=shards,
    )
