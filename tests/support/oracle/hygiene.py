"""Clean text, step by step, one character after another: slow and obvious."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

INVISIBLE = {0xFEFF, 0x200B, 0xAD, 0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F)}
INVISIBLE |= set(range(0x2066, 0x206A))
MARKS = {"dot": "\u0323", "line": "\u0329"}


def in_form(text: str, form: str) -> str:
    """A text in a Unicode form."""
    return text if form == "as-is" else unicodedata.normalize(form.upper(), text)


def with_marks(text: str, kind: str) -> str:
    """A text with one kind of mark below its letters."""
    other = MARKS["line" if kind == "dot" else "dot"]
    out = ""
    for char in text:
        parts = unicodedata.normalize("NFD", char)
        out += parts.replace(other, MARKS[kind]) if other in parts else char
    return out


def clean(text: str, options: Mapping[str, str]) -> tuple[str, set[str]]:
    """A text as a table `clean` makes it, and the keys whose steps changed it."""
    form = options.get("unicode", "nfc")
    changed = set()

    def step(key: str, new: str) -> None:
        nonlocal text
        if new != text:
            changed.add(key)
        text = new

    step("unicode", in_form(text, form))
    if options.get("invisible") == "remove":
        step("invisible", "".join(char for char in text if ord(char) not in INVISIBLE))
    if "apostrophes" in options:
        one = options["apostrophes"]
        step("apostrophes", "".join(one if char in "'\u2019\u02bc" else char for char in text))
    if "underdots" in options:
        step("underdots", with_marks(text, options["underdots"]))
    return in_form(text, form), changed
