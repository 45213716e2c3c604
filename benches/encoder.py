"""Two threads against one: ``python benches/encoder.py TOKENIZER [--corpus DIR] [--rounds N]``.

`sabiprep.Encoder` encodes all texts of a corpus (naija, where it is present) on one and on two threads, each time in a
process of its own, by turns: texts not seen before, then the same again; given as a list of str and as an Arrow array.
Printed are the medians in MB of UTF-8 a second, the ratio of the medians, and that of the fastest rounds.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
from peers.tokenization import arguments, texts_of

import sabiprep

KINDS = ("list of str", "Arrow array")


def run(tokenizer: str, corpus: Path, kind: str, threads: int) -> None:
    """One turn: its bytes and its seconds, as JSON."""
    texts = texts_of(corpus, "naija")
    given = pa.array(texts) if kind == KINDS[1] else texts
    encoder = sabiprep.Encoder.from_file(tokenizer)
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        encoder.encode(given, threads=threads)
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"bytes": sum(len(text.encode()) for text in texts), "seconds": seconds}))


def main() -> None:
    given = arguments(__doc__, 9, ("KIND", "THREADS"))
    if given.run:
        return run(given.tokenizer, given.corpus, given.run[0], int(given.run[1]))
    print("| given | pass | 1 thread, MB/s | 2 threads, MB/s | ratio of medians | of the fastest |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for kind in KINDS:
        seconds: dict[int, list[list[float]]] = {1: [], 2: []}
        megabytes = 0.0
        for _ in range(given.rounds):
            for threads in seconds:
                command = [sys.executable, __file__, given.tokenizer, "--corpus", str(given.corpus)]
                made = subprocess.check_output([*command, "--run", kind, str(threads)], text=True)
                turn = json.loads(made)
                megabytes = turn["bytes"] / 1e6
                seconds[threads].append(turn["seconds"])
        for nth, name in enumerate(("first", "again")):
            one, two = ([turn[nth] for turn in seconds[threads]] for threads in (1, 2))
            medians = statistics.median(one), statistics.median(two)
            speeds = " | ".join(f"{megabytes / median:.0f}" for median in medians)
            print(f"| {kind} | {name} | {speeds} | {medians[0] / medians[1]:.2f} | {min(one) / min(two):.2f} |")


if __name__ == "__main__":
    main()
