"""What packing must give of each record of a corpus, by the oracle."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from support import oracle
from support.any_corpus import Corpus, Source
from support.oracle import TARGET
from support.packer import WHITE_SPACE, is_blank
from support.strategies import BOS, EOS, tokenizer_json

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
    words = "".join(" " if c in WHITE_SPACE else c for c in lower).split(" ")
    return " ".join(word for word in words if word)
