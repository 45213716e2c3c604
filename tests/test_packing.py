"""What the core packs, read back by the loader, is what the oracle makes of every line of the
corpus.

The corpora are small and adversarial: several sources of several formats, some over one file, with
lines that are no records. `slow_reader` is the slow and obvious reader; the outcome of each record
is worked out from it alone, but for two things that only the seed decides, which are read from the
dataset and checked for what must be true of them: the side a record falls on, and whether a
fraction of an epoch takes it.
"""

from __future__ import annotations

import gzip
import json
import math
import shutil
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

import oracle
import packer
import sabiprep
from oracle import DATA, TARGET
from packer import WHITE_SPACE, is_blank
from sabiprep import PackOptions
from sabiprep.dataset import PackedDataset, open_dataset
from sabiprep.errors import ConfigError, InputError, OutputError, TokenizerError
from slow_reader import MALFORMED, File, read
from strategies import BOS, EOS, TEXTS, records, texts, tokenizer_json

properties = settings(
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SHARED_BITS = 40


# --- corpora ---


class Source(NamedTuple):
    """A source over some of the files, as `corpus.toml` has it."""

    name: str
    files: list[File]
    segments: list[tuple[str, str]]
    overflow: str
    epochs: float
    loss: str
    duplicates: str


class Corpus(NamedTuple):
    """Everything one pack is given; `held_out` names the files whose records are all held out."""

    sources: list[Source]
    held_out: frozenset[str]
    tokenizer: str
    bos: bool
    seq_len: int
    validation: float
    seed: int
    pack: str


words = st.sampled_from(
    [*" ".join(TEXTS).split(), "</s>", "<yor>", "o\u0323\u0300", "1 2", "\r", "\x00", "漢字"]
)
long_texts = st.lists(words, min_size=12, max_size=60).map(" ".join)
any_texts = st.one_of(texts, long_texts)
# A file of text that holds a NUL is refused; JSON escapes it.
raw_texts = any_texts.map(lambda text: text.replace("\0", "\x01"))


@st.composite
def json_lines(draw: st.DrawFn) -> list[bytes]:
    lines = []
    for _ in range(draw(st.integers(1, 6))):
        record = draw(records())
        if draw(st.booleans()):
            record["a"] = draw(long_texts)
        match draw(st.integers(0, 11)):
            case 0:
                lines.append(draw(st.sampled_from(MALFORMED)))
                continue
            case 1:
                del record["a"]
            case 2:
                record["b"] = draw(st.sampled_from([None, {"c": None}, "text"]))
            case 3:
                lines.append(draw(st.sampled_from([b"", b" \t", b"\r"])))
        lines.append(json.dumps(record, ensure_ascii=draw(st.booleans())).encode())
    return lines


@st.composite
def tab_lines(draw: st.DrawFn) -> list[bytes]:
    lines = [b"a\tb\tlong_name"]
    for _ in range(draw(st.integers(1, 6))):
        cells = [
            text.replace("\t", " ").replace("\n", " ")
            for text in draw(st.lists(raw_texts, min_size=3, max_size=3))
        ]
        if not draw(st.integers(0, 5)):
            cells = cells[:2] if draw(st.booleans()) else [*cells, "extra"]
        lines.append("\t".join(cells).encode())
        if not draw(st.integers(0, 7)):
            lines.append(draw(st.sampled_from([b"", b"\xff\ta\tb"])))
    return lines


text_lines = st.lists(
    st.one_of(
        raw_texts.map(lambda text: text.replace("\n", " ").encode()),
        st.sampled_from([b"", b" \xe3\x80\x80", b"\xff"]),
    ),
    min_size=1,
    max_size=6,
)
SUFFIXES = {
    "jsonl": [".jsonl", ".json", ".jsonl.gz"],
    "tsv": [".tsv", ".tsv.gz"],
    "text": [".txt", ".txt.gz"],
}
LINES = {"jsonl": json_lines(), "tsv": tab_lines(), "text": text_lines}
FIELD_NAMES = {
    "jsonl": ["a", "b.c", "long_name"],
    "tsv": ["a", "b", "long_name"],
    "text": ["text"],
}


@st.composite
def files(draw: st.DrawFn, number: int) -> File:
    format = draw(st.sampled_from(sorted(SUFFIXES)))
    lines = draw(LINES[format])
    lines += draw(
        st.lists(st.sampled_from(lines[1:] or lines), max_size=3)
    )  # content that occurs more than once
    end = draw(st.sampled_from([b"\n", b"\r\n"]))
    content = (
        draw(st.sampled_from([b"", "\ufeff".encode()]))
        + end.join(lines)
        + draw(st.sampled_from([b"", end]))
    )
    return File(f"file{number}{draw(st.sampled_from(SUFFIXES[format]))}", format, content)


@st.composite
def sources(
    draw: st.DrawFn, number: int, all_files: Sequence[File], held_out: frozenset[str], drops: bool
) -> Source:
    format = draw(st.sampled_from(sorted({file.format for file in all_files})))
    same = [file for file in all_files if file.format == format]
    chosen = draw(
        st.lists(st.sampled_from(same), min_size=1, max_size=2, unique_by=lambda file: file.name)
    )
    field = st.sampled_from(FIELD_NAMES[format]).map("{{{{ {} }}}}".format)
    prompt = st.one_of(
        field.map("<translate> {} <yor>:".format), st.tuples(field, field).map(" | ".join)
    )
    if draw(st.booleans()):
        segments = [("target", draw(field))]
    else:
        target = field if not draw(st.integers(0, 2)) else st.just("yes")
        segments = [("prompt", draw(prompt)), ("target", " " + draw(target))]
        if draw(st.booleans()):
            segments += [("prompt", draw(prompt)), ("target", "no")]
    overflow = ["drop", "truncate", "truncate"] + (
        ["split"] * 2 if all(kind == "target" for kind, _ in segments) else []
    )
    return Source(
        f"source{number}",
        sorted(chosen, key=lambda file: file.name in held_out),
        segments,
        draw(st.sampled_from(overflow)),
        draw(st.sampled_from([1.0, 1.0, 2.5, 0.5])),
        draw(st.sampled_from(["target_only", "target_only", "full"])),
        draw(st.sampled_from(["keep", "exact", "normalised"])) if drops else "keep",
    )


@st.composite
def corpora(draw: st.DrawFn) -> Corpus:
    all_files = [draw(files(number)) for number in range(draw(st.integers(1, 3)))]
    held_out = frozenset(
        draw(st.sets(st.sampled_from([file.name for file in all_files]), max_size=1))
    )
    # Where chance holds out too, a record that is not there does not tell whether it was held out.
    validation = draw(st.sampled_from([0.0, 0.3]))
    return Corpus(
        [
            draw(sources(number, all_files, held_out, validation == 0))
            for number in range(draw(st.integers(1, 4)))
        ],
        held_out,
        draw(
            st.sampled_from(
                [
                    "bytes",
                    "bytes",
                    "bytes-prefix",
                    "bytes-nfc",
                    "metaspace-always",
                    "metaspace-first",
                ]
            )
        ),
        draw(st.booleans()),
        draw(st.sampled_from([64, 64, 128])),
        validation,
        draw(st.integers(0, 1 << 40)),
        draw(st.sampled_from(["best_fit", "best_fit", "concat", "none"])),
    )


def write_corpus(folder: Path, corpus: Corpus) -> Path:
    """Write the corpus; gives the tokenizer's file, which lies beside it."""
    folder.mkdir()
    for file in {file.name: file for source in corpus.sources for file in source.files}.values():
        content = gzip.compress(file.content) if file.name.endswith(".gz") else file.content
        (folder / file.name).write_bytes(content)
    packer.write_config(
        folder,
        [
            {
                "name": source.name,
                "files": [file.name for file in source.files if file.name not in corpus.held_out],
                "validation_files": [
                    file.name for file in source.files if file.name in corpus.held_out
                ],
                "duplicates": source.duplicates,
                "format": source.files[0].format,
                "segments": [{kind: template} for kind, template in source.segments],
                "overflow": source.overflow,
                "epochs": source.epochs,
                "loss": source.loss,
            }
            for source in corpus.sources
        ],
        tokenizer={"bos": BOS if corpus.bos else ""},
        pack={
            "validation": corpus.validation,
            "seq_len": corpus.seq_len,
            "seed": corpus.seed,
            "shard_tokens": 400,
            "pack": corpus.pack,
        },
    )
    tokenizer = folder.with_suffix(".tokenizer.json")
    tokenizer.write_text(tokenizer_json(corpus.tokenizer), "utf-8")
    return tokenizer


# --- the outcome of each record ---


UNFIT = {"malformed", "missing field", "template error", "empty target", "no target left"}
"""Reasons that tell of a wrong template or format: a source of nothing else is refused."""


class Outcome(NamedTuple):
    """What must become of a record: a document, or the reason for none."""

    reason: str | None
    ids: Sequence[int] = ()
    roles: Sequence[int] = ()
    text: str = ""
    truncated: bool = False


def empty_target(segments: Sequence[tuple[str, str]], record: Mapping[str, Any]) -> bool:
    blank = []
    for segment in segments:
        spans = oracle.render([segment], record)
        if segment[0] == "target":
            data = [span.text for span in spans if span.data]
            if data and is_blank("".join(data)):
                return True
            blank.append(is_blank("".join(span.text for span in spans)))
    return all(blank)


class Expectations:
    """What the oracle expects of the records of a source."""

    def __init__(self, corpus: Corpus, source: Source) -> None:
        self.file = tokenizer_json(corpus.tokenizer)
        self.seq_len, self.segments, self.overflow = (
            corpus.seq_len,
            source.segments,
            source.overflow,
        )
        tokens = oracle.added_tokens(self.file)
        self.bos_id, self.eos_id = tokens[BOS] if corpus.bos else None, tokens[EOS]
        self.plain = all(kind == "target" for kind, _ in source.segments)

    def document(self, record: Mapping[str, Any]) -> Outcome:
        """The record's document, however long."""
        spans = oracle.render(self.segments, record)
        ids, roles = oracle.encode_document(self.file, spans, self.bos_id, self.eos_id)
        return Outcome(None, ids, roles, "".join(span.text for span in spans))

    def outcome(self, record: Mapping[str, Any] | None) -> Outcome:
        if record is None:
            return Outcome("malformed")
        try:
            if empty_target(self.segments, record):
                return Outcome("empty target")
            whole = self.document(record)
        except oracle.MissingField:
            return Outcome("missing field")
        if TARGET not in whole.roles:
            return Outcome("no target left")
        if len(whole.ids) <= self.seq_len or self.overflow == "split":
            return whole
        return (self.truncated(record) if self.overflow == "truncate" else None) or Outcome(
            "too long"
        )

    def truncated(self, record: Mapping[str, Any]) -> Outcome | None:
        """The longest field cut to as many words as fit; if one word is too many, it keeps one, and
        the next is cut.
        """
        paths = []
        for kind, template in self.segments:
            if self.plain or kind == "prompt":
                paths += [path for path in oracle.FIELD.findall(template) if path not in paths]
        fields = {path: text for path in paths if isinstance(text := _at(record, path), str)}
        targets = self.targets(record)
        for path, text in sorted(fields.items(), key=lambda field: -len(field[1])):
            cuts = [text[:end] for end in word_ends(text)]
            shorter = [_with(record, path, cut) for cut in cuts if cut != text]
            kept = [cut for cut in shorter if self.plain or self.targets(cut) == targets]
            for cut in reversed(kept):
                outcome = self.document(cut)
                if len(outcome.ids) <= self.seq_len:
                    return outcome._replace(truncated=True)
            record = kept[0] if kept else record
        return None

    def targets(self, record: Mapping[str, Any]) -> list[str]:
        return [
            "".join(span.text for span in run)
            for run in oracle.runs(oracle.render(self.segments, record))
            if run[0].role == TARGET
        ]


def word_ends(text: str) -> list[int]:
    """Where words end: before white space that follows something else, and after the last."""
    return [
        at + 1
        for at, char in enumerate(text)
        if char not in WHITE_SPACE and (at + 1 == len(text) or text[at + 1] in WHITE_SPACE)
    ]


def _at(record: Mapping[str, Any], path: str) -> Any:
    value: Any = record
    for key in path.split("."):
        value = value[key]
    return value


def _with(record: Mapping[str, Any], path: str, text: str) -> dict[str, Any]:
    head, _, rest = path.partition(".")
    return {**record, head: _with(record[head], rest, text) if rest else text}


def content(text: str) -> str:
    """What two records must share to be the same content."""
    lower = unicodedata.normalize("NFC", text).lower()
    return " ".join("".join(" " if c in WHITE_SPACE else c for c in lower).split(" ")).strip()


# --- what was packed ---


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


number = count()


@settings(properties, max_examples=150)
@given(corpora())
def test_a_dataset_holds_what_the_oracle_makes_of_its_corpus(
    tmp_path: Path, corpus: Corpus
) -> None:
    folder = tmp_path / f"corpus{next(number)}"
    out = folder.with_suffix(".out")
    tokenizer = write_corpus(folder, corpus)
    try:
        packer.pack(folder, out, tokenizer=tokenizer, threads=2, split_bytes=97)
    except InputError as error:
        if "none of its records" in str(error):
            [source] = [source for source in corpus.sources if source.name == error.source]
            expected = Expectations(corpus, source)
            reasons = {
                expected.outcome(record).reason
                for file in source.files
                for _, _, record in read(file)
            }
            assert reasons and reasons <= UNFIT
            return
        assert "no training document" in str(error)
        if corpus.validation == 0 and all(source.epochs >= 1 for source in corpus.sources):
            outcomes = [
                (content(outcome.text), file.name in corpus.held_out)
                for source in corpus.sources
                for file in source.files
                for _, _, record in read(file)
                if (outcome := Expectations(corpus, source).outcome(record)).reason is None
            ]
            held_out = {text for text, is_held_out in outcomes if is_held_out}
            assert held_out.issuperset(text for text, _ in outcomes)
        assert not out.exists()
        return
    with open_dataset(out) as dataset:
        check(corpus, dataset)
        check_rows(dataset, corpus.pack)
    assert packer.verify(out)["failures"] == []


# --- overflow ---


def one_source(
    tmp_path: Path, lines: Sequence[Mapping[str, Any]], seq_len: int, **source: Any
) -> PackedDataset:
    """A corpus of one source over JSON lines, packed."""
    folder = tmp_path / f"corpus{next(number)}"
    folder.mkdir()
    (folder / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    packer.write_config(folder, [{"name": "a", "files": ["a.jsonl"], **source}])
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text(tokenizer_json("bytes"), "utf-8")
    out = folder.with_suffix(".out")
    packer.pack(folder, out, tokenizer=tokenizer, seq_len=seq_len)
    return open_dataset(out)


LABEL = [{"prompt": "{{ a }} | {{ b }} <yor>:"}, {"target": " {{ c }}"}]


@settings(properties, max_examples=120)
@given(
    long_texts,
    long_texts,
    words,
    st.sampled_from(["bytes", "bytes-prefix", "metaspace-always", "llama"]),
)
def test_truncation_cuts_one_field_at_a_word_and_no_more_than_it_must(
    tmp_path_factory: pytest.TempPathFactory, a: str, b: str, c: str, name: str
) -> None:
    folder = tmp_path_factory.getbasetemp() / "truncation"
    folder.mkdir(exist_ok=True)
    (folder / "a.jsonl").write_text("{}\n")
    (folder / "tokenizer.json").write_text(tokenizer_json(name), "utf-8")
    packer.write_config(folder, [{"name": "a", "files": ["a.jsonl"], "segments": LABEL}])
    record = {"a": "Ọjọ́ " + a, "b": b, "c": c}
    pairs = [pair for segment in LABEL for pair in segment.items()]
    seen = packer.explain(folder, "a", record, tokenizer=folder / "tokenizer.json", seq_len=64)
    if not seen.truncated:
        return
    before = oracle.render(pairs, record)
    after = [oracle.Span(text, role, not literal) for text, role, literal in seen.spans]
    parts = "".join(span.text for span in after if span.role != oracle.TARGET).removesuffix(
        " <yor>:"
    )
    cut = None
    for field, other in (("a", "b"), ("b", "a")):
        for end in word_ends(record[field]):
            shorter = record | {field: record[field][:end]}
            if f"{shorter['a']} | {shorter['b']}" == parts:
                cut = (field, other, end)
    assert len(seen.ids) <= 64
    assert seen.runs[-1] == " " + c
    if cut is not None:
        field, other, end = cut
        assert (
            oracle.truncation_problem(
                before, oracle.render(pairs, record | {field: record[field][:end]})
            )
            is None
        )
        longer = min((more for more in word_ends(record[field]) if more > end), default=None)
        if longer is not None:
            eos = oracle.added_tokens(tokenizer_json(name))[EOS]
            spans = oracle.render(pairs, record | {field: record[field][:longer]})
            ids, _ = oracle.encode_document(tokenizer_json(name), spans, None, eos)
            assert len(ids) > 64, "one more word would fit"
    else:
        # Both are cut: the longer keeps one word, and could keep no more.
        field = max("a", "b", key=lambda name: len(record[name]))
        assert record[field][: word_ends(record[field])[0]] in parts


@pytest.mark.parametrize("spaces", [0, 100])
def test_white_space_at_the_end_of_a_field_is_cut_before_its_words(
    tmp_path: Path, spaces: int
) -> None:
    record = {"a": "o k" + " " * spaces, "b": "no", "c": "yes"}
    with one_source(tmp_path, [record], 64, segments=LABEL) as dataset:
        decoded = dataset.train[0]["input_ids"][: dataset.train[0]["seq_lengths"][0]]
        expected = oracle.document(
            tokenizer_json("bytes"),
            [pair for segment in LABEL for pair in segment.items()],
            record | {"a": "o k"},
            eos_id=dataset.eos_id,
        )
        assert decoded.tolist() == expected["ids"]


def test_a_target_that_does_not_fit_is_dropped_and_counted(tmp_path: Path) -> None:
    lines = [{"a": "x " * 50, "b": "y", "c": "z " * 100}, {"a": "x", "b": "y", "c": "z"}]
    with one_source(tmp_path, lines, 64, segments=LABEL) as dataset:
        [source] = dataset.manifest["sources"]
    assert source["drops"] == {"too long": 1} and source["kept"] == 1 and source["truncated"] == 0
    assert source["examples"][0]["line"] == 1


def test_overflow_error_stops_the_run_at_the_line(tmp_path: Path) -> None:
    lines = [{"a": "x", "b": "y", "c": "z"}, {"a": "x " * 100, "b": "y", "c": "z"}]
    with pytest.raises(InputError) as caught:
        one_source(tmp_path, lines, 64, segments=LABEL, overflow="error")
    assert (caught.value.file, caught.value.line, caught.value.source) == ("a.jsonl", 2, "a")
    assert caught.value.remedy
    assert not list(tmp_path.glob("*.out"))


@pytest.mark.parametrize("tokens", [63, 64, 65, 66, 127, 128, 190, 191, 1000])
def test_plain_text_is_split_into_balanced_windows_each_token_learnt_once(
    tmp_path: Path, tokens: int
) -> None:
    text = "".join(str(i * 7 % 10) + " " for i in range(tokens))[: tokens - 1]
    segments = [{"target": "{{ text }}"}]
    with one_source(tmp_path, [{"text": text}], 64, segments=segments) as dataset:
        whole = oracle.document(
            tokenizer_json("bytes"),
            [("target", "{{ text }}")],
            {"text": text},
            eos_id=dataset.eos_id,
        )["ids"]
        [found] = documents(dataset).values()
    windows = sorted(found, key=lambda document: document.window)
    assert [(len(document.ids)) for document in windows] == [
        end - start for start, end in oracle.windows(len(whole), 64)
    ]
    trained = [
        id
        for document in windows
        for id, bit in zip(document.ids, document.mask, strict=True)
        if bit
    ]
    assert trained == whole[1:], "every token but the first, once"
    closing = [document.ids[-1] == dataset.eos_id for document in windows]
    assert closing == [False] * (len(windows) - 1) + [True]


# --- epochs and copies ---


@pytest.mark.parametrize("epochs", [0.25, 1.75, 3.0, 255.0])
def test_epochs_are_met_on_average(tmp_path: Path, epochs: float) -> None:
    lines = [{"text": f"record {i}"} for i in range(40 if epochs > 100 else 400)]
    with one_source(
        tmp_path, lines, 64, segments=[{"target": "{{ text }}"}], epochs=epochs
    ) as dataset:
        copies = [len(found) for found in documents(dataset).values()]
        [source] = dataset.manifest["sources"]
    assert set(copies) <= {math.floor(epochs), math.ceil(epochs)}
    assert abs(sum(copies) - epochs * len(lines)) < 0.2 * len(lines)
    assert source["train"]["documents"] == sum(copies)


def test_epochs_at_and_above_their_limit(tmp_path: Path) -> None:
    """Regression: 256 copies were counted, and none made."""
    lines, segments = [{"text": "a"}], [{"target": "{{ text }}"}]
    with one_source(tmp_path, lines, 64, segments=segments, epochs=255.0) as dataset:
        [copies] = documents(dataset).values()
    assert len(copies) == 255
    with (
        pytest.raises(ConfigError, match="at most 255"),
        one_source(tmp_path, lines, 64, segments=segments, epochs=255.1),
    ):
        pass


def test_records_left_out_by_epochs_are_not_counted_as_truncated(tmp_path: Path) -> None:
    lines = [{"a": f"{i} " + "x " * 100, "b": "y", "c": "z"} for i in range(40)]
    with one_source(tmp_path, lines, 64, segments=LABEL, epochs=0.25) as dataset:
        [source] = dataset.manifest["sources"]
    assert 0 < source["kept"] < 30
    assert source["truncated"] == source["kept"]


# --- validation and duplicates ---


def test_a_held_out_file_is_held_out_by_every_source(tmp_path: Path) -> None:
    """And what is in it, word for word, is not trained on; a fraction of the rest is held out as
    well.
    """
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    (folder / "train.txt").write_text("".join(f"record {i}\n" for i in range(200)), "utf-8")
    (folder / "dev.txt").write_text("record  7\nRECORD 8\nheld out\n", "utf-8")
    sources = [
        {"name": "both", "files": ["train.txt"], "validation_files": ["dev.*"], "epochs": 2.0},
        {
            "name": "held",
            "files": [],
            "validation_files": ["dev.txt"],
            "segments": [{"target": "again {{ text }}"}],
        },
    ]
    packer.write_config(folder, sources, pack={"validation": 0.1, "seq_len": 64})
    packer.pack(folder, tmp_path / "out", tokenizer=folder / "tokenizer.json")
    with open_dataset(tmp_path / "out") as dataset:
        both, held = dataset.manifest["sources"]
        found = documents(dataset)
    in_file = [key for key in found if key[0] == 1 or key[1] >> SHARED_BITS]
    assert len(in_file) == 6 and all(found[key][0].side == "validation" for key in in_file)
    chosen = both["validation"]["documents"] - 3
    assert 10 <= chosen <= 30 and held["train"]["documents"] == 0
    assert 1 <= both["drops"]["in validation"] <= 2
    assert both["train"]["documents"] == 2 * (200 - chosen - both["drops"]["in validation"])
    assert packer.verify(tmp_path / "out")["failures"] == []


@pytest.mark.parametrize("name", ["dev.txt", "./x/../dev.txt", "link.txt"])
def test_a_file_on_both_sides_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "train.txt").write_text("a\n", "utf-8")
    (tmp_path / "dev.txt").write_text("b\n", "utf-8")
    (tmp_path / "link.txt").symlink_to("dev.txt")
    (tmp_path / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    holding = {"name": "holding", "files": ["train.txt"], "validation_files": ["dev.txt"]}
    training = {"name": "training", "files": [name]}
    for sources in ([holding, training], [training, holding]):
        packer.write_config(tmp_path, sources)
        with pytest.raises(ConfigError, match="source 'holding' holds out") as caught:
            packer.pack(tmp_path, tmp_path / "out", tokenizer=tmp_path / "tokenizer.json")
        assert caught.value.source == "training"
    packer.write_config(tmp_path, [{**holding, "files": ["train.txt", name]}])
    with pytest.raises(ConfigError, match="twice"):
        packer.pack(tmp_path, tmp_path / "out", tokenizer=tmp_path / "tokenizer.json")


def test_duplicates_are_dropped_across_sources_and_the_lowest_wins(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    (folder / "a.txt").write_text("one\ntwo\nOne\none\n", "utf-8")
    (folder / "b.txt").write_text("Two\nthree\none\nTHREE\n", "utf-8")
    sources = [
        {"name": "a", "files": ["a.txt"], "duplicates": "exact"},
        {"name": "b", "files": ["b.txt"]},
    ]
    packer.write_config(folder, sources, pack={"duplicates": "normalised", "seq_len": 64})
    packer.pack(
        folder, tmp_path / "out", tokenizer=folder / "tokenizer.json", threads=2, split_bytes=5
    )
    with open_dataset(tmp_path / "out") as dataset:
        a, b = dataset.manifest["sources"]
    assert (a["kept"], a["drops"]) == (3, {"duplicate": 1})
    assert (b["kept"], b["drops"]) == (1, {"duplicate": 3})
    assert [(example["line"], example["why"]) for example in b["examples"]] == [
        (1, "the record at byte 4 of a.txt says the same"),
        (3, "the record at byte 0 of a.txt says the same"),
        (4, "the record at byte 4 of b.txt says the same"),
    ]
    assert packer.verify(tmp_path / "out")["failures"] == []


def test_about_the_share_asked_for_is_held_out_and_no_task_sees_a_held_out_line(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "a.jsonl").write_text(
        "".join(json.dumps({"a": f"a {i}", "b": f"b {i}"}) + "\n" for i in range(500))
    )
    there = [{"prompt": "{{ a }}"}, {"target": " {{ b }}"}]
    back = [{"prompt": "{{ b }}"}, {"target": " {{ a }}"}]
    packer.write_config(
        folder,
        [
            {"name": "there", "files": ["a.jsonl"], "segments": there, "epochs": 3.0},
            {"name": "back", "files": ["a.jsonl"], "segments": back},
        ],
        pack={"validation": 0.2},
    )
    (folder / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    packer.pack(folder, tmp_path / "out", tokenizer=folder / "tokenizer.json", seq_len=64)
    with open_dataset(tmp_path / "out") as dataset:
        found = documents(dataset)
    held_out = [
        {
            record
            for (source, record), copies in found.items()
            if source == id and copies[0].side == "validation"
        }
        for id in (0, 1)
    ]
    assert held_out[0] == held_out[1] and 60 <= len(held_out[0]) <= 140
    assert len(found) == 1000


def test_what_is_reported_is_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Ọjọ́ Ajé\n", "utf-8")
    packer.write_config(tmp_path, [{"name": "a", "files": ["a.txt"]}])
    (tmp_path / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    manifest = packer.pack(tmp_path, tmp_path / "out", tokenizer=tmp_path / "tokenizer.json")
    assert manifest == json.loads((tmp_path / "out" / "manifest.json").read_text("utf-8"))


def test_rows_hold_prompt_data_as_such(tmp_path: Path) -> None:
    """The roles of a row tell template from data, so that any masking strategy can be made of them."""
    with one_source(tmp_path, [{"a": "x", "b": "y", "c": "z"}], 64, segments=LABEL) as dataset:
        row = dataset.train[0]
    assert DATA in row["roles"] and oracle.TEMPLATE in row["roles"]


# --- tokenizers that could go wrong ---


def unigram(
    pre_tokenizer: pre_tokenizers.PreTokenizer, normalizer: normalizers.Normalizer | None = None
) -> Tokenizer:
    """A Unigram tokenizer whose model holds its control tokens as pieces like any other."""
    pieces = [
        ("<unk>", 0.0),
        ("</s>", 0.0),
        ("\u2581", -2.0),
        ("\u2581the", -3.0),
        ("the", -4.0),
        ("cat", -4.0),
    ]
    letters = [(letter, -6.0) for letter in "abcdefghijklmnopqrstuvwxyz<>/:"]
    tokenizer = Tokenizer(models.Unigram([*pieces, *letters], unk_id=0))
    tokenizer.add_special_tokens(["</s>", "<unk>"])
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    return tokenizer


def pack_with(tmp_path: Path, tokenizer: Tokenizer, record: Mapping[str, str]) -> PackedDataset:
    folder = tmp_path / f"corpus{next(number)}"
    folder.mkdir()
    (folder / "a.jsonl").write_text(json.dumps(record) + "\n", "utf-8")
    segments = [{"prompt": "the: {{ a }}"}, {"target": " {{ b }}"}]
    packer.write_config(
        folder, [{"name": "a", "files": ["a.jsonl"], "overflow": "drop", "segments": segments}]
    )
    file = folder / "tokenizer.json"
    tokenizer.save(str(file))
    packer.pack(folder, folder.with_suffix(".out"), tokenizer=file, seq_len=65536)
    return open_dataset(folder.with_suffix(".out"))


@pytest.mark.parametrize(
    ("pre_tokenizer", "normalizer"),
    [
        (
            pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]),
            None,
        ),
        (pre_tokenizers.Metaspace(), normalizers.Strip()),
    ],
)
def test_a_tokenizer_whose_continuation_would_lose_spaces_is_refused(
    tmp_path: Path,
    pre_tokenizer: pre_tokenizers.PreTokenizer,
    normalizer: normalizers.Normalizer | None,
) -> None:
    with pytest.raises(TokenizerError, match="loses the space"):
        pack_with(tmp_path, unigram(pre_tokenizer, normalizer), {"a": "cat", "b": "the cat"})


def test_many_look_alikes_that_the_model_holds_as_pieces(tmp_path: Path) -> None:
    """Regression: each look-alike was a recursion and a pass over the rest."""
    record = {"a": "</s>" * 16_000, "b": "the <unk> cat"}
    with pack_with(tmp_path, unigram(pre_tokenizers.Metaspace()), record) as dataset:
        [row] = [dataset.train[at] for at in range(len(dataset.train))]
        ids = row["input_ids"][: row["seq_lengths"].sum()]
    assert len(ids) > 64_000
    assert list(ids).count(1) == 1, "the closing EOS alone"
    assert 0 not in ids


def test_a_source_that_reads_a_file_of_out_is_refused(tmp_path: Path) -> None:
    lines = [{"a": "x", "b": "y"}]
    with one_source(tmp_path, lines, 64, segments=[{"target": "{{ b }}"}]) as dataset:
        out = Path(dataset.path)
    folder = tmp_path / "outer"
    folder.mkdir()
    (folder / "a.jsonl").write_text('{"a": "x", "b": "y"}\n', "utf-8")
    shutil.copytree(out, folder / "out")
    config = [{"name": "a", "files": ["**/*.json*"], "segments": [{"target": "{{ a }}"}]}]
    packer.write_config(folder, config)
    before = sorted(path.name for path in (folder / "out").rglob("*"))
    with pytest.raises(OutputError, match="which a source reads"):
        sabiprep.pack(
            folder, folder / "out", PackOptions(tokenizer=out / "tokenizer.json", overwrite=True)
        )
    assert sorted(path.name for path in (folder / "out").rglob("*")) == before


def test_the_chat_template_beside_a_tokenizer_goes_along(corpus: Path, tmp_path: Path) -> None:
    """Into the manifest, and from there into checkpoints; a dataset without one has the bytes it
    would have had.
    """
    several = [{"name": "tool_use", "template": "a"}, {"name": "default", "template": "b"}]
    beside: list[tuple[dict[str, str], str | None]] = [
        ({}, None),
        ({"tokenizer_config.json": json.dumps({"eos_token": "</s>"})}, None),
        ({"tokenizer_config.json": json.dumps({"chat_template": "{{ x }}"})}, "{{ x }}"),
        ({"tokenizer_config.json": json.dumps({"chat_template": several})}, "b"),
        ({"chat_template.jinja": "{{ messages }}\n"}, "{{ messages }}\n"),
    ]
    manifests = []
    for number, (files, template) in enumerate(beside):
        for name, text in files.items():
            (corpus / name).write_text(text, "utf-8")
        sabiprep.pack(corpus, tmp_path / str(number), PackOptions(threads=1))
        manifest = json.loads((tmp_path / str(number) / "manifest.json").read_text("utf-8"))
        assert manifest["tokenizer"].pop("chat_template", None) == template
        manifests.append({key: value for key, value in manifest.items() if key != "sha256"})
    assert all(manifest == manifests[0] for manifest in manifests)
    assert (tmp_path / "0" / "manifest.json").read_bytes() == (
        tmp_path / "1" / "manifest.json"
    ).read_bytes()
