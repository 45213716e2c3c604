"""Where the time goes when a corpus is packed by many workers: a simulation.

    python benches/scaling.py                       # 1 TB by 1 to 1,000 workers on a shared disk
    python benches/scaling.py --bucket --terabytes 10

Each phase is simulated event by event: the leader hands out orders at its own rate, a worker takes
the next when it has done one, the storage serves all readers together at no more than its
bandwidth, and a request waits for its latency. Of what the simulation takes as given (``Rates``),
the rates of map, checksums, settle, reduce and start are those of the machine of benches/README.md
(1.2 GB by one thread); those of the leader and of the storage are assumed.
"""

from __future__ import annotations

import argparse
import heapq
from dataclasses import dataclass

MB = 1e6
SPLITS, SPLIT_BYTES, ORDER_BYTES = 4096, (8 << 20, 256 << 20), 32 << 20
PART_BYTES = 64 << 20
BUCKETS = 4096


@dataclass(frozen=True)
class Rates:
    """What one core, the leader and the storage do in a second."""

    map: float = 38 * MB
    """Bytes of input that a core reads, tokenizes and spools."""
    checksum: float = 3000 * MB
    """Bytes of input that a core takes the checksum of."""
    settle: float = 1.5e6
    """Records that a core of the leader settles, duplicates looked for."""
    settle_cores: int = 8
    reduce: float = 35e6
    """Tokens that a core packs, masks, checks and writes."""
    orders: float = 1000
    """Orders that the leader hands out."""
    bandwidth: float = 20e9
    """Bytes that the storage gives or takes, all readers together."""
    latency: float = 0.0005
    """Seconds that a read of a spool waits."""
    at_once: int = 16
    """Reads of a spool that a worker has under way."""
    start: float = 2.0
    """Seconds in which a worker process starts and loads tokenizer and templates."""


@dataclass(frozen=True)
class Corpus:
    """A corpus, and what is made of it."""

    bytes: float
    files: int
    record_bytes: float = 1000
    bytes_a_token: float = 4.0
    token_bytes: int = 2
    shard_tokens: float = 1 << 24


def makespan(durations: list[float], workers: int, rates: Rates, began: float = 0.0) -> float:
    """Returns the seconds until orders of these durations are done by workers from ``began`` on."""
    free = [began] * workers
    heapq.heapify(free)
    last = began
    for nth, duration in enumerate(durations):
        # The leader hands out one order after another.
        start = max(heapq.heappop(free), began + nth / rates.orders)
        heapq.heappush(free, start + duration)
        last = max(last, start + duration)
    return last - began


def simulate(corpus: Corpus, workers: int, rates: Rates) -> dict[str, float]:
    """Returns the seconds of each phase."""
    split = min(max(corpus.bytes / SPLITS, SPLIT_BYTES[0]), SPLIT_BYTES[1])
    order = max(split, ORDER_BYTES)
    orders = max(corpus.files, int(corpus.bytes / order))
    size = corpus.bytes / orders
    share = rates.bandwidth / workers
    tokens = corpus.bytes / corpus.bytes_a_token
    records = corpus.bytes / corpus.record_bytes
    spool = tokens * (corpus.token_bytes + 0.2) + records * 76
    of_file = corpus.bytes / corpus.files
    checksum = makespan([of_file / min(rates.checksum, share)] * corpus.files, workers, rates)
    written = spool / orders
    mapping = size / rates.map + (size + written) / share
    mapped = makespan([mapping] * orders, workers, rates, rates.start) + rates.start
    # Keys are read once or twice, entries twice: 40 and 28 bytes.
    settled = max(
        records / rates.settle / rates.settle_cores, records * (2 * 40 + 2 * 28) / rates.bandwidth
    )
    # A shard is made of whole buckets.
    shards = min(BUCKETS, max(1, int(tokens / corpus.shard_tokens)))
    parts = max(orders, int(spool / PART_BYTES))
    # Of each part: the bounds of its groups, its entries, its documents.
    waiting = 3 * parts * rates.latency / rates.at_once
    shard = tokens / shards
    reducing = shard / rates.reduce + waiting + 2 * shard * corpus.token_bytes / share
    reduced = makespan([reducing] * shards, workers, rates)
    return {
        "checksums": checksum,
        "map": mapped,
        "settle": settled,
        "reduce": reduced,
        "waiting": waiting,
        "shards": float(shards),
        "parts": float(parts),
    }


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--terabytes", type=float, default=1.0)
    parser.add_argument("--files", type=int, default=4000)
    parser.add_argument("--bucket", action="store_true", help="an object store, not a shared disk")
    given = parser.parse_args()
    rates = Rates(bandwidth=100e9, latency=0.02) if given.bucket else Rates()
    corpus = Corpus(given.terabytes * 1e12, given.files)
    place = "bucket" if given.bucket else "shared disk"
    print(f"{given.terabytes:g} TB in {given.files:,} files, {place}; seconds")
    print("workers  checksums      map   settle   reduce    total  of one  efficiency")
    alone = None
    for workers in (1, 2, 10, 100, 300, 1000):
        found = simulate(corpus, workers, rates)
        phases = [found[name] for name in ("checksums", "map", "settle", "reduce")]
        total = sum(phases)
        alone = alone or total
        cells = "".join(f"{seconds:9,.0f}" for seconds in phases)
        print(
            f"{workers:7,}  {cells}{total:9,.0f}{alone / total:8.1f}{alone / total / workers:11.0%}"
        )
    print(
        f"{found['shards']:,.0f} shards of {found['parts']:,.0f} parts of spools: a shard waits "
        f"{found['waiting']:,.1f} s for its reads"
    )


if __name__ == "__main__":
    main()
