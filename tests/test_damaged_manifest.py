"""Manifests that are missing, damaged or forged: each is refused by what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sabiprep.dataset import open_dataset
from sabiprep.errors import DatasetError
from support.dataset_rows import out as out
from support.dataset_rows import refused, resigned


def test_no_manifest_is_an_unfinished_dataset(out: Path, tmp_path: Path) -> None:
    (out / "manifest.json").unlink()
    refused(out, "written last, and is missing", file="out")
    refused(tmp_path / "nowhere", "no such folder", file="nowhere")
    refused(out / "tokenizer.json", "no such folder", file="tokenizer.json")
    with pytest.raises(DatasetError, match="sabiprep pack CORPUS"):
        open_dataset(out)


def test_an_unreadable_manifest_is_refused(out: Path) -> None:
    (out / "manifest.json").unlink()
    (out / "manifest.json").mkdir()
    refused(out, "cannot be read")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[" * 100_000], ids=["empty", "cut", "bytes", "deep"]
)
def test_a_manifest_that_is_not_json_is_refused(out: Path, content: bytes) -> None:
    (out / "manifest.json").write_bytes(content)
    refused(out, "not a JSON file")


@pytest.mark.parametrize(
    "content", [b"[]", b"null", b"{}", b'{"format": "other", "format_version": 1}']
)
def test_a_foreign_manifest_is_refused(out: Path, content: bytes) -> None:
    (out / "manifest.json").write_bytes(content)
    refused(out, "not the manifest of a packed dataset")


@pytest.mark.parametrize("version", [2, 0, None, "1"])
def test_another_format_version_is_refused(out: Path, version: Any) -> None:
    resigned(out, {"format_version": version})
    refused(out, "reads version 1")


def test_an_altered_manifest_is_refused(out: Path) -> None:
    path = out / "manifest.json"
    content = path.read_bytes()
    for altered in (
        content.replace(b'"seed": 0', b'"seed": 1'),
        content + b"\n",
        content.replace(b'"sha256"', b'"sha257"', 1),
        content.replace(json.loads(content)["sha256"].encode(), b"0" * 64),
        content.replace(json.loads(content)["sha256"].encode(), b""),
    ):
        path.write_bytes(altered)
        refused(out, "does not hold")


@pytest.mark.parametrize(
    "change",
    [
        {"seq_len": None},
        {"seq_len": 0},
        {"id_dtype": "uint8"},
        {"tokenizer": {}},
        {"tokenizer": None},
        {"sources": [{}]},
        {"splits": {}},
        {"splits": {"train": {"rows": 3, "shards": []}, "validation": {"rows": 0, "shards": []}}},
    ],
)
def test_a_signed_manifest_that_cannot_be_right_is_refused(
    out: Path, change: dict[str, Any]
) -> None:
    resigned(out, change)
    refused(out, "a field is missing or cannot be right")
