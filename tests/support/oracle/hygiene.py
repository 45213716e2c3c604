"""Clean text, step by step, one character after another: slow and obvious."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

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


WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008"
WHITE_SPACE += "\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
SCRIPTS = {"Latn": "LATIN", "Ethi": "ETHIOPIC", "Arab": "ARABIC", "Cyrl": "CYRILLIC"}
TOP = {2: 0.20, 3: 0.18, 4: 0.16}
REPEATED = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
ENDS = tuple(".!?…\"'”’»።፧፨؟۔।。！？")
STOP_WORDS = ["the", "be", "to", "of", "and", "that", "have", "with"]


def words_of(text: str) -> list[str]:
    """The words of a text."""
    words, word = [], ""
    for char in text + " ":
        if char in WHITE_SPACE or char == "\u1361":
            words += [word] if word else []
            word = ""
        else:
            word += char
    return words


def parts_of(text: str, between: str) -> list[str]:
    """The parts of a text without white space around them, blank ones aside."""
    return [part.strip(WHITE_SPACE) for part in text.split(between) if part.strip(WHITE_SPACE)]


def share(part: int, whole: int) -> float:
    """A part of a whole; 0 if the whole is nothing."""
    return part / whole if whole else 0.0


def kind(char: str) -> str:
    """The first letter of the category of a character."""
    return unicodedata.category(char)[0]


def repeats(texts: list[str]) -> list[str]:
    """The texts that are not the first of their kind."""
    return [text for index, text in enumerate(texts) if text in texts[:index]]


def repeated_chars(words: list[str], n: int) -> int:
    """The characters of n-grams that repeat an earlier one, each word counted once."""
    seen: list[list[str]] = []
    index = chars = 0
    while index + n <= len(words):
        gram = words[index : index + n]
        if gram in seen:
            chars += len("".join(gram))
            index += n
        else:
            seen.append(gram)
            index += 1
    return chars


def top_chars(words: list[str], n: int) -> int:
    """The characters of the most frequent n-gram, all its places together."""
    grams = [" ".join(words[index : index + n]) for index in range(len(words) - n + 1)]
    counted = [(grams.count(gram), len(gram)) for gram in set(grams)]
    count, chars = max((one for one in counted if one[0] > 1), default=(0, 0))
    return count * chars


def breaks_gopher_repetition(text: str) -> bool:
    """Whether a text is refused by table A1 of Rae et al. 2021."""
    words, whole = words_of(text), len(text)
    for parts in (parts_of(text, "\n"), parts_of(text, "\n\n")):
        if share(len(repeats(parts)), len(parts)) > 0.30:
            return True
        if share(len("".join(repeats(parts))), whole) > 0.20:
            return True
    return any(share(top_chars(words, n), whole) > most for n, most in TOP.items()) or any(
        share(repeated_chars(words, n), whole) > most for n, most in REPEATED.items()
    )


def is_no_prose(
    text: str,
    stop_words: Sequence[str],
    shortest: float = 3,
    longest: float = 10,
    with_letters: float = 0.8,
) -> bool:
    """Whether a text is refused by section A.1.1 of Rae et al. 2021, or with other limits."""
    words, lines = words_of(text), parts_of(text, "\n")
    if not 50 <= len(words) <= 100_000:
        return True
    lengths = [sum(kind(char) in "LN" for char in word) for word in words]
    lengths = [length for length in lengths if length]
    if not shortest <= share(sum(lengths), len(lengths)) <= longest:
        return True
    ellipses = text.count("...") + text.count("…")
    if text.count("#") / len(words) > 0.1 or ellipses / len(words) > 0.1:
        return True
    if share(sum(line[0] in "•‣-*" for line in lines), len(lines)) > 0.9:
        return True
    if share(sum(line.endswith(("...", "…")) for line in lines), len(lines)) > 0.3:
        return True
    alphabetic = sum(any(kind(char) == "L" for char in word) for word in words)
    if share(alphabetic, len(words)) < with_letters:
        return True
    return bool(stop_words) and sum(word in stop_words for word in words) < 2


def breaks_fineweb_2(text: str, limits: Mapping[str, Any]) -> bool:
    """Whether a text is refused by the limits of a language."""
    words, lines = words_of(text), parts_of(text, "\n")
    again = repeats(lines)
    return (
        share(len(again), len(lines)) > limits.get("dup_line_frac", 1)
        or any(share(top_chars(words, n), len(text)) > most for n, most in limits["top_n_grams"])
        or any(
            share(repeated_chars(words, n), len(text)) > most for n, most in limits["dup_n_grams"]
        )
        or share(sum(line.endswith(ENDS) for line in lines), len(lines)) < limits["line_punct_thr"]
        or share(len("".join(again)), len("".join(lines))) > 0.1
        or share(text.count("\n"), len(words)) > limits["new_line_ratio"]
        or is_no_prose(
            text,
            limits["stopwords"],
            limits["min_avg_word_length"],
            limits["max_avg_word_length"],
            limits["max_non_alpha_words_ratio"],
        )
    )


def breaks_fineweb_quality(text: str) -> bool:
    """Whether a text is refused by the rules of Penedo et al. 2024."""
    lines = parts_of(text, "\n")
    return (
        share(sum(line.endswith(ENDS) for line in lines), len(lines)) <= 0.12
        or share(sum(len(line) < 30 for line in lines), len(lines)) >= 0.67
        or share(len("".join(repeats(lines))), len("".join(lines))) >= 0.1
    )


def script_share(text: str, script: str) -> float:
    """The share of letters whose names begin with that of the script, shared letters aside."""
    names = [unicodedata.name(char, "").split(" ")[0] for char in text if kind(char) == "L"]
    names = [name for name in names if name not in ("MODIFIER", "FEMININE", "MASCULINE")]
    return share(names.count(SCRIPTS[script]), len(names))


def is_filtered(text: str, options: Mapping[str, Any], lang: str = "und") -> bool:
    """Whether a table `filter` drops a record whose data is a text; tokens aside."""
    words = words_of(text)
    inked = [char for char in text if char not in WHITE_SPACE]
    lines = parts_of(text, "\n")
    measured = {
        "chars": len(text),
        "words": len(words),
        "letters": share(sum(kind(char) in "LM" for char in inked), len(inked)),
        "script": script_share(text, options.get("script", "Latn")),
        "repeated_lines": share(len(repeats(lines)), len(lines)),
        "repeated_ngrams": share(repeated_chars(words, options.get("ngram", 5)), len(text)),
    }
    for name, value in measured.items():
        if value < options.get(f"min_{name}", value) or value > options.get(f"max_{name}", value):
            return True
    rules = options.get("rules", ())
    return (
        ("gopher-repetition" in rules and breaks_gopher_repetition(text))
        or ("gopher-quality" in rules and is_no_prose(text, STOP_WORDS if lang == "eng" else []))
        or ("fineweb-quality" in rules and breaks_fineweb_quality(text))
        or ("fineweb-2" in rules and breaks_fineweb_2(text, options["limits"]))
    )
