"""The oracle of a corpus: masks, windows, truncation, duplicates, contamination, mixing."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from support.oracle.text import (
    CONTROL,
    DATA,
    TARGET,
    TEMPLATE,
    Span,
    encode_document,
    render,
)


def loss_mask(roles: Sequence[int], policy: str = "target_only") -> list[bool]:
    """Which tokens of a document are trained.

    Under "target_only": role 3 and the closing EOS (the control token at the end). Under "full":
    all. Under "template_masked": all but role 1. Under "last_turn": the last run of role 3 and the
    closing EOS. Never the first.
    """
    last = len(roles) - 1
    if policy == "full":
        trained = {*range(len(roles))}
    elif policy == "template_masked":
        trained = {i for i, role in enumerate(roles) if role != TEMPLATE}
    elif policy == "target_only":
        trained = {i for i, role in enumerate(roles) if role == TARGET}
    elif policy == "last_turn":
        trained, i = set(), last
        while i >= 0 and roles[i] != TARGET:
            i -= 1
        while i >= 0 and roles[i] == TARGET:
            trained.add(i)
            i -= 1
    else:
        raise ValueError(f"no policy {policy!r}")
    if roles[last] == CONTROL:
        trained.add(last)
    return [i > 0 and i in trained for i in range(len(roles))]


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


def word_runs(text: str, n: int) -> set[tuple[str, ...]]:
    """The runs of ``n`` words of a text, in NFC and lower case; a word is letters, marks and
    digits.
    """
    folded = unicodedata.normalize("NFC", text).lower()
    words = "".join(
        c if c.isalnum() or unicodedata.category(c)[0] == "M" else " " for c in folded
    ).split()
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


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
