"""The explanation of one record: every stage from its text to its tokens."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Self

from sabiprep.roles import Role


@dataclass(frozen=True, slots=True)
class Span:
    """A span of the rendered record.

    Attributes:
        role: The role of the span.
        literal: Whether the template spells the text; otherwise it comes from the record.
        text: The text.
    """

    role: Role
    literal: bool
    text: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """The drop of a record: the reason that counts it, and the exact fault."""

    reason: str
    why: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """One record at every stage; ``str()`` shows them all.

    Attributes:
        source: The source of the record.
        record: The record, as the text of a JSON object.
        spans: The segments as rendered: template text and data apart.
        runs: The texts that are encoded, each by itself, so that no token covers text of a prompt
            and a target.
        tokens: An Arrow record batch, window after window: id uint32, text string (the text that
            the token adds; a token that ends inside a character adds nothing), role uint8, trained
            bool, window uint32.
        truncated: Whether data was shortened to fit a row; spans and runs then show the shortened
            record.
        cleaned: The changes that cleaning made, by the keys of ``clean``: the first changed word
            of each, with the code points before and after.
        weight: The weight of its documents in the loss; None where the source has no weights.
        dropped: The reason why there is no document, if there is none; the other attributes then
            show the stages before the drop.
        part: The part of the record that the document is made of, in words; empty for all of it.
        left_out: The documents of the record that were left out, of its source.
        others: The further documents of the record, those of other document tables too.
    """

    source: str
    record: str
    spans: tuple[Span, ...]
    runs: tuple[str, ...]
    tokens: Any = field(compare=False)
    truncated: bool
    dropped: Refusal | None
    cleaned: Mapping[str, str] = field(default_factory=dict)
    weight: float | None = None
    part: str = ""
    left_out: tuple[Refusal, ...] = ()
    others: tuple[Explanation, ...] = ()

    @classmethod
    def from_json(cls, documents: Sequence[Mapping[str, Any]], *, record: str, tokens: Any) -> Self:
        """Returns the explanation made of the core's JSON and tokens.

        Args:
            documents: The stages of each document; at least one.
            record: The record, as the text of a JSON object.
            tokens: An Arrow record batch of the tokens of all documents; its column ``document``
                is an index into them.
        """
        # Without NumPy, whose import would take a third of the start of every command.
        owners = tokens.column("document").to_pylist()
        bounds = [bisect_left(owners, number) for number in range(len(documents) + 1)]
        tokens = tokens.drop_columns(["document"])
        first, *others = (
            cls._of_document(stages, record, tokens.slice(start, end - start))
            for stages, (start, end) in zip(documents, pairwise(bounds), strict=True)
        )
        return replace(first, others=tuple(others))

    @classmethod
    def _of_document(cls, stages: Mapping[str, Any], record: str, tokens: Any) -> Self:
        """Returns the explanation of one document."""
        return cls(
            source=stages["source"],
            record=record,
            spans=tuple(
                Span(Role(span["role"]), span["literal"], span["text"]) for span in stages["spans"]
            ),
            runs=tuple(stages["runs"]),
            tokens=tokens,
            truncated=stages["truncated"],
            cleaned=dict(stages["cleaned"]),
            weight=stages["weight"],
            dropped=None if stages["dropped"] is None else Refusal(**stages["dropped"]),
            part=stages["part"],
            left_out=tuple(Refusal(**refusal) for refusal in stages["left_out"]),
        )

    def __str__(self) -> str:
        """Returns every stage, one after another."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        # Only now: the loader needs no terminal.
        from sabiprep.terminal import visible

        sources = [explanation.source for explanation in (self, *self.others)]
        shown = dict.fromkeys(f"'{visible(source)}'" for source in sources)
        yield f"record of source {', '.join(shown)}"
        yield f"  {visible(self.record)}"
        for nth, explanation in enumerate((self, *self.others)):
            if self.others:
                part = f", {visible(explanation.part)}" if explanation.part else ""
                source = visible(explanation.source)
                yield ""
                yield f"document {nth + 1} of {len(sources)}, of source '{source}'{part}"
            yield from explanation._stages()

    def _stages(self) -> Iterator[str]:
        """Yields the stages of the document, without its record."""
        from sabiprep.terminal import visible

        for key, change in self.cleaned.items():
            yield f"cleaned: {key}: {visible(change)}"
        if self.spans:
            yield "segments: the role of each piece, and where its text comes from"
        for span in self.spans:
            origin = "from the template" if span.literal else "from the record"
            part = "target" if span.role is Role.TARGET else "prompt"
            yield f"  {part}  {origin:<17}  '{visible(span.text)}'"
        if self.runs:
            yield "runs: each is encoded by itself"
        for run in self.runs:
            yield f"  '{visible(run)}'"
        if self.weight is not None:
            yield f"weight in the loss: {self.weight:g}"
        if self.truncated:
            yield "shortened: its data was cut to fit a row"
        for refusal in self.left_out:
            yield f"left out of the record: {refusal.reason}: {visible(refusal.why)}"
        if self.dropped is not None:
            yield f"dropped: {self.dropped.reason}: {visible(self.dropped.why)}"
            return
        tokens = self.tokens.to_pylist()
        trained = sum(token["trained"] for token in tokens)
        yield f"tokens: {len(tokens)}, of which {trained} are trained (+)"
        windows = tokens[-1]["window"] if tokens else 0
        for at, token in enumerate(tokens):
            if windows and (at == 0 or token["window"] != tokens[at - 1]["window"]):
                yield f"  window {token['window']} of 0 to {windows}"
            role = Role(token["role"]).name.lower()
            mark = "+" if token["trained"] else " "
            yield f"  {at:>5}  {token['id']:>7}  {role:<8} {mark}  '{visible(token['text'])}'"
