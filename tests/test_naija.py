"""The real corpus in `naija/corpus.toml`, packed, verified, and sampled against the oracle and the
lines themselves.
"""

from __future__ import annotations

import random
import re
import tomllib
from collections import Counter
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
FILES = "../../../shared/corpora/naija"
NIGERIAN = ["hau", "ibo", "pcm", "yor"]


def by_language(source: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The sources that one section stands for: one a language of its files."""
    for lang in NIGERIAN if "{lang" in source["files"][0] else [""]:
        own = (re.sub(r"\{lang(:hau)?\}", lang, file) for file in source["files"])
        listed = [lang == "hau" or ":hau" not in file for file in source["files"]]
        files = [
            file
            for file, is_own in zip(own, listed, strict=True)
            if is_own and not (lang == "hau" and file.endswith("news/hau/train.tsv"))
        ]
        segments = [
            {part: text.replace("{lang}", lang) for part, text in segment.items()}
            for segment in source.get("segments", [{"target": "{{ text }}"}])
        ]
        name = source["name"]
        named = name.replace("{lang}", lang) if "{lang}" in name or not lang else f"{name}-{lang}"
        yield {
            "name": named,
            "task": source.get("task", name),
            "lang": source.get("lang", lang),
            "files": files,
            "segments": segments,
        }


SOURCES = {made["name"]: made for source in PLAN["source"] for made in by_language(source)}
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
    # The tables of news have quotes around fields, those of tweets have none.
    quoted = "quoted" if "/news/" in str(paths[0]) else ""
    return [File(path.name, quoted or formats[path.suffix], path.read_bytes()) for path in paths]


def segments_of(name: str) -> list[tuple[str, str]]:
    segments = SOURCES[name].get("segments", [{"target": "{{ text }}"}])
    return [pair for segment in segments for pair in segment.items()]


def written_out() -> list[dict[str, Any]]:
    """The 21 sources one by one, without anything shared."""
    sources: list[dict[str, Any]] = []

    def add(name: str, task: str, lang: str, files: list[str], prompt: str, target: str) -> None:
        segments = [{"prompt": prompt}, {"target": target}]
        paths = [f"{FILES}/{file}" for file in files]
        sources.append(
            {"name": name, "task": task, "lang": lang, "files": paths, "segments": segments}
        )

    for xyz in NIGERIAN:
        pair = [f"mafand/eng-{xyz}/train.json"]
        en, other = "{{ translation.en }}", f"{{{{ translation.{xyz} }}}}"
        translate = "translate", "<translate> "
        add(f"mafand-eng-{xyz}", translate[0], xyz, pair, f"<translate> {en} <{xyz}>:", f" {other}")
        add(f"mafand-{xyz}-eng", translate[0], "eng", pair, f"<translate> {other} <eng>:", f" {en}")
    for xyz in NIGERIAN:
        prompt = "<classify> {{ tweet }} <sentiment>:"
        files = [f"sentiment/{xyz}/train.tsv"]
        add(f"sentiment-{xyz}", "sentiment", xyz, files, prompt, " {{ label }}")
    for xyz in NIGERIAN:
        files = [
            f"news/{xyz}/{part}.tsv" for part in (["dev", "test"] if xyz == "hau" else ["train"])
        ]
        add(
            f"topic-{xyz}", "topic", xyz, files, "<classify> {{ text }} <topic>:", " {{ category }}"
        )
        prompt = "<title> {{ text }} <headline>:"
        add(f"headline-{xyz}", "headline", xyz, files, prompt, " {{ headline }}")
    mono = [f"{FILES}/mono/yor-globalvoices.txt"]
    sources.append({"name": "mono-yor", "task": "text", "lang": "yor", "files": mono})
    return sources


def documents_of(dataset: PackedDataset) -> Counter[tuple[Any, ...]]:
    """Every document, but for the places of cuts and copies."""
    found: Counter[tuple[Any, ...]] = Counter()
    for side in ("train", "validation"):
        for row in _rows(dataset, side):
            for i in range(len(row["seq_lengths"])):
                start, end = row["cu_seqlens"][i], row["cu_seqlens"][i + 1]
                content = (row[key][start:end].tobytes() for key in ("input_ids", "loss_mask"))
                source = dataset.sources[row["source_ids"][i]]
                place = side, source.name, int(row["record_ids"][i]), int(row["doc_parts"][i])
                found[(*place, *content)] += 1
    return found


def test_few_sections_say_what_21_sources_did(naija: Naija, tmp_path: Path) -> None:
    assert len(PLAN["source"]) <= 7 and len(SOURCES) == 21
    # The names of files decide the validation split, so they stay as they are.
    corpus = tmp_path / "a" / "b" / "c"
    corpus.mkdir(parents=True)
    (tmp_path / "shared").symlink_to((CORPUS / "../../../shared").resolve())
    packer.write_config(corpus, written_out(), pack=PLAN["pack"])
    tokenizer = naija.dataset.path / "tokenizer.json"
    packer.pack(corpus, tmp_path / "out", tokenizer=tokenizer, threads=2)
    told = {source["name"]: source for source in naija.dataset.manifest["sources"]}
    with open_dataset(tmp_path / "out") as slow:
        assert documents_of(naija.dataset) == documents_of(slow)
        for source in slow.manifest["sources"]:
            same = {"name", "task", "lang", "records", "kept", "drops", "train", "validation"}
            assert {key: source[key] for key in same} == {
                key: told[source["name"]][key] for key in same
            }


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
    """As the slow reader counts them."""
    for source in naija.dataset.manifest["sources"]:
        lines = [record for file in files_of(source["name"]) for _, _, record in read(file)]
        assert source["records"] == len(lines)
        assert source["drops"].get("malformed", 0) == sum(record is None for record in lines)
        assert oracle.check_accounts(source) == []
    # Read by their quotes, the tables of news have no record of too few fields.
    assert not any("malformed" in source["drops"] for source in naija.dataset.manifest["sources"])


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
        data, whole_data = (
            [id for id, role in zip(*pair, strict=True) if role == DATA]
            for pair in ((ids, roles), (expected["ids"], expected["roles"]))
        )
        assert whole_data[: len(data) - 1] == data[:-1], "what is left of the text is its beginning"
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
