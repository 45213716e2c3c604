"""Compare packing with PyPI's tools: ``python benches/peers/pack_reference.py TOKENIZER``.

The reference is what a good engineer would compose: gigatoken's file API reads and encodes the
prompts and then the completions of one JSON Lines file, NumPy packs the documents best fit, longest
first, and lays out rows and loss masks, and pyarrow writes them. All of it is in memory, without
checks, checksums, sources, validation or a way to go on after a crash; a bad line ends the file.
Both sides run on one core, each run in a process of its own, by turns. Timing starts with the
libraries imported and the tokenizer not loaded. The corpus is prompts and completions made of
MAFAND's sentences, both ways, as often as it takes to fill the size; from the second time on each
prompt has a number. TOKENIZER must be one that gigatoken knows and have the token ``</s>``:
``benches/peers/make_tokenizer.py`` makes one. Anything missing is named
(``benches/peers/requirements.txt``).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tokenization import NAIJA, ROOT

MAFAND = NAIJA / "mafand"
WORK = ROOT / "build" / "bench" / "reference"
SEQ_LEN = 2048

CONFIG = """
[tokenizer]
eos = "</s>"
[pack]
seq_len = 2048
validation = 0.0
[[source]]
name = "mafand"
task = "translate"
lang = "mul"
files = ["corpus.jsonl"]
segments = [{ prompt = "{{ prompt }}" }, { target = "{{ completion }}" }]
"""


def pairs() -> Iterator[tuple[str, str]]:
    """Yield prompts and completions of MAFAND's training files, both ways, file by file."""
    for file in sorted(MAFAND.glob("*/train.json")):
        for line in file.read_text("utf-8").splitlines():
            first, second = json.loads(line)["translation"].items()
            for (source, given), (target, wanted) in ((first, second), (second, first)):
                yield f"<translate> {source}: {given} <{target}>:", f" {wanted}"


