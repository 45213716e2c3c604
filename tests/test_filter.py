"""Filtered records: which ones a source's table `filter` drops, beside a slow oracle, and with what
words; whatever the threads and the splits.
"""

from __future__ import annotations

import json
import random
import unicodedata
from collections.abc import Mapping, Sequence
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
from support.strategies import TEXTS, tokenizer_json

WORDS = [
    *" ".join(TEXTS).split(),
    *["the", "of", "and", "that", "ọmọdé", "e̩kọ́", "ń", "n'ụlọ", "#", "...", "…", "•", "-", "*"],
    *["ሰላም", "ለዓለም።", "ሰላም፡ለዓለም", "هَوْسَ", "يارا؟", "мир", "ʼyan", "12", "2024,", "'", "”"],
    "👩\u200d👩\u200d👧",
]
SPACES = [" ", " ", " ", " ", "\n", "\n\n", "\n\n\n", "\u00a0", " \n "]
lines = st.lists(st.sampled_from(WORDS), min_size=1, max_size=9).map(" ".join)
repeating = st.lists(st.sampled_from(["a b c.", "ọmọdé ń lọ", *WORDS[:6]]), min_size=1, max_size=80)
texts = st.one_of(
    st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(SPACES)), max_size=90).map(
        lambda pairs: "".join(word + space for word, space in pairs)
    ),
    st.tuples(repeating, st.sampled_from(SPACES)).map(lambda both: both[1].join(both[0])),
    st.lists(lines, max_size=12).map("\n".join),
    st.text(max_size=30),
).filter(lambda text: all(unicodedata.category(char) != "Cn" for char in text))
shares = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0])
counts = st.integers(0, 60)
tables = st.fixed_dictionaries(
    {},
    optional={
        "min_chars": counts,
        "max_chars": st.integers(60, 400),
        "min_words": counts,
        "max_words": st.integers(60, 90),
        "min_letters": shares,
        "max_repeated_lines": shares,
        "max_repeated_ngrams": shares,
        "rules": st.lists(
            st.sampled_from(["gopher-repetition", "gopher-quality", "fineweb-quality"]), unique=True
        ),
    },
)


