"""The oracle of text: records as spans and runs, tokenizers' forms, ids and roles."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from tokenizers import Tokenizer

CONTROL, TEMPLATE, DATA, TARGET = 0, 1, 2, 3
FIELD = re.compile(r"\{\{\s*([^\s{}]+)\s*\}\}")


class MissingField(Exception):
    """A template names a field that the record lacks, or that is null."""


class NoContinuation(Exception):
    """The tokenizer has no form that encodes text that goes on from other text."""


class Span(NamedTuple):
    """Rendered text of one role; ``data`` tells a field's value from the template's own text."""

    text: str
    role: int
    data: bool


class Form(NamedTuple):
    """How a run is encoded: ``first`` for a piece at its very start, ``later`` for those after a
    control token.
    """

    first: Tokenizer
    later: Tokenizer


def render(segments: Iterable[tuple[str, str]], record: Mapping[str, Any]) -> list[Span]:
    """The spans of a record under ("prompt" | "target", template) segments that only substitute
    fields.

    Raises:
        MissingField: If a field is missing or null.
    """
    spans = []
    for kind, template in segments:
        for i, part in enumerate(FIELD.split(as_jinja_reads(template))):
            text = _field(record, part) if i % 2 else part
            role = TARGET if kind == "target" else DATA if i % 2 else TEMPLATE
            if text or i % 2:
                spans.append(Span(text, role, bool(i % 2)))
    return spans


def as_jinja_reads(template: str) -> str:
    """A template with every line end a newline, and without one at its end, as Jinja2 reads it."""
    return re.sub("\r\n|\r", "\n", template).removesuffix("\n")


def _field(record: Mapping[str, Any], path: str) -> str:
    value: Any = record
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    if value is None:
        raise MissingField(path)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise TypeError(f"the oracle renders text and whole numbers, not {value!r}")
    return str(value)


def runs(spans: Iterable[Span]) -> list[list[Span]]:
    """The spans grouped into runs: prompt text (roles 1 and 2) with prompt text, target with
    target.

    A run without text is no run, so a prompt that renders to nothing leaves the target to be the
    first run. Empty fields stay in the run they fall in, for what they keep apart.
    """
    grouped: list[list[Span]] = []
    for span in spans:
        if grouped and (not span.text or (span.role == TARGET) == (grouped[-1][0].role == TARGET)):
            grouped[-1].append(span)
        elif span.text:
            grouped.append([span])
    return grouped


def first_form(tokenizer_json: str) -> str:
    """The tokenizer as it is, but for what it does around a whole text: post-processing,
    truncation, padding.
    """
    tokenizer = json.loads(tokenizer_json)
    return json.dumps({**tokenizer, "post_processor": None, "truncation": None, "padding": None})


def continuation_json(tokenizer_json: str) -> str:
    """The form of a tokenizer that puts nothing before a text: for text that goes on from other
    text.

    Raises:
        NoContinuation: If the model itself marks the starts of words (WordPiece).
    """
    tokenizer = json.loads(first_form(tokenizer_json))
    if tokenizer["model"]["type"] == "WordPiece":
        raise NoContinuation("WordPiece")
    tokenizer["normalizer"] = _without_prefix(tokenizer["normalizer"])
    tokenizer["pre_tokenizer"] = _without_prefix(tokenizer["pre_tokenizer"])
    return json.dumps(tokenizer)


def _without_prefix(part: Any) -> Any:
    """A normalizer or pre-tokenizer that puts no space, mark or text before what it is given."""
    if part is None or part["type"] == "Prepend":
        return None
    part = dict(part)
    for children in ("normalizers", "pretokenizers"):
        if children in part:
            part[children] = [
                kept for child in part[children] if (kept := _without_prefix(child)) is not None
            ]
    if "add_prefix_space" in part:
        part["add_prefix_space"] = False
    if "prepend_scheme" in part:
        part["prepend_scheme"] = "never"
    return part


def _away_from_the_start(part: Any) -> Any:
    """A pre-tokenizer for a piece that is not the start of its text: Metaspace's "first" is over by
    then.
    """
    if part is None:
        return None
    part = dict(part)
    if "pretokenizers" in part:
        part["pretokenizers"] = [_away_from_the_start(child) for child in part["pretokenizers"]]
    if part.get("prepend_scheme") == "first":
        part["prepend_scheme"] = "never"
    return part


@lru_cache(maxsize=64)
def _form(form_json: str) -> Form:
    """The two tokenizers of a form, neither of which knows an added token."""
    tokenizer = {**json.loads(form_json), "added_tokens": []}
    later = {**tokenizer, "pre_tokenizer": _away_from_the_start(tokenizer["pre_tokenizer"])}
    return Form(Tokenizer.from_str(json.dumps(tokenizer)), Tokenizer.from_str(json.dumps(later)))


@lru_cache(maxsize=64)
def _forms(tokenizer_json: str) -> tuple[str, str | None]:
    try:
        return first_form(tokenizer_json), continuation_json(tokenizer_json)
    except NoContinuation:
        return first_form(tokenizer_json), None


@lru_cache(maxsize=64)
def added_tokens(tokenizer_json: str) -> dict[str, int]:
    """Every added token, special or not: all of them are control. Only the plain kind is understood
    here.
    """
    tokens = json.loads(tokenizer_json)["added_tokens"]
    for token in tokens:
        if token["normalized"] or token["lstrip"] or token["rstrip"] or token["single_word"]:
            raise ValueError(f"the oracle knows no added token like {token}")
    tokenizer = Tokenizer.from_str(tokenizer_json)
    ids = {token["content"]: tokenizer.token_to_id(token["content"]) for token in tokens}
    return {content: id for content, id in ids.items() if id is not None}


@lru_cache(maxsize=64)
def _ids_never_made_of_text(tokenizer_json: str) -> frozenset[int]:
    """The control ids, but for the model's own answer to what it does not know."""
    unknown = json.loads(tokenizer_json)["model"].get("unk_token")
    return frozenset(
        id for content, id in added_tokens(tokenizer_json).items() if content != unknown
    )


