"""Several documents a record, beside other keys: tasks made from text, spans, weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import sabiprep
from sabiprep import ConfigError
from sabiprep.dataset import open_dataset
from support import packer
from support.document_corpus import pack, write
from support.document_texts import texts_of
from support.strategies import tokenizer_json

PLAIN = [{"target": "{{ text }}"}]
TABLES: list[dict[str, Any]] = [
    {"name": "text", "segments": PLAIN, "overflow": "drop"},
    {"name": "noisy", "augment": "denoise", "lang": "yor", "when": "{{ rating > 2 }}"},
    {
        "name": "named",
        "segments": PLAIN,
        "spans": "spans",
        "overflow": "drop",
        "when": "{{ spans }}",
        "loss_weight": "w",
    },
    {
        "name": "answers",
        "each": "answers",
        "when": "{{ item.w is defined }}",
        "segments": [{"prompt": "{{ text }} <qa>"}, {"target": " {{ item.text }}"}],
        "weight": "item.w",
        "clean": {"unicode": "nfc"},
    },
]
NAMES = [f"news/{table['name']}" for table in TABLES]


def records(count: int) -> list[dict[str, Any]]:
    """Records of which each table takes some."""
    return [
        {
            "text": f"ọ̀rọ̀ {nth} wà ní ilé-ìwé, Adé sì ń kà á",
            "rating": nth % 5,
            "spans": [[0, 4], [6, 8]] if nth % 3 else [],
            "answers": [
                {"text": f"á{nth}-{k}", "w": k / 2} if k != 1 else {"text": f"b{nth}"}
                for k in range(nth % 4)
            ],
        }
        | ({"w": nth / 4} if nth % 3 else {})
        for nth in range(count)
    ]


def weights_of(out: Path) -> dict[tuple[str, int, int], float]:
    """The weights of the documents of training, by source, record and number."""
    with open_dataset(out) as dataset:
        names = [source.name for source in dataset.sources]
        rows = [dataset["train"][number] for number in range(len(dataset["train"]))]
        return {
            (names[source], int(record), int(parts) >> 16 & 0xFF): float(weight)
            for row in rows
            for source, record, parts, weight in zip(
                row["source_ids"],
                row["record_ids"],
                row["doc_parts"],
                row["doc_weights"],
                strict=True,
            )
        }


def test_a_table_makes_what_a_source_of_its_keys_makes(tmp_path: Path) -> None:
    lines = records(40)
    write(tmp_path / "tables", lines, TABLES, validation=0.2)
    write(tmp_path / "apart", lines, TABLES, validation=0.2)
    sources = [
        {**table, "name": name, "files": ["news.jsonl"]}
        for name, table in zip(NAMES, TABLES, strict=True)
    ]
    pack_of = {"seq_len": 512, "max_bad_fraction": 1.0, "validation": 0.2}
    packer.write_config(tmp_path / "apart", sources, pack=pack_of)
    (tables, of_tables), (apart, of_apart) = (pack(tmp_path / it) for it in ("tables", "apart"))
    for side in ("train", "validation"):
        assert texts_of(tables, side) == texts_of(apart, side)
    assert weights_of(tables) == weights_of(apart)
    for own, other in zip(of_tables["sources"], of_apart["sources"], strict=True):
        assert own.pop("document_of") == "news"
        assert own["kept"] > 0
        assert {**own, "examples": []} == {**other, "examples": []}


def test_weights_are_those_of_the_record_or_of_the_element(tmp_path: Path) -> None:
    lines = records(12)
    places = write(tmp_path / "c", lines, TABLES)
    out, manifest = pack(tmp_path / "c")
    expected = {}
    for byte, line in zip(places, lines, strict=True):
        expected["news/text", byte, 0] = 1.0
        if line["rating"] > 2:
            expected["news/noisy", byte, 0] = 1.0
        if line["spans"]:
            expected["news/named", byte, 0] = line["w"]
        weighed = (answer["w"] for answer in line["answers"] if "w" in answer)
        expected |= {("news/answers", byte, nth): weight for nth, weight in enumerate(weighed)}
    assert weights_of(out) == expected
    # No record lacks a weight that its table did not ask for.
    drops = {source["name"]: source["drops"] for source in manifest["sources"]}
    assert all(set(reasons) <= {"not chosen"} for reasons in drops.values()), drops


def test_a_record_is_chosen_by_its_whole_text_and_then_shortened(tmp_path: Path) -> None:
    when = "{{ text | length > 200 }}"
    segments = [{"prompt": "{{ text }} <x>"}, {"target": " y"}]
    tables = [
        {"name": "segments", "when": when, "segments": segments},
        {"name": "made", "when": when, "augment": "diacritize", "lang": "yor"},
    ]
    lines = [{"text": "ọ̀rọ̀ " * count} for count in (5, 200)]
    write(tmp_path / "c", lines, tables, seq_len=128)
    _, manifest = pack(tmp_path / "c")
    for source in manifest["sources"]:
        assert (source["drops"], source["truncated"]) == ({"not chosen": 1}, 1)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("augment = 'denoise'\neach = 'answers'\n", "both `augment` and `each`"),
        (
            "augment = 'denoise'\ntemplates = [[{ target = '{{ text }}' }]]\n",
            "both `augment` and `templates`",
        ),
        (
            "augment = 'denoise'\ntagged = { open = ['<a>'], action = ['<b>'] }\n",
            "both `augment` and `tagged`",
        ),
        ("spans = 's'\neach = 'answers'\n", "both `spans` and `each`"),
        (
            "spans = 's'\ntemplates = [[{ target = '{{ text }}' }]]\n",
            "both `spans` and `templates`",
        ),
        (
            "spans = 's'\ntagged = { open = ['<a>'], action = ['<b>'] }\n",
            "both `spans` and `tagged`",
        ),
        ("when = '{{ a == \"{lang}\" }}'\n", "`when` holds {lang}, and no entry of `files` does"),
        ("each = 'of_{lang}'\n", "`each` holds {lang}, and no entry of `files` does"),
    ],
)
def test_keys_that_no_document_could_have_both_of_are_refused(
    tmp_path: Path, keys: str, message: str
) -> None:
    (tmp_path / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "a"}) + "\n", "utf-8")
    head = "[tokenizer]\neos = '</s>'\n[[source]]\nname = 'a'\nfiles = ['a.jsonl']\n"
    for table in ("", "[[source.document]]\n"):
        (tmp_path / "corpus.toml").write_text(head + table + keys, "utf-8")
        with pytest.raises(ConfigError) as error:
            sabiprep.pack(tmp_path, tmp_path / "out")
        assert message in str(error.value)
        assert error.value.remedy
