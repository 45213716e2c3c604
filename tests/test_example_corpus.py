"""The example corpus: the committed files are what the script writes, and keep the promises
`corpus.toml` rests on.
"""

import gzip
import json
import re
import subprocess
import sys
import tomllib
import unicodedata
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
CORPUS = EXAMPLES / "corpus"
CONFIG = tomllib.loads((CORPUS / "corpus.toml").read_text(encoding="utf-8"))
FILES = sorted({name for source in CONFIG["source"] for name in source["files"]})


def content(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def lines(name: str) -> list[str]:
    return content(CORPUS / name).decode("utf-8").removesuffix("\n").split("\n")


@pytest.fixture(scope="module")
def remade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / "make_corpus.py"), str(folder)], check=True
    )
    return folder


def test_the_script_writes_the_committed_files(remade: Path) -> None:
    committed = {path.name for path in CORPUS.iterdir()} - {"corpus.toml"}
    assert {path.name for path in remade.iterdir()} == committed == set(FILES)
    for name in FILES:
        # zlib builds may compress differently (zlib-ng does), so a .gz is compared by what it holds
        assert content(remade / name) == content(CORPUS / name), name


def test_a_second_run_gives_the_same_bytes(remade: Path) -> None:
    before = {path.name: path.read_bytes() for path in remade.iterdir()}
    subprocess.run([sys.executable, str(EXAMPLES / "make_corpus.py"), str(remade)], check=True)
    assert {path.name: path.read_bytes() for path in remade.iterdir()} == before


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_nfc_and_repeats_no_record(name: str) -> None:
    text = content(CORPUS / name).decode("utf-8")
    assert unicodedata.is_normalized("NFC", text)
    assert "\r" not in text and text.endswith("\n")
    rows = lines(name)
    assert all(rows) and len(set(rows)) == len(rows)


def test_every_field_a_template_names_is_in_every_record() -> None:
    for source in CONFIG["source"]:
        for name in source["files"]:
            if name.endswith(".txt"):
                assert "segments" not in source
                continue
            template = "".join(text for segment in source["segments"] for text in segment.values())
            fields = re.findall(r"\{\{ ([\w.]+) \}\}|in ([\w.]+) %\}", template)
            paths = {one or other for one, other in fields} - {"name"}
            assert paths
            rows = lines(name)
            if name.endswith(".tsv"):
                header = rows[0].split("\t")
                records = [dict(zip(header, row.split("\t"), strict=True)) for row in rows[1:]]
            else:
                records = [json.loads(row) for row in rows]
            for record in records:
                for path in paths:
                    value: Any = record
                    for key in path.split("."):
                        value = value[key]
                    assert value, (source["name"], path, record)


def test_no_text_of_the_data_looks_like_a_tag() -> None:
    for name in FILES:
        assert not re.search(r"<\w+>|</s>", "\n".join(lines(name))), name


def test_the_tsv_holds_a_quote_that_is_text() -> None:
    assert any(row.count('"') == 2 and not row.startswith('"') for row in lines("languages.tsv"))


def test_taking_the_marks_off_gives_the_prompt_of_diacritization() -> None:
    for row in lines("diacritics.jsonl.gz"):
        for pair in json.loads(row).values():
            bare = "".join(
                c
                for c in unicodedata.normalize("NFD", pair["marked"])
                if not unicodedata.combining(c)
            )
            assert bare == pair["plain"]


@pytest.mark.parametrize(
    ("digits", "en", "hau", "ibo"),
    [
        ("7", "seven", "bakwai", "asaa"),
        ("1 0", "ten", "goma", "iri"),
        ("1 5", "fifteen", "goma sha biyar", "iri na ise"),
        ("2 0", "twenty", "ashirin", "iri abụọ"),
        ("1 0 0", "one hundred", "ɗari", "otu narị"),
        ("1 1 1", "one hundred and eleven", "ɗari da goma sha ɗaya", "otu narị na iri na otu"),
        (
            "3 4 2",
            "three hundred and forty-two",
            "ɗari uku da arba'in da biyu",
            "narị atọ na iri anọ na abụọ",
        ),
        ("9 0 9", "nine hundred and nine", "ɗari tara da tara", "narị itoolu na itoolu"),
    ],
)
def test_number_words(digits: str, en: str, hau: str, ibo: str) -> None:
    assert {"digits": digits, "en": en, "hau": hau, "ibo": ibo} in [
        json.loads(row) for row in lines("numbers.jsonl")
    ]


def test_the_numbers_are_one_to_nine_hundred_and_ninety_nine_each_with_its_own_words() -> None:
    records = [json.loads(row) for row in lines("numbers.jsonl")]
    assert [record["digits"].replace(" ", "") for record in records] == [
        str(n) for n in range(1, 1000)
    ]
    for lang in ("en", "hau", "ibo"):
        assert len({record[lang] for record in records}) == 999
