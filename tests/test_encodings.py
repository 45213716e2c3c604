"""Files in other encodings than UTF-8: the records that Python's codecs give, and no character that
was made up for what they do not define.
"""

from __future__ import annotations

import codecs
import gzip
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from sabiprep import ConfigError, InputError
from support.one_file import ROWS, refusal, segments_of, shards_of, tables
from support.packed_texts import PackedFile, pack_file

TABLES = tables(ROWS)
WESTERN = tables([("café", "naïve"), ("Ærø", "ß\xa0½"), ("x", "÷ÿ")])
CODECS = {
    "utf-16": "utf-16",
    "utf-16le": "utf-16-le",
    "utf-16be": "utf-16-be",
    "latin-1": "latin-1",
    "windows-1252": "cp1252",
}
"""Python's name of each encoding."""
number = count()


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Path]:
    return (tmp_path / str(nth) for nth in count())


def whys(packed: PackedFile) -> list[tuple[int, str]]:
    """The line of each dropped record that is named, and why it was dropped."""
    return [(example["line"], example["why"]) for example in packed.source["examples"]]


@pytest.mark.parametrize("encoding", CODECS)
@pytest.mark.parametrize("name", TABLES)
def test_an_encoded_file_gives_the_bytes_of_one_in_utf_8(
    folders: Iterator[Path], name: str, encoding: str
) -> None:
    text = (TABLES if "16" in encoding else WESTERN)[name]
    source = segments_of(name)
    plain = shards_of(next(folders), name, text.encode(), **source)
    stored = text.encode(CODECS[encoding])
    source["encoding"] = encoding
    assert shards_of(next(folders), name, stored, **source) == plain
    assert shards_of(next(folders), f"{name}.gz", gzip.compress(stored), **source) == plain
    if "16" in encoding:
        mark = "\ufeff".encode(CODECS[encoding][:9])
        marked = stored if encoding == "utf-16" else mark + stored
        assert shards_of(next(folders), name, marked, **source) == plain


def test_utf_8_may_be_said_and_changes_nothing(folders: Iterator[Path]) -> None:
    content = TABLES["a.tsv"].encode()
    source = segments_of("a.tsv")
    plain = pack_file(next(folders), "a.tsv", content, **source)
    said = pack_file(next(folders), "a.tsv", content, encoding="utf-8", **source)
    assert said == plain and "encoding" not in said.config
    said = pack_file(
        next(folders), "a.tsv", TABLES["a.tsv"].encode("utf-16"), encoding="utf-16", **source
    )
    assert said.config["encoding"] == "utf-16" and said.texts == plain.texts


