"""Compare orders of best fit: ``python benches/packing_order.py OUT``, OUT a packed dataset.

Packs the documents of its training split again with a plain best fit: in file order, in random
order, longest first, and in the order that sabiprep uses. Prints rows, utilisation, and the share
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
"""A document: source, record, length."""


def best_fit(documents: Iterable[Document], seq_len: int) -> list[list[Document]]:
    """Put each document into the fullest row with room for it."""
    rows: list[list[Document]] = []
    room: list[tuple[int, int]] = []
    for document in documents:
        index = bisect_left(room, (document[2], -1))
        if index == len(room):
            rows.append([])
            left, row = seq_len, len(rows) - 1
        else:
            left, row = room.pop(index)
        rows[row].append(document)
        insort(room, (left - document[2], row))
    return rows


def is_single_source(row: list[Document]) -> bool:
    """Return whether one source has 95 % or more of the row's tokens."""
    tokens: Counter[int] = Counter()
    for source, _, length in row:
        tokens[source] += length
    return 100 * max(tokens.values()) >= 95 * tokens.total()


def longest_first(document: Document) -> int:
    """Return the sort key that puts the longest document first."""
    return -document[2]


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
    long = [document for document in shuffled if document[2] > seq_len // 2]
    rest = [document for document in shuffled if seq_len // 32 < document[2] <= seq_len // 2]
    shortest = [document for document in shuffled if document[2] <= seq_len // 32]
    shortest.sort(key=longest_first)
    orders = {
        "file order": documents,
        "random order": shuffled,
        "longest first": sorted(shuffled, key=longest_first),
        "as sabiprep": [*long, *rest, *shortest],
    }
    print(f"{len(documents):,} documents")
    print("order             rows  utilisation  rows >= 95 % one source")
    for name, order in orders.items():
        rows = best_fit(order, seq_len)
        tokens = sum(length for _, _, length in order)
        single = sum(map(is_single_source, rows)) / len(rows)
        print(f"{name:14} {len(rows):7,} {tokens / seq_len / len(rows):12.5f} {single:12.1%}")


if __name__ == "__main__":
    main()
