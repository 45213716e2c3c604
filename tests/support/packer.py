"""The tests' one door to the core: corpora written in the test, packed, explained and verified.

It calls the binding, not the public face, since some of what is tested here (split sizes) is not
the user's to set.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sabiprep import PackOptions, _core

EOS = "</s>"


class Explained(NamedTuple):
    """A record as the core sees it; ``spans`` are (text, role, literal)."""

    spans: list[tuple[str, int, bool]]
    runs: list[str]
    ids: list[int]
    roles: list[int]
    loss_mask: list[bool]
    pieces: list[str]
    windows: list[int]
    truncated: bool
    dropped: str | None


def toml(value: Any) -> str:
    """A value in TOML, tables inline, everything but plain ASCII escaped."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return (
            '"'
            + "".join(
                c if " " <= c <= "~" and c not in '"\\' else f"\\U{ord(c):08x}" for c in value
            )
            + '"'
        )
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{name(key)} = {toml(value[key])}" for key in value) + " }"
    if isinstance(value, Sequence):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    return repr(value)


def name(key: str) -> str:
    """A key in TOML, in quotes where it must be."""
    return key if key.isascii() and key.isidentifier() else toml(key)


def write_config(
    folder: Path,
    sources: Sequence[Mapping[str, Any]],
    *,
    tokenizer: Mapping[str, Any] | None = None,
    pack: Mapping[str, Any] | None = None,
    tables: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Write ``corpus.toml``; ``EOS`` closes documents unless it names another token."""
    named = {"tokenizer": {"eos": EOS, **(tokenizer or {})}, "pack": pack or {}, **(tables or {})}
    all_tables = [(f"[{name}]", table) for name, table in named.items()]
    all_tables += [("[[source]]", source) for source in sources]
    lines = [
        line
        for head, table in all_tables
        for line in [head, *(f"{key} = {toml(table[key])}" for key in table)]
    ]
    (folder / "corpus.toml").write_text("\n".join(lines) + "\n", "utf-8")


def explain(
    corpus: Path, source: str, record: Mapping[str, Any], *, tokenizer: Path, seq_len: int
) -> Explained:
    """One record at every stage, by the core."""
    PackOptions(seq_len=seq_len, tokenizer=tokenizer, threads=1)
    [explained] = explain_all(corpus, source, record, tokenizer=tokenizer, seq_len=seq_len)
    return explained


def explain_all(
    corpus: Path, source: str, record: Mapping[str, Any], *, tokenizer: Path, seq_len: int
) -> list[Explained]:
    """Every document of one record at every stage, by the core; one if the record makes none."""
    options = PackOptions(seq_len=seq_len, tokenizer=tokenizer, threads=1)
    told, table = _core.explain(corpus, source, json.dumps(record), options)
    tokens = table.to_pylist()
    return [
        _explained(stages, [token for token in tokens if token["document"] == nth])
        for nth, stages in enumerate(json.loads(told))
    ]


def _explained(stages: dict[str, Any], tokens: list[dict[str, Any]]) -> Explained:
    """A document, of the core's JSON and its tokens."""
    return Explained(
        spans=[(span["text"], span["role"], span["literal"]) for span in stages["spans"]],
        runs=stages["runs"],
        ids=[token["id"] for token in tokens],
        roles=[token["role"] for token in tokens],
        loss_mask=[token["trained"] for token in tokens],
        pieces=[token["text"] for token in tokens],
        windows=[token["window"] for token in tokens],
        truncated=stages["truncated"],
        dropped=None if stages["dropped"] is None else stages["dropped"]["reason"],
    )


def pack(
    corpus: Path,
    out: Path,
    *,
    tokenizer: Path,
    seq_len: int | None = None,
    seed: int | None = None,
    threads: int = 1,
    split_bytes: int | None = None,
    spool_bytes: int = PackOptions.spool_bytes,
) -> dict[str, Any]:
    """The manifest of the dataset that the core makes of a corpus."""
    options = PackOptions(
        seq_len=seq_len,
        tokenizer=tokenizer,
        seed=seed,
        threads=threads,
        split_bytes=split_bytes,
        spool_bytes=spool_bytes,
    )
    report = _core.pack(corpus, out, options, None)
    manifest: dict[str, Any] = json.loads(report)["manifest"]
    return manifest


def verify(out: Path) -> dict[str, Any]:
    """What the core finds when it reads a dataset back."""
    found: dict[str, Any] = json.loads(_core.verify(out, progress=None))
    return found


def train_tokenizer(corpus: Path, file: Path, vocab_size: int) -> dict[str, Any]:
    """Train a tokenizer on a corpus, by the core."""
    trained: dict[str, Any] = json.loads(
        _core.train_tokenizer(corpus, file, vocab_size, overwrite=False, progress=None)
    )
    return trained


WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680"
WHITE_SPACE += "\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029"
WHITE_SPACE += "\u202f\u205f\u3000"
"""The characters of Unicode's White_Space, which are not quite those of `str.isspace`."""


def is_blank(text: str) -> bool:
    """Whether a text is empty but for white space."""
    return not text.strip(WHITE_SPACE)
