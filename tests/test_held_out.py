"""Validation and duplicates: which records are held out, which are dropped for another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sabiprep.dataset import open_dataset
from sabiprep.errors import ConfigError
from support import packer
from support.any_corpus import SHARED_BITS
from support.expected_packing import content
from support.packing_check import documents
from support.strategies import tokenizer_json


def test_a_held_out_file_is_held_out_by_every_source(tmp_path: Path) -> None:
    """And what is in it, word for word, is not trained on; a fraction of the rest is held out as
    well.
    """
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    (folder / "train.txt").write_text("".join(f"record {i}\n" for i in range(200)), "utf-8")
    (folder / "dev.txt").write_text("record  7\nRECORD 8\nheld out\n", "utf-8")
    sources = [
        {"name": "both", "files": ["train.txt"], "validation_files": ["dev.*"], "epochs": 2.0},
        {
            "name": "held",
            "files": [],
            "validation_files": ["dev.txt"],
            "segments": [{"target": "again {{ text }}"}],
        },
    ]
    packer.write_config(folder, sources, pack={"validation": 0.1, "seq_len": 64})
    packer.pack(folder, tmp_path / "out", tokenizer=folder / "tokenizer.json")
    with open_dataset(tmp_path / "out") as dataset:
        both, held = dataset.manifest["sources"]
        found = documents(dataset)
    in_file = [key for key in found if key[0] == 1 or key[1] >> SHARED_BITS]
    assert len(in_file) == 6 and all(found[key][0].side == "validation" for key in in_file)
    chosen = both["validation"]["documents"] - 3
    assert 10 <= chosen <= 30 and held["train"]["documents"] == 0
    assert 1 <= both["drops"]["in validation"] <= 2
    assert both["train"]["documents"] == 2 * (200 - chosen - both["drops"]["in validation"])
    assert packer.verify(tmp_path / "out")["failures"] == []


@pytest.mark.parametrize("name", ["dev.txt", "./x/../dev.txt", "link.txt"])
def test_a_file_on_both_sides_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "train.txt").write_text("a\n", "utf-8")
    (tmp_path / "dev.txt").write_text("b\n", "utf-8")
    (tmp_path / "link.txt").symlink_to("dev.txt")
    (tmp_path / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    holding = {"name": "holding", "files": ["train.txt"], "validation_files": ["dev.txt"]}
    training = {"name": "training", "files": [name]}
    for sources in ([holding, training], [training, holding]):
        packer.write_config(tmp_path, sources)
        with pytest.raises(ConfigError, match="source 'holding' holds out") as caught:
            packer.pack(tmp_path, tmp_path / "out", tokenizer=tmp_path / "tokenizer.json")
        assert caught.value.source == "training"
    packer.write_config(tmp_path, [{**holding, "files": ["train.txt", name]}])
    with pytest.raises(ConfigError, match="twice"):
        packer.pack(tmp_path, tmp_path / "out", tokenizer=tmp_path / "tokenizer.json")


def test_duplicates_are_dropped_across_sources_and_the_lowest_wins(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    (folder / "a.txt").write_text("one\ntwo\nOne\none\n", "utf-8")
    (folder / "b.txt").write_text("Two\nthree\none\nTHREE\n", "utf-8")
    sources = [
        {"name": "a", "files": ["a.txt"], "duplicates": "exact"},
        {"name": "b", "files": ["b.txt"]},
    ]
    packer.write_config(folder, sources, pack={"duplicates": "normalised", "seq_len": 64})
    packer.pack(
        folder, tmp_path / "out", tokenizer=folder / "tokenizer.json", threads=2, split_bytes=5
    )
    with open_dataset(tmp_path / "out") as dataset:
        a, b = dataset.manifest["sources"]
    assert (a["kept"], a["drops"]) == (3, {"duplicate": 1})
    assert (b["kept"], b["drops"]) == (1, {"duplicate": 3})
    assert [(example["line"], example["why"]) for example in b["examples"]] == [
        (1, "the record at byte 4 of a.txt says the same"),
        (3, "the record at byte 0 of a.txt says the same"),
        (4, "the record at byte 4 of b.txt says the same"),
    ]
    assert packer.verify(tmp_path / "out")["failures"] == []


def test_about_the_share_asked_for_is_held_out_and_no_task_sees_a_held_out_line(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "a.jsonl").write_text(
        "".join(json.dumps({"a": f"a {i}", "b": f"b {i}"}) + "\n" for i in range(500))
    )
    there = [{"prompt": "{{ a }}"}, {"target": " {{ b }}"}]
    back = [{"prompt": "{{ b }}"}, {"target": " {{ a }}"}]
    packer.write_config(
        folder,
        [
            {"name": "there", "files": ["a.jsonl"], "segments": there, "epochs": 3.0},
            {"name": "back", "files": ["a.jsonl"], "segments": back},
        ],
        pack={"validation": 0.2},
    )
    (folder / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    packer.pack(folder, tmp_path / "out", tokenizer=folder / "tokenizer.json", seq_len=64)
    with open_dataset(tmp_path / "out") as dataset:
        found = documents(dataset)
    held_out = [
        {
            record
            for (source, record), copies in found.items()
            if source == id and copies[0].side == "validation"
        }
        for id in (0, 1)
    ]
    assert held_out[0] == held_out[1] and 60 <= len(held_out[0]) <= 140
    assert len(found) == 1000


def test_records_that_differ_only_in_spaces_are_the_same_content(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one  two \nthree\n", "utf-8")
    (tmp_path / "held.txt").write_text(" one two\n", "utf-8")
    source = {"name": "a", "files": ["a.txt"], "validation_files": ["held.txt"]}
    packer.write_config(tmp_path, [source])
    (tmp_path / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    manifest = packer.pack(tmp_path, tmp_path / "out", tokenizer=tmp_path / "tokenizer.json")
    assert manifest["sources"][0]["drops"] == {"in validation": 1}
    assert content("one  two ") == content(" one two") == "one two"
