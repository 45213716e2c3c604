"""Two threads against one: ``python benches/encoder.py TOKENIZER [--corpus DIR] [--rounds N] [--repeat-to MB]``.

`sabiprep.Encoder` encodes the texts of a corpus (naija, where it is present) on one and on two threads, each time in a
process of its own, by turns, given as a list of str and as an Arrow array: texts not seen before (a warm-up on others
aside, as in ``benches/peers/tokenization.py``), then the same again. ``--repeat-to`` also gives them repeated, with a
number added to each, until they are MB of UTF-8. Printed are the medians in MB a second, the ratio of the medians, and
that of the fastest rounds.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
from peers.tokenization import arguments, command_line, split, texts_of

import sabiprep

KINDS = ("list of str", "Arrow array")


def run(tokenizer: str, corpus: Path, megabytes: int, kind: str, threads: int) -> None:
    """One turn: its bytes and its seconds, as JSON."""
    warm, timed = split(texts_of(corpus, "naija"))
    size = sum(len(text.encode()) for text in timed)
    copies = range(1, max(1, round(megabytes * 1e6 / size)))
    timed += [f"{text} {nth}" for nth in copies for text in timed]
    given = pa.array(timed) if kind == KINDS[1] else timed
    encoder = sabiprep.Encoder.from_file(tokenizer)
    encoder.encode(warm, threads=threads)
    seconds, kept = [], []
    for _ in range(2):
        start = time.perf_counter()
        # Kept: to give their memory back is not what is timed.
        kept.append(encoder.encode(given, threads=threads))
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"bytes": sum(len(text.encode()) for text in timed), "seconds": seconds}))


def main() -> None:
    parser = command_line(__doc__, 9, ("KIND", "THREADS"))
    parser.add_argument("--repeat-to", type=int, default=0, metavar="MB", help="also with the texts repeated to MB")
    given = arguments(parser)
    if given.run:
        return run(given.tokenizer, given.corpus, given.repeat_to, given.run[0], int(given.run[1]))
    print("| given | pass | MB | 1 thread, MB/s | 2 threads, MB/s | ratio of medians | of the fastest |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for to in dict.fromkeys((0, given.repeat_to)):
        for kind in KINDS:
            seconds: dict[int, list[list[float]]] = {1: [], 2: []}
            megabytes = 0.0
            for _ in range(given.rounds):
                for threads in seconds:
                    command = [sys.executable, __file__, given.tokenizer, "--corpus", str(given.corpus)]
                    command += ["--repeat-to", str(to), "--run", kind, str(threads)]
                    turn = json.loads(subprocess.check_output(command, text=True))
                    megabytes = turn["bytes"] / 1e6
                    seconds[threads].append(turn["seconds"])
            for nth, name in enumerate(("first", "again")):
                one, two = ([turn[nth] for turn in seconds[threads]] for threads in (1, 2))
                medians = statistics.median(one), statistics.median(two)
                speeds = " | ".join(f"{megabytes / median:.0f}" for median in medians)
                ratios = f"{medians[0] / medians[1]:.2f} | {min(one) / min(two):.2f}"
                print(f"| {kind} | {name} | {megabytes:.0f} | {speeds} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
