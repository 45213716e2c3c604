"""The slow, obvious writer of packed datasets for tests, in plain Python lists
and pyarrow.

It shares no code with the package, so that the loader and the Rust writer each have something to be
held against. ``sabiprep verify`` is tested on real output.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import xxhash

CONTROL, TEMPLATE, DATA, TARGET = 0, 1, 2, 3


class Document(NamedTuple):
    """One document as it is stored, BOS and EOS included; ``part`` is the ``doc_parts`` word."""

    ids: Sequence[int]
    roles: Sequence[int]
    source_id: int = 0
    record_id: int = 0
    part: int = 0
    weight: float | None = None


DocumentLike = Document | tuple[Any, ...]


def target_only_mask(document: Document, eos_id: int) -> list[bool]:
    """The mask of one document under ``target_only``: role 3 and the closing EOS, never the first
    token.
    """
    last = len(document.ids) - 1
    return [
        i > 0 and (role == TARGET or (role == CONTROL and i == last and token == eos_id))
        for i, (token, role) in enumerate(zip(document.ids, document.roles, strict=True))
    ]


def first_fit(documents: Iterable[DocumentLike], seq_len: int) -> list[list[Document]]:
    """Rows of documents: each document, in order, goes to the first row with room for it."""
    rows: list[list[Document]] = []
    for document in (Document(*fields) for fields in documents):
        length = len(document.ids)
        if not 0 < length <= seq_len:
            raise ValueError(f"a document of {length} tokens does not fit a row of {seq_len}")
        for row in rows:
            if sum(len(other.ids) for other in row) + length <= seq_len:
                row.append(document)
                break
        else:
            rows.append([document])
    return rows


def role_runs(document: Document) -> list[tuple[int, int]]:
    """The run-lengths of a document's roles, as (length, role)."""
    runs: list[tuple[int, int]] = []
    for role in document.roles:
        if runs and runs[-1][1] == role:
            runs[-1] = (runs[-1][0] + 1, role)
        else:
            runs.append((1, role))
    return runs


def row_columns(row: Sequence[Document], seq_len: int, eos_id: int, pad_id: int) -> dict[str, Any]:
    """One row as the columns of the format, in their order."""
    ids = [token for document in row for token in document.ids]
    mask = [bit for document in row for bit in target_only_mask(document, eos_id)]
    runs = [run for document in row for run in role_runs(document)]
    padding = seq_len - len(ids)
    return {
        "input_ids": ids + [pad_id] * padding,
        "loss_mask": mask + [False] * padding,
        "seq_lengths": [len(document.ids) for document in row],
        "segment_lengths": [length for length, _ in runs],
        "segment_roles": [role for _, role in runs],
        "source_ids": [document.source_id for document in row],
        "record_ids": [document.record_id for document in row],
        "doc_parts": [document.part for document in row],
        "n_targets": sum(mask),
        "doc_weights": [document.weight for document in row],
    }


def shard_schema(seq_len: int, id_dtype: str = "uint16", weighted: bool = False) -> pa.Schema:
    """The Arrow schema of a shard: nothing in it is nullable."""

    def item(of: pa.DataType) -> pa.Field:
        return pa.field("item", of, nullable=False)

    ids = {"uint16": pa.uint16(), "uint32": pa.uint32()}[id_dtype]
    columns = {
        "input_ids": pa.list_(item(ids), seq_len),
        "loss_mask": pa.list_(item(pa.bool_()), seq_len),
        "seq_lengths": pa.list_(item(pa.int32())),
        "segment_lengths": pa.list_(item(pa.int32())),
        "segment_roles": pa.list_(item(pa.uint8())),
        "source_ids": pa.list_(item(pa.uint16())),
        "record_ids": pa.list_(item(pa.uint64())),
        "doc_parts": pa.list_(item(pa.uint32())),
        "n_targets": pa.int32(),
    }
    if weighted:
        columns["doc_weights"] = pa.list_(item(pa.float32()))
    return pa.schema([pa.field(name, of, nullable=False) for name, of in columns.items()])


def write_manifest(path: Path, manifest: dict[str, Any]) -> None:
    """Write ``manifest.json`` with its own sha256 in it, taken over the file with 64 zeros in its
    place.
    """
    zeros = "0" * 64
    unsigned = json.dumps({**manifest, "sha256": zeros}, indent=2, ensure_ascii=False).encode()
    digest = hashlib.sha256(unsigned).hexdigest()
    path.joinpath("manifest.json").write_bytes(unsigned.replace(zeros.encode(), digest.encode(), 1))


def word_level_tokenizer(vocab_size: int) -> str:
    """The JSON of a tokenizer whose tokens are the words ``t0`` to ``t{vocab_size - 1}``, for tests
    that load one.
    """
    vocabulary = {f"t{i}": i for i in range(vocab_size)}
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [],
            "normalizer": None,
            "pre_tokenizer": {"type": "WhitespaceSplit"},
            "post_processor": None,
            "decoder": None,
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "t0"},
        }
    )


