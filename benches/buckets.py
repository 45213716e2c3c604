"""Measure packing from and into a bucket on loopback: ``python benches/buckets.py [--mb N]``.

Packs a made corpus of N megabytes from a folder into a folder and from a bucket into a bucket, by
turns, in processes of their own, and prints the medians and the bytes' equality. The store is
moto's server, which is written in Python and runs on the same machine: it takes cores from packing,
so the figure is a bound from above of what the protocol costs, not of what a network does.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.object_store import BUCKET, ObjectStore, object_store  # noqa: E402

PACK = """
import sys
import sabiprep
sabiprep.pack(*sys.argv[1:], sabiprep.PackOptions(overwrite=True))
"""
CONFIG = """
[tokenizer]
file = "tokenizer.json"
eos = "</s>"
[pack]
seq_len = 2048
[[source]]
name = "pairs"
files = ["*.jsonl"]
segments = [{ prompt = "{{ a }}:" }, { target = " {{ b }}" }]
"""


def write_corpus(folder: Path, megabytes: int) -> None:
    """Write four files that hold as many megabytes, and a tokenizer trained on a small one."""
    import sabiprep

    folder.mkdir()
    (folder / "corpus.toml").write_text(CONFIG)
    record = 0
    for nth in range(4):
        lines, held = [], 0
        while held < megabytes * 250_000:
            record += 1
            words = " ".join(f"word{record * k % 4096}" for k in range(1, 40))
            lines.append(json.dumps({"a": f"the record {record}", "b": words}))
            held += len(lines[-1]) + 1
        (folder / f"{nth}.jsonl").write_text("\n".join(lines) + "\n")
    with tempfile.TemporaryDirectory() as small:
        (Path(small) / "corpus.toml").write_text(CONFIG)
        start = (folder / "0.jsonl").read_text()[:1_000_000].rpartition("\n")[0]
        (Path(small) / "0.jsonl").write_text(start)
        sabiprep.train_tokenizer(small, folder / "tokenizer.json", 4000)


def seconds(corpus: str, out: str) -> float:
    """Pack once in a new process; return how long it took."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", PACK, corpus, out], check=True, env=os.environ)
    return time.perf_counter() - start


def is_same(store: ObjectStore, folder: Path, prefix: str) -> bool:
    """Return whether every file of a folder is an object of the same bytes."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    names = [path.relative_to(folder).as_posix() for path in files]
    return all(
        store.get(f"{prefix}/{name}") == path.read_bytes()
        for name, path in zip(names, files, strict=True)
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=100)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, object_store() as store:
        os.environ.update(store.environment)
        corpus, out = Path(folder) / "corpus", Path(folder) / "out"
        write_corpus(corpus, given.mb)
        for path in corpus.iterdir():
            store.put(f"corpus/{path.name}", path.read_bytes())
        places = {
            "folder to folder": (str(corpus), str(out)),
            "bucket to folder": (f"s3://{BUCKET}/corpus", f"{folder}/from-bucket"),
            "bucket to bucket": (f"s3://{BUCKET}/corpus", f"s3://{BUCKET}/out"),
        }
        taken: dict[str, list[float]] = {name: [] for name in places}
        for _ in range(given.runs):
            for name, place in places.items():
                taken[name].append(seconds(*place))
        base = statistics.median(taken["folder to folder"])
        for name, each in taken.items():
            median = statistics.median(each)
            print(
                f"{name}: {median:.2f} s, {given.mb / median:.1f} MB/s, {median / base:.2f} times"
            )
        print(f"the same bytes: {is_same(store, out, 'out')}")


if __name__ == "__main__":
    main()
