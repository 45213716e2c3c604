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

import sabiprep
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


def test_a_hash_is_a_token_where_the_file_begins_with_it(tmp_path: Path) -> None:
    [first, second] = records(pack(tmp_path / "spaces", "# O\na B-X\n\n# B-X\nb O\n"))
    assert first["tokens"] == ["#", "a"] and second["tokens"] == ["#", "b"]
    # Another number of columns than tokens have is no token.
    [only] = records(pack(tmp_path / "about", "# about O\na B-X\n"))
    assert only["tokens"] == ["a"]


def conll_u(*forms: str) -> str:
    """A sentence of CoNLL-U without comments."""
    rest = "\t".join(["_"] * 8)
    return "".join(f"{nth}\t{form}\t{rest}\n" for nth, form in enumerate(forms, 1)) + "\n"


def test_conll_u_is_known_by_its_first_token_whatever_is_before_it(tmp_path: Path) -> None:
    text = conll_u("Ó", "dára")
    for nth, start in enumerate(["", "\n\n", "-DOCSTART-\tO\n\n", "# newdoc\n# x\n"]):
        [only] = records(pack(tmp_path / str(nth), start + text, name="a.conllu"))
        assert only["tokens"] == ["Ó", "dára"] and only["id"] == ["1", "2"], start


def test_conll_u_plus_names_its_columns(tmp_path: Path) -> None:
    text = "# global.columns = ID FORM UPOS NER:TAG\n1\tAda\tPROPN\tB\n2\tsings\tVERB\tO\n"
    [only] = records(pack(tmp_path, text))
    assert only["tokens"] == ["Ada", "sings"] and only["upos"] == ["PROPN", "VERB"]
    assert only["ner:tag"] == ["B", "O"] and only["text"] == "Ada sings"


@pytest.mark.parametrize(
    ("text", "columns", "is_doubtful"),
    [
        ("1 Ada B-PER\n2 sings O\n", None, True),
        ("1 Ada B-PER\n2 sings O\n", ["id", "tokens", "tags"], False),
        ("1 O\n2 O\n", None, False),
        ("a NOUN\n\n# NOUN\nb VERB\n", None, True),
        ("a NOUN\n\n# about\nb VERB\n", None, False),
    ],
)
def test_a_reading_that_may_be_wrong_is_said(
    tmp_path: Path, text: str, columns: list[str] | None, is_doubtful: bool
) -> None:
    named = {} if columns is None else {"columns": columns}
    packed = pack(tmp_path, text, **named)
    said = json.loads((tmp_path / "out" / "manifest.json").read_text("utf-8")).get("notes", [])
    assert any("read as the tokens" in note for note in said) == is_doubtful
    plan = sabiprep.plan(tmp_path / "corpus")
    assert any(problem.kind == "doubt" for problem in plan.problems) == is_doubtful
    assert len(packed.texts) == text.count("\n\n") + 1


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
