"""Damaged and forged datasets: whatever is wrong with one, each command refuses it in words.

`forge.py` runs in a process of its own, so that a crash or a hang of it is a failure of this test
and no more.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sabiprep
from sabiprep import DatasetError, PackOptions, open_dataset
from support import forge
from support.dataset_writer import Document, write_dataset, write_manifest
from support.small_corpus import write_corpus

MUTATIONS = int(os.environ.get("SABIPREP_FORGED", "24"))


def test_damaged_datasets_are_refused_in_words_by_every_command(
    tmp_path: Path, tokenizer_file: Path
) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    (corpus / "tokenizer.json").write_bytes(tokenizer_file.read_bytes())
    sabiprep.pack(corpus, tmp_path / "out", PackOptions(keep_spool=True))
    command = [sys.executable, "-W", "ignore", forge.__file__, str(tmp_path), "0", str(MUTATIONS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60 + 20 * MUTATIONS)
    assert done.returncode == 0, f"{done.stdout[-300:]}\n{done.stderr[-3000:]}"
    bad = [line for line in done.stdout.splitlines() if line.startswith("BAD")]
    assert not bad, done.stdout[done.stdout.index("BAD") :][:5000]
    assert len(done.stdout.splitlines()) == MUTATIONS * len(forge.COMMANDS)
    assert "panicked" not in done.stderr


@pytest.fixture
def out(tmp_path: Path) -> Path:
    documents = [Document([3, 4, 5, 1], [1, 3, 3, 0], record, 0) for record in (0, 1)]
    return write_dataset(tmp_path / "out", documents, seq_len=8, vocab_size=10, eos_id=1, pad_id=2)


def changed(out: Path, *steps: Any, to: Any) -> None:
    """Change one value of the manifest, and sign it again."""
    manifest = json.loads((out / "manifest.json").read_bytes())
    holder = manifest
    for step in steps[:-1]:
        holder = holder[step]
    holder[steps[-1]] = to
    write_manifest(out, manifest)


SHARD = ("splits", "train", "shards", 0)


@pytest.mark.parametrize(
    ("steps", "value", "named"),
    [
        (("seq_len",), "8", "seq_len"),
        (("seq_len",), True, "seq_len"),
        (("rows_per_batch",), 1 << 40, "rows_per_batch"),
        (("tokenizer", "eos_id"), -1, "tokenizer.eos_id"),
        (("tokenizer", "pad_id"), 10, "tokenizer.pad_id"),
        (("tokenizer", "vocab_size"), 65_537, "vocab_size"),
        (("tokenizer", "sha256"), "x", "tokenizer.sha256"),
        (("tokenizer", "file"), "tokenizer.json\0", "tokenizer.file"),
        (("tokenizer", "probes"), [{"text": "a"}], "ids"),
        (("sources",), [], "sources"),
        (("sources", 0, "name"), 3, "name"),
        (("sources", 0, "records"), 2**64, "records"),
        (("sources", 0, "train"), {"documents": 1, "tokens": -3, "targets": 1}, "train.tokens"),
        (("sources", 0, "inputs"), "a", "inputs"),
        (("splits", "test"), {}, "test"),
        (("splits", "train", "rows"), 3, "splits.train"),
        ((*SHARD, "file"), "../train/shard-00000.arrow", "splits.train.shards.file"),
        ((*SHARD, "file"), "/etc/passwd", "splits.train.shards.file"),
        ((*SHARD, "bytes"), -1, "bytes"),
        (("notes",), "a", "notes"),
    ],
)
def test_a_forged_field_is_named(out: Path, steps: tuple[Any, ...], value: Any, named: str) -> None:
    changed(out, *steps, to=value)
    with pytest.raises(DatasetError, match=named) as caught:
        open_dataset(out)
    assert caught.value.file == str(out / "manifest.json") and caught.value.remedy


def test_a_key_of_a_later_version_is_no_mistake(out: Path) -> None:
    changed(out, "notes", to=["a note"])
    changed(out, "something", to={"new": 1})
    assert len(open_dataset(out).train) == 1


def forged_row(out: Path, tmp_path: Path, **options: Any) -> Path:
    """A dataset whose shard is of other documents than its manifest knows of."""
    arguments: dict[str, Any] = {
        "seq_len": 8,
        "vocab_size": 10,
        "eos_id": 1,
        "pad_id": 2,
        **options,
    }
    other = write_dataset(tmp_path / "other", arguments.pop("documents"), **arguments)
    shutil.copy(other / SHARD_FILE, out / SHARD_FILE)
    changed(out, *SHARD, "bytes", to=(out / SHARD_FILE).stat().st_size)
    return out


SHARD_FILE = "train/shard-00000.arrow"


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (
            Document([3, 4, 10, 1, 3, 4, 5, 1], [1, 3, 3, 0, 1, 3, 3, 0], 0),
            "id 10 is beyond the vocabulary of 10",
        ),
        (
            Document([3, 4, 5, 1, 3, 4, 5, 1], [1, 3, 3, 0, 1, 3, 3, 0], 2),
            "lengths, sources and roles",
        ),
        (
            Document([3, 4, 5, 1, 3, 4, 5, 1], [1, 3, 3, 0, 1, 3, 4, 0], 0),
            "lengths, sources and roles",
        ),
    ],
)
def test_a_row_beyond_its_manifest_is_refused(
    out: Path, tmp_path: Path, document: Document, why: str
) -> None:
    sources = [{"name": name, "task": "t", "lang": "l"} for name in "abc"]
    forged_row(out, tmp_path, documents=[document], sources=sources)
    dataset = open_dataset(out)
    with pytest.raises(DatasetError, match=f"row 0 is damaged: .*{why}") as caught:
        dataset.train[0]
    assert caught.value.file == str(out / SHARD_FILE) and caught.value.remedy
    assert dataset.train.n_targets.shape == (1,)
