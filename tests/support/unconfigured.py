"""Corpora without a ``corpus.toml``: a file of every recognised shape, and what must come of it."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from sabiprep.dataset import open_dataset
from support.strategies import EOS, tokenizer_json

Document = tuple[str, str, str]
"""The source, the prompt and the target of a document."""

COUNT = 12


def words(index: int) -> str:
    """A text that no other index has."""
    return f'ọ̀rọ̀ {index} \\ "{index * 7}" mẹ́ta'


def json_lines(records: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


SHAPES: dict[str, tuple[Callable[[int], dict[str, Any]], Callable[[int], tuple[str, str]]]] = {
    **{
        f"prompt-{target}": (
            lambda i, target=target: {"prompt": words(i), target: f"t{i}", "extra": None},  # type: ignore[misc]
            lambda i: (f"{words(i)}\n", f"t{i}"),
        )
        for target in ("completion", "response", "target", "answer", "output")
    },
    "instruction": (
        lambda i: {
            "instruction": words(i),
            "output": f"o{i}",
            **({"input": ["", f"in {i}"][i % 3 - 1]} if i % 3 else {}),
        },
        lambda i: (f"{words(i)}\n" + (f"in {i}\n" if i % 3 == 2 else ""), f"o{i}"),
    ),
    "inputs": (
        lambda i: {"inputs": words(i), "targets": f"t{i}"},
        lambda i: (f"{words(i)}\n", f"t{i}"),
    ),
    "source": (
        lambda i: {"source": words(i), "target": f"t{i}"},
        lambda i: (f"{words(i)}\n", f"t{i}"),
    ),
    "answer": (
        lambda i: {"question": words(i), "answer": f"a{i}"},
        lambda i: (f"{words(i)}\n", f"a{i}"),
    ),
    "answers": (
        lambda i: {"id": i, "question": words(i), "answers": [f"a{i}", "other"]},
        lambda i: (f"{words(i)}\n", f"a{i}"),
    ),
    "squad": (
        lambda i: {
            "context": f"context {i}",
            "question": words(i),
            "answers": {"text": [f"a{i}"], "answer_start": [0]},
        },
        lambda i: (f"context {i}\n{words(i)}\n", f"a{i}"),
    ),
    "some-context": (
        lambda i: {"question": words(i), "answer": f"a{i}", **({"context": "c"} if i % 2 else {})},
        lambda i: (("c\n" if i % 2 else "") + f"{words(i)}\n", f"a{i}"),
    ),
    "texts": (lambda i: {"text": words(i), "url": f"u{i}"}, lambda i: ("", words(i))),
    "labels": (
        lambda i: {"tweet": words(i), "label": ["good", "bad"][i % 2]},
        lambda i: (f"{words(i)}\n", ["good", "bad"][i % 2]),
    ),
}
"""Records of each shape, and the prompt and the target of each, written down by hand."""


def write_shapes(folder: Path) -> list[Document]:
    """Writes a folder with a file of every shape. Returns the training documents to expect."""
    expected: list[Document] = []
    for name, (record, document) in SHAPES.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "train.jsonl").write_text(
            json_lines([record(i) for i in range(COUNT)]), "utf-8"
        )
        expected += [(name, *document(i)) for i in range(COUNT)]
    pairs = [{"translation": {"en": f"one {i}", "yor": words(i)}} for i in range(COUNT)]
    (folder / "mt" / "eng-yor").mkdir(parents=True)
    (folder / "mt" / "eng-yor" / "train.json").write_text(json.dumps(pairs), "utf-8")
    for i in range(COUNT):
        expected.append(("mt-eng-yor-en-yor", f"en: one {i}\nyor:", f" {words(i)}"))
        expected.append(("mt-eng-yor-yor-en", f"yor: {words(i)}\nen:", f" one {i}"))
    (folder / "tables").mkdir()
    with (folder / "tables" / "hau_Latn.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sentence", "sentiment"])
        writer.writerows([[words(i), ["a, b", "c"][i % 2]] for i in range(COUNT)])
    expected += [("tables-hau-Latn", f"{words(i)}\n", ["a, b", "c"][i % 2]) for i in range(COUNT)]
    with gzip.open(folder / "mono.txt.gz", "wt", encoding="utf-8") as file:
        file.writelines(f"{words(i)}\n" for i in range(COUNT))
    return expected + [("mono", "", words(i)) for i in range(COUNT)]


def write_tokenizer(file: Path) -> Path:
    """Writes a tokenizer of bytes whose EOS is ``</s>``."""
    file.write_text(tokenizer_json("bytes"), "utf-8")
    return file


def documents(out: Path, split: str = "train") -> list[Document]:
    """Returns every document of a split of a packed dataset, decoded by `tokenizers`."""
    decode = Tokenizer.from_file(str(out / "tokenizer.json")).decode
    found = []
    with open_dataset(out) as dataset:
        names = [source.name for source in dataset.sources]
        rows = dataset[split]
        for index in range(len(rows)):
            row = rows[index]
            ends = row["cu_seqlens"].tolist()
            for nth, source in enumerate(row["source_ids"].tolist()):
                ids = row["input_ids"][ends[nth] : ends[nth + 1]].tolist()
                trained = row["loss_mask"][ends[nth] : ends[nth + 1]].tolist()
                # Plain text begins with one untrained token.
                start = trained.index(True) if not trained[1] else 0
                prompt = decode(ids[:start], skip_special_tokens=False)
                target = decode(ids[start:], skip_special_tokens=False)
                found.append((names[source], prompt, target.removesuffix(EOS)))
    return found