def matches(text: str, tokens: Iterable[str]) -> list[tuple[int, int]]:
    """The leftmost-longest occurrences of ``tokens`` in ``text``, as [start, end)."""
    found, at = [], 0
    while at < len(text):
        longest = max((len(token) for token in tokens if text.startswith(token, at)), default=0)
        if longest:
            found.append((at, at + longest))
        at += max(longest, 1)
    return found


def template_matches(run: Sequence[Span], tokens: Iterable[str]) -> list[tuple[int, int]]:
    """The control tokens of a run: those its template text has, each literal stretch looked at by
    itself.

    A field between two stretches keeps them apart even when it is empty: what it completes is not
    the template's.
    """
    found, at = [], 0
    for data, stretch in itertools.groupby(run, lambda span: span.data):
        text = "".join(span.text for span in stretch)
        if not data:
            found += [(at + start, at + end) for start, end in matches(text, tokens)]
        at += len(text)
    return found


def encode_run(
    tokenizer_json: str, run: Sequence[Span], *, continues: bool
) -> tuple[list[int], list[int]]:
    """The ids and roles of one run. A token has the role of its first character; a control token
    that of its span.
    """
    first, continuation = _forms(tokenizer_json)
    if continues and continuation is None:
        raise NoContinuation(json.loads(tokenizer_json)["model"]["type"])
    form = _form(continuation if continues and continuation else first)
    tokens = added_tokens(tokenizer_json)
    text = "".join(span.text for span in run)
    role_of_char = [span.role for span in run for _ in span.text]

    ids: list[int] = []
    roles: list[int] = []
    at = 0
    for start, end in [*template_matches(run, tokens), (len(text), len(text))]:
        if at < start:
            encoding = (form.later if at else form.first).encode(
                text[at:start], add_special_tokens=False
            )
            if made := _ids_never_made_of_text(tokenizer_json).intersection(encoding.ids):
                raise AssertionError(
                    f"the model itself makes the control tokens {made} of {text[at:start]!r}"
                )
            ids += encoding.ids
            roles += [role_of_char[min(at + offset, start - 1)] for offset, _ in encoding.offsets]
        if start < end:
            ids.append(tokens[text[start:end]])
            roles.append(role_of_char[start])
        at = end
    return ids, roles


def encode_document(
    tokenizer_json: str, spans: Iterable[Span], bos_id: int | None, eos_id: int | None
) -> tuple[list[int], list[int]]:
    """The ids and roles of a document: its first run as the tokenizer does it, later ones by the
    continuation form.

    A BOS that the template begins with, and an EOS that it ends with, are the ones that the
    configuration puts there.
    """
    ids: list[int] = []
    roles: list[int] = []
    for i, run in enumerate(runs(spans)):
        run_ids, run_roles = encode_run(tokenizer_json, run, continues=i > 0)
        ids += run_ids
        roles += run_roles
    start = next((i for i, token in enumerate(ids) if token != bos_id), len(ids))
    end = next((i for i in range(len(ids), start, -1) if ids[i - 1] != eos_id), start)
    opening = [] if bos_id is None else [bos_id]
    closing = [] if eos_id is None else [eos_id]
    control = [CONTROL]
    return (
        opening + ids[start:end] + closing,
        control * len(opening) + roles[start:end] + control * len(closing),
    )


def normalised_text(tokenizer_json: str, spans: Iterable[Span]) -> str:
    """What a lossless tokenizer's ids decode to: the runs as its normalizer leaves them, laid end
    to end.

    Normalizers see the text between control tokens, never across one, nor across a run: that is how
    `tokenizers` works.
    """
    text = ""
    tokens = added_tokens(tokenizer_json)
    for i, run in enumerate(runs(spans)):
        first, continuation = _forms(tokenizer_json)
        normalizer = _form(continuation if i and continuation else first).first.normalizer
        run_text, at = "".join(span.text for span in run), 0
        for start, end in [*template_matches(run, tokens), (len(run_text), len(run_text))]:
            piece = run_text[at:start]
            text += normalizer.normalize_str(piece) if normalizer and piece else piece
            text += run_text[start:end]
            at = end
    return text
