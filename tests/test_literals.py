"""Fields whose strings are Python literals, as `repr` or `to_csv` wrote them."""

from __future__ import annotations

import ast
import csv
import io
import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sabiprep import ConfigError
from support.packed_texts import PackedFile, pack_file

FIELDS = [{"target": "{% if true %}{{ v | tojson }}{% endif %}"}]
number = count()

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**45), 10**45)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(texts, inner, max_size=3)
    ),
    max_leaves=8,
)


def pack(folder: Path, written: list[str]) -> PackedFile:
    lines = "".join(json.dumps({"v": text}) + "\n" for text in written).encode()
    return pack_file(folder, "a.jsonl", lines, segments=FIELDS, literals=["v"], duplicates="keep")


def plain(value: Any) -> Any:
    """A value with lists for tuples and sets; an error for what no record can hold."""
    match value:
        case dict():
            if not all(isinstance(key, str) for key in value):
                raise ValueError("a key")
            return {key: plain(item) for key, item in value.items()}
        case list() | tuple() | set():
            return [plain(item) for item in value]
        case bytes() | complex():
            raise ValueError("no value of a record")
        case float() if value in (float("inf"), float("-inf")):
            return None
        case str():
            value.encode()
    return value


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(values, min_size=1, max_size=12))
def test_values_are_those_that_were_written(tmp_path: Path, made: list[Any]) -> None:
    packed = pack(tmp_path / str(next(number)), [repr(value) for value in made])
    found = [json.loads(text) for text in packed.texts.values()]
    assert [repr(value) for value in found] == [repr(plain(value)) for value in made]


pieces = st.sampled_from(
    [
        *"[](){},:'\"\\aẹ01.-+ \n",
        "'''",
        "r'",
        'u"',
        "b'",
        "\\n",
        "\\x41",
        "\\u1ecd",
        "\\101",
        "\\'",
        "00",
        "1_0",
        "0x1F",
        "0b1",
        "0o7",
        "1e5",
        "1e+5",
        ".5",
        "None",
        "True",
        "set()",
        "nan",
    ]
)
strange = st.lists(pieces, max_size=8).map("".join)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(strange, min_size=1, max_size=40))
def test_any_text_that_is_read_is_what_python_reads(tmp_path: Path, written: list[str]) -> None:
    packed = pack(tmp_path / str(next(number)), ["'good'", *written])
    offset = len(json.dumps({"v": "'good'"})) + 1
    for text in written:
        if offset in packed.texts:
            assert repr(json.loads(packed.texts[offset])) == repr(plain(ast.literal_eval(text)))
        offset += len(json.dumps({"v": text})) + 1


def test_lists_in_a_table_are_lists(tmp_path: Path) -> None:
    file = io.StringIO(newline="")
    rows = [["q", "answers"], ["one", "['a', \"b's\"]"], ["two", "[]"], ["three", "not a list"]]
    numpy = [["four", "array(['a'], dtype=object)"], ["five", "['a' 'b']"]]
    csv.writer(file).writerows([*rows, *numpy])
    segments = [
        {"prompt": "{{ q }}:"},
        {"target": "{% for a in answers %}{{ a }};{% else %}none{% endfor %}"},
    ]
    packed = pack_file(
        tmp_path, "a.csv", file.getvalue().encode(), segments=segments, literals=["answers"]
    )
    assert list(packed.texts.values()) == ["one:a;b's;", "two:none"]
    whys = [(example["line"], example["why"]) for example in packed.source["examples"]]
    assert [line for line, _ in whys] == [4, 5, 6]
    assert (
        whys[0][1]
        == "field 'answers' is no Python literal: no value of a literal at its character 1"
    )
    assert "NumPy" in whys[1][1] and "no comma between two strings" in whys[2][1]


def test_other_values_stay_and_other_fields_are_no_literals(tmp_path: Path) -> None:
    lines = [{"v": [1], "w": "[1]"}, {"v": None, "w": "x"}, {"w": "y"}, {"v": "'t'", "w": "z"}]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    segments = [{"prompt": "{{ v | default('-') | tojson }}|"}, {"target": "{{ w }}"}]
    packed = pack_file(tmp_path, "a.jsonl", content, segments=segments, literals=["v", "none"])
    assert list(packed.texts.values()) == ["[1]|[1]", '"-"|x', '"-"|y', '"t"|z']


@pytest.mark.parametrize("names", [[], [""]])
def test_literals_name_fields(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(ConfigError, match="`literals` names no field"):
        pack_file(tmp_path, "a.jsonl", b'{"v": "1"}', segments=FIELDS, literals=names)
