"""Near duplicates: records with nearly the same words are dropped, and no others."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sabiprep.dataset import open_dataset
from sabiprep.errors import ConfigError
from support import packer
from support.files import files_of
from support.strategies import tokenizer_json

NEAR = {"duplicates": "near"}


def words(rng: random.Random, count: int) -> list[str]:
    """Words that no other text has."""
    return [f"{rng.getrandbits(60):x}" for _ in range(count)]


def edited(rng: random.Random, text: list[str], changes: int) -> list[str]:
    """A text with some of its words replaced, each in another tenth of it."""
    text = list(text)
    for nth in range(changes):
        tenth = len(text) // 10
        text[nth * tenth + rng.randrange(tenth)] = words(rng, 1)[0]
    return text


def disguised(rng: random.Random, text: list[str]) -> str:
    """The same words in another case, with other signs and spaces between them."""
    return "".join(
        rng.choice([word.upper(), word]) + rng.choice([" ", ", ", "  ", " — ", "! ", "\t"])
        for word in text
    ).strip()


def similarity(one: list[str], other: list[str], n: int) -> float:
    """The shared n-grams of two texts among all their n-grams, by the definition."""
    sets = [{tuple(t[i : i + n]) for i in range(len(t) - n + 1)} for t in (one, other)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def write(folder: Path, files: dict[str, list[str]], sources: Any, **pack: Any) -> Path:
    """A corpus of line files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    for name, lines in files.items():
        (folder / name).write_text("".join(line + "\n" for line in lines), "utf-8")
    tokenizer = {"file": "tokenizer.json"}
    packer.write_config(folder, sources, tokenizer=tokenizer, pack={"seq_len": 8192, **pack})
    return folder


def packed(corpus: Path, out: Path, **options: Any) -> list[dict[str, Any]]:
    """The sources of the manifest, after the dataset was verified."""
    manifest = packer.pack(corpus, out, tokenizer=corpus / "tokenizer.json", **options)
    assert packer.verify(out)["failures"] == []
    sources: list[dict[str, Any]] = manifest["sources"]
    return sources


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32), st.integers(1, 64), st.integers(1, 3))
def test_equal_words_are_dropped_other_words_are_kept(
    tmp_path_factory: pytest.TempPathFactory, seed: int, ngram: int, threads: int
) -> None:
    """Whatever the size of n-grams: texts of the same words meet in every band, texts without a
    common n-gram in none.
    """
    rng, folder = random.Random(seed), tmp_path_factory.mktemp("near")
    families = [words(rng, rng.choice([1, 2, 5, 40])) for _ in range(rng.randrange(1, 12))]
    lines = [(i, disguised(rng, text)) for i, text in enumerate(families) for _ in range(3)]
    rng.shuffle(lines)
    corpus = write(
        folder / "corpus",
        {"a.txt": [line for _, line in lines]},
        [{"name": "a", "files": ["a.txt"], **NEAR}],
        near={"ngram": ngram},
    )
    [source] = packed(corpus, folder / "out", threads=threads, split_bytes=200)
    assert source["kept"] == len(families)
    assert source["drops"] == {"duplicate": 2 * len(families)}
    first = {family: nth for nth, (family, _) in reversed(list(enumerate(lines)))}
    with open_dataset(folder / "out") as dataset:
        kept = [id for i in range(len(dataset.train)) for id in dataset.train[i]["record_ids"]]
    starts = [sum(len(line.encode()) + 1 for _, line in lines[:nth]) for nth in first.values()]
    assert sorted(kept) == sorted(starts), "the lowest of each family"


def test_texts_with_some_words_changed_are_found_and_named(tmp_path: Path) -> None:
    rng = random.Random(3)
    texts = [words(rng, 300) for _ in range(40)]
    near = [edited(rng, text, 2) for text in texts]
    far = [edited(rng, text, 10) + words(rng, 300) for text in texts]
    assert min(map(similarity, texts, near, [5] * 40)) > 0.93
    assert max(map(similarity, texts, far, [5] * 40)) < 0.5
    lines = [" ".join(text) for text in [*texts, *near, *far]]
    corpus = write(tmp_path / "c", {"a.txt": lines}, [{"name": "a", "files": ["a.txt"], **NEAR}])
    [source] = packed(corpus, tmp_path / "out")
    assert source["drops"] == {"duplicate": 40} and source["kept"] == 80
    assert [example["line"] for example in source["examples"]] == [41, 42, 43]
    assert source["examples"][0]["why"] == "the record at byte 0 of a.txt says nearly the same"


