"""Values are put in order as Python does it, and refused where Python refuses."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import jinja2
import pytest

from support import packer
from support.strategies import tokenizer_json

VALUES: list[Any] = ["1", "4", "", "b", 1, 4, -2.5, True, None, [1, 2], [1, 3], {"k": 1}]
OPERATORS = ["<", "<=", ">", ">=", "==", "!="]
JINJA = jinja2.Environment(undefined=jinja2.StrictUndefined)


def expected(expression: str, record: dict[str, Any]) -> str:
    """What Jinja2 gives for an expression: its text, or the reason that a record is dropped for."""
    try:
        return JINJA.from_string("{{ " + expression + " }}").render(record).lower()
    except TypeError:
        return "template error"
    except jinja2.UndefinedError:
        return "missing field"


def given(folder: Path, expression: str, record: dict[str, Any]) -> str:
    """What ours gives."""
    segments = [{"target": "{{ " + expression + " }}"}]
    sources = [{"name": "s", "files": ["a.jsonl"], "segments": segments}]
    packer.write_config(folder, sources, pack={"seq_len": 64})
    file = folder / "tokenizer.json"
    explained = packer.explain(folder, "s", record, tokenizer=file, seq_len=64)
    if explained.dropped is not None:
        return explained.dropped
    return "".join(text for text, *_ in explained.spans).lower()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    (tmp_path / "a.jsonl").write_text('{"a": 1, "b": 2}\n', "utf-8")
    return tmp_path


@pytest.mark.parametrize("operator", OPERATORS)
def test_any_two_values_are_compared_as_jinja_compares_them(folder: Path, operator: str) -> None:
    for a, b in itertools.product(VALUES, VALUES):
        record = {"a": a, "b": b}
        expression = f"a {operator} b"
        found = given(folder, expression, record)
        if a is None or b is None:
            # A null field is missing to us, unless a template tests for it.
            assert found in ("missing field", "template error", expected(expression, record))
            continue
        assert found == expected(expression, record), (record, operator)


@pytest.mark.parametrize(
    "expression",
    [
        "1 < a < 5",
        "1 < a <= b",
        "a < b < 'z'",
        "0 < a == b",
        "a | int > 3",
        "a | length > 0",
        "(a > 1) == (b > 1)",
        "missing > 1",
        "1 < missing",
        "a > 1 and b > 1",
        "not a > b",
        "loop > 1 if false else a > 0",
    ],
)
def test_chains_and_parts_of_expressions_too(folder: Path, expression: str) -> None:
    for a, b in [(2, 4), (4, 4), ("2", "4"), ("4", 2), (7, "x")]:
        record = {"a": a, "b": b}
        assert given(folder, expression, record) == expected(expression, record), record


def test_a_rating_of_csv_compared_with_a_number_is_no_choice(tmp_path: Path) -> None:
    """``rating > 3`` held for every record of a CSV file, "1" too."""
    (tmp_path / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    (tmp_path / "a.csv").write_text("rating,text\n1,bad\n5,good\n4,fine\n", "utf-8")
    source = {"name": "s", "files": ["a.csv"], "segments": [{"target": "{{ text }}"}]}
    for when, kept, reason in [
        ("{{ rating > 3 }}", 0, "template error"),
        ("{{ rating | int > 3 }}", 2, "not chosen"),
    ]:
        packer.write_config(tmp_path, [{**source, "when": when}], pack={"seq_len": 64})
        out = tmp_path / f"out-{kept}"
        if not kept:
            with pytest.raises(Exception, match=r"a text with a number; write `\| int`"):
                packer.pack(tmp_path, out, tokenizer=tmp_path / "tokenizer.json")
            continue
        packer.pack(tmp_path, out, tokenizer=tmp_path / "tokenizer.json")
        manifest = json.loads((out / "manifest.json").read_text("utf-8"))
        (counts,) = manifest["sources"]
        assert counts["kept"] == kept and counts["drops"] == {reason: 3 - kept}
