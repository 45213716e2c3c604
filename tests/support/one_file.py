"""A corpus of one file, packed into a folder or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import sabiprep
from sabiprep import InputError, SabiprepError
from support import packer
from support.files import files_of
from support.strategies import tokenizer_json

SEGMENTS = [{"prompt": "{{ q }}|"}, {"target": "{{ a }}"}]
"""For the files of `TABLES`."""

ROWS = [("ọ̀rọ̀", "one"), ("two, three", "àbá 😀"), ("x", "y" * 99)] * 20


def tables(rows: list[tuple[str, str]]) -> dict[str, str]:
    """Files of every format with the fields ``q`` and ``a``, by name."""
    import csv
    import io
    import json

    quoted = io.StringIO(newline="")
    csv.writer(quoted).writerows([("q", "a"), *rows])
    records = [json.dumps({"q": q, "a": a}, ensure_ascii=False) for q, a in rows]
    return {
        "a.jsonl": "".join(f"{record}\n" for record in records),
        "a.json": "[" + ",\n ".join(records) + "]",
        "a.tsv": "q\ta\n" + "".join(f"{q}\t{a}\n" for q, a in rows),
        "a.csv": quoted.getvalue(),
        "a.txt": "".join(f"{q} {a}\n" for q, a in rows),
    }


def segments_of(name: str) -> dict[str, Any]:
    """The segments of the file `name` of `tables`; text needs none."""
    return {} if ".txt" in name else {"segments": SEGMENTS}


def write_corpus(folder: Path, name: str, content: bytes, **source: Any) -> Path:
    """A corpus folder whose source ``a`` has one file."""
    folder.mkdir(parents=True)
    (folder / name).write_bytes(content)
    (folder / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    packer.write_config(
        folder,
        [{"name": "a", "files": [name], **source}],
        tokenizer={"file": "tokenizer.json"},
        pack={"seq_len": 256, "max_bad_fraction": 1.0},
    )
    return folder


def shards_of(folder: Path, name: str, content: bytes, **source: Any) -> dict[str, bytes]:
    """The files of the dataset made of one file, without its manifest, which names the file."""
    corpus = write_corpus(folder / "corpus", name, content, **source)
    sabiprep.pack(corpus, folder / "out")
    files = files_of(folder / "out")
    del files["manifest.json"]
    return files


def refusal(
    folder: Path,
    name: str,
    content: bytes,
    kind: type[SabiprepError] = InputError,
    **source: Any,
) -> str:
    """The error that packing one file ends in, as it is shown."""
    corpus = write_corpus(folder / "corpus", name, content, **source)
    with pytest.raises(kind) as refused:
        sabiprep.pack(corpus, folder / "out")
    assert not (folder / "out").exists() and refused.value.file and refused.value.remedy
    return str(refused.value)
