"""Measure packing end to end: ``python benches/pack.py [CORPUS] [--tokenizer FILE] [options]``.

Packs a corpus in a process of its own, at one and at two threads by turns. Prints for each the
median of the runs (MB/s of input read, tokens/s) and the largest peak memory that the system saw;
then the ratio of two threads to one, by the medians and by the fastest runs. ``--repeat-to MB``
also packs the corpus with its files repeated on disk, each line of a copy made unique by a number,
until they hold MB; all training rows are then one shard. Without arguments it measures the naija
corpus, where that is present.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "bench"
NAIJA = ROOT / "tests" / "naija"
TEXTS = ROOT.parent / "shared" / "corpora" / "naija"

PACK = """
import json, sys
import sabiprep
corpus, out, tokenizer, threads = sys.argv[1:]
options = sabiprep.PackOptions(tokenizer=tokenizer or None, threads=int(threads), overwrite=True)
report = sabiprep.pack(corpus, out, options)
print(json.dumps({
    "seconds": report.timing.total, "bytes": report.bytes, "tokens": report.total.train.tokens,
    "utilisation": report.utilisation, "single_source": report.single_source_share,
    "rows": report.train.rows,
}))
"""


def measure(corpus: Path, tokenizer: str, threads: int, out: Path) -> dict[str, Any]:
    """Run once in a new process; return its figures with the peak memory (MB) the system saw."""
    arguments = [sys.executable, "-c", PACK, str(corpus), str(out), tokenizer, str(threads)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"packing {corpus} failed")
    figures: dict[str, Any] = json.loads(text)
    return figures | {"peak": usage.ru_maxrss / 1024}


def repeated(
    corpus: Path, packed: Path, megabytes: int, folder: Path, one_shard: bool = False
) -> Path:
    """Write a copy of the corpus whose files are repeated until they hold ``megabytes`` on disk.

    ``packed`` is the dataset that was made of the corpus: it names the files of each source. No two
    lines are alike. The training rows become one shard if ``one_shard``, else shards of the
    corpus's own size.
    """
    config = tomllib.loads((corpus / "corpus.toml").read_text())
    manifest = json.loads((packed / "manifest.json").read_text())
    files_of = [source["inputs"] for source in manifest["sources"]]
    kept = ("name", "task", "lang", "segments", "overflow", "loss")
    config["source"] = [
        {key: source[key] for key in kept} for source in manifest["config"]["source"]
    ]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    files = sorted({name for names in files_of for name in names})
    held = sum((corpus / name).stat().st_size for name in files)
    # Rounded up, so that the copies hold at least as much as was asked for.
    times = -(-megabytes * 1_000_000 // held)
    copies: dict[str, list[str]] = {}
    for nth, name in enumerate(files):
        suffix = Path(name).suffix
        copies[name] = [f"{nth:03}-{time:03}{suffix}" for time in range(times)]
        lines = (corpus / name).read_bytes().splitlines(keepends=True)
        for time, copy in enumerate(copies[name]):
            numbered = (
                number(line, suffix, b"%d-%d " % (time, nth_line))
                for nth_line, line in enumerate(lines)
            )
            (folder / copy).write_bytes(b"".join(numbered))
    for source, names in zip(config["source"], files_of, strict=True):
        source["files"] = [copy for name in names for copy in copies[name]]
    if one_shard:
        config.setdefault("pack", {})["shard_tokens"] = 1_000_000_000
    (folder / "corpus.toml").write_text(toml_text(config))
    return folder


def number(line: bytes, suffix: str, mark: bytes) -> bytes:
    """Return a line with a mark before its first text; the header of a TSV stays as it is."""
    if suffix == ".tsv":
        return line if mark.endswith(b"-0 ") else mark + line
    head, quote, tail = (
        line.partition(b'": "') if suffix in (".json", ".jsonl") else (b"", b"", line)
    )
    return head + quote + mark + tail if quote or not head else line


def toml_text(config: dict[str, Any]) -> str:
    """Return a configuration as TOML: strings, numbers and arrays are written as in JSON."""
    lines = []
    for name in ("tokenizer", "pack"):
        lines += [
            f"[{name}]",
            *(f"{key} = {json.dumps(value)}" for key, value in config.get(name, {}).items()),
        ]
    for source in config["source"]:
        lines.append("[[source]]")
        for key, value in source.items():
            if key == "segments":
                inner = ", ".join(
                    f"{{ {kind} = {json.dumps(text)} }}"
                    for segment in value
                    for kind, text in segment.items()
                )
                lines.append(f"segments = [{inner}]")
            else:
                lines.append(f"{key} = {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


def report(name: str, corpus: Path, tokenizer: str, runs: int) -> None:
    """Print a line for one and for two threads; the runs take turns."""
    figures: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
    for _ in range(runs):
        for threads, found in figures.items():
            found.append(measure(corpus, tokenizer, threads, WORK / "out"))
    for threads, found in figures.items():
        seconds = statistics.median(run["seconds"] for run in found)
        first, peak = found[0], max(run["peak"] for run in found)
        print(
            f"{name:14} {threads:7} {first['bytes'] / 1e6:7.1f} {seconds:8.2f} "
            f"{first['bytes'] / seconds / 1e6:6.2f} {first['tokens'] / seconds / 1e6:8.3f} "
            f"{peak:7.0f} {first['utilisation']:8.5f} {first['single_source']:8.2%}"
        )
    ratios = ratios_of(*([run["seconds"] for run in found] for found in figures.values()))
    by_medians, by_fastest = f"{ratios[0]:.2f} times as fast by the medians", f"{ratios[1]:.2f}"
    print(f"{name:14} two threads are {by_medians}, {by_fastest} by the fastest")


def ratios_of(one: list[float], two: list[float]) -> tuple[float, float]:
    """Return how many times as fast two threads are: by the medians, and by the fastest runs."""
    return statistics.median(one) / statistics.median(two), min(one) / min(two)


def main() -> None:
    """Measure the corpora of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("corpus", nargs="?", type=Path, default=NAIJA)
    parser.add_argument(
        "--tokenizer", default="", help="a tokenizer.json; by default one of 16,000 is trained"
    )
    parser.add_argument(
        "--repeat-to", type=int, default=0, metavar="MB", help="also with its files repeated to MB"
    )
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    if options.corpus == NAIJA and not TEXTS.is_dir():
        print(f"skipped: {TEXTS} is not here")
        return
    WORK.mkdir(parents=True, exist_ok=True)
    tokenizer = options.tokenizer
    if not tokenizer:
        # In a process of its own: the system adds a parent's peak memory to its children's.
        tokenizer = str(WORK / "tokenizer.json")
        train = [
            sys.executable,
            "-m",
            "sabiprep",
            "tokenizer",
            "train",
            str(options.corpus),
            tokenizer,
        ]
        subprocess.run(
            [*train, "--vocab-size", "16000", "--overwrite"], check=True, capture_output=True
        )
    print("corpus         threads      MB  seconds   MB/s  Mtok/s  peakMB  utilis.  1-source")
    report(options.corpus.name, options.corpus, tokenizer, options.runs)
    if options.repeat_to:
        folder = repeated(
            options.corpus, WORK / "out", options.repeat_to, WORK / "repeated", one_shard=True
        )
        report(f"{options.corpus.name} x", folder, tokenizer, options.runs)
    shutil.rmtree(WORK / "out", ignore_errors=True)
    shutil.rmtree(WORK / "repeated", ignore_errors=True)


if __name__ == "__main__":
    main()
