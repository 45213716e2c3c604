"""Compare two threads with one: ``python benches/encoder.py TOKENIZER [options]``.

Options: ``--corpus DIR``, ``--rounds N``, ``--repeat-to MB``.

`sabiprep.Encoder` encodes the texts of a corpus (naija, where it is present) on one and on two
threads, by turns, each time in a process of its own. The texts are given as a list of str and as an
Arrow array. The first pass is over texts not seen before (after a warm-up on other texts, as in
``benches/peers/tokenization.py``), the second over the same texts again. ``--repeat-to`` also
encodes the texts repeated, with a number added to each, until they are MB of UTF-8. The output is
the median speeds in MB a second, the ratio of the medians, and the ratio of the fastest rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
from pack import ratios_of
from peers.tokenization import arguments, command_line, split, texts_of

import sabiprep

KINDS = ("list of str", "Arrow array")


def run(tokenizer: str, corpus: Path, megabytes: int, kind: str, threads: int) -> None:
    """Print the megabytes and the seconds of one turn, as JSON."""
    warm, once = split(texts_of(corpus, "naija"))
    copies = range(1, max(1, round(megabytes / size_of(once))))
    timed = once + [f"{text} {nth}" for nth in copies for text in once]
    given = pa.array(timed) if kind == KINDS[1] else timed
    encoder = sabiprep.Encoder.from_file(tokenizer)
    encoder.encode(warm, threads=threads)
    seconds, kept = [], []
    for _ in range(2):
        start = time.perf_counter()
        # The results are kept: freeing their memory is not part of the measurement.
        kept.append(encoder.encode(given, threads=threads))
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"megabytes": size_of(timed), "seconds": seconds}))


def size_of(texts: list[str]) -> float:
    """Return the megabytes of UTF-8."""
    return sum(len(text.encode()) for text in texts) / 1e6


def report(given: argparse.Namespace, megabytes: int, kind: str) -> None:
    """Print a line for each pass; one and two threads take turns."""
    command = [sys.executable, __file__, given.tokenizer, "--corpus", str(given.corpus)]
    command += ["--repeat-to", str(megabytes), "--run", kind]
    turns: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
    for _ in range(given.rounds):
        for threads, made in turns.items():
            made.append(json.loads(subprocess.check_output([*command, str(threads)], text=True)))
    size = turns[1][0]["megabytes"]
    for nth, name in enumerate(("first", "again")):
        one, two = ([turn["seconds"][nth] for turn in made] for made in turns.values())
        speeds = " | ".join(f"{size / statistics.median(seconds):.0f}" for seconds in (one, two))
        ratios = " | ".join(f"{ratio:.2f}" for ratio in ratios_of(one, two))
        print(f"| {kind} | {name} | {size:.0f} | {speeds} | {ratios} |", flush=True)


def main() -> None:
    """Measure every kind of input and print a table."""
    parser = command_line(__doc__, 9, ("KIND", "THREADS"))
    parser.add_argument(
        "--repeat-to", type=int, default=0, metavar="MB", help="also with the texts repeated to MB"
    )
    given = arguments(parser)
    if given.run:
        return run(given.tokenizer, given.corpus, given.repeat_to, given.run[0], int(given.run[1]))
    columns = "1 thread, MB/s | 2 threads, MB/s | ratio of medians | of the fastest"
    print(f"| given | pass | MB | {columns} |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for megabytes in dict.fromkeys((0, given.repeat_to)):
        for kind in KINDS:
            report(given, megabytes, kind)


if __name__ == "__main__":
    main()
