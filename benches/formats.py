"""Measure packing by format: ``python benches/formats.py [--megabytes N] [--rounds N] [options]``.

Writes the same records as JSON Lines, a JSON array, raw and quoted tables, Parquet, Arrow and
compressed JSON Lines, then packs each in a process of its own, at one and at two threads, all
formats by turns. Prints for each the median seconds, MB of JSON Lines a second, the time in units
of that of JSON Lines, the cores kept busy (CPU seconds a second), and the largest peak memory. The
records are those of naija, or made up where it is absent; repeated ones have a number of their own.
"""

from __future__ import annotations

import argparse
import bz2
import csv
import gzip
import json
import lzma
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "formats"
NAIJA = ROOT.parent / "shared" / "corpora" / "naija"

PACK = """
import json, sys, time
import sabiprep
corpus, out, tokenizer, threads = sys.argv[1:]
options = sabiprep.PackOptions(tokenizer=tokenizer, threads=int(threads), overwrite=True)
cpu, started = time.process_time(), time.perf_counter()
report = sabiprep.pack(corpus, out, options)
seconds = time.perf_counter() - started
# `ru_maxrss` holds the peak of the parent too.
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "seconds": seconds, "cpu": time.process_time() - cpu, "tokens": report.total.train.tokens,
    "peak": int(status["VmHWM"].split()[0]) / 1024,
}))
"""


def texts(megabytes: int) -> Iterator[dict[str, str]]:
    """Yield records until they hold ``megabytes`` of text."""
    if NAIJA.is_dir():
        paths = sorted(NAIJA.glob("mafand/*/train.json"))
        lines = [line for path in paths for line in path.read_text("utf-8").splitlines()]
        all_pairs = [list(json.loads(line)["translation"].values()) for line in lines]
        # What a raw table cannot hold is in none.
        pairs = [pair for pair in all_pairs if not set("\t\r\n") & set("".join(pair))]
    else:
        print("naija is absent: made-up records")
        pairs = [[f"a sentence of {n} words " * (n % 9 + 1), f"ọ̀rọ̀ {n} " * 9] for n in range(9999)]
    written, time = 0, 0
    while True:
        for source, target in pairs:
            yield {"source": f"{time} {source}", "target": target}
            written += len(source.encode()) + len(target.encode())
            if written > megabytes * 1_000_000:
                return
        time += 1


def write_lines(path: Path, rows: list[dict[str, str]]) -> None:
    """Write JSON Lines."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def compressed(open_file: Callable[[str], Any]) -> Callable[[Path, list[dict[str, str]]], None]:
    """Return a writer of JSON Lines through a compressing file."""

    def write(path: Path, rows: list[dict[str, str]]) -> None:
        with open_file(str(path)) as file:
            for row in rows:
                file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())

    return write


def write_table(path: Path, rows: list[dict[str, str]], quoted: bool) -> None:
    """Write a table: quoted with commas, or raw with tabs."""
    with path.open("w", encoding="utf-8", newline="") as file:
        if quoted:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.write("\t".join(rows[0]) + "\n")
            file.writelines("\t".join(row.values()) + "\n" for row in rows)


def write_arrow(path: Path, rows: list[dict[str, str]]) -> None:
    """Write an Arrow file."""
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=10_000)


FORMATS: dict[str, tuple[str, Callable[[Path, list[dict[str, str]]], None], str]] = {
    "jsonl": ("a.jsonl", write_lines, ""),
    "json": (
        "a.json",
        lambda path, rows: path.write_text(json.dumps(rows, ensure_ascii=False), "utf-8"),
        "",
    ),
    "tsv": ("a.tsv", lambda path, rows: write_table(path, rows, False), 'format = "tsv"'),
    "csv": ("a.csv", lambda path, rows: write_table(path, rows, True), 'format = "csv"'),
    "parquet": (
        "a.parquet",
        lambda path, rows: pa.parquet.write_table(
            pa.Table.from_pylist(rows), path, row_group_size=50_000
        ),
        "",
    ),
    "arrow": ("a.arrow", write_arrow, ""),
    "gz": ("a.jsonl.gz", compressed(partial(gzip.open, mode="wb", compresslevel=6)), ""),
    "zst": ("a.jsonl.zst", compressed(partial(pa.CompressedOutputStream, compression="zstd")), ""),
    "bz2": ("a.jsonl.bz2", compressed(partial(bz2.open, mode="wb")), ""),
    "xz": ("a.jsonl.xz", compressed(partial(lzma.open, mode="wb", preset=1)), ""),
}


def make(megabytes: int, names: list[str]) -> None:
    """Write a corpus for each format."""
    shutil.rmtree(WORK, ignore_errors=True)
    rows = list(texts(megabytes))
    for name in names:
        file, write, keys = FORMATS[name]
        folder = WORK / name
        folder.mkdir(parents=True)
        write(folder / file, rows)
        segments = '[{ prompt = "{{ source }}" }, { target = " {{ target }}" }]'
        (folder / "corpus.toml").write_text(
            f'[tokenizer]\neos = "</s>"\n\n[[source]]\nname = "a"\nfiles = ["{file}"]\n{keys}\n'
            f"segments = {segments}\n"
        )


def measure(name: str, tokenizer: Path, threads: int) -> dict[str, Any]:
    """Pack one corpus in a new process; return its figures."""
    arguments = [WORK / name, WORK / "out", tokenizer, threads]
    command = [sys.executable, "-c", PACK, *(str(word) for word in arguments)]
    ran = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    if ran.returncode:
        sys.exit(f"packing {name} failed: {ran.stderr}")
    figures: dict[str, Any] = json.loads(ran.stdout)
    return figures


def main() -> None:
    """Measure the formats of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--megabytes", type=int, default=64, help="MB of text")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--formats", nargs="+", default=list(FORMATS), choices=list(FORMATS))
    parser.add_argument("--tokenizer", type=Path, help="by default one of 16,000 is trained")
    options = parser.parse_args()
    names = ["jsonl", *(name for name in options.formats if name != "jsonl")]
    make(options.megabytes, names)
    tokenizer = options.tokenizer or WORK / "tokenizer.json"
    if options.tokenizer is None:
        import sabiprep

        sabiprep.train_tokenizer(WORK / names[0], tokenizer, 16_000)
    size = (WORK / "jsonl" / "a.jsonl").stat().st_size
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for _ in range(options.rounds):
        for threads in (1, 2):
            for name in names:
                found.setdefault((name, threads), []).append(measure(name, tokenizer, threads))
    tokens = {runs[0]["tokens"] for runs in found.values()}
    print(f"{size / 1e6:.0f} MB of JSON Lines; tokens of the formats: {sorted(tokens)}")
    print("format   threads  seconds    MB/s  of jsonl   cores  peak MB")
    for (name, threads), runs in sorted(found.items(), key=lambda item: item[0][1]):
        seconds = statistics.median(run["seconds"] for run in runs)
        of_lines = statistics.median(run["seconds"] for run in found["jsonl", threads])
        cores = statistics.median(run["cpu"] / run["seconds"] for run in runs)
        peak = max(run["peak"] for run in runs)
        print(
            f"{name:8} {threads:7} {seconds:8.2f} {size / seconds / 1e6:7.1f} "
            f"{seconds / of_lines:9.2f} {cores:7.2f} {peak:8.0f}"
        )


if __name__ == "__main__":
    main()
