"""Records inside other objects of JSON: each with the fields around it, and its own place."""

from __future__ import annotations

import gzip
import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sabiprep import ConfigError, InputError
from support import slow_reader
from support.packed_texts import pack_file

SEGMENTS = [{"prompt": "{{ t | default('-') }}|{{ c | default('-') }}|"}, {"target": "{{ q }}."}]
number = count()

texts = st.text(st.sampled_from('ab"\\[]{},:\n ẹ\U0001f600'), max_size=5)
questions = st.lists(
    st.fixed_dictionaries({"q": texts.map("q{}".format)}, optional={"c": texts, "n": st.none()}),
    max_size=3,
)
paragraphs = st.lists(
    st.fixed_dictionaries({"qas": questions}, optional={"c": texts, "qs": questions}), max_size=3
)
articles = st.lists(
    st.fixed_dictionaries({"paragraphs": paragraphs}, optional={"t": texts, "c": texts}),
    max_size=3,
)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    articles,
    st.sampled_from(["object", "object first", "array", "lines"]),
    st.sampled_from([None, 1]),
    st.booleans(),
    st.integers(1, 60),
)
def test_records_are_those_of_the_slow_reader(
    tmp_path: Path,
    data: list[dict[str, Any]],
    shape: str,
    indent: int | None,
    is_gzip: bool,
    split_bytes: int,
) -> None:
    data = [*data, {"t": "last", "paragraphs": [{"qas": [{"q": "end"}]}]}]
    path = "paragraphs[].qas[]"
    match shape:
        case "object" | "object first":
            around = {"t": "top", "v": [1, {"data": []}]}
            whole = {"data": data, **around} if shape == "object" else {**around, "data": data}
            text, path = json.dumps(whole, indent=indent), f"data[].{path}"
        case "array":
            text = json.dumps(data, indent=indent)
        case _:
            text = "".join(json.dumps(article, ensure_ascii=False) + "\n" for article in data)
    content = text.encode()
    packed = pack_file(
        tmp_path / str(next(number)),
        "a.json.gz" if is_gzip else "a.json",
        gzip.compress(content) if is_gzip else content,
        segments=SEGMENTS,
        records=path,
        split_bytes=split_bytes,
    )
    expected = [
        f"{fields.get('t', '-')}|{fields.get('c', '-')}|{fields['q']}."
        for fields in slow_reader.nested(json.loads(text) if shape != "lines" else data, path)
    ]
    assert list(packed.texts.values()) == expected
    for offset, rendered in packed.texts.items():
        record, _ = json.JSONDecoder().raw_decode(content[offset:].decode())
        assert rendered.endswith(f"|{record['q']}.")


def test_a_file_as_published_for_squad(tmp_path: Path) -> None:
    content = b"""{"version": "1.1", "data": [
  {"title": "Lagos", "paragraphs": [
    {"context": "Lagos is large.", "qas": [
      {"id": 1, "question": "What is large?", "answers": [{"text": "Lagos"}]},
      {"id": 2, "question": "No answers?"}]}]}], "license": "CC"}
"""
    segments = [
        {"prompt": "{{ title }}/{{ license }}/{{ context }}/{{ question }}"},
        {"target": " {{ answers[0].text }}"},
    ]
    packed = pack_file(
        tmp_path, "a.json", content, segments=segments, records="data[].paragraphs[].qas[]"
    )
    assert list(packed.texts.values()) == ["Lagos/CC/Lagos is large./What is large? Lagos"]
    assert packed.source["drops"] == {"missing field": 1}
    assert packed.source["examples"][0]["line"] == 5
    assert packed.config["format"] == "json"


def test_what_the_path_does_not_find_is_counted_with_its_line(tmp_path: Path) -> None:
    lines = [
        b'{"p": [{"q": "1"}, 7, {"q": "2"}]}',
        b'{"o": []}',
        b'{"p": null}',
        b'{"p": []}',
        b"[1]",
        b'{"p": [',
        b"\xff",
    ]
    packed = pack_file(
        tmp_path, "a.jsonl", b"\n".join(lines), segments=[{"target": "{{ q }}"}], records="p[]"
    )
    assert list(packed.texts) == [7, 22]
    assert packed.source["drops"] == {"malformed": 6}
    whys = [(example["line"], example["why"]) for example in packed.source["examples"]]
    assert whys == [
        (1, "an element of 'p' is no object"),
        (2, "has no field 'p'"),
        (3, "field 'p' is no list"),
    ]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'{"version": 1}', "has no list 'data'"),
        (b'{"data": 5}', "its field 'data' is no list"),
        (b'{"data": [{"q": "1"}', "truncated"),
        (b'{"data": [{"q": "1"}], "x"', "truncated"),
        (b'{"data": [{"q": "1"}], "x", "y": 1}', "expected a field's name"),
        (b'{"data": [{"q": "1"}] 5}', "expected `,` or `}`"),
        (b'{"data": [{"q": "1"}],\n "x": nul}', "'x' cannot be read"),
        (b'{"data": [{"q": "1"}]}\n{"data": []}', "goes on after the end of its object"),
    ],
)
def test_a_file_whose_object_is_damaged_is_refused(
    tmp_path: Path, content: bytes, why: str
) -> None:
    with pytest.raises(InputError, match=why):
        pack_file(
            tmp_path,
            "a.json",
            content,
            segments=[{"target": "{{ q }}"}],
            format="json",
            records="data[]",
        )


def test_a_path_may_lead_through_objects(tmp_path: Path) -> None:
    content = b'{"meta": {"v": "x", "a": {"q": [{"t": "1"}]}, "v2": "y"}, "v": "z"}'
    segments = [{"prompt": "{{ v }}{{ v2 }}"}, {"target": "{{ t }}"}]
    packed = pack_file(tmp_path, "a.json", content, segments=segments, records="meta.a.q[]")
    assert list(packed.texts.values()) == ["xy1"]
    packed = pack_file(
        tmp_path / "json", "a.json", content, segments=segments, records="meta.a.q[]", format="json"
    )
    assert list(packed.texts.values()) == ["xy1"]


@pytest.mark.parametrize("path", ["", "data", "data[].", "[]", "a[0].b[]", ".".join(["a[]"] * 17)])
def test_a_path_names_a_list(tmp_path: Path, path: str) -> None:
    with pytest.raises(ConfigError, match="records ="):
        pack_file(tmp_path, "a.json", b"[]", segments=[{"target": "{{ q }}"}], records=path)


def test_large_context_around_many_records_takes_little_memory(tmp_path: Path) -> None:
    record = {"c": "x" * (1 << 20), "p": [{"q": str(nth)} for nth in range(2000)]}
    content = json.dumps([record]).encode()
    segments = [{"target": "{{ q }}"}]
    packed = pack_file(tmp_path, "a.json", content, segments=segments, records="p[]")
    assert list(packed.texts.values()) == [str(nth) for nth in range(2000)]
