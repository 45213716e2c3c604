"""Every file, source and document of ``docs/corpora.md``, packed as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from sabiprep.dataset import open_dataset
from support import packer
from support.roles_text import documents_of
from support.strategies import tokenizer_json

PAGE = Path(__file__).parent.parent / "docs" / "corpora.md"


class Example(NamedTuple):
    """A source of the page, with the files before it and the documents after it."""

    place: str
    files: dict[str, str]
    script: str
    config: str
    documents: list[str]


def examples() -> list[Example]:
    """The examples of the page, in order."""
    found: list[Example] = []
    files: dict[str, str] = {}
    script = config = ""
    page = PAGE.read_text("utf-8")
    for match in re.finditer(r"^## ([^\n]+)$|^```(\S+)(?: (\S+))?\n(.*?)^```$", page, re.M | re.S):
        heading, language, info, body = match.groups()
        if heading:
            place = heading
        elif info and info.startswith("file="):
            files[info.removeprefix("file=")] = body
        elif info == "documents":
            documents = body.removesuffix("\n").split("\n")
            found.append(Example(place, files, script, config, documents))
            files, script, config = {}, "", ""
        elif language == "python":
            script = body
        elif language == "toml":
            config = body
    return found


EXAMPLES = examples()


def test_the_page_has_an_example_of_each_kind() -> None:
    assert len(EXAMPLES) >= 10
    assert all(example.config and (example.files or example.script) for example in EXAMPLES)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.place)
def test_an_example_makes_the_documents_that_the_page_shows(
    example: Example, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for name, text in example.files.items():
        (corpus / name).parent.mkdir(parents=True, exist_ok=True)
        (corpus / name).write_text(text, "utf-8")
    if example.script:
        subprocess.run([sys.executable, "-c", example.script], cwd=corpus, check=True)
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text(tokenizer_json("bytes"), "utf-8")
    head = f'[tokenizer]\neos = "{packer.EOS}"\n\n'
    (corpus / "corpus.toml").write_text(head + example.config, "utf-8")
    packer.pack(corpus, tmp_path / "out", tokenizer=tokenizer, seq_len=1024)
    with open_dataset(tmp_path / "out") as dataset:
        found = documents_of(dataset, tokenizer)
    shown = [(prompt + "▸" + target).replace("\n", "⏎") for prompt, target in found]
    assert sorted(shown) == sorted(example.documents)
