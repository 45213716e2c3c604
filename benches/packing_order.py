"""What the order of best fit does to rows: ``python benches/packing_order.py OUT``, OUT being a
packed dataset.

Packs the documents of its training split again, by a plain best fit, in file order, in random
order, longest first, and in the order that sabiprep uses; prints rows, utilisation, and the share
of rows with 95 % or more of their tokens from one source.
"""

from __future__ import annotations

import argparse
import random
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import sabiprep

Document = tuple[int, int, int]
"""Source, record, length."""


def best_fit(documents: Iterable[Document], seq_len: int) -> list[list[Document]]:
    """Each document into the fullest row with room for it."""
    rows: list[list[Document]] = []
    room: list[tuple[int, int]] = []
    for document in documents:
        at = bisect_left(room, (document[2], -1))
        if at == len(room):
            rows.append([])
            left, row = seq_len, len(rows) - 1
        else:
            left, row = room.pop(at)
        rows[row].append(document)
        insort(room, (left - document[2], row))
    return rows


def is_single_source(row: list[Document]) -> bool:
    """Whether one source has 95 % or more of the row's tokens."""
    tokens: Counter[int] = Counter()
    for source, _, length in row:
        tokens[source] += length
    return 100 * max(tokens.values()) >= 95 * tokens.total()


def main() -> None:
    """Print a line for each order."""
    parser = argparse.ArgumentParser(description="Best fit in several orders.")
    parser.add_argument("out", type=Path)
    dataset = sabiprep.open_dataset(parser.parse_args().out)
    seq_len = dataset.seq_len
    documents: list[Document] = []
    for start in range(0, len(dataset.train), 256):
        batch = dataset.train.batch(range(start, min(start + 256, len(dataset.train))))
        columns = (
            batch["source_ids"].tolist(),
            batch["record_ids"].tolist(),
            batch["seq_lengths"].tolist(),
        )
        documents += zip(*columns, strict=True)
    documents.sort()
    shuffled = random.Random(0).sample(documents, len(documents))
    long = [one for one in shuffled if one[2] > seq_len // 2]
    rest = [one for one in shuffled if seq_len // 32 < one[2] <= seq_len // 2]
    shortest = sorted((one for one in shuffled if one[2] <= seq_len // 32), key=lambda one: -one[2])
    orders = {
        "file order": documents,
        "random order": shuffled,
        "longest first": sorted(shuffled, key=lambda one: -one[2]),
        "as sabiprep": [*long, *rest, *shortest],
    }
    print(
        f"{len(documents):,} documents\norder             rows  utilisation  rows >= 95 % one source"
    )
    for name, order in orders.items():
        rows = best_fit(order, seq_len)
        tokens = sum(length for _, _, length in order)
        single = sum(map(is_single_source, rows)) / len(rows)
        print(f"{name:14} {len(rows):7,} {tokens / seq_len / len(rows):12.5f} {single:12.1%}")


if __name__ == "__main__":
    main()
