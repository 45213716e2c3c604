"""The oracle of tasks made from plain text: a slow second implementation, for texts of letters with
their marks. Sentences are told by the tests themselves.
"""

from __future__ import annotations

import re
import struct
import unicodedata
from collections.abc import Mapping, Sequence

from support.oracle.hashing import choice, xxh3_64

UNDERDOTS = "\u0323\u0329"
SELECTORS = re.compile("[\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")
ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
CHARS = {"char_drop": 0.01, "char_swap": 0.01, "char_repeat": 0.01, "char_replace": 0.02}
WORDS = {
    "word_drop": 0.01,
    "word_swap": 0.01,
    "word_join": 0.02,
    "space_split": 0.01,
    "space_double": 0.01,
}


class Draws:
    """The random numbers of a record: number n is the xxh3-64 of (key, n)."""

    def __init__(self, name: str, record: int = 0, seed: int = 0) -> None:
        self.key = choice(seed, "augment", name, record)
        self.next = 0

    def draw(self) -> int:
        number = xxh3_64(struct.pack("<QQ", self.key, self.next))
        self.next += 1
        return number

    def below(self, count: int) -> int:
        return self.draw() * count >> 64

    def fraction(self) -> float:
        return (self.draw() >> 11) * 2.0**-53

    def among(self, shares: Sequence[float]) -> int | None:
        """Which of some things with these shares; None for the rest."""
        number, total = self.fraction(), 0.0
        for index, share in enumerate(shares):
            total += share
            if number < total:
                return index
        return None

    def subset(self, count: int, wanted: int) -> list[bool]:
        chosen: list[bool] = []
        for index in range(count):
            chosen.append(self.below(count - index) < wanted - sum(chosen))
        return chosen

    def shuffled(self, count: int) -> list[int]:
        order = list(range(count))
        for last in range(count - 1, 0, -1):
            other = self.below(last + 1)
            order[last], order[other] = order[other], order[last]
        return order


def stripped(text: str, underdots: str = "strip") -> str | None:
    """A text without its marks, by whole normal forms; None if it has none."""
    apart = unicodedata.normalize("NFD", text)
    kept = "".join(
        char
        for char in apart
        if unicodedata.category(char) != "Mn"
        or SELECTORS.match(char)
        or (underdots == "keep" and char in UNDERDOTS)
    )
    if kept == apart:
        return None
    is_apart = text == apart and text != unicodedata.normalize("NFC", text)
    return kept if is_apart else unicodedata.normalize("NFC", kept)


def spans(text: str) -> list[tuple[int, int]]:
    """The words of a text, from and to which character."""
    return [word.span() for word in re.finditer("[^\\s\u1361]+", text)]


def continued(
    text: str, draws: Draws, min_share: float = 0.2, max_share: float = 0.8
) -> tuple[str, str] | None:
    """The start of a text and the rest of it; None for one word."""
    words = spans(text)
    if len(words) < 2:
        return None
    share = min_share + (max_share - min_share) * draws.fraction()
    given = min(max(int(share * len(words)), 1), len(words) - 1)
    return text[: words[given - 1][1]], text[words[given][0] :]


def blanked(
    text: str, draws: Draws, blank: str, rate: float = 0.15, span: float = 3.0, first: int = 0
) -> tuple[str, str] | None:
    """A text with blanks, and what fills them; None for one word."""
    words = spans(text)
    count = len(words)
    if count < 2:
        return None
    left = min(max(int(rate * count + 0.5), 1), count - 1)
    kept = count - left
    number = min(max(int(left / span + 0.5), 1), left, kept + 1)
    ends = [*draws.subset(left - 1, number - 1), True]
    places = draws.subset(kept + 1, number)
    lengths = [1]
    for is_end in ends:
        if is_end:
            lengths.append(1)
        else:
            lengths[-1] += 1
    at, out, fills, end = 0, "", [], 0
    for is_before in places:
        if is_before:
            length = lengths[len(fills)]
            start, stop = words[at][0], words[at + length - 1][1]
            shown = blank.replace("{n}", str(first + len(fills)))
            out += text[end:start] + shown
            fills.append(f"{shown} {text[start:stop]}")
            end, at = stop, at + length
        at += 1
    return out + text[end:], " ".join(fills)


