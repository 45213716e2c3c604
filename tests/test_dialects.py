"""Dialects of CSV and TSV: found where files show them without doubt, and said."""

from __future__ import annotations

import csv
import io
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sabiprep import ConfigError, InputError
from support import packer
from support.packed_texts import PackedFile, pack_file
from support.strategies import tokenizer_json

SEGMENTS = [{"prompt": "{{ q }}|"}, {"target": "{{ a }}"}]
NAIJA = Path(__file__).parents[2] / "shared" / "corpora" / "naija"
number = count()


def pack(folder: Path, name: str, text: str, **source: Any) -> PackedFile:
    return pack_file(folder, name, text.encode(), segments=SEGMENTS, **source)


def pack_files(folder: Path, files: dict[str, str], **source: Any) -> dict[str, Any]:
    """Pack several files as one source. Returns the manifest."""
    corpus = folder / "corpus"
    corpus.mkdir(parents=True)
    for name, text in files.items():
        (corpus / name).write_text(text, "utf-8", newline="")
    (corpus / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    entry = {"name": "s", "files": list(files), "segments": SEGMENTS, **source}
    packer.write_config(corpus, [entry], pack={"seq_len": 1024})
    return packer.pack(corpus, folder / "out", tokenizer=corpus / "tokenizer.json", threads=2)


def dialect(packed: PackedFile) -> tuple[str, str | None]:
    return packed.config["format"], packed.config.get("delimiter")


# --- quotes of a file named .tsv ---


@pytest.mark.parametrize(
    ("body", "is_quoted"),
    [
        ('"one ""two"""\tx\n', True),
        ('"one\n\ntwo"\tx\n', True),
        ('"one\ttwo"\tx\n', True),
        ('plain\tx\n"one ""two"""\tx\n', True),
        ("plain\tx\n", False),
        ('"one"\tx\n', False),
        ('he said "one"\tx\n', False),
        ('""""one"""" two\tx\n', False),
        ('"one" and ""two""\tx\n', False),
        ('"unclosed\tx\nplain\tx\n', False),
        ('5"\tx\n6"\tx\n', False),
    ],
)
def test_a_tsv_is_quoted_only_without_doubt(tmp_path: Path, body: str, is_quoted: bool) -> None:
    packed = pack(tmp_path, "a.tsv", "q\ta\n" + body)
    assert dialect(packed) == (("csv", "\t") if is_quoted else ("tsv", None))
    if is_quoted:
        rows = list(csv.reader(io.StringIO(body, newline=""), delimiter="\t"))
    else:
        rows = [line.split("\t") for line in body.splitlines()]
    assert list(packed.texts.values()) == [f"{q}|{a}" for q, a in rows]


def test_a_format_that_is_given_wins(tmp_path: Path) -> None:
    text = 'q\ta\n"one ""two"""\tx\n'
    raw = pack(tmp_path / "raw", "a.tsv", text, format="tsv")
    assert list(raw.texts.values()) == ['"one ""two"""|x']
    quoted = pack(tmp_path / "quoted", "a.tsv", 'q\ta\n"one"\tx\n', format="csv")
    assert list(quoted.texts.values()) == ["one|x"] and dialect(quoted) == ("csv", "\t")


def test_headers_in_quotes_and_a_byte_order_mark_say_that_quotes_are_around(
    tmp_path: Path,
) -> None:
    packed = pack(tmp_path, "a.tsv", '\ufeff"q"\t"a"\r\n"one"\t"x"\r\n')
    assert list(packed.texts.values()) == ["one|x"]


def test_files_of_two_dialects_are_not_one_source(tmp_path: Path) -> None:
    files = {"a.tsv": 'q\ta\n"one ""two"""\tx\n', "b.tsv": 'q\ta\nsay "one"\tx\n'}
    with pytest.raises(ConfigError, match=r"a\.tsv has quotes around fields, in b\.tsv quotes"):
        pack_files(tmp_path / "mixed", files)
    files["b.tsv"] = "q\ta\nplain\tx\n"
    assert pack_files(tmp_path / "one", files)["config"]["source"][0]["format"] == "csv"


cells = st.text('x ọ\t\n",;', min_size=1, max_size=8).filter(lambda cell: cell.strip())


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(cells, cells), min_size=1, max_size=8),
    st.sampled_from(["\t", ",", ";", "|"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.booleans(),
)
def test_a_file_that_python_wrote_is_read_back(
    tmp_path: Path, rows: list[tuple[str, str]], delimiter: str, quoting: Any, is_tsv: bool
) -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, quoting=quoting, lineterminator="\n")
    writer.writerows([("q", "a"), *rows])
    name = "a.tsv" if is_tsv and delimiter == "\t" else "a.csv"
    folder = tmp_path / str(next(number))
    packed = pack(folder, name, file.getvalue())
    assert list(packed.texts.values()) == [f"{q}|{a}" for q, a in rows]


