"""The real corpus in `naija/corpus.toml`, packed, verified, and sampled against the oracle and the
lines themselves.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sabiprep.dataset import PackedDataset, RowDict, open_dataset
from support import oracle, packer
from support.oracle import DATA, TARGET
from support.slow_reader import File, read

CORPUS = Path(__file__).parent / "naija"
PLAN = tomllib.loads((CORPUS / "corpus.toml").read_text("utf-8"))
SOURCES = {source["name"]: source for source in PLAN["source"]}
MISSING = [
    file for source in SOURCES.values() for file in source["files"] if not (CORPUS / file).is_file()
]

pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"Naija is not beside this checkout: no {(MISSING or [''])[0]}"
)


class Naija(NamedTuple):
    """The corpus packed with a tokenizer trained on it."""

    dataset: PackedDataset
    tokenizer: str
    trained: dict[str, Any]


@pytest.fixture(scope="module")
def naija(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Naija]:
    place = tmp_path_factory.mktemp("naija")
    trained = packer.train_tokenizer(CORPUS, place / "tokenizer.json", 8000)
    packer.pack(CORPUS, place / "out", tokenizer=place / "tokenizer.json", threads=2)
    with open_dataset(place / "out") as dataset:
        yield Naija(dataset, (place / "tokenizer.json").read_text("utf-8"), trained)


def files_of(name: str) -> list[File]:
    formats = {".json": "jsonl", ".tsv": "tsv", ".txt": "text"}
    paths = [CORPUS / file for file in SOURCES[name]["files"]]
    return [File(path.name, formats[path.suffix], path.read_bytes()) for path in paths]


def segments_of(name: str) -> list[tuple[str, str]]:
    segments = SOURCES[name].get("segments", [{"target": "{{ text }}"}])
    return [pair for segment in segments for pair in segment.items()]


def test_every_tag_is_one_token(naija: Naija) -> None:
    assert naija.trained["vocab_size"] == naija.dataset.vocab_size == 8000
    tags = {
        tag
        for name in SOURCES
        for _, template in segments_of(name)
        for tag in template.split()
        if tag[0] == "<"
    }
    assert {tag.rstrip(":") for tag in tags} | {"</s>"} == set(naija.trained["specials"])


def test_it_verifies(naija: Naija) -> None:
    found = packer.verify(naija.dataset.path)
    assert found["failures"] == []
    assert found["rows"] == len(naija.dataset.train) + len(naija.dataset.validation)


def test_rows_are_full_and_mixed(naija: Naija) -> None:
    train = naija.dataset.manifest["splits"]["train"]
    assert naija.dataset.seq_len == 2048
    assert train["utilisation"] >= 0.999
    assert train["single_source_rows"] <= 0.10 * train["rows"]
    assert len(naija.dataset.validation) > 0


def test_every_line_is_accounted_for(naija: Naija) -> None:
    """As the slow reader counts them; some news tables have lines of too few fields, which are
    counted, not hidden.
    """
    for source in naija.dataset.manifest["sources"]:
        lines = [record for file in files_of(source["name"]) for _, _, record in read(file)]
        assert source["records"] == len(lines)
        assert source["drops"].get("malformed", 0) == sum(record is None for record in lines)
        assert oracle.check_accounts(source) == []
    malformed = {
        source["name"]
        for source in naija.dataset.manifest["sources"]
        if "malformed" in source["drops"]
    }
    assert {"topic-pcm", "headline-pcm", "topic-yor", "headline-yor"} <= malformed


def test_sampled_documents_are_the_oracles_of_their_lines(naija: Naija) -> None:
    dataset, seq_len = naija.dataset, naija.dataset.seq_len
    chance = random.Random(0)
    rows = [dataset.train[i] for i in chance.sample(range(len(dataset.train)), 60)] + list(
        _rows(dataset, "validation")
    )
    for row in chance.sample(rows, 10):
        assert oracle.check_row(row, pad_id=dataset.pad_id, eos_id=dataset.eos_id) == []
    documents = [(row, i) for row in rows for i in range(len(row["seq_lengths"]))]
    lines = {
        name: {
            nth << 40 | offset: record
            for nth, file in enumerate(files_of(name))
            for _, offset, record in read(file)
        }
        for name in SOURCES
    }
    whole = truncated = 0
    for row, i in chance.sample(documents, 300):
        name = dataset.sources[row["source_ids"][i]].name
        start, end = row["cu_seqlens"][i], row["cu_seqlens"][i + 1]
        ids, roles, mask = (
            row[key][start:end].tolist() for key in ("input_ids", "roles", "loss_mask")
        )
        record = lines[name][int(row["record_ids"][i])]
        assert record is not None
        expected = oracle.document(
            naija.tokenizer, segments_of(name), record, eos_id=dataset.eos_id
        )
        windows = oracle.windows(len(expected["ids"]), seq_len)
        if len(windows) == 1 or name == "mono-yor":
            whole += 1
            first, last = windows[int(row["doc_parts"][i]) & 0xFFFF]
            assert ids == expected["ids"][first:last]
            assert roles == expected["roles"][first:last]
            assert mask == [False, *expected["loss_mask"][first + 1 : last]]
            continue
        truncated += 1
        assert seq_len - 64 < len(ids) <= seq_len
        assert [id for id, role in zip(ids, roles, strict=True) if role == TARGET] == [
            id
            for id, role in zip(expected["ids"], expected["roles"], strict=True)
            if role == TARGET
        ]
        data = [id for id, role in zip(ids, roles, strict=True) if role == DATA]
        assert expected["ids"][1 : len(data)] == data[:-1], (
            "what is left of the text is its beginning"
        )
    assert whole >= 200 and whole + truncated == 300


def _rows(dataset: PackedDataset, side: str) -> Iterator[RowDict]:
    return (dataset[side][i] for i in range(len(dataset[side])))


def _lines(name: str) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """The (record id, fields) of every line of a source."""
    return (
        (nth << 40 | offset, record)
        for nth, file in enumerate(files_of(name))
        for _, offset, record in read(file)
    )
