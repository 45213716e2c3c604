"""Files of Naija in other formats, made here from the raw ones: the same documents."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet
import pytest

from sabiprep.dataset import open_dataset
from support import packer
from support.roles_text import placed_documents
from support.strategies import tokenizer_json

NAIJA = Path(__file__).parents[2] / "shared" / "corpora" / "naija"

pytestmark = pytest.mark.skipif(
    not NAIJA.is_dir(), reason=f"Naija is not beside this checkout: no {NAIJA.name}"
)

Rows = Sequence[Mapping[str, Any]]

TRANSLATE = [
    {"prompt": "<translate> {{ translation.en }} <yor>:"},
    {"target": " {{ translation.yor }}"},
]
CLASSIFY = [{"prompt": "<classify> {{ tweet }} <sentiment>:"}, {"target": " {{ label }}"}]
TOPIC = [{"prompt": "<classify> {{ text }} <topic>:"}, {"target": " {{ category }}"}]


def raw_rows(path: Path) -> list[dict[str, Any]]:
    """The records of a raw file, those of too many or too few fields left out."""
    lines = path.read_text("utf-8").split("\n")
    if path.suffix == ".json":
        return [json.loads(line) for line in lines if line]
    header, *rest = (line.removesuffix("\r").split("\t") for line in lines if line)
    return [dict(zip(header, row, strict=True)) for row in rest if len(row) == len(header)]


def write_lines(path: Path, rows: Rows) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def write_array(path: Path, rows: Rows) -> None:
    path.write_text(json.dumps(list(rows), indent=1), "utf-8")


def write_csv(path: Path, rows: Rows) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_quoted_tsv(path: Path, rows: Rows) -> None:
    with path.open("w", encoding="utf-16", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), dialect="excel-tab", quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)


def write_parquet(path: Path, rows: Rows) -> None:
    table = pa.Table.from_pylist(list(rows))
    pa.parquet.write_table(table, path, row_group_size=700, compression="zstd")


def write_arrow(path: Path, rows: Rows) -> None:
    table = pa.Table.from_pylist(list(rows))
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=100)


def write_stream(path: Path, rows: Rows) -> None:
    table = pa.Table.from_pylist(list(rows))
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=333)


def write_feather(path: Path, rows: Rows) -> None:
    pa.feather.write_feather(pa.Table.from_pylist(list(rows)), path, compression="lz4")


def write_tags(path: Path, rows: Rows) -> None:
    sentences = (
        "".join(f"{token} {row['label']}\n" for token in row["tweet"].split(" ")) for row in rows
    )
    path.write_text("\n".join(sentences), "utf-8")


def packed_by(write: Callable[[Path, bytes], object]) -> Callable[[Path, Rows], None]:
    def written(path: Path, rows: Rows) -> None:
        plain = path.with_suffix("")
        write_lines(plain, rows)
        write(path, plain.read_bytes())
        plain.unlink()

    return written


def zipped(path: Path, content: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rows.jsonl", content)


def zstandard(path: Path, content: bytes) -> None:
    with pa.CompressedOutputStream(str(path), "zstd") as file:
        file.write(content)


VARIANTS: dict[str, tuple[str, Callable[[Path, Rows], None], dict[str, Any]]] = {
    "array": ("a.json", write_array, {}),
    "csv": ("a.csv", write_csv, {}),
    "quoted tsv in utf-16": ("a.tsv", write_quoted_tsv, {"encoding": "utf-16"}),
    "parquet": ("a.parquet", write_parquet, {}),
    "arrow": ("a.arrow", write_arrow, {}),
    "stream": ("b.arrow", write_stream, {}),
    "feather": ("a.feather", write_feather, {}),
    "gzip": ("a.jsonl.gz", packed_by(lambda path, text: path.write_bytes(gzip.compress(text))), {}),
    "bzip2": (
        "a.jsonl.bz2",
        packed_by(lambda path, text: path.write_bytes(bz2.compress(text))),
        {},
    ),
    "xz": ("a.jsonl.xz", packed_by(lambda path, text: path.write_bytes(lzma.compress(text))), {}),
    "zip": ("a.jsonl.zip", packed_by(zipped), {}),
    "zstd": ("a.jsonl.zst", packed_by(zstandard), {}),
}


def documents(folder: Path, file: str, source: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """The tokens, roles and masks of a file's documents, in order."""
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text(tokenizer_json("bytes"), "utf-8")
    packer.write_config(folder, [{"name": "a", "files": [file], **source}])
    out = folder / f"out-{file}"
    packer.pack(folder, out, tokenizer=tokenizer, seq_len=4096, threads=2)
    assert packer.verify(out)["failures"] == []
    with open_dataset(out) as dataset:
        found = placed_documents(dataset)
    return [(document.ids, document.roles, document.trained) for document in found]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("file", "segments"),
    [
        ("mafand/eng-yor/dev.json", TRANSLATE),
        ("sentiment/pcm/dev.tsv", CLASSIFY),
        ("news/ibo/dev.tsv", TOPIC),
    ],
)
def test_a_variant_makes_the_documents_of_the_raw_file(
    variant: str, file: str, segments: list[dict[str, str]], tmp_path: Path
) -> None:
    rows = raw_rows(NAIJA / file)
    name, write, options = VARIANTS[variant]
    if "translation" in rows[0] and ("csv" in variant or "tsv" in variant):
        pytest.skip("a table has no fields within fields")
    raw = "raw" + Path(file).suffix
    (tmp_path / raw).write_bytes((NAIJA / file).read_bytes())
    write(tmp_path / name, rows)
    reading = {"format": "tsv"} if raw.endswith(".tsv") else {}
    expected = documents(tmp_path, raw, {"segments": segments, **reading})
    assert documents(tmp_path, name, {"segments": segments, **options}) == expected
    assert len(expected) == len(rows)


def test_tagged_tokens_make_the_documents_of_the_raw_file(tmp_path: Path) -> None:
    rows = [
        row
        for row in raw_rows(NAIJA / "sentiment" / "yor" / "dev.tsv")
        if row["tweet"].split() == row["tweet"].split(" ")
    ]
    write_lines(tmp_path / "raw.jsonl", rows)
    write_tags(tmp_path / "a.conll", rows)
    expected = documents(tmp_path, "raw.jsonl", {"segments": CLASSIFY})
    tagged = [
        {"prompt": "<classify> {{ text }} <sentiment>:"},
        {"target": " {{ tags[0] }}"},
    ]
    assert documents(tmp_path, "a.conll", {"segments": tagged}) == expected
    assert len(expected) == len(rows) > 100
