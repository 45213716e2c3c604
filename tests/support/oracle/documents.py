"""The oracle of several documents a record, and of tagged text: slow, from the contracts alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jinja2

NOT_CHOSEN = "not chosen"
UNPARSED = "unparsed tags"


class Text(NamedTuple):
    """A document before it is tokenized: the text that is given, and the text that is trained."""

    prompt: str
    target: str


def documents_of(table: Mapping[str, Any], record: Mapping[str, Any]) -> list[Text] | str:
    """The documents that a table makes of a record; or the reason why it makes none.

    Knows ``when``, ``each`` and ``segments`` of one prompt and one target, whose fields are all
    there. Templates are rendered by Jinja2 itself.
    """
    scopes: list[dict[str, Any]] = [dict(record)]
    if "each" in table:
        scopes = [{**record, "item": item} for item in record[table["each"]]]
    made: list[Text] = []
    reasons: list[str] = [] if scopes else [NOT_CHOSEN]
    for scope in scopes:
        text = _document(table, scope)
        if isinstance(text, Text):
            made.append(text)
        else:
            reasons.append(text)
    faults = [reason for reason in reasons if reason != NOT_CHOSEN]
    return made or (faults or reasons)[0]


def _document(table: Mapping[str, Any], scope: Mapping[str, Any]) -> Text | str:
    if "when" in table and not _holds(table["when"], scope):
        return NOT_CHOSEN
    prompt, target = (
        jinja2.Template(template, trim_blocks=True, lstrip_blocks=True).render(**scope)
        for segment in table["segments"]
        for template in segment.values()
    )
    return Text(prompt, target) if target.strip() else "empty target"


def _holds(when: str, scope: Mapping[str, Any]) -> bool:
    """Whether Jinja2 finds the expression in two braces to be true."""
    expression = when.strip()[2:-2]
    return bool(jinja2.Environment().compile_expression(expression)(**scope))


def parse_tagged(text: str, opens: Sequence[str], actions: Sequence[str]) -> Text | str:
    """The prompt and the target of a tagged text; or the reason why it has none.

    Goes through the text letter by letter; at each letter the longest tag counts.
    """
    found: list[tuple[int, int]] = []
    at = 0
    while at < len(text):
        here = [tag for tag in (*opens, *actions) if text.startswith(tag, at)]
        tag = max(here, key=len, default="")
        if tag:
            found.append((at, at + len(tag)))
        at += max(1, len(tag))
    kinds = ["open" if text[start:end] in opens else "action" for start, end in found]
    if kinds != ["open", "action"] or text[: found[0][0]].strip():
        return UNPARSED
    boundary = found[1][1]
    target = text[boundary:]
    return Text(text[:boundary], target) if target.strip() else "empty target"
