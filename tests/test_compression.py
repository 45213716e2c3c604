"""Compressed files give the records of the plain file, or an error that says what to do."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import zipfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sabiprep
from sabiprep import InputError, cli
from support.compressions import MEMBERS, TESTS, compressed, zipped, zstd
from support.one_file import ROWS, refusal, segments_of, shards_of, tables, write_corpus
from support.packed_texts import pack_file
from support.peak_memory import needs_proc, peak_of

TABLES = tables(ROWS)
TEXT = TABLES["a.txt"].encode()
lines = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
number = count()


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Path]:
    return (tmp_path / str(nth) for nth in count())


@pytest.mark.parametrize("name", TABLES)
def test_a_compressed_file_gives_the_bytes_of_the_plain_one(
    folders: Iterator[Path], name: str
) -> None:
    content, source = TABLES[name].encode(), segments_of(name)
    plain = shards_of(next(folders), name, content, **source)
    for suffix in [*MEMBERS, "zip"]:
        stored = compressed(suffix, name, content)
        # A zip archive has a name of its own for what it holds.
        archive = "b.zip" if suffix == "zip" else f"{name}.{suffix}"
        assert shards_of(next(folders), archive, stored, **source) == plain, suffix


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(lines, min_size=1, max_size=4), st.integers(0, 9))
def test_members_are_read_one_after_another_and_zeros_are_passed_over(
    tmp_path: Path, texts: list[str], zeros: int
) -> None:
    contents = [f"{nth} {text}.\n".encode() for nth, text in enumerate(texts)]
    plain = pack_file(tmp_path / str(next(number)), "a.txt", b"".join(contents), format="text")
    for suffix, member in MEMBERS.items():
        stored = b"".join(member(content) + bytes(zeros) for content in contents)
        packed = pack_file(tmp_path / str(next(number)), f"a.txt.{suffix}", stored, format="text")
        assert packed.texts == plain.texts
        assert packed.source["drops"] == plain.source["drops"]


@pytest.mark.parametrize("suffix", [*MEMBERS, "zip"])
def test_a_file_that_is_cut_off_is_named_with_what_tests_it(
    folders: Iterator[Path], suffix: str
) -> None:
    stored = compressed(suffix, "a.txt", TEXT * 50)
    for share in (0.2, 0.6, 0.95):
        cut = stored[: int(len(stored) * share)]
        told = refusal(next(folders), f"a.txt.{suffix}", cut)
        assert told.startswith("a.txt") and ("cut off" in told or "damaged" in told)
        assert f"`{TESTS[suffix]} a.txt.{suffix}`" in told
        assert suffix == "zip" or "bytes of content" in told


@pytest.mark.parametrize("suffix", MEMBERS)
def test_what_follows_the_end_is_refused_by_its_place(folders: Iterator[Path], suffix: str) -> None:
    stored = MEMBERS[suffix](TEXT)
    told = refusal(next(folders), f"a.txt.{suffix}", stored + b"and more\n")
    assert f"from its byte {len(stored) + 1} on, with something else" in told
    assert f"head -c {len(stored)} a.txt.{suffix} > NEW" in told


@pytest.mark.parametrize("suffix", [*MEMBERS, "zip"])
def test_a_compression_that_the_name_does_not_say_is_refused_with_the_name_that_does(
    folders: Iterator[Path], suffix: str
) -> None:
    stored = compressed(suffix, "a.txt", TEXT)
    assert f"mv a.txt a.txt.{suffix}" in refusal(next(folders), "a.txt", stored)
    other = "xz" if suffix == "gz" else "gz"
    told = refusal(next(folders), f"a.txt.{other}", stored)
    assert "as its name says" in told and f"mv a.txt.{other} a.txt.{suffix}" in told
    told = refusal(next(folders), f"a.txt.{suffix}", TEXT)
    assert "though its name says so" in told or "is no zip" in told
    twice = compressed(suffix, "a.txt.gz", gzip.compress(TEXT))
    told = refusal(next(folders), f"a.txt.gz.{suffix}", twice)
    assert "is compressed twice" in told and "unpack it once" in told


@pytest.mark.parametrize("suffix", [*MEMBERS, "zip"])
def test_a_file_of_nothing_is_refused_and_a_content_of_nothing_is_noted(
    folders: Iterator[Path], suffix: str
) -> None:
    assert "is empty" in refusal(next(folders), f"a.txt.{suffix}", b"")
    corpus = write_corpus(next(folders), "a.txt", TEXT)
    stored = compressed(suffix, "b.txt", b"")
    (corpus / f"b.txt.{suffix}").write_bytes(stored)
    config = corpus / "corpus.toml"
    config.write_text(config.read_text().replace('"a.txt"', f'"a.txt", "b.txt.{suffix}"'))
    report = sabiprep.pack(corpus, next(folders))
    assert report.train.documents == len(ROWS)
    assert any(f"b.txt.{suffix} gives the dataset no document" in note for note in report.notes)


# --- zip ---


def test_what_lies_beside_the_one_file_of_an_archive_is_ignored(folders: Iterator[Path]) -> None:
    plain = shards_of(next(folders), "a.txt", TEXT)
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
        stored = zipped(
            ("d/", b""),
            ("__MACOSX/d/._a.txt", b"x"),
            ("d/a.txt", TEXT),
            ("d/.DS_Store", b"x"),
            method=method,
        )
        assert shards_of(next(folders), "b.zip", stored) == plain
    # A format that the source names does not need the suffix.
    stored = zipped(("a", TEXT))
    assert shards_of(next(folders), "b.zip", stored, format="text") == plain
    # Nearly 3 MiB of directory, most of the bound: read once, not twice.
    folders_beside = [(f"{nth:0100}/", b"") for nth in range(20_000)]
    stored = zipped(("a.txt", TEXT), *folders_beside)
    assert shards_of(next(folders), "b.zip", stored) == plain


@pytest.mark.parametrize(
    ("stored", "told"),
    [
        (
            zipped(*((f"{nth}.txt", TEXT) for nth in range(7))),
            r"a zip archive of 7 files: 0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 2 more.*unzip a.zip",
        ),
        (zipped(("d/", b"")), "without a file in it"),
        (zipped(("a.txt", TEXT), method=zipfile.ZIP_LZMA), "by the method .*unzip a.zip"),
        (zipped(("a.txt", TEXT)).replace(b"PK\x05\x06", b"PK\x05\x07"), "cut off.*unzip -t a.zip"),
    ],
)
def test_archives_of_anything_else_are_refused(tmp_path: Path, stored: bytes, told: str) -> None:
    with pytest.raises(InputError, match=f"(?s)^a.zip.*{told}"):
        sabiprep.pack(write_corpus(tmp_path / "corpus", "a.zip", stored), tmp_path / "out")


def encrypted(stored: bytes) -> bytes:
    """An archive whose one file says that it is encrypted, in both of its headers."""
    made = bytearray(stored)
    made[6] |= 1
    made[stored.index(b"PK\x01\x02") + 8] |= 1
    return bytes(made)


def test_an_encrypted_archive_and_one_that_lies_about_its_file(folders: Iterator[Path]) -> None:
    stored = zipped(("a.txt", TEXT))
    assert "an encrypted zip archive" in refusal(next(folders), "a.zip", encrypted(stored))
    directory = stored.index(b"PK\x01\x02")
    for place, what in ((16, "checksum"), (24, "size")):
        lying = bytearray(stored)
        lying[directory + place] ^= 1
        told = refusal(next(folders), "a.zip", bytes(lying))
        assert "that its directory says" in told, what


def test_names_in_an_archive_cannot_drive_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = zipped(("\x1b[2J.txt", TEXT), ("b\x07.txt", TEXT))
    corpus = write_corpus(tmp_path / "corpus", "a.zip", stored)
    assert cli.main(["pack", str(corpus), str(tmp_path / "out")]) == 1
    err = capsys.readouterr().err
    assert r"2 files: \x1b[2J.txt, b\x07.txt" in err and "\x1b" not in err and "\x07" not in err


# --- bombs ---


@needs_proc
@pytest.mark.parametrize("suffix", ["gz", "zst", "bz2", "xz", "zip"])
def test_an_archive_bomb_takes_little_memory(tmp_path: Path, suffix: str) -> None:
    """One line of 256 MiB, a thousand times as large as its file."""
    size = 256 << 20
    content = b"one\n" + b"x" * size + b"\ntwo\n"
    stored = (
        bz2.compress(content, 1)
        if suffix == "bz2"
        else lzma.compress(content, preset=0)
        if suffix == "xz"
        else compressed(suffix, "a.txt", content)
    )
    corpus = write_corpus(tmp_path / "corpus", f"a.txt.{suffix}", stored)
    peak = peak_of(corpus, tmp_path / "out", threads=1)
    assert len(stored) < size >> 8 and peak >> 20 < 200
    [example] = json.loads((tmp_path / "out" / "manifest.json").read_text("utf-8"))["sources"][0][
        "examples"
    ]
    assert (example["line"], example["why"]) == (2, "longer than 16 MiB")


def test_a_window_of_a_gigabyte_is_refused_by_what_the_file_says(folders: Iterator[Path]) -> None:
    # The frame of one raw block, behind a header that asks for a window of 2^31 bytes.
    frame = zstd(TEXT)[:4] + bytes([0x00, 21 << 3]) + bytes([0x21, 0, 0]) + b"abcd"
    told = refusal(next(folders), "a.txt.zst", frame)
    assert "more than 128 MiB of memory" in told and "zstd -d --long=31 a.txt.zst" in told
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 28}]
    stored = lzma.compress(b"one\n", filters=filters)
    told = refusal(next(folders), "a.txt.xz", stored)
    assert "more than 128 MiB of memory" in told and "xz -dk a.txt.xz" in told
