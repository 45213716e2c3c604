"""Quoted CSV: the records are those of Python's `csv` module, each with its place."""

from __future__ import annotations

import csv
import gzip
import io
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

import sabiprep
from sabiprep import ConfigError, InputError
from support import packer
from support.packed_texts import PackedFile, pack_file
from support.peak_memory import needs_proc, peak_of
from support.strategies import tokenizer_json

SEGMENTS = [{"prompt": "{{ q }}|"}, {"target": "{{ a }}"}]
MIB = 1 << 20
GUESS = '; a guess: encoding = "windows-1252" or "latin-1"'
number = count()


def rows_of(text: str, delimiter: str = ",") -> list[list[str]]:
    """The records of a file by Python's reader; empty lines are none."""
    lines = io.StringIO(text, newline="")
    return [row for row in csv.reader(lines, delimiter=delimiter) if row]


def is_closed(text: str, delimiter: str) -> bool:
    """Whether a file ends outside of quotes: a record could follow on a line of its own."""
    return rows_of(text + "\nQ", delimiter)[-1] == ["Q"]


def whys(packed: PackedFile) -> list[tuple[int, str]]:
    """The line of each dropped record that is named, and why it was dropped."""
    return [(example["line"], example["why"]) for example in packed.source["examples"]]


# --- against Python's reader ---

# What can be told from each other only by its quotes, ends of line and delimiters.
pieces = st.sampled_from(['"', '""', ",", ";", "\n", "\r\n", "\r", "x", "ẹ\u0301", " ", "\t", "=1"])
contents = st.lists(pieces | st.just('\n1,"x'), max_size=40).map("".join)
# Python writes a lone carriage return without quotes, and reads it as an end of line.
cells = st.lists(pieces.filter(lambda piece: piece != "\r"), max_size=6).map("".join)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(contents, st.sampled_from([",", ";", "\t", "x"]), st.booleans(), st.booleans())
def test_any_text_holds_the_records_of_python(
    tmp_path: Path, hostile: str, delimiter: str, has_bom: bool, is_gzip: bool
) -> None:
    text = f"q{delimiter}a\r\n1{delimiter}good\n{hostile}"
    bom = "\ufeff".encode() if has_bom else b""
    content = bom + text.encode()
    options: dict[str, Any] = {} if delimiter == "," else {"delimiter": delimiter}
    packed = pack_file(
        tmp_path / str(next(number)),
        "a.csv.gz" if is_gzip else "a.csv",
        gzip.compress(content) if is_gzip else content,
        segments=SEGMENTS,
        format="csv",
        **options,
    )
    header, *rows = rows_of(text, delimiter)
    assert header == ["q", "a"]
    unclosed = not is_closed(text, delimiter)
    if unclosed:
        rows.pop()
    kept = [row for row in rows if len(row) == 2 and row[1].strip()]
    assert list(packed.texts.values()) == [f"{q}|{a}" for q, a in kept]
    event("a quote is open at the end" if unclosed else "all quotes are closed")
    expected = {
        "malformed": sum(len(row) != 2 for row in rows) + unclosed,
        "empty target": sum(len(row) == 2 and not row[1].strip() for row in rows),
    }
    assert packed.source["drops"] == {reason: n for reason, n in expected.items() if n}
    # Each record begins where its id says.
    for offset, row in zip(packed.texts, kept, strict=True):
        rest = content[offset:].decode()
        assert rows_of(rest, delimiter)[0] == row and rest[0] not in "\r\n"


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(cells, cells), min_size=1, max_size=8),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_a_file_that_python_wrote_is_read_back(
    tmp_path: Path, rows: list[tuple[str, str]], quoting: Any, line_end: str
) -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(file, quoting=quoting, lineterminator=line_end)
    writer.writerows([("q", "a"), *((q, f"{a}.") for q, a in rows)])
    packed = pack_file(
        tmp_path / str(next(number)), "a.csv", file.getvalue().encode(), segments=SEGMENTS
    )
    assert list(packed.texts.values()) == [f"{q}|{a}." for q, a in rows]
    assert packed.source["drops"] == {} and packed.config["format"] == "csv"


# --- names of columns ---


