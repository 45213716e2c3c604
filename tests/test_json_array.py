"""JSON arrays: each element is a record, as Python's `json` reads it, with its place."""

from __future__ import annotations

import gzip
import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sabiprep
from sabiprep import ConfigError, InputError
from support import packer
from support.packed_texts import PackedFile, pack_file
from support.peak_memory import needs_proc, peak_of
from support.strategies import tokenizer_json

SEGMENTS = [{"prompt": "{{ q }}|"}, {"target": "{{ a }}."}]
MIB = 1 << 20
number = count()


def whys(packed: PackedFile) -> list[tuple[int, str]]:
    """The line of each dropped record that is named, and why it was dropped."""
    return [(example["line"], example["why"]) for example in packed.source["examples"]]


def fields_of(element: str) -> dict[str, Any] | None:
    """The fields of an element by Python's parser; None where it is malformed."""
    try:
        fields = json.loads(element)
    except ValueError:
        return None
    return fields if isinstance(fields, dict) else None


# --- against Python's parser ---

texts = st.text(st.sampled_from('ab"\\[]{},:\n\t ẹ\u0301\U0001f600é'), max_size=8)
objects = st.builds(
    lambda q, a, more, indent, ascii: json.dumps(
        {"q": q, **more, "a": a}, indent=indent, ensure_ascii=ascii
    ),
    texts,
    texts.map(lambda text: f"x{text}"),
    st.dictionaries(texts, st.recursive(texts, st.lists, max_leaves=4), max_size=2).map(
        lambda more: {f"-{key}": value for key, value in more.items()}
    ),
    st.sampled_from([None, 0, 2]),
    st.booleans(),
)
# Brackets and quotes of each are in balance, so that the next element is found.
malformed = st.sampled_from(
    ["", "1", '"[{"', "[1, {}]", "nul", "{}}", "{} {}", "{'q': 1}", '{"\\": "}']
)
spaces = st.text(st.sampled_from(" \t\r\n"), max_size=3)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(spaces, objects | malformed, spaces), max_size=8),
    st.sampled_from(["", "\ufeff"]),
    st.booleans(),
)
def test_the_records_are_the_elements_of_python(
    tmp_path: Path, elements: list[tuple[str, str, str]], start: str, is_gzip: bool
) -> None:
    elements = [("", '{"q": "first", "a": "good"}', ""), *elements]
    expected, content = {}, f"{start}\n[".encode()
    for before, element, after in elements:
        place = len(content) + len(before.encode())
        fields = fields_of(element)
        if fields is not None:
            expected[place] = f"{fields['q']}|{fields['a']}."
        content += f"{before}{element}{after},".encode()
    content = content.removesuffix(b",") + b"]\n "
    packed = pack_file(
        tmp_path / str(next(number)),
        "a.json.gz" if is_gzip else "a.json",
        gzip.compress(content) if is_gzip else content,
        segments=SEGMENTS,
    )
    assert packed.texts == expected and packed.config["format"] == "json"
    dropped = len(elements) - len(expected)
    assert packed.source["records"] == len(elements)
    assert packed.source["drops"] == ({"malformed": dropped} if dropped else {})
    if not dropped:
        records = json.loads(content.decode("utf-8-sig"))
        assert list(packed.texts.values()) == [f"{r['q']}|{r['a']}." for r in records]


def test_a_file_that_python_wrote_is_packed_as_its_json_lines_are(tmp_path: Path) -> None:
    records = [{"q": f"ọ̀rọ̀ [{n}", "a": f"\n}}{n}", "n": [n, {"x": n}]} for n in range(500)]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    expected = pack_file(tmp_path / "lines", "a.jsonl", lines.encode(), segments=SEGMENTS)
    for nth, indent in enumerate([None, 0, 4]):
        content = json.dumps(records, indent=indent, ensure_ascii=False).encode()
        packed = pack_file(
            tmp_path / str(nth), "a.json", content, segments=SEGMENTS, split_bytes=100
        )
        assert list(packed.texts.values()) == list(expected.texts.values())
        for offset, record in zip(packed.texts, records, strict=True):
            assert json.JSONDecoder().raw_decode(content[offset:].decode())[0] == record


# --- guessing ---


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.ndjson", "a.dat", "a"])
def test_an_array_of_objects_is_known_by_its_start(tmp_path: Path, name: str) -> None:
    packed = pack_file(tmp_path, name, b' [ {"q": "1", "a": "2"}]', segments=SEGMENTS)
    assert list(packed.texts.values()) == ["1|2."]


def test_a_text_that_begins_with_a_bracket_is_no_array(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'format cannot be guessed(?s:.*)"json" or'):
        pack_file(tmp_path / "1", "a", b"[1] a footnote\n", segments=SEGMENTS)
    packed = pack_file(tmp_path / "2", "a.txt", b'[{"q": "1"}]\n')
    assert list(packed.texts.values()) == ['[{"q": "1"}]']


@pytest.mark.parametrize("content", [b'{"q": "1", "a": "2"}\n', b"", b" \n"])
def test_a_file_that_is_no_array_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    data, name = gzip.compress(content), "a.json.gz"
    with pytest.raises(InputError, match=r"(?s)a.json.gz.*is not a JSON array") as caught:
        pack_file(tmp_path, name, data, segments=SEGMENTS, format="json")
    assert caught.value.remedy


