"""The manifest of a packed dataset: reads it, and refuses one that was altered or forged.

The module takes a dataset's folder and gives a `Manifest`: the fields of the loader, beside the
parsed JSON. It opens no shard. Every field has the type and bounds of
`rust/core/write/manifest.rs`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from sabiprep.errors import DatasetError
from sabiprep.files import MANIFEST_LIMIT, read_whole

FORMAT = "sabiprep"
FORMAT_VERSIONS = (1, 2)
"""The versions that are read; 2 has a column of weights, and 1 has none."""
MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """One source of a dataset, as its manifest lists it.

    Attributes:
        id: The value in ``source_ids``: the index in the manifest.
        name: The name in ``corpus.toml``.
        task: The task; empty if there is none.
        lang: The language; empty if there is none.
        format: The format of its files, as ``corpus.toml`` names it; empty if the manifest names
            none.
    """

    id: int
    name: str
    task: str
    lang: str
    format: str = ""


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """One shard of the manifest.

    Attributes:
        file: Its file, relative to the dataset's folder.
        rows: Its rows.
        size: Its bytes.
        xxh3_128: The checksum of its content.
    """

    file: str
    rows: int
    size: int
    xxh3_128: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The checked content of a manifest.

    Attributes:
        raw: The parsed JSON.
        digest: The manifest's sha256 over itself: the dataset's fingerprint.
        seq_len: Tokens in a row.
        rows_per_batch: Rows in every Arrow record batch but a shard's last.
        id_dtype: The type of stored ids, ``"uint16"`` or ``"uint32"``.
        vocab_size: Largest id of the tokenizer + 1.
        bos_id: The token that opens each document, if one does.
        eos_id: The token that closes a document.
        pad_id: The token that fills a row up.
        tokenizer_file: The tokenizer's file, relative to the dataset's folder.
        sources: The sources, by id.
        shards: The shards of each split, in order.
        weighted: Whether the rows have the weights of their documents.
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
    weighted: bool = False


Count = Annotated[int, Meta(ge=0, lt=1 << 48)]
"""Far more than a dataset can hold; the sum over all sources still fits 64 bits."""
Size = Annotated[int, Meta(ge=1, lt=1 << 31)]
Id = Annotated[int, Meta(ge=0, lt=1 << 32)]
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Checksum = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
Amount = Annotated[float, Meta(ge=0)]


class _Probe(Struct):
    text: str
    ids: list[Id]


class _Tokenizer(Struct):
    file: str
    sha256: Digest
    vocab_size: Annotated[int, Meta(ge=1, le=1 << 32)]
    bos_id: Id | None
    eos_id: Id
    pad_id: Id
    engine: str
    unicode: str
    probes: list[_Probe]
    chat_template: str | None = None


class _Input(Struct):
    path: str
    size: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
    xxh3_128: Checksum


class _Sums(Struct):
    documents: Count
    tokens: Count
    targets: Count


class _Example(Struct):
    reason: str
    file: str
    why: str
    line: Count | None = None
    row: Count | None = None


class _CleanedExample(Struct):
    file: str
    change: str
    line: Count | None = None
    row: Count | None = None


class _Cleaned(Struct):
    records: Count
    examples: list[_CleanedExample]


class _LeftOutExample(Struct):
    file: str
    why: str
    line: Count | None = None
    row: Count | None = None


class _LeftOut(Struct):
    documents: Count
    examples: list[_LeftOutExample]


class _Source(Struct):
    name: Annotated[str, Meta(min_length=1)]
    task: str
    lang: str
    inputs: list[str]
    loss: Literal["target_only", "full", "template_masked", "last_turn"]
    overflow: Literal["split", "truncate", "drop", "error"]
    epochs: Amount
    asked_epochs: Amount
    copies: Count
    unique: _Sums
    records: Count
    kept: Count
    truncated: Count
    drops: dict[str, Count]
    train: _Sums
    validation: _Sums
    examples: list[_Example]
    cleaned: dict[str, _Cleaned] = {}
    spans: str | None = None
    loss_weight: str | None = None
    left_out: dict[str, _LeftOut] = {}
    document_of: str | None = None


class _Records(Struct):
    source: str
    records: Count
    kept: Count
    without: Count


class _Dropped(Struct):
    file: str
    records: Count
    bytes: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
    xxh3_128: Checksum


class _Benchmark(Struct):
    name: str
    documents: Count
    short: Count


class _Shard(_Sums):
    file: str
    rows: Count
    bytes: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
    xxh3_128: Checksum


class _Split(_Sums):
    rows: Count
    utilisation: Amount
    single_source_rows: Count
    shards: list[_Shard]


class _Splits(Struct, forbid_unknown_fields=True):
    train: _Split
    validation: _Split


class _Program(Struct):
    name: str
    version: str


class _Written(Struct):
    """A manifest as it is written; keys that are not named here are for other readers."""

    format: Literal["sabiprep"]
    format_version: Literal[1, 2]
    sha256: Digest
    program: _Program
    tokenizer: _Tokenizer
    seq_len: Size
    rows_per_batch: Size
    id_dtype: Literal["uint16", "uint32"]
    seed: Annotated[int, Meta(ge=0)]
    config: dict[str, Any]
    inputs: list[_Input]
    sources: Annotated[list[_Source], Meta(min_length=1, max_length=1 << 16)]
    splits: _Splits
    records: list[_Records] = []
    dropped: _Dropped | None = None
    contaminated: _Dropped | None = None
    benchmarks: list[_Benchmark] = []
    notes: list[str] = []


def _format(config: dict[str, Any], source_id: int) -> str:
    """Returns the format of a source in the settings of a dataset; empty if they name none."""
    match config.get("source"):
        case [*sources] if source_id < len(sources):
            match sources[source_id]:
                case {"format": str(name)}:
                    return name
    return ""


def read_manifest(folder: Path) -> Manifest:
    """Reads and checks the manifest of the dataset in ``folder``.

    Raises:
        DatasetError: If there is no manifest (the dataset is unfinished), its format version is not
            known, its digest does not hold, or it contradicts itself.
    """
    path = folder / MANIFEST_FILE
    manifest = manifest_of(_read(folder, path), str(path), str(folder))
    _refuse_ways_out(folder, manifest)
    return manifest


def manifest_of(content: bytes, file: str, dataset: str) -> Manifest:
    """Returns the checked content of a manifest.

    Args:
        content: The bytes of the file.
        file: The file, for errors.
        dataset: The dataset, for errors.

    Raises:
        DatasetError: As `read_manifest`.
    """
    altered = (
        f"copy the dataset again, or pack it again: sabiprep pack CORPUS {dataset} --overwrite"
    )
    try:
        raw = msgspec.json.decode(content)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"not a JSON file: {error}", file=file, remedy=altered) from error
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise DatasetError(
            "not the manifest of a packed dataset",
            file=file,
            remedy="name the OUT folder of sabiprep pack",
        )
    # Before the digest: another version may make its digest in another way.
    version = raw.get("format_version")
    # `True == 1`, but no version is a boolean.
    if (
        type(version) is not int
        or version not in FORMAT_VERSIONS
        or (version == 2) != _has_weights(raw)
    ):
        raise DatasetError(
            f"format version {version!r}; this program reads version 1, and 2 of datasets with "
            "weights",
            file=file,
            remedy="use the sabiprep that wrote it, or pack it again with this one",
        )
    digest = raw.get("sha256")
    if not isinstance(digest, str) or digest != _own_digest(content, digest):
        raise DatasetError(
            "altered since it was written: its sha256 does not hold", file=file, remedy=altered
        )
    # A digest holds for a forged manifest too, so each field is checked all the same.
    try:
        manifest = _checked(raw)
    except (ValueError, RecursionError) as error:
        raise DatasetError(
            f"a field is missing or cannot be right: {error}", file=file, remedy=altered
        ) from error
    return manifest


def _has_weights(raw: dict[str, Any]) -> bool:
    """Returns whether a source of a manifest that was not checked yet has weights."""
    sources = raw.get("sources")
    return isinstance(sources, list) and any(
        isinstance(source, dict) and source.get("loss_weight") is not None for source in sources
    )


def _read(folder: Path, path: Path) -> bytes:
    """Returns the bytes of the manifest."""
    try:
        return read_whole(path, MANIFEST_LIMIT)
    except (FileNotFoundError, NotADirectoryError) as error:
        if not folder.is_dir():
            raise DatasetError(
                "no such folder",
                file=str(folder),
                remedy="name the OUT folder of sabiprep pack",
                errno=error.errno,
            ) from None
        if _is_corpus(folder):
            raise DatasetError(
                "a corpus, not a packed dataset",
                file=str(folder),
                remedy=f"sabiprep plan {folder} shows a corpus; "
                f"sabiprep pack {folder} OUT makes a dataset of it, in OUT",
                errno=error.errno,
            ) from None
        raise DatasetError(
            f"no packed dataset here: {MANIFEST_FILE} is written last, and is missing",
            file=str(folder),
            remedy=f"if packing was stopped, go on with it: sabiprep pack CORPUS {folder} --resume",
            errno=error.errno,
        ) from None
    except OSError as error:
        raise DatasetError(
            f"cannot be read: {error.strerror or error}",
            file=str(path),
            remedy="check the folder and its permissions",
            errno=error.errno,
        ) from error


def _is_corpus(folder: Path) -> bool:
    """Returns whether a folder without a manifest holds a corpus, and no part of a dataset."""
    if (folder / "corpus.toml").is_file():
        return True
    is_part = (folder / ".work").is_dir() or any(folder.glob("*/shard-*.arrow"))
    return not is_part and any(not file.name.startswith(".") for file in folder.iterdir())


def _own_digest(content: bytes, digest: str) -> str:
    """Returns the sha256 of ``content`` with the first ``digest`` in it replaced by zeros."""
    written = digest.encode(errors="replace")
    return hashlib.sha256(content.replace(written, b"0" * len(digest), 1)).hexdigest()


def _checked(raw: dict[str, Any]) -> Manifest:
    """Returns the manifest, each field of its type and within its bounds.

    Raises:
        ValueError: If a field is wrong, or fields contradict each other; the message names it.
    """
    # Types and bounds of single fields come from the annotations.
    written = msgspec.convert(raw, _Written)
    tokenizer = written.tokenizer
    if written.id_dtype == "uint16" and tokenizer.vocab_size > 1 << 16:
        raise ValueError(f"id_dtype is uint16, and tokenizer.vocab_size {tokenizer.vocab_size}")
    for name in ("bos_id", "eos_id", "pad_id"):
        if (getattr(tokenizer, name) or 0) >= tokenizer.vocab_size:
            raise ValueError(f"tokenizer.{name} is not below tokenizer.vocab_size")
    _require_plain("tokenizer.file", tokenizer.file)
    for field, list_ in (("dropped", written.dropped), ("contaminated", written.contaminated)):
        if list_ is not None:
            _require_plain(f"{field}.file", list_.file)
    shards = {}
    # The loader finds rows by the sums of shards, so a wrong sum would point past a file.
    for name, split in (("train", written.splits.train), ("validation", written.splits.validation)):
        if sum(shard.rows for shard in split.shards) != split.rows:
            raise ValueError(f"the shards of splits.{name} do not add up to its {split.rows} rows")
        for shard in split.shards:
            _require_plain(f"splits.{name}.shards.file", shard.file)
        shards[name] = tuple(
            ShardInfo(shard.file, shard.rows, shard.bytes, shard.xxh3_128) for shard in split.shards
        )
    return Manifest(
        raw=raw,
        digest=written.sha256,
        seq_len=written.seq_len,
        rows_per_batch=written.rows_per_batch,
        id_dtype=written.id_dtype,
        vocab_size=tokenizer.vocab_size,
        bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_id,
        pad_id=tokenizer.pad_id,
        tokenizer_file=tokenizer.file,
        sources=tuple(
            SourceInfo(id_, source.name, source.task, source.lang, _format(written.config, id_))
            for id_, source in enumerate(written.sources)
        ),
        shards=shards,
        weighted=written.format_version == 2,
    )


def _require_plain(field: str, file: str) -> None:
    """Refuses a path unless it is relative and made of plain names.

    A plain name is not ``..``, ``.`` or empty, and holds no NUL.

    Raises:
        ValueError: If the path is refused.
    """
    if "\0" in file or "\\" in file or any(name in ("", ".", "..") for name in file.split("/")):
        raise ValueError(f"{field} is {file!r}, no path inside the dataset's folder")


def _refuse_ways_out(folder: Path, manifest: Manifest) -> None:
    """Refuses a dataset with a link that leads out of its folder.

    Raises:
        DatasetError: If there is such a link.
    """
    inside = folder.resolve()
    for file in (
        manifest.tokenizer_file,
        *(shard.file for shards in manifest.shards.values() for shard in shards),
    ):
        try:
            leads_to = (folder / file).resolve()
        # A RuntimeError is how Python 3.11 reports links that lead to each other.
        except (OSError, RuntimeError) as error:
            raise DatasetError(
                f"cannot be read: {error}", file=str(folder / file), remedy="copy the dataset again"
            ) from error
        if not leads_to.is_relative_to(inside):
            raise DatasetError(
                f"a link out of the dataset's folder, to {leads_to}",
                file=str(folder / file),
                remedy="put a copy of the file there instead of the link",
            )