def test_bytes_do_not_depend_on_threads_splits_or_memory(tmp_path: Path) -> None:
    rng = random.Random(5)
    texts = [words(rng, 60) for _ in range(60)]
    lines = [" ".join(edited(rng, rng.choice(texts), rng.randrange(3))) for _ in range(400)]
    corpus = write(
        tmp_path / "c",
        {"a.txt": lines[:250], "b.txt": lines[250:]},
        [{"name": name, "files": [f"{name}.txt"]} for name in "ab"],
        validation=0.1,
        **NEAR,
    )
    variants = [
        {"threads": 1},
        {"threads": 3, "split_bytes": 1000},
        {"threads": 2, "split_bytes": 700, "spool_bytes": 0},
    ]
    made = []
    for nth, options in enumerate(variants):
        sources = packed(corpus, tmp_path / str(nth), **options)
        assert all(source["drops"]["duplicate"] > 10 for source in sources)
        made.append(files_of(tmp_path / str(nth)))
    assert made[0] == made[1] == made[2]


def test_nothing_near_a_held_out_record_is_trained_on(tmp_path: Path) -> None:
    """Neither directly nor by a chain; a source that keeps duplicates is left alone."""
    rng = random.Random(7)
    held, other = words(rng, 300), words(rng, 300)
    one = edited(rng, held, 2)
    two = edited(rng, one, 2)
    files = {
        "dev.txt": [" ".join(held)],
        "a.txt": [" ".join(two), " ".join(one), " ".join(other)],
        "b.txt": [" ".join(two) + " more", " ".join(edited(rng, other, 1))],
    }
    sources = [
        {"name": "a", "files": ["a.txt"], "validation_files": ["dev.txt"], **NEAR},
        {"name": "b", "files": ["b.txt"]},
    ]
    a, b = packed(write(tmp_path / "c", files, sources), tmp_path / "out")
    assert a["drops"] == {"in validation": 2} and a["validation"]["documents"] == 1
    assert a["examples"][0]["why"] == "a held-out record says nearly the same"
    assert b["drops"] == {} and b["kept"] == 2


def test_a_record_that_is_dropped_ties_nothing(tmp_path: Path) -> None:
    """A text between two others would tie them, but it does not fit a row."""
    rng = random.Random(9)
    first = words(rng, 40)
    lines = [" ".join(first), " ".join(first) + " " + "x" * 9000, " ".join(first).upper()]
    sources = [{"name": "a", "files": ["a.txt"], "overflow": "drop", **NEAR}]
    [a] = packed(write(tmp_path / "c", {"a.txt": lines}, sources), tmp_path / "out")
    assert a["drops"] == {"too long": 1, "duplicate": 1} and a["kept"] == 1


@pytest.mark.parametrize(
    ("near", "policy", "message"),
    [
        ({"ngram": 0}, "near", "near.ngram must be from 1 to 64 words"),
        ({"bands": 0}, "near", "bands × near.rows = 0 × 8"),
        ({"bands": 2**62, "rows": 4}, "near", "a signature has from 1 to 1024 values"),
        ({"ngram": 3}, "exact", "no source drops any"),
        ({"ngrams": 3}, "near", "ngrams"),
    ],
)
def test_values_that_make_no_signature_are_refused(
    tmp_path: Path, near: dict[str, int], policy: str, message: str
) -> None:
    sources = [{"name": "a", "files": ["a.txt"], "duplicates": policy}]
    corpus = write(tmp_path / "c", {"a.txt": ["a"]}, sources, near=near)
    with pytest.raises(ConfigError, match=message) as caught:
        packed(corpus, tmp_path / "out")
    assert caught.value.remedy
