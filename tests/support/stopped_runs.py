"""A corpus in small shards, packed, and runs over it that were stopped at every stage."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sabiprep
from sabiprep import OutputError, PackOptions
from support.files import edit, files_of

SPLIT_BYTES = 1500


@pytest.fixture(scope="module")
def corpus(shared_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shared corpus in shards of a few rows, of some records shortened to fit a row."""
    folder = tmp_path_factory.mktemp("damage") / "corpus"
    shutil.copytree(shared_corpus, folder)
    edit(folder / "corpus.toml", "seq_len = 128", "seq_len = 64\nshard_tokens = 1000")
    with (folder / "sums.jsonl").open("a", encoding="utf-8") as file:
        for i in range(6):
            file.write(
                json.dumps(
                    {"a": "one two three " * 30 + str(i), "b": "4", "words": "w", "yor": "y"}
                )
                + "\n"
            )
    return folder


@pytest.fixture(scope="module")
def clean(corpus: Path) -> dict[str, bytes]:
    """What the corpus gives."""
    sabiprep.pack(corpus, corpus.parent / "clean")
    return files_of(corpus.parent / "clean")


@pytest.fixture(scope="module")
def kept(corpus: Path) -> Path:
    """The corpus packed, its spool kept."""
    sabiprep.pack(
        corpus, corpus.parent / "kept", PackOptions(keep_spool=True, split_bytes=SPLIT_BYTES)
    )
    return corpus.parent / "kept"


PACK_AND_DIE = """
import resource, signal, sys
import sabiprep
corpus, out, limit = sys.argv[1:]
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
sabiprep.pack(
    corpus, out, sabiprep.PackOptions(threads=1, spool_bytes=0, split_bytes=SPLIT_BYTES)
)
""".replace("SPLIT_BYTES", str(SPLIT_BYTES))
"""Packs until a file would pass ``limit`` bytes: then the system kills the process, in the middle
of that write.
"""


def run_until(limit: int, corpus: Path, out: Path) -> Path:
    """Returns ``out``, where a run was killed at the first file larger than ``limit`` bytes."""
    command = [sys.executable, "-c", PACK_AND_DIE, str(corpus), str(out), str(limit)]
    ran = subprocess.run(command, capture_output=True)
    assert ran.returncode == -signal.SIGXFSZ, (limit, ran.stderr[-1000:])
    assert state_of(out)["stage"] == "working"
    return out


def state_of(out: Path) -> dict[str, Any]:
    """Returns the state that a run left in ``out``."""
    state: dict[str, Any] = json.loads((out / ".work" / "state.json").read_text("utf-8"))
    return state


def count(out: Path, pattern: str) -> int:
    """Returns how many paths in ``out`` match ``pattern``."""
    return len(list(out.glob(pattern)))


@pytest.fixture(scope="module")
def stopped(corpus: Path, clean: dict[str, bytes], kept: Path) -> list[Path]:
    """Folders of runs that were stopped while they mapped, made shards, and moved the dataset."""
    spools = sorted(path.stat().st_size for path in (kept / ".work" / "spool").iterdir())
    shards = [len(clean[name]) for name in sorted(clean) if name.startswith("train/")]
    assert spools[-1] < min(shards) and shards[0] < max(shards) < len(clean["manifest.json"])

    def folder(name: str) -> Path:
        return corpus.parent / f"stopped-{name}"

    mapping = run_until(spools[-1] - 1, corpus, folder("mapping"))
    assert count(mapping, ".work/spool/*.map") and not count(mapping, ".work/done/*")
    some = run_until(shards[0], corpus, folder("some shards"))
    assert 0 < count(some, ".work/done/*") < len(shards)
    every = run_until(max(shards), corpus, folder("every shard"))
    assert count(every, ".work/done/*") >= len(shards)
    # A folder where the manifest goes stops the move before it begins.
    moving = Path(shutil.copytree(every, folder("moving")))
    (moving / "manifest.json").mkdir()
    with pytest.raises(OutputError, match="--resume"):
        sabiprep.pack(corpus, moving, PackOptions(resume=True))
    (moving / "manifest.json").rmdir()
    assert state_of(moving)["stage"] == "moving"
    # The move renames one folder after the other.
    half_moved = Path(shutil.copytree(moving, folder("half moved")))
    (half_moved / ".work" / "train").rename(half_moved / "train")
    return [mapping, some, every, moving, half_moved]
