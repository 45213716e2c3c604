"""Any corpus of a few sources: hypothesis strategies, and how one is written."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from support import packer
from support.slow_reader import MALFORMED, File
from support.strategies import BOS, TEXTS, records, texts, tokenizer_json

properties = settings(
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SHARED_BITS = 40


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
        draw(st.sampled_from(["target_only", "full", "template_masked", "last_turn"])),
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