def test_options_of_columns_are_not_for_arrays(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="`columns` is for tsv, csv and conll; this source is json"
    ):
        pack_file(tmp_path, "a.json", b"[{}]", segments=SEGMENTS, columns=["q", "a"])


# --- damage ---


def test_a_malformed_element_is_named_and_reading_goes_on(tmp_path: Path) -> None:
    content = b"""[
{"q": "1", "a": "2"},
{"q": "3",
 "a": 'x'},
, {"q": "\xe9", "a": "x"}, {"q": "5", "a": "6"}
]"""
    packed = pack_file(tmp_path, "a.json", content, segments=SEGMENTS)
    assert list(packed.texts.values()) == ["1|2.", "5|6."]
    assert whys(packed) == [
        (3, "not JSON: expected a value at column 7 of its line 2"),
        (5, "not JSON: ends where a value is expected at column 1"),
        (5, 'not UTF-8 from byte 8 on; a guess: encoding = "windows-1252" or "latin-1"'),
    ]


def test_an_empty_array_has_no_records(tmp_path: Path) -> None:
    for nth, content in enumerate([b"[]", b" [ \n ] \n"]):
        with pytest.raises(InputError, match="no training document is left"):
            pack_file(tmp_path / str(nth), "a.json", content, segments=SEGMENTS, format="json")


@pytest.mark.parametrize(
    ("rest", "line", "what"),
    [
        (b"", 2, "ends before its array does: it is truncated"),
        (b",", 3, "ends before its array does"),
        (b",\n", 4, "ends before its array does"),
        (b',\n{"q": "5", "a"', 4, "or a quote or a bracket of the element"),
        (b',\n{"q": "5', 4, "or a quote or a bracket of the element"),
        (b',\n{"q": [5}, {"q": "6", "a": "7"}]', 4, "or a quote or a bracket of the element"),
        (b"]\n[1]", 4, "goes on after the end of its array"),
        (b'],\n{"q": "5", "a": "6"}', 3, "goes on after the end of its array"),
    ],
)
def test_a_damaged_array_is_refused_with_its_line(
    tmp_path: Path, rest: bytes, line: int, what: str
) -> None:
    content = b'[{"q": "1", "a": "2"},\n{"q": "3",\n "a": "4"}' + rest
    with pytest.raises(InputError, match=what) as caught:
        pack_file(tmp_path, "a.json", content, segments=SEGMENTS)
    assert (caught.value.file, caught.value.line) == ("a.json", line) and caught.value.remedy


def test_an_element_longer_than_16_mib_is_one_malformed_record(tmp_path: Path) -> None:
    long = b"x" * (17 * MIB)
    content = b'[{"q": "1", "a": "2"},\n{"a": "' + long + b'"},\n{"q": "3", "a": "4"}]'
    packed = pack_file(tmp_path, "a.json", content, segments=SEGMENTS)
    assert list(packed.texts.values()) == ["1|2.", "3|4."]
    assert whys(packed) == [(2, "longer than 16 MiB")]


@needs_proc
def test_an_array_larger_than_memory_may_be_is_streamed(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    packer.write_config(folder, [{"name": "a", "files": ["a.json"], "segments": SEGMENTS}])
    element = json.dumps({"q": "1", "a": "2", "unused": "x" * MIB}).encode()
    with (folder / "a.json").open("wb") as file:
        file.write(b"[" + element)
        for _ in range(255):
            file.write(b",\n" + element)
        file.write(b"]")
    peak = peak_of(folder, tmp_path / "out", tokenizer=str(folder / "tokenizer.json"), threads=1)
    assert peak >> 20 < 200


# --- elsewhere ---


def test_an_array_that_training_is_kept_clean_of(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    records = [{"q": "one two three four", "a": "x"}, {"q": "five", "a": "y"}]
    (folder / "train.json").write_text(json.dumps(records), "utf-8")
    (folder / "test.json").write_text('[{"t": ["zero one, two,\\nthree four"]}]', "utf-8")
    source = {"name": "a", "files": ["train.json"], "segments": SEGMENTS}
    config: dict[str, Any] = {"decontaminate": ["test.json"], "decontaminate_ngram": 4}
    packer.write_config(folder, [source], pack={"seq_len": 64, **config})
    manifest = packer.pack(folder, tmp_path / "out", tokenizer=folder / "tokenizer.json")
    assert manifest["sources"][0]["drops"] == {"contaminated": 1}
    (folder / "test.json").write_text('[{"t": "one"},\n\n  {"t": }\n]', "utf-8")
    with pytest.raises(InputError, match=r"test.json:3: not JSON: expected a value"):
        packer.pack(folder, tmp_path / "other", tokenizer=folder / "tokenizer.json")


def test_an_element_is_explained(tmp_path: Path) -> None:
    pack_file(tmp_path, "a.json", b'[{"q": "1", "a": "2"}]', segments=SEGMENTS)
    told = sabiprep.explain(
        {"q": "x, y", "a": "z"},
        "file",
        corpus=tmp_path / "corpus",
        tokenizer=tmp_path / "corpus" / "tokenizer.json",
    )
    assert told.dropped is None and "".join(told.runs) == "x, y|z."
