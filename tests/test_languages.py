"""Languages by one code, however they are written, and what is said of one that is unknown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import sabiprep
from sabiprep import PackOptions, PackReport
from support import packer
from support.strategies import tokenizer_json


def pack(folder: Path, langs: list[str], **tables: Any) -> PackReport:
    """Pack a source of each language."""
    corpus = folder / "corpus"
    corpus.mkdir()
    (corpus / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    sources = []
    for nth, lang in enumerate(langs):
        text = "".join(f"text {nth} {line}\n" for line in range(20 * (nth + 1)))
        (corpus / f"{nth}.txt").write_text(text, "utf-8")
        sources.append({"name": f"s{nth}", "files": [f"{nth}.txt"], "lang": lang})
    named = {"file": "tokenizer.json"}
    packer.write_config(corpus, sources, tokenizer=named, pack={"seq_len": 64}, tables=tables)
    return sabiprep.pack(corpus, folder / "out", PackOptions(threads=1))


def test_ways_of_writing_a_language_are_one_language_in_reports(tmp_path: Path) -> None:
    langs = ["yo", "yor", "yor_Latn", "yo-NG", "Yoruba", "Yorùbá", "mul", "und", "zxx"]
    report = pack(tmp_path, langs)
    assert [source.lang for source in report.sources] == ["yor"] * 6 + ["mul", "und", "zxx"]
    assert report.notes == ()
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [source["lang"] for source in manifest["sources"]] == ["yor"] * 6 + langs[6:]
    assert [source["lang"] for source in manifest["config"]["source"]] == langs, "as written"


def test_an_unknown_language_is_kept_and_said(tmp_path: Path) -> None:
    report = pack(tmp_path, ["yoru", "xx", "eng-yor", "yoru"])
    assert [source.lang for source in report.sources] == ["yoru", "xx", "eng-yor", "yoru"]
    assert list(report.notes) == [
        "'yoru' is no language that ISO 639-3 knows (`lang` of 's0', 's3'): did you mean 'yor'?",
        "'eng-yor', 'xx' are no languages that ISO 639-3 knows (`lang` of 's2', 's1')",
    ]


def test_a_mix_by_language_takes_spellings_together(tmp_path: Path) -> None:
    mix = {"by": "lang", "unit": "tokens", "temperature": 1e9}
    report = pack(tmp_path, ["yo", "Yoruba", "hau"], mix=mix)
    tokens = [source.train.tokens for source in report.sources]
    assert abs(tokens[0] + tokens[1] - tokens[2]) < 0.1 * tokens[2]
