"""Measure what a Ray cluster costs: ``python benches/cluster.py [--megabytes 1000] [--rounds 3]``.

Packs a corpus of that size on this machine by turns: with two threads, and by a worker with two
cores of a Ray cluster that stays up. Prints the median and the fastest of each, their ratios, the
peak memory of the leader and of the largest worker, and whether the datasets are the same. The
corpus is made of the example corpus, each line of a copy made unique by a number.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "bench-cluster"
EXAMPLE = ROOT / "examples" / "corpus"

PACK = """
import json, resource, sys
import sabiprep
corpus, out, engine, address = sys.argv[1:]
options = sabiprep.PackOptions(overwrite=True, threads=2 if engine == "threads" else 1)
report = sabiprep.pack(
    corpus, out, options, engine=engine, ray_address=address if engine == "ray" else None
)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
timing = report.timing
print(json.dumps({"seconds": timing.total, "map": timing.map, "settle": timing.settle,
                  "reduce": timing.reduce, "peak": peak, "bytes": report.bytes}))
"""


def make_corpus(folder: Path, megabytes: int, files: int = 16) -> Path:
    """Write JSON Lines of that size, with a tokenizer trained on the example corpus."""
    corpus = folder / f"corpus-{megabytes}"
    if corpus.exists():
        return corpus
    partial = folder / "partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    lines = [
        line.strip()
        for path in sorted(EXAMPLE.rglob("*.txt"))
        for line in path.read_text("utf-8").splitlines()
        if line.strip()
    ]
    number = 0
    for file in range(files):
        left = megabytes * 1_000_000 // files
        with (partial / f"{file:02}.jsonl").open("w", encoding="utf-8") as out:
            while left > 0:
                parts = [lines[(number * 7 + step) % len(lines)] for step in range(8)]
                text = f"{number} " + " ".join(parts)
                left -= out.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
                number += 1
    (partial / "corpus.toml").write_text(
        '[tokenizer]\nfile = "tokenizer.json"\neos = "</s>"\n[pack]\nvalidation = 0.001\n'
        '[[source]]\nname = "text"\nfiles = ["*.jsonl"]\n'
        'segments = [{ target = "{{ text }}" }]\n',
        "utf-8",
    )
    trained = [sys.executable, "-m", "sabiprep", "tokenizer", "train", str(EXAMPLE)]
    subprocess.run([*trained, str(partial / "tokenizer.json"), "--vocab-size", "4096"], check=True)
    partial.rename(corpus)
    return corpus


def worker_peak(stop: threading.Event, found: list[float]) -> None:
    """Append the largest peak memory (MB) of any worker until told to stop."""
    while not stop.wait(0.1):
        for process in Path("/proc").iterdir():
            try:
                if b"ray::WorkerProcess" not in (process / "cmdline").read_bytes():
                    continue
                status = (process / "status").read_text()
            except OSError:
                continue
            for line in status.splitlines():
                if line.startswith("VmHWM"):
                    found.append(int(line.split()[1]) / 1024)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    corpus = make_corpus(WORK, given.megabytes)
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 80 << 20}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    peaks: list[float] = []
    stop = threading.Event()
    watcher = threading.Thread(target=worker_peak, args=(stop, peaks))
    watcher.start()
    runs: dict[str, list[dict[str, float]]] = {"threads": [], "ray": []}
    try:
        for _ in range(given.rounds):
            for engine, found in runs.items():
                began = time.monotonic()
                command = [sys.executable, "-c", PACK, str(corpus), str(WORK / engine), engine]
                done = subprocess.run(
                    [*command, cluster.address], check=True, stdout=subprocess.PIPE, text=True
                )
                figures = json.loads(done.stdout.splitlines()[-1])
                found.append(figures | {"command": time.monotonic() - began})
                print(engine, json.dumps(found[-1]), flush=True)
    finally:
        stop.set()
        watcher.join()
        cluster.shutdown()
    files = [path for path in sorted((WORK / "threads").rglob("*")) if path.is_file()]
    names = [path.relative_to(WORK / "threads") for path in files]
    same = all(filecmp.cmp(WORK / "threads" / name, WORK / "ray" / name, False) for name in names)
    for measure in ("seconds", "command"):
        medians = {
            engine: statistics.median(run[measure] for run in found)
            for engine, found in runs.items()
        }
        fastest = {engine: min(run[measure] for run in found) for engine, found in runs.items()}
        print(
            f"{measure}: threads {medians['threads']:.2f} s, ray {medians['ray']:.2f} s, ratio "
            f"{medians['ray'] / medians['threads']:.2f} (fastest "
            f"{fastest['ray'] / fastest['threads']:.2f})"
        )
    leader = max(run["peak"] for run in runs["ray"])
    alone = max(run["peak"] for run in runs["threads"])
    print(
        f"peak memory: threads {alone:.0f} MB, leader {leader:.0f} MB, a worker {max(peaks):.0f} MB"
    )
    print(f"{len(names)} files, the same: {same}")


if __name__ == "__main__":
    main()
