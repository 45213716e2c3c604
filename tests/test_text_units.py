"""Text whose records are lines, paragraphs or files."""

from __future__ import annotations

import gzip
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sabiprep import ConfigError, InputError
from support import slow_reader
from support.packed_texts import pack_file

number = count()
pieces = st.sampled_from(["a", "ọ̀rọ̀", "\n", "\n\n", "\r\n", " ", "\t", " \n", "\u3000\n", "b c"])


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(pieces, max_size=25).map("".join),
    st.sampled_from(["line", "paragraph", "file"]),
    st.booleans(),
    st.booleans(),
    st.integers(1, 40),
)
def test_records_are_those_of_the_slow_reader(
    tmp_path: Path, text: str, unit: str, has_bom: bool, is_gzip: bool, split_bytes: int
) -> None:
    content = b"\xef\xbb\xbf" * has_bom + f"{text}\nlast".encode()
    packed = pack_file(
        tmp_path / str(next(number)),
        "a.txt.gz" if is_gzip else "a.txt",
        gzip.compress(content) if is_gzip else content,
        unit=unit,
        split_bytes=split_bytes,
    )
    assert packed.texts == dict(slow_reader.text_units(content, unit))
    assert packed.source["drops"] == {}
    assert packed.config.get("unit") == (None if unit == "line" else unit)


@pytest.mark.parametrize("unit", ["paragraph", "file"])
def test_a_unit_longer_than_16_mib_is_one_malformed_record(tmp_path: Path, unit: str) -> None:
    for name, long in [("line", b"x" * (17 << 20)), ("lines", (b"x" * 1023 + b"\n") * (17 << 10))]:
        content = b"\n\n" + long + b"\n\nlast\n"
        if unit == "file":
            with pytest.raises(InputError, match=r"a\.txt:3: malformed: longer than 16 MiB"):
                pack_file(tmp_path / name, "a.txt", content, unit=unit)
            continue
        packed = pack_file(tmp_path / name, "a.txt", content, unit=unit)
        assert list(packed.texts.values()) == ["last"]
        [example] = packed.source["examples"]
        assert (example["line"], example["why"]) == (3, "longer than 16 MiB")


def test_a_paragraph_that_is_no_text_costs_itself_alone(tmp_path: Path) -> None:
    packed = pack_file(tmp_path, "a.txt", b"one\ntwo\n\nx\n\xff\n\nthree", unit="paragraph")
    assert list(packed.texts.values()) == ["one\ntwo", "three"]
    assert packed.source["examples"][0]["line"] == 4


def test_a_unit_is_for_text_alone(tmp_path: Path) -> None:
    segments: Any = [{"target": "{{ a }}"}]
    with pytest.raises(ConfigError, match="`unit` is for text"):
        pack_file(tmp_path, "a.jsonl", b'{"a": "b"}\n', segments=segments, unit="file")
