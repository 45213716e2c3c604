"""Verifying finds what was changed after the dataset was made, and what is not as its corpus gives
it.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sabiprep
from sabiprep import DatasetError, InputError, SabiprepError
from sabiprep.inspection import inspect
from support.files import edit
from support.varied_corpus import corpus as corpus  # the fixture

FLIPS = 1000
DIGEST = re.compile(r'"sha256": "([0-9a-f]{64})"')


def edit_manifest(out: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a manifest and seal it again, as somebody would who wants to be believed."""
    file = out / "manifest.json"
    manifest = json.loads(file.read_text("utf-8"))
    change(manifest)
    manifest["sha256"] = "0" * 64
    text = json.dumps(manifest, ensure_ascii=False, indent=2) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    file.write_text(text.replace("0" * 64, digest, 1), "utf-8")


@pytest.fixture
def out(corpus: Path, tmp_path: Path) -> Path:
    sabiprep.pack(corpus, tmp_path / "out")
    return tmp_path / "out"


def test_every_flipped_bit_is_found(out: Path) -> None:
    files = [out / "manifest.json", *sorted(out.glob("*/*.arrow"))]
    contents = [file.read_bytes() for file in files]
    chance = random.Random(4)
    missed = []
    for _ in range(FLIPS):
        # Half of the flips in the manifest, which is the smaller part of the bytes.
        nth = chance.choice([0, chance.randrange(1, len(files))])
        data = bytearray(contents[nth])
        bit = chance.randrange(8 * len(data))
        data[bit // 8] ^= 1 << (bit % 8)
        files[nth].write_bytes(data)
        try:
            found = not sabiprep.verify(out).ok
        except SabiprepError:
            found = True
        if not found:
            missed.append((files[nth].name, bit))
        files[nth].write_bytes(contents[nth])
    assert missed == []
    assert sabiprep.verify(out).ok


def test_a_dataset_is_as_its_corpus_gives_it(corpus: Path, out: Path) -> None:
    report = sabiprep.verify(out, against=corpus, sample=None, threads=2)
    assert report.ok, report.failures
    with sabiprep.open_dataset(out) as dataset:
        rows = [row for split in (dataset.train, dataset.validation) for row in split]
    columns = [(row["source_ids"], row["record_ids"], row["doc_parts"] >> 16) for row in rows]
    copies = {
        document
        for row in columns
        for document in zip(*(column.tolist() for column in row), strict=True)
    }
    assert report.documents_derived == len(copies) > 0
    assert report.records_derived == len({(source, record) for source, record, _ in copies})


def test_a_sample_is_about_as_large_as_asked(corpus: Path, out: Path) -> None:
    report = sabiprep.verify(out, against=corpus, sample=100)
    assert report.ok and 30 < report.records_derived < 170


def test_a_corpus_that_was_changed_is_named(corpus: Path, out: Path) -> None:
    edit(corpus / "pairs.jsonl", '"b": "yes"', '"b": "yeS"')
    with pytest.raises(
        InputError, match=r"is not what .*out was packed from: the input pairs.jsonl was changed"
    ):
        sabiprep.verify(out, against=corpus)
    edit(corpus / "corpus.toml", "epochs = 2.5", "epochs = 2.0")
    with pytest.raises(InputError, match=r"there.epochs was 2.5, it is 2.0"):
        sabiprep.verify(out, against=corpus)


def test_a_document_that_its_record_does_not_give_is_named(
    corpus: Path, out: Path, tmp_path: Path
) -> None:
    """Each line of plain text is a document: one is changed, and the manifest made to tell of the
    changed file.
    """
    changed = tmp_path / "changed"
    shutil.copytree(corpus, changed)
    lines = (changed / "one.txt").read_bytes().split(b"\n")
    spared = next(nth for nth in range(2, len(lines)) if nth % 8)
    lines[spared] = lines[spared][:-1] + (b"x" if lines[spared][-1:] != b"x" else b"y")
    (changed / "one.txt").write_bytes(b"\n".join(lines))
    sabiprep.pack(changed, tmp_path / "told")
    told = json.loads((tmp_path / "told" / "manifest.json").read_text("utf-8"))
    edit_manifest(out, lambda manifest: manifest.update(inputs=told["inputs"]))
    assert sabiprep.verify(out).ok
    report = sabiprep.verify(out, against=changed, sample=None)
    assert report.failures == [
        f"one.txt:{spared + 1}, source 'plain': its ids or roles are not those its record gives"
    ]


def drift(manifest: dict[str, Any]) -> None:
    manifest["tokenizer"]["probes"][0]["ids"][0] += 1


def test_a_tokenizer_that_drifted_is_refused(corpus: Path, out: Path) -> None:
    edit_manifest(out, drift)
    assert "the tokenizer has drifted" in sabiprep.verify(out).failures[0]
    with (
        sabiprep.open_dataset(out) as dataset,
        pytest.raises(DatasetError, match="the tokenizer has drifted"),
    ):
        inspect(dataset)


def test_another_tokenizer_is_refused(out: Path) -> None:
    edit(out / "tokenizer.json", '"version"', ' "version"')
    assert "is not the tokenizer this dataset was packed with" in sabiprep.verify(out).failures[0]
    with (
        sabiprep.open_dataset(out) as dataset,
        pytest.raises(DatasetError, match="is not the tokenizer"),
    ):
        inspect(dataset)