# --- delimiters of a file named .csv ---


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_clear_delimiter_is_found(tmp_path: Path, delimiter: str) -> None:
    text = f"q{delimiter}a\n1.5{delimiter}x: y\n"
    packed = pack(tmp_path, "a.csv", text)
    assert list(packed.texts.values()) == ["1.5|x: y"]
    assert dialect(packed) == ("csv", None if delimiter == "," else delimiter)


def test_an_unclear_delimiter_is_an_error_unless_the_format_is_given(tmp_path: Path) -> None:
    text = "q,a;b\n1,2;3\n"
    with pytest.raises(ConfigError, match=r'(?s)delimiter cannot be guessed.*format = "csv"'):
        pack(tmp_path / "unclear", "a.csv", text)
    segments = [{"target": "{{ q }}"}]
    given = pack_file(tmp_path / "g", "a.csv", text.encode(), segments=segments, format="csv")
    assert list(given.texts.values()) == ["1"]


# --- what was read the wrong way ---


def notes_of(manifest: dict[str, Any]) -> str:
    return "\n".join(manifest.get("notes", []))


def test_a_raw_reading_that_keeps_doubled_quotes_is_noted(tmp_path: Path) -> None:
    body = 'plain\tx\n"one ""two"""\tx\n"three ""four"""\tx\n'
    manifest = pack_files(tmp_path / "raw", {"a.tsv": "q\ta\n" + body}, format="tsv")
    assert "2 of its records, first a.tsv:3, hold a field in quotes" in notes_of(manifest)
    manifest = pack_files(tmp_path / "quoted", {"a.tsv": "q\ta\n" + body})
    assert "quotes" not in notes_of(manifest)
    # Beyond the sample, too, and whatever the splits.
    many = "".join(f"{nth}\tx\n" for nth in range(60000)) + body
    manifest = pack_files(tmp_path / "late", {"a.tsv": "q\ta\n" + many})
    assert "2 of its records, first a.tsv:60003, hold a field in quotes" in notes_of(manifest)


def test_a_quoted_reading_that_swallows_lines_is_noted(tmp_path: Path) -> None:
    swallowed = "".join(f"{nth},y\n" for nth in range(40))
    text = f'q,a\n1,x\n2,"{swallowed}"\n3,x\n'
    manifest = pack_files(tmp_path / "swallows", {"a.csv": text})
    assert "1 of its records, first a.csv:3, have a quote" in notes_of(manifest)
    lines = "verse\n" * 40
    manifest = pack_files(tmp_path / "long", {"a.csv": f'q,a\n1,x\n2,"{lines}"\n3,x\n'})
    assert "quote" not in notes_of(manifest)


# --- headers ---


@pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_a_header_in_the_middle_is_no_record(tmp_path: Path, name: str, bom: str) -> None:
    mark = "\t" if name == "a.tsv" else ","
    text = "".join(
        line.replace("\t", mark)
        for line in ("q\ta\n", "1\tx\n", bom + "q\ta\n", "2\ty\n", "q\tz\n")
    )
    for nth, source in enumerate([{}, {"columns": ["q", "a"], "header": True}]):
        packed = pack(tmp_path / str(nth), name, text, split_bytes=5, **source)
        assert list(packed.texts.values()) == ["1|x", "2|y", "q|z"]
        example = packed.source["examples"][0]
        assert (example["line"], example["why"]) == (3, "repeats the header")
        assert packed.source["drops"] == {"malformed": 1}


def test_a_record_is_no_header_where_only_the_first_file_has_one(tmp_path: Path) -> None:
    files = {"a.tsv": "q\ta\n1\tx\n", "b.tsv": "2\ty\n3\tz\n"}
    with pytest.raises(InputError, match=r"(?s)b\.tsv:1, .*names no column of a\.tsv.*columns ="):
        pack_files(tmp_path / "raw", files)
    # Files whose columns are in another order are one source.
    files["b.tsv"] = "a\tq\ny\t2\n"
    manifest = pack_files(tmp_path / "order", files)
    assert manifest["sources"][0]["kept"] == 2


# --- published files ---


@pytest.mark.skipif(not NAIJA.is_dir(), reason="the corpus is not beside the checkout")
def test_published_news_are_quoted_and_published_tweets_are_raw(tmp_path: Path) -> None:
    files = sorted(NAIJA.glob("*/*/*.tsv"))
    assert files
    for path in files:
        name = f"{path.parts[-3]}-{path.parts[-2]}-{path.name}"
        target = "{{ headline }}" if "news" in name else "{{ tweet }}"
        head = b"\n".join(path.read_bytes().split(b"\n")[:40]) + b"\n"
        packed = pack_file(
            tmp_path / name, name, head, segments=[{"target": target}], duplicates="keep"
        )
        assert dialect(packed) == (("csv", "\t") if "news" in name else ("tsv", None)), name
