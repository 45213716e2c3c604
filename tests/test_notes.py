"""What a run says of a corpus that it packs as asked, and that it says nothing of a clean one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import sabiprep
from sabiprep import ConfigError, PackOptions, PackReport
from support import packer
from support.strategies import tokenizer_json

LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"


def pack(
    folder: Path, sources: list[dict[str, Any]], files: dict[str, str], **options: Any
) -> PackReport:
    """Pack `files` with a tokenizer of bytes."""
    corpus = folder / "corpus"
    corpus.mkdir()
    (corpus / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    for name, text in files.items():
        (corpus / name).write_text(text, "utf-8")
    tables = {"mix": options.pop("mix")} if "mix" in options else {}
    pack_table = {"seq_len": 64, **options}
    packer.write_config(
        corpus, sources, tokenizer={"file": "tokenizer.json"}, pack=pack_table, tables=tables
    )
    return sabiprep.pack(corpus, folder / "out", PackOptions(threads=2))


def lines(count: int, name: str) -> str:
    return "".join(f"{name} {nth}\n" for nth in range(count))


@pytest.mark.parametrize("weighted", [False, True])
def test_a_vanishing_share_of_a_mix_gives_no_document_and_says_so(
    tmp_path: Path, weighted: bool
) -> None:
    sources: list[dict[str, Any]] = [{"name": name, "files": [f"{name}.txt"]} for name in "ab"]
    mix: dict[str, Any] = {"temperature": 0.1}
    if weighted:
        mix = {"by": "source"}
        for source, weight in zip(sources, [1.0, 1e-9], strict=True):
            source["weight"] = weight
    files = {"a.txt": lines(400, "a"), "b.txt": lines(40, "b")}
    report = pack(tmp_path, sources, files, mix=mix, validation=0.1)
    small = report.sources[1]
    assert small.train.documents == 0 and small.epochs < 1e-5
    assert small.validation.documents == small.kept > 0, "held-out records have no part in a mix"
    assert small.drops["not sampled"] == 40 - small.kept
    [note] = report.notes
    assert "Source 'b' gives training nothing: its share of the mix" in note
    assert ("`weight`" in note) == weighted and ("`temperature`" in note) == (not weighted)
    assert note in " ".join(str(report).split())
    assert packer.verify(tmp_path / "out")["failures"] == []


def test_files_and_sources_that_give_nothing_are_named(tmp_path: Path) -> None:
    sources = [
        {"name": "a", "files": ["a.txt", "empty.txt", "same.txt"], "duplicates": "exact"},
        {"name": "b", "files": ["blank.txt"]},
        {"name": "c", "files": ["copy.txt"], "duplicates": "exact"},
    ]
    files = {
        "a.txt": lines(20, "a"),
        "same.txt": "a 3\n",
        "empty.txt": "",
        "blank.txt": "",
        "copy.txt": "a 1\na 2\n",
    }
    report = pack(tmp_path, sources, files)
    assert report.notes == (
        "Source 'a': empty.txt (empty), same.txt give the dataset no document.",
        "Source 'b' gives training nothing: its files hold no record.",
        "Source 'c' gives training nothing: of its 2 records, 2 duplicate.",
    )
    assert json.loads((tmp_path / "out" / "manifest.json").read_text("utf-8"))["notes"] == list(
        report.notes
    )
    assert packer.verify(tmp_path / "out")["failures"] == []


def test_short_records_of_decontamination_files_count_together_or_are_named(tmp_path: Path) -> None:
    words = LONG.split()
    first, second = " ".join(words[:7]), " ".join(words[7:])
    files = {
        "a.txt": lines(20, "a") + LONG + "\n",
        "short.jsonl": '{"q": "too short", "a": "by far"}\n',
        "some.txt": f"{LONG[::-1]}\nshort\n",
        "joined.jsonl": json.dumps({"q": first, "n": 3, "a": second}) + "\n",
    }
    names = ["short.jsonl", "some.txt", "joined.jsonl"]
    report = pack(tmp_path, [{"name": "a", "files": ["a.txt"]}], files, decontaminate=names)
    assert report.sources[0].drops == {"contaminated": 1}, (
        "no field of joined.jsonl has 13 words, both together do"
    )
    assert len(report.notes) == 2
    assert "not kept clean of short.jsonl: none of its 1 records has 13 words" in report.notes[0]
    assert "not kept clean of 1 of the 2 records of some.txt" in report.notes[1]


def test_rows_left_empty_to_keep_copies_apart_are_explained(tmp_path: Path) -> None:
    report = pack(
        tmp_path, [{"name": "a", "files": ["a.txt"], "epochs": 9.0}], {"a.txt": lines(2, "a")}
    )
    assert report.train.rows == 9 and report.utilisation < 0.5
    [note] = report.notes
    assert "two copies of a record never share a row" in note and "8 of 9 rows" in note


def test_a_clean_corpus_has_no_notes(tmp_path: Path) -> None:
    report = pack(
        tmp_path, [{"name": "a", "files": ["a.txt"]}], {"a.txt": lines(20, "a")}, validation=0.2
    )
    assert report.notes == () and "Note:" not in str(report)
    assert "notes" not in json.loads((tmp_path / "out" / "manifest.json").read_text("utf-8"))


@pytest.mark.parametrize("weight", ["inf", "-inf", "nan", "-1", "0"])
def test_a_weight_that_is_no_share_is_refused(tmp_path: Path, weight: str) -> None:
    (tmp_path / "a.txt").write_text("a\n", "utf-8")
    source = f"name = 'a'\nfiles = ['a.txt']\nweight = {weight}\n"
    text = f"[tokenizer]\nfile = 't.json'\n[[source]]\n{source}"
    (tmp_path / "corpus.toml").write_text(text, "utf-8")
    with pytest.raises(
        ConfigError, match=rf"(?s)corpus.toml, source 'a': weight = {weight}: .*Remedy: "
    ):
        sabiprep.pack(tmp_path, tmp_path / "out")