def order(count: int, draws: Draws) -> list[int]:
    """Which sentence each place shows, in another order than that of the text."""
    for _ in range(32):
        shown = draws.shuffled(count)
        if shown != sorted(shown):
            return shown
    return list(reversed(range(count)))


def shuffled(sentences: Sequence[str], draws: Draws) -> tuple[str, str]:
    """Numbered sentences in another order, and their numbers in the order of the text."""
    shown = order(len(sentences), draws)
    text = " ".join(f"[{place + 1}] {sentences[at]}" for place, at in enumerate(shown))
    return text, " ".join(str(shown.index(at) + 1) for at in range(len(sentences)))


def clusters(text: str) -> list[str]:
    """The characters of a text with their marks."""
    out: list[str] = []
    for char in text:
        if out and unicodedata.category(char) in ("Mn", "Me", "Mc"):
            out[-1] += char
        else:
            out.append(char)
    return out


def is_letter(cluster: str) -> bool:
    return unicodedata.category(cluster[0]).startswith("L")


def noisy(text: str, draws: Draws, rates: Mapping[str, float] | None = None) -> str:
    """A text of Latin letters with noise."""
    chars = [{**CHARS, **(rates or {})}[key] for key in CHARS]
    kinds = [{**WORDS, **(rates or {})}[key] for key in WORDS]
    words = spans(text)
    bounds = [*(start for start, _ in words[1:]), len(text)]
    out, at = "", 0

    def word(start: int, end: int) -> str:
        return _noisy_word(text, text[start:end], chars, draws)

    while at < len(words):
        start, end = words[at]
        gap = text[end : bounds[at]]
        is_last = at + 1 == len(words)
        is_gap = not is_last and "\n" not in gap
        kind = draws.among(kinds)
        at += 1
        if kind == 0 and not (is_last and not out.strip()):
            continue
        if kind == 1 and is_gap:
            second = words[at]
            first_out = word(*second)
            out += first_out + gap + word(start, end) + text[second[1] : bounds[at]]
            at += 1
        elif kind == 2 and is_gap:
            out += word(start, end)
        elif kind == 3 and len(parts := clusters(text[start:end])) > 1:
            middle = start + len("".join(parts[: 1 + draws.below(len(parts) - 1)]))
            out += word(start, middle) + " " + word(middle, end) + gap
        else:
            out += word(start, end) + gap + (" " if kind == 4 and is_gap else "")
    return out.rstrip()


def _noisy_word(text: str, word: str, shares: Sequence[float], draws: Draws) -> str:
    parts, out, at = clusters(word), "", 0
    while at < len(parts):
        part, at = parts[at], at + 1
        kind = draws.among(shares) if is_letter(part) else None
        if kind == 0 and (at < len(parts) or out):
            continue
        if kind == 1 and at < len(parts) and is_letter(parts[at]):
            out += parts[at] + part
            at += 1
        elif kind == 2:
            out += part + part
        elif kind == 3:
            out += _other(text, part, draws) or part
        else:
            out += part
    return out


def _other(text: str, part: str, draws: Draws) -> str | None:
    """Another letter for the place of one; None if none is found."""
    if draws.draw() % 2 == 0 and (near := _near(part[0])):
        return near[draws.below(len(near))]
    starts = [at for at, char in enumerate(text) for _ in char.encode()]
    for _ in range(8):
        place = starts[draws.below(len(starts))]
        other = clusters(text[place:])[0]
        alike = other[0].isupper() == part[0].isupper() and other[0].islower() == part[0].islower()
        if is_letter(other) and other != part and alike:
            return other
    return None


def _near(letter: str) -> list[str]:
    """The neighbours of a letter of ASCII on the keyboard, row by row."""
    lower = letter.lower() if letter.isascii() else ""
    for row, keys in enumerate(ROWS):
        if lower and lower in keys:
            at, near = keys.index(lower), []
            for other in range(max(row - 1, 0), min(row + 2, len(ROWS))):
                first = at if other < row else max(at - 1, 0)
                last = at if other > row else at + 1
                near += [key for key in ROWS[other][first : last + 1] if key != lower]
            return [key.upper() for key in near] if letter.isupper() else near
    return []