def write_corpus(folder: Path, megabytes: float) -> None:
    """Write a corpus of one JSON Lines file of ``megabytes``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "corpus.toml").write_text(CONFIG)
    size, time_ = 0, 0
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as file:
        while size < megabytes * 1e6:
            for nth, (prompt, completion) in enumerate(pairs()):
                prompt = f"{time_}-{nth} {prompt}" if time_ else prompt
                size += file.write(
                    json.dumps({"prompt": prompt, "completion": completion}, ensure_ascii=False)
                    + "\n"
                )
                if size >= megabytes * 1e6:
                    break
            time_ += 1


def best_fit(lengths: np.ndarray, seq_len: int) -> tuple[np.ndarray, int]:
    """Return the row of each document, and the number of rows.

    Best fit, longest first; all documents of one length are placed at once.
    """
    row_of = np.empty(len(lengths), np.int64)
    order = np.argsort(-lengths, kind="stable")
    ends = np.flatnonzero(np.diff(lengths[order], append=-1)) + 1
    open_rows: list[list[np.ndarray]] = [[] for _ in range(seq_len + 1)]
    free = np.zeros(seq_len + 1, np.int64)
    rows = start = 0
    for end in ends:
        left = order[start:end]
        length = int(lengths[left[0]])
        start = end
        while len(left):
            fitting = np.flatnonzero(free[length:])
            if len(fitting):
                room = length + int(fitting[0])
                held = np.concatenate(open_rows[room])
            else:
                room = seq_len
                held = np.arange(rows, rows - (-len(left) // (seq_len // length)))
                rows += len(held)
            # The tightest rows first, each as full as it gets.
            each = room // length
            needed = min(len(held), -(-len(left) // each))
            taken, kept = held[:needed], held[needed:]
            some = left[: needed * each]
            row_of[some] = np.repeat(taken, each)[: len(some)]
            left = left[len(some) :]
            last = len(some) - (needed - 1) * each
            open_rows[room], free[room] = ([kept], len(kept)) if len(kept) else ([], 0)
            for some_rows, used in ((taken[:-1], each), (taken[-1:], last)):
                if len(some_rows):
                    open_rows[room - used * length].append(some_rows)
                    free[room - used * length] += len(some_rows)
    return row_of, rows


def reference(tokenizer: str, folder: Path, out: Path) -> dict[str, Any]:
    """Run the reference once and return its figures."""
    import awkward
    import gigatoken

    started = time.perf_counter()
    encoder = gigatoken.Tokenizer.from_json(Path(tokenizer).read_bytes())
    eos = next(id_ for id_, token in encoder.vocab.items() if token == b"</s>")
    parts = []
    for field in ("prompt", "completion"):
        ids = encoder.encode_files(
            gigatoken.JsonlFileSource([folder / "corpus.jsonl"], field=field), parallel=False
        )
        parts.append((np.asarray(awkward.flatten(ids)), np.asarray(awkward.num(ids))))
    (prompts, prompt_lengths), (targets, target_lengths) = parts
    lengths = prompt_lengths + target_lengths + 1
    fits = lengths <= SEQ_LEN
    row_of, rows = best_fit(lengths[fits], SEQ_LEN)
    order = np.flatnonzero(fits)[np.argsort(row_of, kind="stable")]
    per_row = np.bincount(row_of, minlength=rows)
    # Where each document starts in its row.
    ends = np.cumsum(lengths[order])
    begins = ends - lengths[order]
    first = np.cumsum(per_row) - per_row
    starts = (
        begins - np.repeat(begins[first], per_row) + np.repeat(np.arange(rows) * SEQ_LEN, per_row)
    )
    input_ids = np.full(
        rows * SEQ_LEN, eos, np.uint16 if encoder.vocab_size <= 1 << 16 else np.uint32
    )
    mask = np.zeros(rows * SEQ_LEN, bool)
    for flat, sizes, shift, trained in (
        (prompts, prompt_lengths, 0, False),
        (targets, target_lengths, prompt_lengths[order], True),
    ):
        held = sizes[order]
        offsets = np.cumsum(sizes) - sizes
        within = np.arange(held.sum()) - np.repeat(np.cumsum(held) - held, held)
        places = np.repeat(starts + shift, held) + within
        input_ids[places] = flat[np.repeat(offsets[order], held) + within]
        mask[places] = trained
    mask[starts + lengths[order] - 1] = True
    columns = {
        "input_ids": pa.FixedSizeListArray.from_arrays(pa.array(input_ids), SEQ_LEN),
        "loss_mask": pa.FixedSizeListArray.from_arrays(pa.array(mask), SEQ_LEN),
        "seq_lengths": pa.ListArray.from_arrays(
            np.append(first, len(order)).astype(np.int32), pa.array(lengths[order].astype(np.int32))
        ),
    }
    table = pa.table(columns)
    with pa.OSFile(str(out), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=256)
    return {
        "seconds": time.perf_counter() - started,
        "documents": len(order),
        "tokens": int(lengths[order].sum()),
        "targets": int(mask.sum()),
        "rows": rows,
    }


def ours(tokenizer: str, folder: Path, out: Path) -> dict[str, Any]:
    """Run sabiprep once and return its figures."""
    import sabiprep

    started = time.perf_counter()
    options = sabiprep.PackOptions(tokenizer=tokenizer, threads=1, overwrite=True)
    report = sabiprep.pack(folder, out, options)
    seconds = time.perf_counter() - started
    train = report.total.train
    return {
        "seconds": seconds,
        "documents": train.documents,
        "tokens": train.tokens,
        "targets": train.targets,
        "rows": report.train.rows,
        "map": report.timing.map,
        "reduce": report.timing.reduce,
    }


SIDES = {"reference": reference, "sabiprep": ours}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tokenizer", help="a tokenizer.json with the token </s>")
    parser.add_argument("--megabytes", type=float, nargs="+", default=[20.0, 100.0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--run", choices=SIDES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        out = WORK / f"{given.run}.out"
        print(json.dumps(SIDES[given.run](given.tokenizer, WORK, out)))
        return
    if not MAFAND.is_dir():
        sys.exit(f"skipped: no corpus at {MAFAND}")
    for module in ("gigatoken", "awkward"):
        if not importlib.util.find_spec(module):
            sys.exit(f"skipped: {module} is not installed (benches/peers/requirements.txt)")
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    for megabytes in given.megabytes:
        write_corpus(WORK, megabytes)
        size = (WORK / "corpus.jsonl").stat().st_size / 1e6
        found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
        for _ in range(given.rounds):
            for side, runs in found.items():
                command = [sys.executable, __file__, given.tokenizer, "--run", side]
                made = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                runs.append(json.loads(made.stdout.splitlines()[-1]))
        print(f"\n{size:.1f} MB, one core, median of {given.rounds}\n")
        print("| | seconds | MB/s | µs a document | documents | tokens | targets | rows |")
        print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
        for side, runs in found.items():
            seconds, first = statistics.median(run["seconds"] for run in runs), runs[0]
            print(
                f"| {side} | {seconds:.2f} | {size / seconds:.1f} | "
                f"{1e6 * seconds / first['documents']:.1f} | {first['documents']} | "
                f"{first['tokens']} | {first['targets']} | {first['rows']} |"
            )
    shutil.rmtree(WORK, ignore_errors=True)


if __name__ == "__main__":
    main()
