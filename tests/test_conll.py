"""CoNLL: sentences of tokens with columns, and the spans that their tags make."""

from __future__ import annotations

import gzip
import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sabiprep import ConfigError
from support import slow_reader
from support.packed_texts import PackedFile, pack_file

FIELDS = [{"target": "{% if true %}{{ record | tojson(sort_keys=true) }}{% endif %}"}]
number = count()


def pack(folder: Path, text: str, name: str = "a.conll", **source: Any) -> PackedFile:
    return pack_file(folder, name, text.encode(), segments=FIELDS, **source)


def records(packed: PackedFile) -> list[dict[str, Any]]:
    return [json.loads(text) for text in packed.texts.values()]


def whys(packed: PackedFile) -> list[tuple[int, str]]:
    return [(example["line"], example["why"]) for example in packed.source["examples"]]


words = st.text(st.sampled_from("abọ̀#-\"' "), min_size=1, max_size=4).filter(
    lambda word: word.strip() and not word.startswith("# ")
)
tags = st.sampled_from(
    ["O", *(f"{prefix}-{kind}" for prefix in "BIESLU" for kind in ("PER", "LOC"))]
)
rows = st.lists(st.tuples(words, tags), min_size=1, max_size=7)
breaks = st.sampled_from(
    ["\n", "\n\n", "\r\n", " \n", "-DOCSTART-\tO\n", "\n-DOCSTART-\tO\n\n", "\n# about\n"]
)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(rows, breaks, st.booleans()), max_size=6),
    st.booleans(),
    st.integers(1, 40),
)
def test_sentences_and_spans_are_those_of_the_slow_readers(
    tmp_path: Path, made: list[tuple[Any, str, bool]], is_gzip: bool, split_bytes: int
) -> None:
    parts = []
    for sentence, end, is_ragged in made:
        lines = [f"{token}\t{tag}" for token, tag in sentence]
        lines[-1] += "\textra" if is_ragged else ""
        parts.append("\n".join(lines) + "\n" + end)
    content = ("".join(parts) + "\nlast\tO").encode()
    name = "a.bio.gz" if is_gzip else "a.bio"
    packed = pack_file(
        tmp_path / str(next(number)),
        name,
        gzip.compress(content) if is_gzip else content,
        segments=FIELDS,
        split_bytes=split_bytes,
        duplicates="keep",
    )
    found = list(slow_reader.sentences(content))
    expected = {}
    for _, offset, sentence in found:
        widths = {len(row) for row in sentence}
        # All lines are as wide as the first of the file.
        if widths != {len(found[0][2][0])}:
            continue
        columns = [list(column) for column in zip(*sentence, strict=True)]
        names = ["tokens", "column_2", "tags"] if widths == {3} else ["tokens", "tags"]
        entities = [
            {"type": kind, "text": " ".join(columns[0][start:end]), "start": start, "end": end}
            # A tag of no scheme is outside of spans.
            for kind, start, end in slow_reader.chunks(
                [tag.replace("extra", "O") for tag in columns[-1]]
            )
        ]
        fields = dict(zip(names, columns, strict=True))
        expected[offset] = {**fields, "text": " ".join(columns[0]), "entities": entities}
    assert {offset: json.loads(text) for offset, text in packed.texts.items()} == expected
    assert packed.source["records"] == len(found)
    assert packed.source["drops"].get("malformed", 0) == len(found) - len(expected)


def test_columns_have_default_names_and_may_be_named(tmp_path: Path) -> None:
    text = "Ada NNP B-NP B-PER\nsings VBZ B-VP O\n\nHi UH O O\n"
    [first, _] = records(pack(tmp_path / "default", text))
    assert first == {
        "tokens": ["Ada", "sings"],
        "column_2": ["NNP", "VBZ"],
        "column_3": ["B-NP", "B-VP"],
        "tags": ["B-PER", "O"],
        "text": "Ada sings",
        "entities": [{"type": "PER", "text": "Ada", "start": 0, "end": 1}],
    }
    columns = ["tokens", "pos", "tags", "ner"]
    [first, _] = records(pack(tmp_path / "named", text, columns=columns))
    assert list(sorted(first)) == sorted([*columns, "text", "entities"])
    assert [entity["type"] for entity in first["entities"]] == ["NP", "VP"]
    packed = pack_file(
        tmp_path / "wrong",
        "a.conll",
        f"{text}\nx O\n".encode(),
        segments=FIELDS,
        columns=columns,
    )
    assert whys(packed) == [(6, "2 columns, 4 are named")]
    with pytest.raises(ConfigError, match="`header` is for"):
        pack(tmp_path / "header", text, columns=columns, header=True)


def test_a_ragged_sentence_costs_itself_and_is_named_with_both_lines(tmp_path: Path) -> None:
    text = "a O\n\n# about\nb B-X\nc\nd O\n\ne O\n"
    packed = pack(tmp_path, text)
    assert [record["tokens"] for record in records(packed)] == [["a"], ["e"]]
    assert whys(packed) == [(4, "line 5 has 1 columns, line 4 of its sentence 2")]


def test_a_hash_is_a_token_where_it_has_a_tag(tmp_path: Path) -> None:
    [only] = records(pack(tmp_path / "spaces", "# one comment\na O\n# B-X\n# O no\nb O\n"))
    assert only["tokens"] == ["a", "#", "b"]
    [only] = records(pack(tmp_path / "tabs", "#\tO\na\tO\n"))
    assert only["tokens"] == ["#", "a"]


def test_conll_u_has_its_ten_columns(tmp_path: Path) -> None:
    def row(key: str, form: str) -> str:
        return "\t".join([key, form, form.lower(), "X", "_", "_", "0", "root", "_", "_"])

    lines = ["# sent_id = 1", "# text = Du pain.", "#no space", row("1-2", "Du"), row("1", "de")]
    lines += [row("2", "le"), row("2.1", "rien"), row("3", "pain"), "", row("1", "Ok"), ""]
    packed = pack(tmp_path, "\n".join(lines), name="a.conllu")
    first, second = records(packed)
    assert first["tokens"] == ["de", "le", "pain"] and first["text"] == "Du pain."
    assert first["upos"] == ["X"] * 3 and "entities" not in first
    assert second["text"] == "Ok" and second["id"] == ["1"]
    assert next(iter(packed.texts)) == len("\n".join(lines[:4])) + 1


def test_damage_is_counted(tmp_path: Path) -> None:
    long = b"x O\n" * (5 << 20)
    content = b"a O\n\n" + long + b"\n\xff O\n\n" + b"y" * (17 << 20) + b"\n\nb O\n"
    packed = pack_file(tmp_path, "a.conll", content, segments=[{"target": "{{ tokens[0] }}"}])
    assert list(packed.texts.values()) == ["a", "b"]
    lines = [3, 3 + (5 << 20) + 1, 3 + (5 << 20) + 3]
    assert whys(packed) == [
        (lines[0], "longer than 16 MiB"),
        (lines[1], 'not UTF-8 from byte 1 on; a guess: encoding = "windows-1252" or "latin-1"'),
        (lines[2], "longer than 16 MiB"),
    ]