def write_dataset(
    path: Path,
    documents: Iterable[DocumentLike],
    *,
    seq_len: int,
    vocab_size: int,
    eos_id: int,
    pad_id: int,
    bos_id: int | None = None,
    rows_per_batch: int = 4,
    shards: int = 1,
    validation: Iterable[DocumentLike] = (),
    id_dtype: str = "uint16",
    sources: Sequence[dict[str, str]] | None = None,
    tokenizer_json: str | None = None,
) -> Path:
    """Write a packed dataset of these documents, packed first fit in their order, and return its
    folder.

    Args:
        path: The folder to make.
        documents: (ids, roles, source_id, record_id[, part[, weight]]) of the training split, each
            at most ``seq_len`` long. All have weights, or none: with weights the format is version
            2, else 1.
        seq_len: Tokens in a row.
        vocab_size: Largest id + 1.
        eos_id: The token that closes a document; the writer adds none.
        pad_id: The token that fills rows up.
        bos_id: What the manifest says of BOS.
        rows_per_batch: Rows in an Arrow record batch.
        shards: Files the rows of a split are cut into, in order (fewer where there are fewer rows).
        validation: The documents of the validation split.
        id_dtype: "uint16" or "uint32".
        sources: name, task and lang of each source; by default as many as the documents name.
        tokenizer_json: The tokenizer's file; by default words ``t0``, ``t1`` and so on.
    """
    path.mkdir(parents=True, exist_ok=True)
    rows = {"train": first_fit(documents, seq_len), "validation": first_fit(validation, seq_len)}
    weighted = any(d.weight is not None for split in rows.values() for row in split for d in row)
    schema = shard_schema(seq_len, id_dtype, weighted)
    if sources is None:
        named = [document.source_id for split in rows.values() for row in split for document in row]
        sources = [
            {"name": f"source-{i}", "task": f"task-{i % 2}", "lang": "yor"}
            for i in range(max(named, default=0) + 1)
        ]

    def totals(of: Iterable[Document]) -> dict[str, int]:
        listed = list(of)
        return {
            "documents": len(listed),
            "tokens": sum(len(document.ids) for document in listed),
            "targets": sum(sum(target_only_mask(document, eos_id)) for document in listed),
        }

    splits: dict[str, Any] = {}
    for name, split in rows.items():
        path.joinpath(name).mkdir(exist_ok=True)
        per_shard = -(-len(split) // shards) or 1
        entries: list[dict[str, Any]] = []
        for first in range(0, len(split), per_shard):
            part = split[first : first + per_shard]
            file = f"{name}/shard-{len(entries):05d}.arrow"
            with pa.OSFile(str(path / file), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
                for start in range(0, len(part), rows_per_batch):
                    columns = [
                        row_columns(r, seq_len, eos_id, pad_id)
                        for r in part[start : start + rows_per_batch]
                    ]
                    writer.write_batch(pa.RecordBatch.from_pylist(columns, schema=schema))
            counts = totals(document for row in part for document in row)
            entries.append(
                {
                    "file": file,
                    "rows": len(part),
                    "documents": counts["documents"],
                    "tokens": counts["tokens"],
                    "targets": counts["targets"],
                    "bytes": path.joinpath(file).stat().st_size,
                    "xxh3_128": xxhash.xxh3_128(path.joinpath(file).read_bytes()).hexdigest(),
                }
            )
        counts = totals(document for row in split for document in row)
        splits[name] = {
            "rows": len(split),
            **counts,
            "utilisation": counts["tokens"] / (len(split) * seq_len) if split else 0.0,
            "single_source_rows": sum(_mostly_one_source(row) for row in split),
            "shards": entries,
        }

    tokenizer = (
        word_level_tokenizer(vocab_size) if tokenizer_json is None else tokenizer_json
    ).encode()
    path.joinpath("tokenizer.json").write_bytes(tokenizer)
    write_manifest(
        path,
        {
            "format": "sabiprep",
            "format_version": 2 if weighted else 1,
            "sha256": "",
            "program": {"name": "sabiprep", "version": "0.1.0"},
            "tokenizer": {
                "file": "tokenizer.json",
                "sha256": hashlib.sha256(tokenizer).hexdigest(),
                "vocab_size": vocab_size,
                "bos_id": bos_id,
                "eos_id": eos_id,
                "pad_id": pad_id,
                "engine": "tests",
                "unicode": "tests",
                "probes": [],
            },
            "seq_len": seq_len,
            "rows_per_batch": rows_per_batch,
            "id_dtype": id_dtype,
            "seed": 0,
            "config": {},
            "inputs": [],
            "sources": [
                {
                    **source,
                    "inputs": [f"{source['name']}.jsonl"],
                    "loss": "target_only",
                    **({"loss_weight": "w"} if weighted else {}),
                    "overflow": "error",
                    "epochs": 1.0,
                    "records": sum(
                        d.source_id == i for split in rows.values() for row in split for d in row
                    ),
                    "kept": sum(
                        d.source_id == i for split in rows.values() for row in split for d in row
                    ),
                    "truncated": 0,
                    "drops": {},
                    **{
                        name: totals(d for row in split for d in row if d.source_id == i)
                        for name, split in rows.items()
                    },
                    "asked_epochs": 1.0,
                    "copies": sum(d.source_id == i for row in rows["train"] for d in row),
                    "unique": totals(d for row in rows["train"] for d in row if d.source_id == i),
                    "examples": [],
                }
                for i, source in enumerate(sources)
            ],
            "splits": splits,
        },
    )
    return path


def _mostly_one_source(row: Sequence[Document]) -> bool:
    """Whether 95 % or more of a row's tokens come from one source."""
    total = sum(len(document.ids) for document in row)
    return any(
        sum(len(other.ids) for other in row if other.source_id == document.source_id) * 100
        >= total * 95
        for document in row
    )
