"""A small corpus with every kind of record."""

from __future__ import annotations

import json
import random
from pathlib import Path

CORPUS_TOML = """
[tokenizer]
file = "tokenizer.json"
eos = "</s>"

[pack]
seq_len = 128
validation = 0.1

[[source]]
name = "sum-eng"
task = "sum"
lang = "eng"
files = ["sums.jsonl"]
segments = [{ prompt = "<sum> {{ a }} {{ b }} <eng>:" }, { target = " {{ words }}" }]

[[source]]
name = "sum-yor"
task = "sum"
lang = "yor"
files = ["sums.jsonl"]
segments = [{ prompt = "<sum> {{ a }} {{ b }} <yor>:" }, { target = " {{ yor }}" }]
epochs = 2.0

[[source]]
name = "label"
task = "label"
lang = "eng"
files = ["labels-*.tsv"]
segments = [{ prompt = "<label> {{ text }}:" }, { target = " {{ label }}" }]

[[source]]
name = "plain"
task = "text"
lang = "eng"
files = ["plain.txt"]
"""

ENGLISH = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
YORUBA = ["òdo", "ọ̀kan", "èjì", "ẹ̀ta", "ẹ̀rin", "àrún", "ẹ̀fà", "èje", "ẹ̀jọ", "ẹ̀sán", "ẹ̀wá"]
MALFORMED = 3  # lines of sums.jsonl that are no JSON object
WITHOUT_FIELD = 2  # its records that have no "words"; one of them has no "yor" either


def write_corpus(folder: Path) -> Path:
    """The corpus without its tokenizer: sums in two languages (some records broken), labels in two
    files, plain text
    of which one document is longer than a row."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for a in range(11):
        for b in range(11 - a):
            fields = {"a": str(a), "b": str(b), "words": ENGLISH[a + b], "yor": YORUBA[a + b]}
            lines.append(json.dumps(fields, ensure_ascii=False))
    lines[10:10] = ["not json", '{"a": "1", "b": "2"}', "[1, 2]"]
    lines[40:40] = ['{"a": "1", "b": "2", "yor": "ẹ̀ta"}', '{"a": ']
    (folder / "sums.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    for name, label in (("a", "good"), ("b", "bad")):
        rows = [f"number {i} is {label} \\ [bold]not markup[/bold] ⟦x⟧\t{label}" for i in range(30)]
        (folder / f"labels-{name}.tsv").write_text(
            "\n".join(["text\tlabel", *rows]) + "\n", "utf-8"
        )
    plain = [f"Line {i} of the plain text says {ENGLISH[i % 11]}." for i in range(40)]
    plain.append(" ".join(ENGLISH[(i * i + i // 7) % 11] for i in range(300)))
    (folder / "plain.txt").write_text("\n".join(plain) + "\n", "utf-8")
    (folder / "corpus.toml").write_text(CORPUS_TOML, "utf-8")
    return folder


def make_it_last(corpus: Path) -> None:
    """Give a corpus seconds of work to do: text of words that no cache knows."""
    letters = random.Random(0)
    with (corpus / "plain.txt").open("a", encoding="utf-8") as file:
        for _ in range(25_000):
            file.write(
                " ".join("".join(letters.choices("abcdefghijklm", k=12)) for _ in range(12)) + "\n"
            )
