"""Training kept clean of held-out files: which records are dropped is what the oracle says of their
texts.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from sabiprep import ConfigError, InputError
from sabiprep.dataset import open_dataset
from support import oracle, packer
from support.strategies import TEXTS, tokenizer_json

SEGMENTS = [{"prompt": "{{ a }}"}, {"target": " {{ b }}"}]


def write(folder: Path, **pack: Any) -> list[dict[str, str]]:
    """A corpus of sentences cut from one stretch of words, and held-out files of three formats cut
    from it as well.
    """
    folder.mkdir()
    (folder / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    chance = random.Random(3)
    words = " ".join(TEXTS).split()
    stream = chance.choices(words, k=3000)

    def cut(most: int) -> str:
        at = chance.randrange(len(stream) - most)
        text = chance.choice([" ", "  ", ", "]).join(stream[at : at + chance.randint(1, most)])
        return text.upper() if chance.random() < 0.3 else text

    records = [{"a": cut(30), "b": cut(8)} for _ in range(200)]
    (folder / "train.jsonl").write_text(
        "".join(json.dumps(record) + "\n" for record in records), "utf-8"
    )
    (folder / "test.jsonl").write_text(
        json.dumps({"q": {"text": cut(40)}, "n": 7, "options": [cut(20), cut(9)]}), "utf-8"
    )
    (folder / "test.tsv").write_text(f"q\ta\n{cut(30)}\t{cut(12)}\n", "utf-8")
    (folder / "test.txt").write_text(f"{cut(40)}\n\n{cut(40)}\n", "utf-8")
    packer.write_config(
        folder,
        [{"name": "pairs", "files": ["train.jsonl"], "segments": SEGMENTS, "duplicates": "exact"}],
        pack={"seq_len": 512, "decontaminate": ["test.*"], **pack},
    )
    return records


def held_out_texts(folder: Path) -> list[str]:
    options = json.loads((folder / "test.jsonl").read_text("utf-8"))
    cells = (folder / "test.tsv").read_text("utf-8").splitlines()[1].split("\t")
    return [
        options["q"]["text"],
        *options["options"],
        *cells,
        *(folder / "test.txt").read_text("utf-8").splitlines(),
    ]


@pytest.mark.parametrize(("n", "validation"), [(None, 0.0), (4, 0.0), (1, 0.0), (8, 0.3)])
def test_training_records_that_share_a_run_of_words_are_dropped(
    tmp_path: Path, n: int | None, validation: float
) -> None:
    folder = tmp_path / "corpus"
    options: dict[str, Any] = {} if n is None else {"decontaminate_ngram": n}
    records = write(folder, validation=validation, **options)
    held_out = set().union(*(oracle.word_runs(text, n or 13) for text in held_out_texts(folder)))
    texts = [record["a"] + " " + record["b"] for record in records]
    contaminated = [bool(oracle.word_runs(text, n or 13) & held_out) for text in texts]
    if n == 1:
        with pytest.raises(InputError, match=r"(?s)no training document.*contaminated"):
            packer.pack(folder, tmp_path / "out", tokenizer=folder / "tokenizer.json")
        assert all(contaminated)
        return
    for name, sizes in [
        ("out", {}),
        ("split", {"threads": 3, "split_bytes": 500, "spool_bytes": 0}),
    ]:
        packer.pack(folder, tmp_path / name, tokenizer=folder / "tokenizer.json", **sizes)
    files = sorted(path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*.*"))
    assert all(
        (tmp_path / "split" / file).read_bytes() == (tmp_path / "out" / file).read_bytes()
        for file in files
    )
    assert packer.verify(tmp_path / "out")["failures"] == []
    with open_dataset(tmp_path / "out") as dataset:
        [source] = dataset.manifest["sources"]
        inputs = {entry["path"] for entry in dataset.manifest["inputs"]}
        sides = {
            side: {
                int(record)
                for i in range(len(dataset[side]))
                for record in dataset[side][i]["record_ids"]
            }
            for side in ("train", "validation")
        }
    assert inputs == {"train.jsonl", "test.jsonl", "test.tsv", "test.txt"}
    offsets, at = [], 0
    for line in (folder / "train.jsonl").read_bytes().splitlines(keepends=True):
        offsets.append(at)
        at += len(line)
    expected = {offset for offset, dirty in zip(offsets, contaminated, strict=True) if not dirty}
    assert 10 < len(expected) < 200
    assert sides["train"] == expected - sides["validation"]
    assert source["drops"] == {
        "contaminated": len(records) - len(sides["train"]) - len(sides["validation"])
    }
    if validation:
        assert sides["validation"] - expected, "what is held out stays, whatever it shares"


def test_a_file_that_is_trained_on_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "corpus", decontaminate=["train.*"])
    with pytest.raises(
        ConfigError, match=r"(?s)'pairs'.*trains on train.jsonl, which `decontaminate` names"
    ):
        packer.pack(
            tmp_path / "corpus", tmp_path / "out", tokenizer=tmp_path / "corpus" / "tokenizer.json"
        )


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    write(tmp_path / "corpus")
    (tmp_path / "corpus" / "test.jsonl").write_text('{"a": "b"}\n{"a"\n', "utf-8")
    with pytest.raises(InputError) as caught:
        packer.pack(
            tmp_path / "corpus", tmp_path / "out", tokenizer=tmp_path / "corpus" / "tokenizer.json"
        )
    assert (caught.value.file, caught.value.line) == ("test.jsonl", 2)
