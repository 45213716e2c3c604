"""The check of a packed dataset against what the oracle expects of its corpus."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sabiprep.dataset import PackedDataset
from support import oracle
from support.any_corpus import SHARED_BITS, Corpus, Source
from support.expected_packing import Expectations, Outcome, content
from support.slow_reader import File, read


class Document(NamedTuple):
    """A document of a row."""

    side: str
    row: int
    copy: int
    window: int
    ids: list[int]
    roles: list[int]
    mask: list[bool]


def documents(dataset: PackedDataset) -> dict[tuple[int, int], list[Document]]:
    """The documents by (source, record), every row checked on the way."""
    found: dict[tuple[int, int], list[Document]] = defaultdict(list)
    policies = {source["name"]: source["loss"] for source in dataset.manifest["sources"]}
    by_id = {source.id: policies[source.name] for source in dataset.sources}
    cuts = dataset.manifest["config"]["pack"]["pack"] == "concat"
    for side in ("train", "validation"):
        for number in range(len(dataset[side])):
            row = dataset[side][number]
            problems = oracle.check_row(
                row, pad_id=dataset.pad_id, eos_id=dataset.eos_id, policies=by_id, cuts=cuts
            )
            assert not problems
            ends = row["cu_seqlens"].tolist()
            for i, (source, record, part) in enumerate(
                zip(
                    row["source_ids"].tolist(),
                    row["record_ids"].tolist(),
                    row["doc_parts"].tolist(),
                    strict=True,
                )
            ):
                assert part >> 16 & 0xFF == 0
                own = slice(ends[i], ends[i + 1])
                arrays = (row[name][own].tolist() for name in ("input_ids", "roles", "loss_mask"))
                found[source, record].append(
                    Document(side, number, part >> 24, part & 0xFFFF, *arrays)
                )
    return found


def check(corpus: Corpus, dataset: PackedDataset) -> None:
    """Compare a dataset with what the oracle makes of its corpus."""
    packed = documents(dataset)
    expected: dict[tuple[int, int], tuple[Source, File, int, Outcome]] = {}
    for id, source in enumerate(corpus.sources):
        expectations = Expectations(corpus, source)
        for nth, file in enumerate(source.files):
            for line, offset, record in read(file):
                expected[id, nth << SHARED_BITS | offset] = (
                    source,
                    file,
                    line,
                    expectations.outcome(record),
                )
    assert set(packed) <= set(expected), "a document of no record"

    # A record that is not there is one of training: chance holds out only where no duplicates are
    # dropped.
    copies = {
        key: oracle.Copy(
            source.duplicates,
            file.name in corpus.held_out
            or any(document.side == "validation" for document in packed.get(key, [])),
            outcome.text,
            content(outcome.text),
        )
        for key, (source, file, _, outcome) in sorted(expected.items())
        if outcome.reason is None
    }
    drops_by_content = dict(
        zip(copies, oracle.drops_by_content(list(copies.values())), strict=True)
    )
    drops: dict[str, dict[str, list[tuple[str, int]]]] = {
        s.name: defaultdict(list) for s in corpus.sources
    }
    kept: Counter[str] = Counter()
    truncated: Counter[str] = Counter()
    sides_of_lines = defaultdict(set)
    for key, (source, file, line, outcome) in expected.items():
        found = packed.get(key, [])
        reason = outcome.reason or drops_by_content[key]
        if reason is not None:
            assert not found, reason
        elif not found:
            reason = "not sampled"
            assert source.epochs < 1 and not copies[key].held_out
        if reason is not None:
            drops[source.name][reason].append((file.name, line))
            continue
        kept[source.name] += 1
        truncated[source.name] += outcome.truncated
        check_record(corpus, source, outcome, found)
        [side] = {document.side for document in found}
        sides_of_lines[file.name, line].add(side)
        if corpus.validation == 0 or file.name in corpus.held_out:
            assert (side == "validation") == (file.name in corpus.held_out)
    assert all(len(sides) == 1 for sides in sides_of_lines.values()), "a line on both sides"
    for source, file, line, outcome in expected.values():
        if outcome.reason is None and sides_of_lines[file.name, line] == {"validation"}:
            assert (file.name, line) not in drops[source.name]["not sampled"]
            assert (file.name, line) not in drops[source.name]["in validation"]
    check_manifest(dataset, packed, drops, kept, truncated)


def check_record(
    corpus: Corpus, source: Source, outcome: Outcome, found: Sequence[Document]
) -> None:
    """Compare the documents of a kept record with its expected one: every window of every copy,
    once.
    """
    copies = {document.copy for document in found}
    if found[0].side == "validation":
        assert copies == {0}
    else:
        assert len(copies) in {math.floor(source.epochs), math.ceil(source.epochs)}
        assert copies == set(range(len(copies)))
    mask = oracle.loss_mask(outcome.roles, source.loss)
    if corpus.pack == "concat":
        for copy in copies:
            check_pieces(outcome, mask, [document for document in found if document.copy == copy])
        return
    windows = oracle.windows(len(outcome.ids), corpus.seq_len)
    assert len(windows) == 1 or source.overflow == "split"
    assert Counter((document.copy, document.window) for document in found) == Counter(
        (copy, window) for copy in copies for window in range(len(windows))
    )
    for document in found:
        start, end = windows[document.window]
        assert document.ids == outcome.ids[start:end]
        assert document.roles == outcome.roles[start:end]
        assert document.mask == [False, *mask[start + 1 : end]]
    rows = {copy: {document.row for document in found if document.copy == copy} for copy in copies}
    assert sum(map(len, rows.values())) == len(set().union(*rows.values())), "two copies in one row"


def check_pieces(outcome: Outcome, mask: Sequence[bool], pieces: Sequence[Document]) -> None:
    """Compare the pieces of one copy, cut anywhere, with its document: each starts with the last
    token before it.
    """
    start = 0
    for nth, piece in enumerate(sorted(pieces, key=lambda piece: piece.window)):
        end = start + len(piece.ids)
        assert piece.window == nth and len(piece.ids) > 1
        assert piece.ids == outcome.ids[start:end] and piece.roles == outcome.roles[start:end]
        assert piece.mask == [False, *mask[start + 1 : end]]
        start = end - 1
    assert end == len(outcome.ids)


def check_rows(dataset: PackedDataset, pack: str) -> None:
    """A stream leaves no more than one place of a row empty, but in a shard's last; "none" puts one
    document a row.
    """
    for side, split in dataset.manifest["splits"].items():
        first = 0
        for shard in split["shards"]:
            rows = [dataset[side][first + nth] for nth in range(shard["rows"])]
            first += shard["rows"]
            if pack == "none":
                assert all(len(row["seq_lengths"]) == 1 for row in rows)
            if pack == "concat":
                assert sum(dataset.seq_len - int(row["seq_lengths"].sum()) > 1 for row in rows) <= 1


def check_manifest(
    dataset: PackedDataset,
    packed: Mapping[tuple[int, int], Sequence[Document]],
    drops: Mapping[str, Mapping[str, list[tuple[str, int]]]],
    kept: Mapping[str, int],
    truncated: Mapping[str, int],
) -> None:
    """Compare every count of the manifest with the contents of the shards and the lines of the
    corpus.
    """
    for id, source in enumerate(dataset.manifest["sources"]):
        name = source["name"]
        assert source["drops"] == {
            reason: len(lines) for reason, lines in drops[name].items() if lines
        }
        assert source["kept"] == kept[name]
        assert source["truncated"] == truncated[name]
        assert oracle.check_accounts(source) == []
        assert source["records"] == kept[name] + sum(map(len, drops[name].values()))
        for example in source["examples"]:
            assert (example["file"], example["line"]) in drops[name][example["reason"]]
            assert example["why"]
        assert Counter(example["reason"] for example in source["examples"]) == {
            reason: min(3, len(lines)) for reason, lines in drops[name].items() if lines
        }
        for side in ("train", "validation"):
            own = [
                d for key, found in packed.items() if key[0] == id for d in found if d.side == side
            ]
            assert source[side] == {
                "documents": len(own),
                "tokens": sum(len(document.ids) for document in own),
                "targets": sum(sum(document.mask) for document in own),
            }
    for side, split in dataset.manifest["splits"].items():
        rows = [dataset[side][number] for number in range(len(dataset[side]))]
        tokens = [int(row["seq_lengths"].sum()) for row in rows]
        single = 0
        for row, used in zip(rows, tokens, strict=True):
            of_source: Counter[int] = Counter()
            for source_id, length in zip(
                row["source_ids"].tolist(), row["seq_lengths"].tolist(), strict=True
            ):
                of_source[source_id] += length
            single += max(of_source.values()) * 100 >= used * 95
        totals = {
            "rows": len(rows),
            "documents": sum(len(row["seq_lengths"]) for row in rows),
            "tokens": sum(tokens),
            "targets": sum(row["n_targets"] for row in rows),
        }
        assert {key: split[key] for key in totals} == totals
        assert split["single_source_rows"] == single
        assert split["utilisation"] == (
            sum(tokens) / (len(rows) * dataset.seq_len) if rows else 0.0
        )
        for name in ("rows", "tokens", "targets"):
            assert sum(shard[name] for shard in split["shards"]) == totals[name]