def test_quotes_of_windows_are_no_controls_of_latin_1(tmp_path: Path) -> None:
    text = "c’était l’été…\n"
    with pytest.raises(InputError, match="looks like text in windows-1252") as caught:
        pack_file(tmp_path / "a", "a.txt", text.encode("cp1252"), encoding="latin-1")
    assert 'encoding = "windows-1252"' in (caught.value.remedy or "")
    packed = pack_file(tmp_path / "b", "a.txt", text.encode("cp1252"), encoding="windows-1252")
    assert list(packed.texts.values()) == [text.strip()]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(["utf-16le", "utf-16be", "latin-1", "windows-1252"]),
    st.lists(st.binary(max_size=30), max_size=6),
    st.integers(1, 40),
)
def test_any_bytes_are_the_text_of_python_or_malformed(
    tmp_path: Path, encoding: str, lines: list[bytes], split_bytes: int
) -> None:
    codec = CODECS[encoding]
    end = "\n".encode(codec)
    # Ends of line are where this test puts them, and no line is blank.
    # The first would be no UTF-8, which some files of single bytes look like otherwise.
    first = "né\n"
    good: dict[int, str] = {}
    malformed = []
    stored, decoded = first.encode(codec), len(first.encode())
    for nth, line in enumerate(lines, 2):
        raw = "=".encode(codec) + (line[: len(line) // 2 * 2] if "16" in encoding else line)
        text = _decoded(raw, codec)
        # A line that is malformed ends where another does.
        if set(codecs.decode(raw, codec, "replace")) & set("\r\n\0"):
            continue
        # Controls would say that it is windows-1252.
        if encoding == "latin-1" and set(raw) & {*range(0x80, 0xA0)} - {0x85}:
            continue
        stored += raw + end
        if text is None:
            malformed.append(nth)
            event("malformed")
            # No offset is expected after what cannot be decoded.
            break
        good[decoded] = text
        decoded += len(text.encode()) + 1
    packed = pack_file(
        tmp_path / str(next(number)),
        "a.txt",
        stored,
        split_bytes=split_bytes,
        format="text",
        encoding=encoding,
    )
    assert packed.texts == {0: "né", **good}
    assert packed.source["drops"] == ({"malformed": 1} if malformed else {})
    if malformed:
        [(_, why)] = whys(packed)
        assert why.startswith(f"not {encoding} from character ")


def _decoded(raw: bytes, codec: str) -> str | None:
    try:
        return codecs.decode(raw, codec)
    except UnicodeDecodeError:
        return None


@pytest.mark.parametrize(
    ("encoding", "stored", "line", "why"),
    [
        ("utf-16le", "one\ntwo\n".encode("utf-16-le") + b"x", 3, "not utf-16le from character 1"),
        ("utf-16", "one\ntw".encode("utf-16") + b"o", 2, "not utf-16 from character 3 on"),
        ("utf-16be", b"\0o\0n\0\n\0a\xd8\x00\0b\0\n", 2, "not utf-16be from character 2 on"),
        ("utf-16le", b"o\0\n\0\x00\xdc\n\0", 2, "not utf-16le from character 1 on"),
        ("windows-1252", b"one\ncaf\xe9 \x81\n", 2, "not windows-1252 from character 6 on"),
    ],
)
def test_what_an_encoding_does_not_define_is_one_malformed_record(
    tmp_path: Path, encoding: str, stored: bytes, line: int, why: str
) -> None:
    packed = pack_file(tmp_path / "a", "a.txt", stored, encoding=encoding)
    assert packed.source["drops"] == {"malformed": 1}
    [(found, said)] = whys(packed)
    assert found == line and said.startswith(why)
    assert "\ufffd" not in "".join(packed.texts.values())


def test_a_malformed_field_and_a_malformed_element_are_named(tmp_path: Path) -> None:
    stored = b"q,a\n1,one\n2,tw\x81o\n"
    segments = [{"target": "{{ a }}"}]
    packed = pack_file(tmp_path / "a", "a.csv", stored, encoding="windows-1252", segments=segments)
    assert whys(packed) == [(3, "field 2 is not windows-1252 from its character 3 on")]
    stored = b'[{"a": "one"},\n {"a": "tw\x81o"}]'
    packed = pack_file(tmp_path / "b", "a.json", stored, encoding="windows-1252", segments=segments)
    assert whys(packed) == [(2, "not windows-1252 from character 10 on")]


TEXT = TABLES["a.txt"]


@pytest.mark.parametrize(
    ("stored", "encoding", "told"),
    [
        (TEXT.encode("utf-16"), None, 'say encoding = "utf-16" in its source'),
        (TEXT.encode("utf-16-be"), None, 'say encoding = "utf-16be" in its source'),
        (TEXT.encode("utf-16-le"), "utf-16", 'say encoding = "utf-16le" (a guess)'),
        (TEXT.encode("utf-16-le"), "utf-16be", 'say encoding = "utf-16le"'),
        (TEXT.encode(), "utf-16le", "remove `encoding`"),
        (TEXT.encode(), "utf-16", "remove `encoding`"),
        (TEXT.encode(), "latin-1", "remove `encoding`"),
        (TEXT.encode("utf-8-sig"), "windows-1252", "remove `encoding`"),
        (TEXT.encode("utf-16"), "latin-1", 'say encoding = "utf-16le"'),
        (TEXT.encode("utf-32"), "utf-16", "iconv -f UTF-32 -t UTF-8 a.txt"),
    ],
)
def test_an_encoding_that_is_plainly_wrong_is_refused(
    tmp_path: Path, stored: bytes, encoding: str | None, told: str
) -> None:
    source: dict[str, Any] = {} if encoding is None else {"encoding": encoding}
    assert told in refusal(tmp_path, "a.txt", stored, **source)


def test_lines_in_another_encoding_are_named_with_a_guess(folders: Iterator[Path]) -> None:
    text = "plain\nun café à l'étage\nwo̩n\n"
    stored = b"plain\n" + "un café à l'étage\n".encode("latin-1") + "ọ̀r\n".encode()[1:]
    packed = pack_file(next(folders), "a.txt", stored)
    assert packed.source["drops"] == {"malformed": 2} and text
    (_, latin), (_, damaged) = whys(packed)
    assert latin == ('not UTF-8 from byte 7 on; a guess: encoding = "windows-1252" or "latin-1"')
    assert damaged == "not UTF-8 from byte 1 on"
    told = refusal(next(folders), "a.tsv", b"caf\xe9\ta\nb\tc\n", segments=[{"target": "{{ a }}"}])
    assert "the header is not UTF-8 from its byte 4 on; a guess" in told


def test_an_unknown_encoding_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    told = refusal(tmp_path, "a.txt", TEXT.encode(), ConfigError, encoding="latin1")
    assert 'did you mean "latin-1"?' in told and "windows-1252" in told
