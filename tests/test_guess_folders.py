"""Folders as people have them, without ``corpus.toml``: parallel files, a file a document, shards
with hashes, old encodings, a column of languages. Each packs to the documents that a person would
expect.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import sabiprep
from sabiprep import InputError, PackOptions
from support.columnar import parquet
from support.unconfigured import Document, documents, json_lines, write_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty corpus."""
    (tmp_path / "corpus").mkdir()
    return tmp_path / "corpus"


@pytest.fixture
def options(tmp_path: Path) -> PackOptions:
    """The options that name a tokenizer."""
    return PackOptions(tokenizer=write_tokenizer(tmp_path / "tokenizer.json"), seq_len=256)


def write(folder: Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def lines(what: str, count: int) -> str:
    return "".join(f"{what} {nth}\n" for nth in range(count))


def sources(folder: Path) -> list[dict[str, Any]]:
    """The sources that ``init`` writes."""
    return list(tomllib.loads(sabiprep.init(folder, write=False)).get("source", []))


def pairs(name: str, one: str, two: str, count: int, texts: list[str]) -> list[Document]:
    """The documents of two sides in both directions."""
    found = []
    for (a, text), (b, other) in [
        ((one, texts[0]), (two, texts[1])),
        ((two, texts[1]), (one, texts[0])),
    ]:
        for nth in range(count):
            source = f"{name}{a}-{b}"
            found.append((source, f"{a}: {text} {nth}\n{b}:", f" {other} {nth}"))
    return found


@pytest.mark.parametrize(
    ("files", "name", "languages"),
    [
        (["train.en", "train.yo"], "", ["en", "yo"]),
        (["bitext/train.eng", "bitext/train.yor"], "bitext-", ["eng", "yor"]),
        (["JW300.en-yo.en", "JW300.en-yo.yo"], "JW300-en-yo-", ["en", "yo"]),
        (["flores/eng.train", "flores/yor.train"], "flores-", ["eng", "yor"]),
        (["x.eng_Latn", "x.yor_Latn"], "x-", ["eng_Latn", "yor_Latn"]),
        (["news.en-is.en", "news.en-is.is"], "news-en-is-", ["en", "is"]),
    ],
)
def test_files_that_are_parallel_by_name_are_offered_in_both_directions(
    folder: Path, options: PackOptions, files: list[str], name: str, languages: list[str]
) -> None:
    write(folder, {files[0]: lines("one", 9), files[1]: lines("dos", 9)})
    report = sabiprep.pack(folder, folder.parent / "out", options)
    expected = pairs(name, *languages, 9, ["one", "dos"])
    assert sorted(documents(folder.parent / "out")) == sorted(expected)
    assert sabiprep.verify(folder.parent / "out").ok
    assert any("parallel text from" in note and files[1] in note for note in report.notes)
    # What `init` writes packs to the same.
    sabiprep.init(folder, options)
    sabiprep.pack(folder, folder.parent / "again", options)
    assert sorted(documents(folder.parent / "again")) == sorted(expected)


def test_splits_of_parallel_text_are_one_source(folder: Path, options: PackOptions) -> None:
    for split, count in [("train", 6), ("dev", 3), ("test", 2)]:
        write(folder, {f"{split}.en": lines(split, count), f"{split}.yo": lines(split, count)})
    report = sabiprep.pack(folder, folder.parent / "out", options)
    assert [source.name for source in report.sources] == ["en-yo", "yo-en"]
    expected = pairs("", "en", "yo", 3, ["dev", "dev"])
    assert sorted(documents(folder.parent / "out", "validation")) == sorted(expected)
    assert any("test files" in note and "test.en" in note for note in report.notes)


def test_files_of_other_lengths_are_no_pair_and_both_numbers_are_said(
    folder: Path, options: PackOptions
) -> None:
    write(folder, {"train.en": lines("a", 3), "train.yo": lines("b", 4), "qa.txt": "one\n"})
    report = sabiprep.pack(folder, folder.parent / "out", options)
    assert [source.name for source in report.sources] == ["qa"]
    said = [note for note in report.notes if "different lengths" in note]
    assert len(said) == 1 and "train.en and train.yo (3 and 4 lines)" in said[0]


@pytest.mark.parametrize(
    "files",
    [
        {"train.en": b"a\nb\n", "train.yo": b"\xff\xfea\0\n\0b\0\n\0"},
        {"train.en": b"a\nb\n", "train.yo": b"\0\1\2\n\0\n"},
        {"train.en": b"a\n", "train.sw": b"b\n", "train.ibo.gz": b"no gzip"},
        {"train.yor": b"a\n", "train.hau": b"b\n", "train.ibo": b"c\n"},
        {"train.en": b"", "train.yo": b""},
        {"train.en": b"alone\n"},
        {"main.cpp": b"x\n", "main.hpp": b"y\n", "a.log": b"x\n", "a.bin": b"y\n"},
    ],
    ids=["utf-16", "binary", "damaged", "no English", "empty", "alone", "no languages"],
)
def test_files_that_are_no_pairs_are_passed_over_and_said(
    folder: Path, options: PackOptions, files: dict[str, bytes]
) -> None:
    write(folder, {**files, "qa.txt": "one\n"})
    report = sabiprep.pack(folder, folder.parent / "out", options)
    kept = {source.name for source in report.sources}
    assert "qa" in kept and all(name in {"qa", "en-sw", "sw-en"} for name in kept)
    assert any("passed over" in note for note in report.notes)


def test_english_is_paired_with_each_of_many_languages(folder: Path, options: PackOptions) -> None:
    for lang in ["eng", "hau", "ibo", "yor"]:
        write(folder, {f"flores/dev/{lang}.dev": lines(lang, 4), "mono.txt": lines("mono", 3)})
        write(folder, {f"flores/devtest/{lang}.devtest": lines(lang, 2)})
    report = sabiprep.pack(folder, folder.parent / "out", options)
    expected = [
        document
        for lang in ["hau", "ibo", "yor"]
        for document in pairs("flores-", "eng", lang, 4, ["eng", lang])
    ]
    found = documents(folder.parent / "out", "validation")
    assert sorted(found) == sorted(expected)
    assert {source.lang for source in report.sources} == {"eng", "hau", "ibo", "yor", "und"}
    assert any("each of 3 languages" in note for note in report.notes)
    named = [source for source in sources(folder) if source["name"] != "mono"]
    assert [source["name"] for source in named] == ["flores-eng-{lang}", "flores-{lang}-eng"]


def test_the_languages_of_english_are_bounded_and_the_others_said(
    folder: Path, options: PackOptions
) -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    codes = [f"{a}{b}{c}" for a in "abk" for b in letters for c in "aeikmnorst"]
    write(folder, {f"{code}_Latn.train": lines(code, 1) for code in ["eng", *codes]})
    (source, reverse) = sources(folder)
    (other,) = source["files"]["other"]
    listed = other.split("{lang:")[1].split("}")[0].split("|")
    assert len(listed) == 100 and source["name"] == "eng_Latn-{lang}"
    assert reverse["lang"] == "eng_Latn"
    assert "list others in {lang:" in sabiprep.init(folder, write=False)


STORIES = ["Adé", "Bọ́lá", "Chidi", "Dayọ", "Ẹ̀fẹ́", "Fúnmi", "Gani", "Hadiza", "Íkẹ́", "Jídé", "Kẹ́mi"]


def test_a_folder_of_small_texts_is_a_file_a_document(folder: Path, options: PackOptions) -> None:
    stories = {f"books/{name} tale.txt": f"{name} began.\n\n{name} ended.\n" for name in STORIES}
    write(folder, {**stories, "books/empty.txt": ""})
    (source,) = sources(folder)
    assert (source["files"], source["unit"], source["name"]) == (["books/*.txt"], "file", "books")
    report = sabiprep.pack(folder, folder.parent / "out", options)
    expected = [("books", "", f"{name} began.\n\n{name} ended.") for name in STORIES]
    found = [(name, "", prompt + text) for name, prompt, text in documents(folder.parent / "out")]
    assert sorted(found) == sorted(expected)
    assert any("one record a file" in note for note in report.notes)


@pytest.mark.parametrize(
    ("names", "patterns"),
    [
        # Languages, shards and few files stay what they were: a line a record.
        (["yor", "hau", "ibo", "pcm", "swa", "zul", "xho", "amh", "twi"], None),
        ([f"part-{nth}" for nth in range(12)], ["part-*.txt"]),
        (["one", "two", "three"], None),
    ],
)
def test_other_folders_of_texts_are_a_line_a_record(
    folder: Path, names: list[str], patterns: list[str] | None
) -> None:
    write(folder, {f"{name}.txt": lines(name, 3) for name in names})
    written = sources(folder)
    assert all("unit" not in source for source in written)
    assert patterns is None or [source["files"] for source in written] == [patterns]


def test_a_few_codes_among_titles_are_words(folder: Path) -> None:
    """`ada` and `efe` are codes of languages too."""
    names = ["ada", "efe", *(f"title{nth}x" for nth in range(9))]
    write(folder, {f"{name} story.txt": lines(name, 3) for name in names})
    (source,) = sources(folder)
    assert (source["files"], source["unit"]) == (["*.txt"], "file")


def test_a_pattern_never_takes_in_a_file_of_another_source(folder: Path) -> None:
    write(folder, {f"books/{name}.txt": f"{name}\n" for name in STORIES})
    write(folder, {"books/dev.txt": lines("held out", 3), "books/README.txt": "about\n"})
    (source,) = [source for source in sources(folder) if source.get("unit") == "file"]
    assert sorted(source["files"]) == sorted(f"books/{name}.txt" for name in STORIES)


def test_shards_with_hashes_are_one_source_and_one_pattern(
    folder: Path, options: PackOptions
) -> None:
    for nth, hashed in enumerate(["a09b74b3ef9c3b56", "abcdef", "00112233445566778899"]):
        rows = pa.table({"prompt": [f"p{nth}"], "completion": [f"c{nth}"]})
        name = f"qa/data/train-{nth:05}-of-00003-{hashed}.parquet"
        write(folder, {name: parquet(rows)})
    rows = pa.table({"prompt": ["p9"], "completion": ["c9"]})
    write(folder, {"qa/data/test-00000-of-00001-fedcba9876543210.parquet": parquet(rows)})
    (source,) = sources(folder)
    assert source["files"] == ["qa/data/train-*.parquet"]
    sabiprep.pack(folder, folder.parent / "out", options)
    found = sorted(documents(folder.parent / "out"))
    assert found == [("qa-data", f"p{nth}\n", f"c{nth}") for nth in range(3)]


def test_a_word_of_letters_a_to_f_is_no_hash(folder: Path) -> None:
    for name in ["facade", "decade"]:
        write(folder, {f"{name}.jsonl": json_lines([{"prompt": "a", "completion": "b"}])})
    assert [source["name"] for source in sources(folder)] == ["decade", "facade"]


@pytest.mark.parametrize("encoding", ["windows-1252", "utf-16", "utf-16le"])
def test_an_encoding_is_found_and_written(
    folder: Path, options: PackOptions, encoding: str
) -> None:
    text = "prompt\tanswer\n" + "".join(f"déjà vu à l'été {n}\tréponse n° {n}\n" for n in range(20))
    codec = encoding.replace("utf-16le", "utf-16-le")
    write(folder, {"train.tsv": text.encode(codec), "mono.txt": "ọ̀rọ̀\n"})
    written = {source["name"]: source.get("encoding") for source in sources(folder)}
    assert written == {"mono": None, "instruct": encoding}
    sabiprep.pack(folder, folder.parent / "out", options)
    expected = [("instruct", f"déjà vu à l'été {n}\n", f"réponse n° {n}") for n in range(20)]
    found = [document for document in documents(folder.parent / "out") if document[0] != "mono"]
    assert sorted(found) == sorted(expected)


def test_one_bad_line_is_no_other_encoding(folder: Path) -> None:
    bad = "ọ̀rọ̀\n".encode() * 30 + b"caf\xe9\n" + "mẹ́ta\n".encode() * 30
    write(folder, {"mono.txt": bad})
    assert "encoding" not in sources(folder)[0]


def test_a_column_of_languages_divides_a_source(folder: Path, options: PackOptions) -> None:
    rows = [
        {"tweet": f"t{n}", "label": ["good", "bad"][n % 2], "language": ["yo", "Hausa"][n // 5 % 2]}
        for n in range(20)
    ]
    write(folder, {"tweets.jsonl": json_lines(rows)})
    (source,) = sources(folder)
    assert source["lang"] == "{{ language }}"
    report = sabiprep.pack(folder, folder.parent / "out", options)
    found = {source.name: (source.lang, source.records) for source in report.sources}
    assert found == {"tweets-Hausa": ("hau", 10), "tweets-yo": ("yor", 10)}


@pytest.mark.parametrize(
    ("name", "values"),
    [("language", ["python", "rust"]), ("lang", ["yo", None]), ("locale", ["yo", "ha"])],
)
def test_other_columns_are_no_languages(folder: Path, name: str, values: list[Any]) -> None:
    rows = [{"text": f"t{n}", name: values[n % 2]} for n in range(8)]
    write(folder, {"texts.jsonl": json_lines(rows)})
    assert "lang" not in sources(folder)[0]


def test_the_language_of_a_path_comes_before_that_of_a_column(folder: Path) -> None:
    rows = [{"text": f"t{n}", "lang": "yo"} for n in range(8)]
    write(folder, {"hau/texts.jsonl": json_lines(rows)})
    assert sources(folder)[0]["lang"] == "hau"


def test_a_folder_with_nothing_known_is_told_what_init_knows(folder: Path) -> None:
    write(folder, {"data.bin": "text\n"})
    with pytest.raises(InputError, match="no suffix of a format") as raised:
        sabiprep.init(folder)
    assert "give its files the suffix" in (raised.value.remedy or "")


@pytest.mark.parametrize("pattern", ["{lang}/a.jsonl", "{lang}/*.jsonl", "x/{lang}.jsonl"])
def test_a_name_that_spells_the_placeholder_is_an_error(
    folder: Path, options: PackOptions, pattern: str
) -> None:
    write(folder, {"{lang}/a.jsonl": json.dumps({"text": "a"}), "x/{lang}.jsonl": '{"text": "b"}'})
    write(folder, {"yor/a.jsonl": json.dumps({"text": "c"}), "x/yor.jsonl": '{"text": "d"}'})
    config = f'[[source]]\nname = "a"\nfiles = ["{pattern}"]\nsegments = [{{ target = "x" }}]\n'
    write(folder, {"corpus.toml": config})
    with pytest.raises(sabiprep.ConfigError, match=r"such as (yor|x)") as raised:
        sabiprep.pack(folder, folder.parent / "out", options)
    assert (raised.value.remedy or "").startswith("rename ")
