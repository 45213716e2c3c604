"""A corpus of three formats, with every kind of drop and records longer than a split."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest

from support import packer
from support.files import edit
from support.strategies import TEXTS, tokenizer_json


def write_corpus(folder: Path) -> None:
    """Three formats, two sources over one file, every kind of drop, records longer than a split and
    than a row.
    """
    folder.mkdir()
    chance = random.Random(7)
    words = " ".join(TEXTS).split()

    def text(most: int) -> str:
        return " ".join(chance.choices(words, k=chance.randint(1, most)))

    pairs = []
    for i in range(300):
        pair: dict[str, str | None] = {"a": text(60), "b": text(4)}
        if i % 7 == 0:
            pair = {"a": "the same content", "b": "yes"}
        elif i % 11 == 0:
            pair["b"] = chance.choice(["", None, text(150)])
        pairs.append(json.dumps(pair, ensure_ascii=False) if i % 13 else "{")
    (folder / "pairs.jsonl").write_text("\n".join(pairs), "utf-8")
    rows = [
        "text\tlabel",
        *(
            f"{text(40)}\t{chance.choice(['yes', 'no'])}" + "\tmore" * (not i % 9)
            for i in range(200)
        ),
    ]
    (folder / "rows.tsv.gz").write_bytes(gzip.compress("\r\n".join(rows).encode(), mtime=0))
    for name in ("one.txt", "two.txt"):
        (folder / name).write_bytes(
            b"\n".join(b"\xff" if not i % 8 else text(90).encode() for i in range(80))
        )
    (folder / "words.txt").write_text("".join(text(3) + "\n" for _ in range(40)), "utf-8")
    (folder / "held.out").write_text("".join(text(90) + "\n" for _ in range(30)), "utf-8")
    there = [{"prompt": "<translate> {{ a }} <yor>:"}, {"target": " {{ b }}"}]
    back = [{"prompt": "{% if a %}{{ b }}{% endif %} <yor>:"}, {"target": " {{ a }}"}]
    label = [{"prompt": "{{ text }} <|sep|>"}, {"target": " {{ label }}"}]
    packer.write_config(
        folder,
        [
            {"name": "there", "files": ["pairs.jsonl"], "segments": there, "epochs": 2.5},
            {
                "name": "back",
                "files": ["pairs.jsonl"],
                "segments": back,
                "overflow": "drop",
                "duplicates": "normalised",
            },
            {"name": "words", "files": ["words.txt"], "format": "text"},
            {"name": "label", "files": ["rows.tsv.gz"], "segments": label, "epochs": 0.5},
            {
                "name": "plain",
                "files": ["*.txt"],
                "format": "text",
                "validation_files": ["held.out"],
                "loss": "full",
                "epochs": 0.8,
            },
        ],
        pack={"validation": 0.1, "seq_len": 64, "shard_tokens": 4096, "max_bad_fraction": 1.0},
        tables={"mix": {"by": "source", "temperature": 2.0, "max_epochs": 1.5}},
    )


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """The corpus with its tokenizer."""
    write_corpus(tmp_path / "corpus")
    (tmp_path / "corpus" / "tokenizer.json").write_text(tokenizer_json("bytes-nfc"), "utf-8")
    edit(tmp_path / "corpus" / "corpus.toml", "[tokenizer]", '[tokenizer]\nfile = "tokenizer.json"')
    words = (tmp_path / "corpus" / "words.txt").read_text("utf-8").splitlines()
    (tmp_path / "corpus" / "leaks.jsonl").write_text(json.dumps({"texts": words[:3]}), "utf-8")
    return tmp_path / "corpus"
