"""Files as programs leave them: cut off, put together, written to meanwhile. A record of each is
kept, or counted with its line, or the file is refused with what to do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

import sabiprep
from sabiprep import InputError, PackOptions
from support.compressions import MEMBERS
from support.one_file import ROWS, SEGMENTS, refusal, segments_of, tables, write_corpus
from support.packed_texts import PackedFile, pack_file
from support.peak_memory import needs_proc, peak_of

TABLES = tables(ROWS)
TARGET = [{"target": "{{ a }}"}]
MIB = 1 << 20
BOM = "\ufeff".encode()


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Path]:
    return (tmp_path / str(nth) for nth in count())


def whys(packed: PackedFile) -> list[tuple[int, str]]:
    """The line of each dropped record that is named, and why it was dropped."""
    return [(example["line"], example["why"]) for example in packed.source["examples"]]


# --- half a last line ---


def test_half_a_last_line_is_malformed_where_that_shows(folders: Iterator[Path]) -> None:
    packed = pack_file(
        next(folders), "a.jsonl", b'{"q": "1", "a": "one"}\n{"q": "2", "a": "tw', segments=SEGMENTS
    )
    assert packed.texts == {0: "1|one"} and packed.source["drops"] == {"malformed": 1}
    assert whys(packed)[0][0] == 2
    packed = pack_file(next(folders), "a.tsv", b"q\ta\n1\tone\n2", segments=SEGMENTS)
    assert list(packed.texts.values()) == ["1|one"] and whys(packed) == [(3, "1 fields, 2 columns")]
    # Nothing tells half a last field from a whole one.
    packed = pack_file(next(folders), "a.tsv", b"q\ta\n1\tone\n2\ttw", segments=SEGMENTS)
    assert list(packed.texts.values()) == ["1|one", "2|tw"]
    packed = pack_file(next(folders), "a.txt", b"one\ntw")
    assert list(packed.texts.values()) == ["one", "tw"]
    packed = pack_file(next(folders), "a.csv", b'q,a\n1,one\n2,"tw', segments=SEGMENTS)
    [(line, why)] = whys(packed)
    assert line == 3 and "the quote that opens on line 3 is not closed" in why
    # In the middle of a character.
    packed = pack_file(next(folders), "a.txt", "one\nọ̀rọ̀".encode()[:-1])
    assert whys(packed) == [(2, "not UTF-8 from byte 10 on")]
    told = refusal(
        next(folders), "a.json", b'[{"q": "1", "a": "one"},\n{"q": "2", "a', segments=SEGMENTS
    )
    assert "a.json:2" in told and "truncated" in told


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.tsv", "a.csv", "a.txt", "a.txt.gz"])
def test_a_file_that_grows_meanwhile_is_told_from_a_broken_one(tmp_path: Path, name: str) -> None:
    """It is read to a size that it had, and then the run ends: what was added may be half a
    record.
    """
    content = tables(ROWS * 2000)[name.removesuffix(".gz")].encode()
    content = MEMBERS["gz"](content) if name.endswith("gz") else content
    corpus = write_corpus(tmp_path / "corpus", name, content, **segments_of(name))
    grown = False

    def grow(phase: str, *counts: int) -> None:
        nonlocal grown
        if phase == "map" and not grown:
            grown = True
            with (corpus / name).open("ab") as file:
                file.write(b"more and more\n" * 1000)

    told = f"(?s){name}.*was changed while it was read.*pack again"
    with pytest.raises(InputError, match=told):
        sabiprep.pack(corpus, tmp_path / "out", PackOptions(threads=1), progress=grow)
    assert grown and not (tmp_path / "out").exists()


# --- files put together ---


@pytest.mark.parametrize("split_bytes", [7, None])
def test_a_byte_order_mark_before_any_record_is_passed_over(
    folders: Iterator[Path], split_bytes: int | None
) -> None:
    files = {
        "a.jsonl": [b'{"q": "1", "a": "one"}\n', b'{"q": "2", "a": "two"}\n'],
        "a.tsv": [b"q\ta\n1\tone\n", b"2\ttwo\n"],
        "a.csv": [b"q,a\r\n1,one\r\n", b'"2",two\r\n'],
        "a.txt": [b"1|one\n", b"2|two\n"],
    }
    for name, (first, second) in files.items():
        for mark in (b"", BOM):
            packed = pack_file(
                next(folders),
                name,
                mark + first + BOM + second + BOM,
                split_bytes=split_bytes,
                **segments_of(name),
            )
            assert list(packed.texts.values()) == ["1|one", "2|two"], name
            assert packed.source["drops"] == {} and packed.source["records"] == 2
    # Elsewhere it is a character of the text.
    packed = pack_file(next(folders), "a.txt", b"one" + BOM + b"\n")
    assert list(packed.texts.values()) == ["one\ufeff"]


# --- ends of line ---


def test_lines_that_end_as_on_old_macs(folders: Iterator[Path]) -> None:
    for name in ("a.jsonl", "a.tsv", "a.txt"):
        old = TABLES[name].replace("\n", "\r").encode()
        told = refusal(next(folders), name, old, **segments_of(name))
        assert r"lines that end with \r alone" in told, name
        assert rf"tr '\r' '\n' < {name} > NEW" in told
        told = refusal(next(folders), f"{name}.gz", MEMBERS["gz"](old), **segments_of(name))
        assert r"lines that end with \r alone" in told, name
    # These formats know such ends.
    for name in ("a.csv", "a.json"):
        new = TABLES[name].replace("\r\n", "\n").encode()
        packed = pack_file(next(folders), name, new.replace(b"\n", b"\r"), segments=SEGMENTS)
        plain = pack_file(next(folders), name, new, segments=SEGMENTS)
        assert packed.texts == plain.texts and len(plain.texts) == len(ROWS)


# --- what is no file of records ---


def test_a_folder_that_is_named_like_a_file(folders: Iterator[Path]) -> None:
    corpus = write_corpus(next(folders), "b.txt", b"", segments=TARGET)
    (corpus / "x.jsonl").mkdir()
    (corpus / "x.jsonl" / "part-0.jsonl").write_text('{"a": "one"}\n')
    config = corpus / "corpus.toml"
    written = config.read_text()
    for pattern in ("x.jsonl", "*.jsonl"):
        config.write_text(written.replace('"b.txt"', f'"{pattern}"'))
        with pytest.raises(InputError, match=r"folder(?s:.*)x\.jsonl/\*") as refused:
            sabiprep.pack(corpus, next(folders))
        assert isinstance(refused.value, IsADirectoryError) == (pattern == "x.jsonl")
    config.write_text(written.replace('"b.txt"', '"x.jsonl/*"'))
    assert sabiprep.pack(corpus, next(folders)).train.documents == 1


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_a_file_that_holds_nothing(folders: Iterator[Path], name: str) -> None:
    nothing = MEMBERS["gz"](b"") if name.endswith("gz") else b""
    told = refusal(next(folders), name, nothing)
    assert "records read: 0" in told and "the inputs hold no records" in told


# --- characters that are none ---


def test_lone_surrogates_are_counted_however_they_are_written(folders: Iterator[Path]) -> None:
    good = '{"a": "one"}\n{"a": "\\ud83d\\ude00"}\n'
    bad = '{"a": "\\ud83d"}\n{"a": "x\\ude00"}\n{"a": "\\ude00\\ud83d"}\n'
    packed = pack_file(next(folders), "a.jsonl", (good + bad).encode(), segments=TARGET)
    assert list(packed.texts.values()) == ["one", "😀"]
    assert sum(packed.source["drops"].values()) == 3
    assert [line for line, _ in whys(packed)] == [3, 4, 5]
    array = json.dumps([{"a": "one"}, {"a": "\ud83d"}]).encode()
    packed = pack_file(next(folders), "a.json", array, segments=TARGET)
    assert list(packed.texts.values()) == ["one"] and sum(packed.source["drops"].values()) == 1
    # As some programs write them, in what is called UTF-8.
    for name, content in (
        ("a.txt", b"one\nx\xed\xa0\xbdy\n"),
        ("a.tsv", b"a\none\nx\xed\xa0\xbd\n"),
    ):
        packed = pack_file(
            next(folders),
            name,
            content,
            segments=TARGET if "tsv" in name else [{"target": "{{ text }}"}],
        )
        assert list(packed.texts.values()) == ["one"]
        assert packed.source["drops"] == {"malformed": 1}
        assert whys(packed)[0][1].startswith("not UTF-8 from byte 2 on")


# --- a long line ---


def long_record(name: str, size: int) -> tuple[bytes, bytes, bytes]:
    """The start of a file, a record of some bytes, and its end: three records, the second long."""
    x = b"x" * size
    return {
        "jsonl": (b'{"a": "one"}\n', b'{"a": "' + x + b'"}\n', b'{"a": "two"}\n'),
        "json": (b'[{"a": "one"},\n', b'{"a": "' + x + b'"},\n', b'{"a": "two"}]'),
        "tsv": (b"a\none\n", x + b"\n", b"two\n"),
        "csv": (b"a\none\n", b'"' + x + b'"\n', b"two\n"),
        "txt": (b"one\n", x + b"\n", b"two\n"),
    }[name]


@needs_proc
@pytest.mark.parametrize("name", ["jsonl", "json", "tsv", "csv", "txt"])
def test_a_line_of_50_mb_is_one_malformed_record_and_takes_little_memory(
    tmp_path: Path, name: str
) -> None:
    content = b"".join(long_record(name, 50 * MIB))
    segments = [{"target": "{{ text }}" if name == "txt" else "{{ a }}"}]
    corpus = write_corpus(tmp_path / "corpus", f"a.{name}", content, segments=segments)
    peak = peak_of(corpus, tmp_path / "out", threads=1)
    assert peak >> 20 < 250
    [source] = json.loads((tmp_path / "out" / "manifest.json").read_text("utf-8"))["sources"]
    assert source["records"] == 3 and source["drops"] == {"malformed": 1}
    [example] = source["examples"]
    assert example["why"].startswith("longer than 16 MiB")
    assert example["line"] == {"tsv": 3, "csv": 3}.get(name, 2)
