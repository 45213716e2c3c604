"""A corpus larger than the budget of its spool: bounded memory, the bytes of a run that holds
everything.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

import sabiprep
from support import packer
from support.files import files_of
from support.peak_memory import needs_proc, peak_of
from support.strategies import tokenizer_json

MEGABYTES = 100
BUDGET = 64 << 20
PEAK = 600 << 20
SPOOLED_DOCUMENT = 68


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 MB of JSON Lines and plain text, no two lines alike, and a tokenizer trained on the first
    of them.
    """
    folder = tmp_path_factory.mktemp("large") / "corpus"
    folder.mkdir()
    chance = random.Random(11)
    syllables = [
        "ọ",
        "rọ̀",
        "kọ́",
        "a",
        "na",
        "wa",
        "ni",
        "shi",
        "ka",
        "gbé",
        "ilé",
        "mu",
        "ta",
        "ẹ̀",
        "li",
    ]
    words = ["".join(chance.choices(syllables, k=chance.randint(1, 5))) for _ in range(40_000)]
    pages = [" ".join(chance.choices(words, k=chance.randint(4, 40))) for _ in range(4000)]
    held, nth = 0, 0
    with (folder / "pairs.jsonl").open("wb") as pairs, (folder / "lines.txt").open("wb") as lines:
        while held < MEGABYTES * 1_000_000:
            one, other = chance.choices(pages, k=2)
            held += pairs.write(
                json.dumps({"q": f"{nth} {one}", "a": other}, ensure_ascii=False).encode() + b"\n"
            )
            held += lines.write(f"{other} {nth}\n".encode())
            nth += 1
    segments = [{"prompt": "{{ q }}?"}, {"target": " {{ a }}"}]
    sources = [{"name": "pairs", "files": ["pairs.jsonl"], "segments": segments}]
    small = folder.parent / "small"
    small.mkdir()
    (small / "lines.txt").write_text("\n".join(pages[:500]), "utf-8")
    packer.write_config(small, [{"name": "lines", "files": ["lines.txt"]}])
    sabiprep.train_tokenizer(small, folder / "tokenizer.json", 400)
    sources.append({"name": "lines", "files": ["lines.txt"]})
    packer.write_config(
        folder,
        sources,
        tokenizer={"file": "tokenizer.json"},
        pack={"validation": 0.01, "duplicates": "normalised", "shard_tokens": 6_000_000},
    )
    return folder


@needs_proc
def test_memory_is_bounded_and_bytes_are_those_of_a_run_in_memory(
    corpus: Path, tmp_path: Path
) -> None:
    peak = peak_of(corpus, tmp_path / "spilled", threads=2, spool_bytes=BUDGET)
    assert peak <= PEAK, f"{peak >> 20} MiB"
    peak_of(corpus, tmp_path / "held", threads=2, spool_bytes=1 << 40)
    spilled, held = files_of(tmp_path / "spilled"), files_of(tmp_path / "held")
    assert len(spilled) > 6 and spilled.keys() == held.keys()
    assert [name for name in spilled if spilled[name] != held[name]] == []
    # Ids of two bytes, and a head and a key for each document: the spool was larger than its
    # budget.
    splits = json.loads(spilled["manifest.json"])["splits"].values()
    assert (
        sum(2 * split["tokens"] + SPOOLED_DOCUMENT * split["documents"] for split in splits)
        > BUDGET
    )


@needs_proc
def test_a_shard_of_tiny_documents_takes_little_more_than_their_tokens(tmp_path: Path) -> None:
    counts = [500_000, 2_000_000]
    peaks = []
    for count in counts:
        folder = tmp_path / str(count)
        folder.mkdir()
        (folder / "lines.txt").write_bytes(b"a\nb\nc\nd\n" * (count // 4))
        (folder / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
        packer.write_config(
            folder,
            [{"name": "lines", "files": ["lines.txt"]}],
            tokenizer={"file": "tokenizer.json"},
        )
        # One thread: with two, what the allocator holds back depends on their timing.
        peaks.append(peak_of(folder, tmp_path / f"{count}.out", threads=1, spool_bytes=1 << 20))
    # All in one shard. Items, keys, places and rows of full width took 125 bytes a document.
    assert (peaks[1] - peaks[0]) / (counts[1] - counts[0]) < 75, [peak >> 20 for peak in peaks]
