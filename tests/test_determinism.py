"""A dataset's bytes depend on its inputs, configuration and seed: not on threads, sizes, place or
time.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sabiprep import PackOptions
from support import packer
from support.strategies import tokenizer_json
from support.varied_corpus import write_corpus

VARIANTS = [
    (threads, split_bytes, spool_bytes)
    for threads, split_bytes in [
        (1, 64),
        (1, None),
        (2, 64),
        (2, 1000),
        (3, 1000),
        (3, None),
        (8, 64),
        (8, 3000),
    ]
    for spool_bytes in (0, 20_000, PackOptions.spool_bytes)
]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus, a tokenizer and the dataset that one thread makes of them."""
    place = tmp_path_factory.mktemp("determinism")
    write_corpus(place / "corpus")
    (place / "tokenizer.json").write_text(tokenizer_json("bytes-nfc"), "utf-8")
    packer.pack(place / "corpus", place / "reference", tokenizer=place / "tokenizer.json")
    return place


def test_the_reference_has_what_could_differ(place: Path) -> None:
    """Several shards on both sides, documents split, records dropped for every reason, copies."""
    files = contents(place / "reference")
    shards = [name for name in files if name.endswith(".arrow")]
    assert sorted(files) == sorted([*shards, "dropped.jsonl", "manifest.json", "tokenizer.json"])
    assert sum(name.startswith("train") for name in shards) > 3
    assert sum(name.startswith("validation") for name in shards) > 1
    sources = json.loads(files["manifest.json"])["sources"]
    reasons = {reason for source in sources for reason in source["drops"]}
    content = {"duplicate", "in validation"}
    assert (
        reasons
        == {"malformed", "missing field", "empty target", "too long", "not sampled"} | content
    )


@pytest.mark.parametrize(("threads", "split_bytes", "spool_bytes"), VARIANTS)
def test_bytes_are_those_of_any_number_of_threads_any_split_size_and_any_spool_budget(
    place: Path, tmp_path: Path, threads: int, split_bytes: int | None, spool_bytes: int
) -> None:
    out = tmp_path / "out"
    sizes = {"split_bytes": split_bytes, "spool_bytes": spool_bytes}
    packer.pack(place / "corpus", out, tokenizer=place / "tokenizer.json", threads=threads, **sizes)
    seen, expected = contents(out), contents(place / "reference")
    assert seen.keys() == expected.keys()
    assert [name for name in seen if seen[name] != expected[name]] == []


@pytest.mark.parametrize("pack", ["concat", "none"])
def test_bytes_of_other_packings_depend_on_none_of_it_either(
    place: Path, tmp_path: Path, pack: str
) -> None:
    shutil.copytree(place / "corpus", tmp_path / "corpus")
    config = tmp_path / "corpus" / "corpus.toml"
    config.write_text(
        config.read_text("utf-8").replace("[pack]", f'[pack]\npack = "{pack}"'), "utf-8"
    )
    for name, threads, sizes in [
        ("a", 1, {}),
        ("b", 3, {"split_bytes": 1000, "spool_bytes": 0}),
        ("c", 8, {}),
    ]:
        packer.pack(
            tmp_path / "corpus",
            tmp_path / name,
            tokenizer=place / "tokenizer.json",
            threads=threads,
            **sizes,
        )
    expected = contents(tmp_path / "a")
    assert contents(tmp_path / "b") == contents(tmp_path / "c") == expected
    assert expected.keys() and packer.verify(tmp_path / "a")["failures"] == []


def test_bytes_do_not_depend_on_where_the_corpus_lies(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "corpus", tmp_path / "elsewhere" / "deep")
    packer.pack(
        tmp_path / "elsewhere" / "deep", tmp_path / "out", tokenizer=place / "tokenizer.json"
    )
    assert contents(tmp_path / "out") == contents(place / "reference")


def test_another_seed_gives_other_rows(place: Path, tmp_path: Path) -> None:
    packer.pack(place / "corpus", tmp_path / "out", tokenizer=place / "tokenizer.json", seed=1)
    seen, expected = contents(tmp_path / "out"), contents(place / "reference")
    assert seen["tokenizer.json"] == expected["tokenizer.json"]
    assert seen["train/shard-00000.arrow"] != expected["train/shard-00000.arrow"]
    assert packer.verify(tmp_path / "out")["failures"] == []


def test_a_new_source_does_not_move_the_records_of_others(place: Path, tmp_path: Path) -> None:
    """A record's side and copies come of its source's name and file, so they stay when sources are
    added before it.
    """
    shutil.copytree(place / "corpus", tmp_path / "corpus")
    config = (tmp_path / "corpus" / "corpus.toml").read_text("utf-8")
    (tmp_path / "corpus" / "new.txt").write_text("Ọjọ́ Ajé\n", "utf-8")
    head, *sources = config.split("[[source]]")
    new = '\nname = "new"\nfiles = ["new.txt"]\nepochs = 1.0\n'
    (tmp_path / "corpus" / "corpus.toml").write_text(
        "[[source]]".join([head, new, *sources]), "utf-8"
    )
    manifest = packer.pack(
        tmp_path / "corpus", tmp_path / "out", tokenizer=place / "tokenizer.json"
    )
    expected = json.loads((place / "reference" / "manifest.json").read_text("utf-8"))["sources"]
    globbed = expected.pop()  # its pattern "*.txt" now takes the new file too
    assert [
        source for source in manifest["sources"] if source["name"] not in ("new", globbed["name"])
    ] == expected