def test_columns_header_and_delimiter_are_as_for_tsv_and_kept_in_the_manifest(
    tmp_path: Path,
) -> None:
    def pack(name: str, first: str, **options: Any) -> PackedFile:
        content = f'{first}\n"one; two";"three"\n'.encode()
        return pack_file(
            tmp_path / name, "a.csv", content, segments=SEGMENTS, delimiter=";", **options
        )

    columns = ["q", "a"]
    with pytest.raises(InputError, match="looks like a header"):
        pack("unsaid", "Question;Answer", columns=columns)
    skipped = pack("skipped", '"Question";Answer', columns=columns, header=True)
    assert list(skipped.texts.values()) == ["one; two|three"]
    keys = ("format", "columns", "header", "delimiter")
    assert {key: skipped.config[key] for key in keys} == {
        "format": "csv",
        "columns": columns,
        "header": True,
        "delimiter": ";",
    }
    kept = pack("kept", "Question;Answer", columns=columns, header=False)
    assert list(kept.texts.values()) == ["Question|Answer", "one; two|three"]
    assert len(pack("none", "ẹ káàárọ̀ o;good morning", columns=columns).texts) == 2
    named = pack("named", '"q";"a"')
    assert list(named.texts) == [8] and "columns" not in named.config
    with pytest.raises(InputError, match="two columns are named 'q'"):
        pack("twice", "q;q")


def test_quoted_tsv_may_be_asked_for_and_so_may_raw_tsv(tmp_path: Path) -> None:
    content = b'q\ta\n"one\n""two"""\tthree\n'
    raw = b'q\ta\n"one ""two"""\tthree\n'
    quoted = pack_file(
        tmp_path / "quoted", "a.tsv", content, segments=SEGMENTS, format="csv", delimiter="\t"
    )
    assert list(quoted.texts.values()) == ['one\n"two"|three']
    plain = pack_file(tmp_path / "plain", "a.tsv", raw, segments=SEGMENTS, format="tsv")
    assert list(plain.texts.values()) == ['"one ""two"""|three']


@pytest.mark.parametrize("delimiter", ["", ";;", "ẹ", '"', "\n"])
def test_a_delimiter_is_one_ascii_character(tmp_path: Path, delimiter: str) -> None:
    with pytest.raises(ConfigError, match="one ASCII character"):
        pack_file(tmp_path, "a.csv", b"q,a\n1,2\n", segments=SEGMENTS, delimiter=delimiter)


def test_a_delimiter_is_for_csv_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'(?s)`delimiter` is for csv.*format = "csv"'):
        pack_file(tmp_path, "a.tsv", b"q\ta\n1\t2\n", segments=SEGMENTS, delimiter=";")


def test_a_delimiter_within_quotes_leaves_the_comma_certain(tmp_path: Path) -> None:
    packed = pack_file(
        tmp_path, "A.CSV", b'q,"x; y | z",a\n1,2,3\n', segments=[{"target": "{{ a }}"}]
    )
    assert list(packed.texts.values()) == ["3"]


