"""Cleaned texts: the changes of a source's table `clean`, beside a slow oracle, whatever the
threads, the splits, and the way in which a record is read.
"""

from __future__ import annotations

import csv
import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sabiprep
from sabiprep import ConfigError
from support import packer
from support.explaining import properties
from support.oracle import hygiene
from support.strategies import tokenizer_json

EVERYTHING = {"invisible": "remove", "apostrophes": "\u02bc", "underdots": "dot"}
PIECES = [
    *"abeoEOsni '\u2019\u02bc.\n\t",
    *"ẹọṣẸỌṢệộợḅ\u00e9\u00f2ńǹ",
    *"\u0300\u0301\u0302\u0304\u0323\u0329\u0331\u0345",
    *"\ufeff\u200b\u00ad\u061c\u200e\u200f\u202a\u202e\u2066\u2069",
    *"\u200c\u200d\ufe0f\u2060\u0149\ufb01\uff07\u212b\u1e9b",
    "👩\u200d👩\u200d👧",
    "❤\ufe0f",
    "🏴\U000e0067\U000e007f",
    "Ẹ̀kọ́",
    "e\u0329\u0301",
    "Ụmụaka n'ụtụtụ",
    "Hausa da Ajami: \u0647\u064e\u0648\u0652\u0633\u064e",
    "ሰላም\u1361ለዓለም።",
    "\u1112\u1161\u11ab",
    "\u0915\u093c",
]
hostile = st.lists(st.one_of(st.sampled_from(PIECES), st.characters(codec="utf-8")), max_size=24)
hostile_text = hostile.map("".join)
tables = st.fixed_dictionaries(
    {},
    optional={
        "unicode": st.sampled_from(["nfc", "nfd", "nfkc", "as-is"]),
        "invisible": st.sampled_from(["keep", "remove"]),
        "apostrophes": st.sampled_from(["'", "\u2019", "\u02bc"]),
        "underdots": st.sampled_from(["dot", "line"]),
    },
)