LIMITS = {
    "dup_line_frac": 0.4,
    "top_n_grams": [[2, 0.25], [4, 0.3]],
    "dup_n_grams": [[5, 0.3], [9, 0.2]],
    "line_punct_thr": 0.2,
    "new_line_ratio": 0.3,
    "min_avg_word_length": 2,
    "max_avg_word_length": 5.5,
    "max_non_alpha_words_ratio": 0.7,
    "stopwords": ["ń", "of"],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a tokenizer."""
    (tmp_path / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    return tmp_path


def pack(folder: Path, records: Sequence[Mapping[str, Any]], **source: Any) -> dict[str, Any]:
    """The entry of a source whose records are filtered, beside another that keeps the run going."""
    (folder / "a.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records), "utf-8")
    (folder / "b.txt").write_text("Ẹ kú àárọ̀\n", "utf-8")
    packer.write_config(
        folder,
        [
            {"name": "a", "files": ["a.jsonl"], "max_bad_fraction": 1.0, **source},
            {"name": "b", "files": ["b.txt"]},
        ],
    )
    number = len(list(folder.iterdir()))
    out = folder / f"out-{number}"
    entry: dict[str, Any] = packer.pack(
        folder, out, tokenizer=folder / "tokenizer.json", seq_len=1 << 16
    )["sources"][0]
    return entry


@properties
@given(text=texts, table=tables, lang=st.sampled_from(["eng", "yor"]))
def test_documents_are_dropped_as_by_the_oracle(
    folder: Path, text: str, table: dict[str, Any], lang: str
) -> None:
    # No white space at the ends of fields, which are apart by a line break.
    (folder / "a.jsonl").write_text("{}\n", "utf-8")
    segments = [{"prompt": "# # # {{ q }} # ... # #"}, {"target": " {{ t }}"}]
    for of, data in (("text", f"Q1\n{text}x"), ("target", f"{text}x"), ("prompt", "Q1")):
        source = {"name": "a", "files": ["a.jsonl"], "segments": segments, "lang": lang}
        packer.write_config(folder, [{**source, "filter": {"of": of, **table}}])
        shown = packer.explain(
            folder,
            "a",
            {"q": "Q1", "t": f"{text}x"},
            tokenizer=folder / "tokenizer.json",
            seq_len=1 << 16,
        )
        expected = "filtered" if hygiene.is_filtered(data, table, lang) else None
        assert shown.dropped == expected, (of, data, table)


prose = st.lists(
    st.tuples(st.sampled_from(WORDS), st.sampled_from([*SPACES[:4] * 6, ".\n", "\n"])),
    min_size=50,
    max_size=120,
).map(lambda pairs: "".join(word + space for word, space in pairs))


@properties
@given(text=st.one_of(prose, texts), stopwords=st.sampled_from([[], ["ń", "of"]]))
def test_limits_of_a_language_are_those_of_the_oracle(
    folder: Path, text: str, stopwords: list[str]
) -> None:
    (folder / "a.jsonl").write_text("{}\n", "utf-8")
    table = {"rules": ["fineweb-2"], "limits": {**LIMITS, "stopwords": stopwords}}
    source = {"name": "a", "files": ["a.jsonl"], "segments": [{"target": "{{ t }}"}]}
    packer.write_config(folder, [{**source, "filter": table}])
    shown = packer.explain(
        folder, "a", {"t": f"{text}x"}, tokenizer=folder / "tokenizer.json", seq_len=1 << 16
    )
    assert (shown.dropped == "filtered") == hygiene.is_filtered(f"{text}x", table)


@properties
@given(
    text=texts,
    script=st.sampled_from(["Latn", "Ethi", "Arab", "Cyrl"]),
    least=st.sampled_from([0.1, 0.5, 0.9, 1.0]),
)
def test_letters_of_another_script_are_counted(
    folder: Path, text: str, script: str, least: float
) -> None:
    # Names of letters tell the script of those that are in the words here.
    text = "".join(char for char in text if char in "".join(WORDS) or char.isspace()) + "x"
    (folder / "a.jsonl").write_text("{}\n", "utf-8")
    table = {"script": script, "min_script": least}
    source = {"name": "a", "files": ["a.jsonl"], "segments": [{"target": "{{ t }}"}]}
    packer.write_config(folder, [{**source, "filter": table}])
    shown = packer.explain(
        folder, "a", {"t": text}, tokenizer=folder / "tokenizer.json", seq_len=1 << 16
    )
    assert (shown.dropped == "filtered") == (hygiene.script_share(text, script) < least)


def test_each_drop_names_its_rule_and_the_measured_value(folder: Path) -> None:
    prose = " ".join(TEXTS) * 2
    for text, table, why in (
        ("a b c", {"min_words": 5}, "min_words: words 3, at least 5"),
        ("abcdef", {"max_chars": 5}, "max_chars: characters 6, at most 5"),
        ("12345 a", {"min_letters": 0.6}, "min_letters: letters 16.7 %, at least 60.0 %"),
        (
            "ሰላም ab",
            {"min_script": 0.8},
            "min_script: letters of the script Latn 40.0 %, at least 80.0 %",
        ),
        (
            "x\nx\nx\ny",
            {"max_repeated_lines": 0.25},
            "max_repeated_lines: repeated lines 50.0 %, at most 25.0 %",
        ),
        (
            "a b c a b c",
            {"max_repeated_ngrams": 0.1, "ngram": 3},
            "max_repeated_ngrams: characters in repeated 3-grams 27.3 %, at most 10.0 %",
        ),
        (prose, {"rules": ["gopher-repetition"]}, "gopher-repetition: "),
        ("a b", {"rules": ["gopher-quality"]}, "gopher-quality: words 2, at least 50"),
        (
            "no end",
            {"rules": ["fineweb-quality"]},
            "fineweb-quality: lines that end in punctuation 0.0 %, more than 12.0 %",
        ),
        ("abc", {"min_tokens": 10}, "min_tokens: tokens "),
    ):
        entry = pack(
            folder, [{"t": text}], segments=[{"target": "{{ t }}"}], lang="yor", filter=table
        )
        assert entry["drops"] == {"filtered": 1}
        assert entry["examples"][0]["why"].startswith(why), entry["examples"]
        assert entry["examples"][0]["line"] == 1


def test_whole_documents_are_measured_not_shortened_ones(folder: Path) -> None:
    """A record that is cut to fit a row keeps the length that it has in its file."""
    (folder / "a.jsonl").write_text(
        json.dumps({"q": "word " * 300, "t": "yes"})
        + "\n"
        + json.dumps({"q": "a", "t": "no"})
        + "\n",
        "utf-8",
    )
    packer.write_config(
        folder,
        [
            {
                "name": "a",
                "files": ["a.jsonl"],
                "segments": [{"prompt": "{{ q }}"}, {"target": " {{ t }}"}],
                "filter": {"min_words": 250, "min_tokens": 300},
            }
        ],
    )
    entry = packer.pack(folder, folder / "out", tokenizer=folder / "tokenizer.json", seq_len=128)
    (source,) = entry["sources"]
    assert (source["kept"], source["truncated"], source["drops"]) == (1, 1, {"filtered": 1})


def test_the_same_records_are_dropped_whatever_the_threads(folder: Path) -> None:
    chance = random.Random(5)
    records = [{"t": " ".join(chance.choices(WORDS, k=chance.randint(1, 80)))} for _ in range(300)]
    (folder / "a.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records), "utf-8")
    table = {"min_words": 20, "min_letters": 0.5, "rules": ["gopher-quality", "gopher-repetition"]}
    clean = {"invisible": "remove", "underdots": "dot"}
    source = {"name": "a", "files": ["a.jsonl"], "segments": [{"target": "{{ t }}"}]}
    packer.write_config(folder, [{**source, "clean": clean, "filter": table}])
    made = []
    for threads, split_bytes in ((1, None), (3, 700), (8, 5000)):
        out = folder / f"out-{threads}"
        manifest = packer.pack(
            folder,
            out,
            tokenizer=folder / "tokenizer.json",
            seq_len=256,
            threads=threads,
            split_bytes=split_bytes,
        )
        files = (path for path in out.rglob("*") if path.is_file())
        made.append({str(path.relative_to(out)): path.read_bytes() for path in files})
    assert made[0] == made[1] == made[2]
    expected = sum(hygiene.is_filtered(hygiene.clean(one["t"], clean)[0], table) for one in records)
    assert 0 < expected < len(records)
    assert manifest["sources"][0]["drops"] == {"filtered": expected}
    assert sabiprep.verify(folder / "out-1", against=folder).ok
    packer.write_config(
        folder,
        [{**source, "clean": clean, "filter": table}],
        tokenizer={"file": "tokenizer.json"},
    )
    (planned,) = sabiprep.plan(folder).sources
    assert planned.drops == {"filtered": expected}
    options = sabiprep.PackOptions(strict=True)
    assert sabiprep.pack(folder, folder / "strict", options).sources[0].kept
    trained = packer.train_tokenizer(folder, folder / "new.json", 300)
    assert trained["drops"] == {"filtered": expected}


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"min_letters": 1.5}, "min_letters = 1.5: must be from 0 to 1"),
        ({"min_words": 9, "max_words": 3}, "min_words = 9 is above max_words = 3"),
        ({"script": "Latn"}, "`script` without `min_script` does nothing"),
        ({"ngram": 3}, "`ngram` without `max_repeated_ngrams` does nothing"),
        ({"script": "Klingon", "min_script": 0.5}, "no script is named 'Klingon'"),
        ({"min_script": 0.5}, "the script of the language 'und' is not known"),
        ({"rules": ["fineweb-2"]}, 'rules "fineweb-2" need `limits`'),
        ({"limits": {"new_line_ratio": 0.1}}, '`limits` without "fineweb-2" does nothing'),
        (
            {"rules": ["fineweb-2"], "limits": {"dup_n_grams": [5, 0.1]}},
            "`dup_n_grams` in `limits` takes a list of pairs",
        ),
        ({"rules": ["gopher"]}, 'cannot be "gopher"'),
        ({"min_word": 3}, "no key `min_word` is known in `filter`"),
    ],
)
def test_a_filter_without_sense_is_refused(folder: Path, table: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        pack(folder, [{"t": "a"}], segments=[{"target": "{{ t }}"}], filter=table)