def test_text_in_another_encoding_is_named_whatever_its_delimiter(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is text in UTF-16"):
        pack_file(tmp_path, "a.csv", "q;a\none;two\n".encode("utf-16"), segments=SEGMENTS)


# --- damage ---


def test_what_is_malformed_is_counted_with_its_line_and_why(tmp_path: Path) -> None:
    content = b"".join(
        [
            b'q,a\n"one\n\n",two\n',
            b"one,two,three\n",
            b"\nalone\n",
            b'good,"\xe9t\xe9"\n',
            b"\xc3,\xa9\n",
            b'"x"y"z",w\n',
            b'a\n,"\nlast\n',
        ]
    )
    packed = pack_file(tmp_path, "a.csv", content, segments=SEGMENTS)
    assert list(packed.texts.values()) == ["one\n\n|two", 'xy"z"|w']
    assert packed.source["records"] == 8 and packed.source["drops"] == {"malformed": 6}
    assert [(e["line"], e["why"]) for e in packed.source["examples"]] == [
        (5, "3 fields, 2 columns"),
        (7, "1 fields, 2 columns"),
        (8, f"field 2 is not UTF-8 from its byte 1 on{GUESS}"),
    ]


def test_half_a_character_in_each_of_two_fields_is_no_text(tmp_path: Path) -> None:
    content = b"q,a\n1,2\n\xc3,\xa9\n"
    packed = pack_file(tmp_path, "a.csv", content, segments=SEGMENTS)
    assert whys(packed) == [(3, "field 1 is not UTF-8 from its byte 1 on")]


def test_a_quote_that_nobody_closes_is_named_by_the_line_it_opens_on(tmp_path: Path) -> None:
    content = b'q,a\n1,2\n"three\n","four"\nfive,"six\n\n"\nseven,"eight\n9,10\n'
    packed = pack_file(tmp_path, "a.csv", content, segments=SEGMENTS)
    assert list(packed.texts.values()) == ["1|2", "three\n|four", "five|six\n\n"]
    what = "the quote that opens on line 8 is not closed by the end of the file"
    assert whys(packed) == [(8, what)]


def test_a_record_longer_than_16_mib_is_one_malformed_record(tmp_path: Path) -> None:
    long = b"x" * (17 * MIB)
    for name, row, why in [
        ("plain", b"1," + long, "longer than 16 MiB"),
        (
            "quoted",
            b'1,"' + long + b'"',
            "longer than 16 MiB: the quote that opens on line 3 closes late or never",
        ),
        ("commas", b"," * len(long), "longer than 16 MiB"),
    ]:
        content = b"q,a\n1,2\n" + row + b"\n3,4\n"
        packed = pack_file(tmp_path / name, "a.csv", content, segments=SEGMENTS)
        assert list(packed.texts.values()) == ["1|2", "3|4"]
        assert whys(packed) == [(3, why)]


@needs_proc
def test_an_unclosed_quote_before_much_text_takes_little_memory(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    packer.write_config(folder, [{"name": "a", "files": ["a.csv"], "segments": SEGMENTS}])
    with (folder / "a.csv").open("wb") as file:
        file.write(b'q,a\n1,2\n"never closed')
        for _ in range(256):
            file.write(b"one, two\n" * (MIB // 9))
    peak = peak_of(folder, tmp_path / "out", tokenizer=str(folder / "tokenizer.json"), threads=1)
    assert peak >> 20 < 200


# --- elsewhere ---


def test_a_quoted_file_that_training_is_kept_clean_of(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    (folder / "train.csv").write_text('q,a\n"one, two\nthree four",x\nfive,y\n', "utf-8")
    (folder / "test.csv").write_text('text,n\n"one two, three\nfour",1\n', "utf-8")
    source = {"name": "a", "files": ["train.csv"], "segments": SEGMENTS}
    config: dict[str, Any] = {"decontaminate": ["test.csv"], "decontaminate_ngram": 4}
    packer.write_config(folder, [source], pack={"seq_len": 64, **config})
    manifest = packer.pack(folder, tmp_path / "out", tokenizer=folder / "tokenizer.json")
    assert manifest["sources"][0]["drops"] == {"contaminated": 1}
    (folder / "test.csv").write_text('text,n\n"one\n\n",1\ntwo\n', "utf-8")
    with pytest.raises(InputError, match=r"test.csv:5: 1 fields, 2 columns"):
        packer.pack(folder, tmp_path / "other", tokenizer=folder / "tokenizer.json")


def test_a_record_of_a_quoted_file_is_explained_as_json(tmp_path: Path) -> None:
    pack_file(tmp_path, "a.csv", b'q,a\n"x, y",z\n', segments=SEGMENTS)
    told = sabiprep.explain(
        {"q": "x, y", "a": "z"},
        "file",
        corpus=tmp_path / "corpus",
        tokenizer=tmp_path / "corpus" / "tokenizer.json",
    )
    assert told.dropped is None and "".join(run for run in told.runs) == "x, y|z"


def test_a_file_is_one_split_however_small_splits_are(tmp_path: Path) -> None:
    content = b"q,a\n" + b'"a\n,b",c\n' * 300
    packed = pack_file(tmp_path, "a.csv", content, segments=SEGMENTS, split_bytes=7)
    assert list(packed.texts) == [4 + 9 * nth for nth in range(300)]
    assert set(packed.texts.values()) == {"a\n,b|c"}


def test_a_file_of_a_header_or_less_has_no_records(tmp_path: Path) -> None:
    for nth, content in enumerate([b"q,a\n", b"q,a", b"\n\n", b""]):
        with pytest.raises(InputError, match="no training document is left"):
            pack_file(tmp_path / str(nth), "a.csv", content, segments=SEGMENTS)