def is_assigned(text: str) -> bool:
    """Whether Python's Unicode tables know all characters: the core's may be newer."""
    return all(unicodedata.category(char) != "Cn" for char in text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a tokenizer."""
    (tmp_path / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    return tmp_path


def explain(folder: Path, record: dict[str, Any], **source: Any) -> packer.Explained:
    """A record explained as one of a source."""
    (folder / "a.jsonl").write_text("{}\n", "utf-8")
    packer.write_config(folder, [{"name": "a", "files": ["a.jsonl"], **source}])
    return packer.explain(folder, "a", record, tokenizer=folder / "tokenizer.json", seq_len=1 << 16)


@properties
@given(text=hostile_text.filter(is_assigned), table=tables)
def test_texts_are_cleaned_as_by_the_oracle(folder: Path, text: str, table: dict[str, str]) -> None:
    expected, _ = hygiene.clean(text, table)
    assert hygiene.clean(expected, table) == (expected, set()), "a clean text is left alone"
    # A letter on each side, which no mark joins, keeps the field from being blank.
    for template in ("{{ t }}", "{{ t | string }}"):
        shown = explain(
            folder,
            {"t": f"x {text} x", "other": text},
            segments=[{"target": template}],
            clean=table,
        )
        whole, _ = hygiene.clean(f"x {text} x", table)
        assert "".join(span for span, _, _ in shown.spans) == whole == f"x {expected} x"


def corpus(folder: Path, **clean: str) -> list[dict[str, Any]]:
    """A corpus with three ways of reading the same records; returns the records."""
    records = [
        {
            "id": str(number),
            "q": f"Ẹ{PIECES[number % len(PIECES)]}o {number} " * (1 + 30 * (number % 7 == 0)),
            "a": f"n{PIECES[number * 7 % len(PIECES)]}’e\u0329 {number}",
        }
        for number in range(200)
    ]
    for record in records:
        record["q"], record["a"] = (" ".join(record[key].split()) for key in "qa")
    lines = [
        json.dumps(record, ensure_ascii=number % 2 == 0) for number, record in enumerate(records)
    ]
    (folder / "a.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    with (folder / "b.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["id", "q", "a"])
        writer.writeheader()
        writer.writerows(records)
    plain = [{"prompt": "Q {{ q }}:"}, {"target": " {{ a }}"}]
    rendered = [{"prompt": "Q {% if true %}{{ q }}{% endif %}:"}, {"target": " {{ a }}"}]
    packer.write_config(
        folder,
        [
            {"name": "direct", "files": ["a.jsonl"], "segments": plain, "clean": clean},
            {"name": "quoted", "files": ["b.csv"], "segments": plain, "clean": clean},
            {"name": "rendered", "files": ["a.jsonl"], "segments": rendered, "clean": clean},
            {"name": "dirty", "files": ["a.jsonl"], "segments": plain},
        ],
        pack={"seq_len": 256, "validation": 0.1},
    )
    return records


def contents(out: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {
        str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()
    }


def test_changes_are_counted_with_examples_whatever_the_threads(folder: Path) -> None:
    records = corpus(folder, **EVERYTHING)
    first: dict[str, bytes] | None = None
    for threads, split_bytes in ((1, None), (3, 700), (8, 5000)):
        out = folder / f"out-{threads}"
        manifest = packer.pack(
            folder,
            out,
            tokenizer=folder / "tokenizer.json",
            threads=threads,
            split_bytes=split_bytes,
        )
        made = contents(out)
        first = made if first is None else first
        assert made == first
    changes = [
        hygiene.clean(record["q"], EVERYTHING)[1] | hygiene.clean(record["a"], EVERYTHING)[1]
        for record in records
    ]
    # The id is shown by no template.
    for source, start in zip(manifest["sources"][:3], (1, 2, 1), strict=True):
        cleaned = source["cleaned"]
        for key in ("unicode", "invisible", "apostrophes", "underdots"):
            places = [number for number, changed in enumerate(changes) if key in changed]
            assert cleaned[key]["records"] == len(places) > 0, (source["name"], key)
            lines = [example["line"] for example in cleaned[key]["examples"]]
            assert lines == [place + start for place in places[:3]]
    assert "cleaned" not in manifest["sources"][3]
    assert manifest["sources"][0]["train"] == manifest["sources"][2]["train"]
    report = sabiprep.verify(folder / "out-1", against=folder)
    assert report.ok, report.failures


def test_a_plan_and_a_report_say_what_is_cleaned(folder: Path) -> None:
    (folder / "a.txt").write_text("kẹ́kọ̀ọ́ ní\nAde\u200bwale\nAde’s\n", "utf-8")
    packer.write_config(
        folder,
        [{"name": "a", "files": ["a.txt"], "clean": {"invisible": "remove", "apostrophes": "'"}}],
        tokenizer={"file": "tokenizer.json"},
    )
    plan = sabiprep.plan(folder)
    assert plan.sources[0].cleaned == {"invisible": 1, "apostrophes": 1}
    assert "cleaned: 1 apostrophes, 1 invisible" in " ".join(str(plan).split())
    report = sabiprep.pack(folder, folder / "out")
    cleaned = report.sources[0].cleaned
    assert cleaned["invisible"].records == 1
    assert (cleaned["invisible"].examples[0].line, cleaned["apostrophes"].examples[0].line) == (
        2,
        3,
    )
    assert "U+200B → nothing" in cleaned["invisible"].examples[0].change
    assert "a: apostrophes: 1, first a.txt:3: Ade’s (U+2019 → U+0027)" in str(report)
    shown = sabiprep.explain({"text": "Ade\u200bwale"}, "a", corpus=folder)
    assert shown.spans[0].text == "Adewale"
    assert "cleaned: invisible: Ade" in str(shown)


def test_what_is_cleaned_is_what_is_compared(folder: Path) -> None:
    """Duplicates that differ in what is cleaned are duplicates, byte for byte."""
    (folder / "a.txt").write_text("Ade’s e\u0329\nAde's ẹ\nAde's\u200b ẹ\n", "utf-8")
    for clean, dropped in ((None, {}), (EVERYTHING, {"duplicate": 2})):
        source = {"name": "a", "files": ["a.txt"], "duplicates": "exact"}
        packer.write_config(folder, [source if clean is None else {**source, "clean": clean}])
        out = folder / f"out-{len(dropped)}"
        manifest = packer.pack(folder, out, tokenizer=folder / "tokenizer.json")
        assert manifest["sources"][0]["drops"] == dropped


def test_shared_tables_and_wrong_ones(folder: Path) -> None:
    (folder / "a.txt").write_text("Ade’s\n", "utf-8")
    source = {"name": "a", "files": ["a.txt"], "template": "t"}
    packer.write_config(folder, [source], tables={"template.t": {"clean": {"apostrophes": "'"}}})
    manifest = packer.pack(folder, folder / "out", tokenizer=folder / "tokenizer.json")
    assert manifest["config"]["source"][0]["clean"] == {"unicode": "nfc", "apostrophes": "'"}
    for wrong, words in (
        ({"unicod": "nfc"}, "no key `unicod` is known in `clean`"),
        ({"unicode": "nfq"}, 'cannot be "nfq"'),
        ("nfc", "takes a table in braces"),
    ):
        packer.write_config(folder, [{"name": "a", "files": ["a.txt"], "clean": wrong}])
        with pytest.raises(ConfigError, match=words):
            packer.pack(folder, folder / "out2", tokenizer=folder / "tokenizer.json")
