"""The slow, obvious oracle of the boundary, mask, overflow and accounting contracts.

It is written from the contracts alone, with the Python `tokenizers` library, and shares nothing
with the Rust core: where the two disagree, one of them, or the contract, is wrong. Clear is what it
must be; fast it need not be.

`document` does everything for one record; the other functions are its steps.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import unicodedata
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


# --- segments: a record becomes spans, and spans become runs ---


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


# --- tokenizers: the forms of one file ---


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


# --- tokenize: runs become ids and roles ---


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


# --- masks and windows ---


def loss_mask(roles: Sequence[int], policy: str = "target_only") -> list[bool]:
    """Which tokens of a document are trained.

    Under "target_only": role 3 and the closing EOS (the control token at the end). Under "full":
    all. Never the first.
    """
    if policy == "full":
        return [i > 0 for i in range(len(roles))]
    if policy != "target_only":
        raise ValueError(f"no policy {policy!r}")
    last = len(roles) - 1
    return [
        i > 0 and (role == TARGET or (role == CONTROL and i == last))
        for i, role in enumerate(roles)
    ]


def windows(n: int, seq_len: int) -> list[tuple[int, int]]:
    """The windows [start, end) that ``overflow = "split"`` makes of a document of ``n`` tokens, BOS
    and EOS included.

    Window k starts with the last token of window k - 1, untrained there, so each window brings at
    most seq_len - 1 new tokens; all but the last two are full, and those two share what is left,
    the first having the odd token.
    """
    if n < 1 or seq_len < 2:
        raise ValueError(f"no windows of {seq_len} in {n} tokens")
    new, most = n - 1, seq_len - 1
    count = max(1, math.ceil(new / most))
    sizes = [most] * max(0, count - 2)
    left = new - sum(sizes)
    sizes += [left] if count == 1 else [math.ceil(left / 2), left // 2]
    starts = [sum(sizes[:k]) for k in range(count)]
    return [(start, start + size + 1) for start, size in zip(starts, sizes, strict=True)]


def document(
    tokenizer_json: str,
    segments: Iterable[tuple[str, str]],
    record: Mapping[str, Any],
    *,
    bos_id: int | None = None,
    eos_id: int | None = None,
    policy: str = "target_only",
) -> dict[str, Any]:
    """One record at every stage: ``spans``, ``ids``, ``roles`` and ``loss_mask``, before any
    overflow policy.
    """
    spans = render(segments, record)
    ids, roles = encode_document(tokenizer_json, spans, bos_id, eos_id)
    return {"spans": spans, "ids": ids, "roles": roles, "loss_mask": loss_mask(roles, policy)}


def truncation_problem(before: Sequence[Span], after: Sequence[Span]) -> str | None:
    """What is wrong with ``after`` as a truncation of ``before``, if anything: one prompt field cut
    at a word's end.
    """
    if [span[1:] for span in before] != [span[1:] for span in after]:
        return "a span was lost, added or changed its role"
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old.text != new.text]
    if len(changed) != 1:
        return f"{len(changed)} spans changed"
    [(old, new)] = changed
    if old.role != DATA:
        return "what was cut is not a data field of a prompt"
    if len(old.text) < max(len(span.text) for span in before if span.role == DATA):
        return "what was cut is not the longest data field"
    if not old.text.startswith(new.text):
        return "the field was not cut from its end"
    if new.text and not (old.text[len(new.text)].isspace() or new.text[-1].isspace()):
        return "the field was cut within a word"
    return None


# --- duplicates ---


class Copy(NamedTuple):
    """A record as far as duplicates go: its source's policy ("keep", "exact", "normalised"), its
    text, its content.
    """

    policy: str
    held_out: bool
    text: str
    content: str


def drops_by_content(records: Sequence[Copy]) -> list[str | None]:
    """Why each of the records, lowest first, is dropped for what another says; None for those that
    are not.

    Training records whose content a held-out one has are "in validation". Of the others, one is a
    "duplicate" if its source drops such and a lower record that is kept has its text, or its
    content.
    """
    reasons: list[str | None] = []
    for i, record in enumerate(records):
        kept = [other for other, reason in zip(records[:i], reasons, strict=True) if reason is None]
        if not record.held_out and any(
            other.held_out and other.content == record.content for other in records
        ):
            reasons.append("in validation")
        elif (record.policy == "exact" and any(other.text == record.text for other in kept)) or (
            record.policy == "normalised" and any(other.content == record.content for other in kept)
        ):
            reasons.append("duplicate")
        else:
            reasons.append(None)
    return reasons


# --- contamination ---


def word_runs(text: str, n: int) -> set[tuple[str, ...]]:
    """The runs of ``n`` words of a text, in NFC and lower case; a word is letters, marks and
    digits.
    """
    folded = unicodedata.normalize("NFC", text).lower()
    words = "".join(
        c if c.isalnum() or unicodedata.category(c)[0] == "M" else " " for c in folded
    ).split()
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


# --- mixing ---


class Mixed(NamedTuple):
    """A source of a mix: its group, what there is of it in the mix's unit, and its weight, if
    weights are given.
    """

    group: str
    size: int
    weight: float | None = None


def mix(
    sources: Sequence[Mixed], temperature: float, max_epochs: float = math.inf
) -> list[tuple[float, float]]:
    """The epochs of each source, as asked for and as made; every source has something.

    A group's share goes by the (1 / temperature)-th power of its size, or of its weights; as much
    is made as there is. What the limit takes from some goes to the others by their shares: one
    level for all, found by halving.
    """
    amounts = [source.size if source.weight is None else source.weight for source in sources]
    groups: dict[str, float] = {}
    for source, amount in zip(sources, amounts, strict=True):
        groups[source.group] = groups.get(source.group, 0.0) + amount
    power = {group: math.exp(math.log(amount) / temperature) for group, amount in groups.items()}
    shares = [
        power[source.group] / sum(power.values()) * amount / groups[source.group]
        for source, amount in zip(sources, amounts, strict=True)
    ]
    total = sum(source.size for source in sources)
    asked = [share * total / source.size for share, source in zip(shares, sources, strict=True)]
    low, high = 0.0, 1e9
    for _ in range(200):
        level = (low + high) / 2
        made = [min(level * epochs, max_epochs) for epochs in asked]
        enough = (
            sum(epochs * source.size for epochs, source in zip(made, sources, strict=True)) >= total
        )
        low, high = (low, level) if enough else (level, high)
    return list(zip(asked, made, strict=True))


# --- rows and accounts ---


def check_row(
    row: Mapping[str, Any],
    *,
    pad_id: int,
    eos_id: int,
    policies: Mapping[int, str] | None = None,
    cuts: bool = False,
) -> list[str]:
    """What breaks M1 to M6, or contradicts itself, in a row of the loader.

    ``policies`` names the policy of sources by id; the others' is "target_only". With ``cuts``, a
    document that is a piece of a longer one (a later window, or not closed) may have nothing to
    learn.
    """
    columns: dict[str, Any] = {
        name: value if isinstance(value, int) else value.tolist() for name, value in row.items()
    }
    ids, mask, roles = columns["input_ids"], columns["loss_mask"], columns["roles"]
    problems = []

    def expect(right: bool, problem: str) -> None:
        if not right:
            problems.append(problem)

    lengths = columns["seq_lengths"]
    used, seq_len = sum(lengths), len(ids)
    if not 0 < used <= seq_len or min(lengths) < 1:
        return [f"M6: documents of {lengths} tokens in a row of {seq_len}"]
    expect(not any(mask[used:]), "M2: padding is trained")
    expect(
        all(token == pad_id for token in ids[used:]), "M6: what is left of the row is not padding"
    )
    expect(not any(roles[used:]), "M6: padding has a role")
    start = 0
    positions: list[int] = []
    boundaries = [0]
    for i, length in enumerate(lengths):
        policy = (policies or {}).get(columns["source_ids"][i], "target_only")
        place, end = f"document {i}", start + length
        own_mask, own_roles = mask[start:end], roles[start:end]
        expect(not own_mask[0], f"M1: the first token of {place} is trained")
        is_cut = cuts and (columns["doc_parts"][i] & 0xFFFF > 0 or own_roles[-1] != CONTROL)
        expect(any(own_mask) or is_cut, f"M3: nothing of {place} is trained")
        if policy == "target_only":
            expect(
                not any(
                    bit
                    for bit, role in zip(own_mask, own_roles, strict=True)
                    if role in (TEMPLATE, DATA)
                ),
                f"M4: a token of the prompt of {place} is trained",
            )
        expect(
            all(
                bit for bit, role in zip(own_mask[1:], own_roles[1:], strict=True) if role == TARGET
            ),
            f"M5: a target token of {place} is not trained",
        )
        if own_roles[-1] == CONTROL and length > 1:
            expect(ids[end - 1] == eos_id, f"M5: the control token that closes {place} is not EOS")
            expect(own_mask[-1], f"M5: the EOS that closes {place} is not trained")
        expect(CONTROL not in own_roles[1:-1], f"a control token within {place}")
        expect(own_mask == loss_mask(own_roles, policy), f"the mask of {place} is not its policy's")
        positions += range(length)
        boundaries.append(end)
        start = end
    if used < seq_len:
        positions += range(seq_len - used)
        boundaries.append(seq_len)
    labels = [token if bit else -100 for token, bit in zip(ids, mask, strict=True)]
    expect(columns["labels"] == labels, "labels are not the ids that are trained")
    expect(columns["position_ids"] == positions, "positions do not restart with each segment")
    expect(columns["cu_seqlens"] == boundaries, "cu_seqlens are not the ends of the segments")
    expect(columns["n_targets"] == sum(mask), "n_targets is not the number of true bits")
    for name in ("source_ids", "record_ids", "doc_parts"):
        expect(len(columns[name]) == len(lengths), f"{name} does not have one value a document")
    return problems


def check_accounts(source: Mapping[str, Any]) -> list[str]:
    """What breaks M7 in a source's entry of the manifest: every record read is kept, or dropped for
    one reason.
    """
    dropped = sum(source["drops"].values())
    problems = []
    if source["records"] != source["kept"] + dropped:
        problems.append(
            f"M7: {source['records']} records, but {source['kept']} kept and {dropped} dropped"
        )
    if source["truncated"] > source["kept"]:
        problems.append("M7: more records truncated than kept")
    return problems
