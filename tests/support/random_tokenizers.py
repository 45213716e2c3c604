"""Tokenizers made at random, and files that are meant to do harm: each a function of its number
alone.
"""

from __future__ import annotations

import random
from typing import Any

EOS = "</s>"
CONTENTS = [
    *(
        "<s>",
        "[A]",
        "a",
        "ab",
        "aa",
        "b",
        "<",
        "s>",
        "/s",
        "</s></s>",
        "\n",
        "\n\n",
        " ",
        "  ",
        " a",
        "a ",
        "\t",
    ),
    *("é", "e\u0301", "ą", "▁", "▁a", "A", "Ab", "<|x|>", "x|>", "Ġ", "\u00a0", "1", "ﬁ"),
]
LETTERS = [
    "a",
    "b",
    "s",
    "x",
    "A",
    "<",
    ">",
    "/",
    "|",
    "[",
    "]",
    " ",
    "▁",
    "\n",
    "\t",
    "é",
    "ą",
    "\u0301",
    "1",
    "Ġ",
]
FRAGMENTS = [
    *CONTENTS,
    *LETTERS,
    EOS,
    EOS,
    "ą</s>",
    "<ą/s>",
    "</ s>",
    "</S>",
    "\u3000",
    "漢",
    "👩",
    "word",
]
BYTES = [*range(33, 127), *range(161, 173), *range(174, 256)]


def _byte_letters() -> list[str]:
    """The 256 letters that a byte-level vocabulary writes for bytes."""
    others = [byte for byte in range(256) if byte not in BYTES]
    return [chr(byte) for byte in BYTES] + [chr(256 + nth) for nth, _ in enumerate(others)]


def random_texts(number: int, count: int = 30) -> list[str]:
    """Texts of fragments that added tokens, letters that are missing and white space make hard."""
    choose = random.Random(f"texts {number}")
    return ["".join(choose.choices(FRAGMENTS, k=choose.randrange(1, 9))) for _ in range(count)]


def _merges(
    choose: random.Random, vocabulary: dict[str, int], spelled: list[str]
) -> list[list[str]]:
    """Merges at random, some of them on the way to the spellings of added tokens."""
    merges: list[list[str]] = []
    for text in spelled:
        if choose.random() < 0.6 and all(letter in vocabulary for letter in text):
            for end in range(2, len(text) + 1):
                merges.append([text[: end - 1], text[end - 1]])
    merges += [
        [choose.choice([*vocabulary]), choose.choice([*vocabulary])]
        for _ in range(choose.randrange(12))
    ]
    kept = []
    for left, right in merges:
        if left in vocabulary and right in vocabulary and [left, right] not in kept:
            vocabulary.setdefault(left + right, len(vocabulary))
            kept.append([left, right])
    return kept


def _model(choose: random.Random, byte_level: bool, contents: list[str]) -> dict[str, Any]:
    kind = (
        choose.choice(["BPE", "BPE", "BPE unk", "Unigram", "WordLevel"])
        if not byte_level
        else "BPE"
    )
    letters = _byte_letters() if byte_level else list(LETTERS)
    if choose.random() < 0.5:
        letters = choose.sample(letters, choose.randrange(len(letters) // 2, len(letters)))
    pieces = [content for content in contents if choose.random() < 0.6]
    if kind == "Unigram":
        scored = [["<unk>", 0.0], *([letter, -choose.uniform(1, 9)] for letter in letters)]
        scored += [[piece, choose.uniform(-5, 0)] for piece in pieces if piece not in letters]
        return {"type": "Unigram", "unk_id": 0, "vocab": scored, "byte_fallback": False}
    words = ["<unk>", *letters, *pieces] if kind != "BPE" else [*letters]
    vocabulary = {word: nth for nth, word in enumerate(dict.fromkeys(words))}
    if kind == "WordLevel":
        return {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"}
    merges = _merges(choose, vocabulary, [EOS, *contents])
    unknown = "<unk>" if kind == "BPE unk" else None
    return {
        **{"type": "BPE", "dropout": None, "unk_token": unknown, "continuing_subword_prefix": None},
        **{"end_of_word_suffix": None, "fuse_unk": choose.random() < 0.5, "byte_fallback": False},
        **{"ignore_merges": choose.random() < 0.2, "vocab": vocabulary, "merges": merges},
    }


def _normalizer(choose: random.Random) -> dict[str, Any] | None:
    kinds: list[dict[str, Any]] = [
        *({"type": kind} for kind in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents")),
        {"type": "Strip", "strip_left": True, "strip_right": choose.random() < 0.5},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
        {"type": "Prepend", "prepend": "▁"},
    ]
    if choose.random() < 0.4:
        return None
    if choose.random() < 0.6:
        return choose.choice(kinds)
    return {"type": "Sequence", "normalizers": choose.sample(kinds, choose.randrange(1, 4))}


def _pre_tokenizer(choose: random.Random, byte_level: bool) -> dict[str, Any] | None:
    spaced = choose.random() < 0.3
    bytes_last = {
        "type": "ByteLevel",
        "add_prefix_space": spaced,
        "trim_offsets": True,
        "use_regex": True,
    }
    split = {
        "type": "Split",
        "pattern": {"Regex": choose.choice([r"\s+", r"\w+|[^\w\s]+", r"\p{N}", "a"])},
    }
    split |= {
        "behavior": choose.choice(["Isolated", "Removed", "MergedWithNext"]),
        "invert": choose.random() < 0.2,
    }
    if byte_level:
        return (
            bytes_last
            if choose.random() < 0.6
            else {"type": "Sequence", "pretokenizers": [split, bytes_last]}
        )
    scheme = choose.choice(["always", "first", "never"])
    kinds: list[dict[str, Any]] = [
        *({"type": kind} for kind in ("Whitespace", "WhitespaceSplit", "BertPreTokenizer")),
        {"type": "Punctuation", "behavior": "Isolated"},
        {"type": "Digits", "individual_digits": True},
        {
            "type": "Metaspace",
            "replacement": "▁",
            "prepend_scheme": scheme,
            "split": choose.random() < 0.5,
        },
        split,
    ]
    if choose.random() < 0.3:
        return None
    if choose.random() < 0.7:
        return choose.choice(kinds)
    return {"type": "Sequence", "pretokenizers": choose.sample(kinds, 2)}


def random_tokenizer(number: int) -> dict[str, Any]:
    """Returns a tokenizer.json: any model, letters missing, added tokens with any flags, one of
    them `EOS`.
    """
    choose = random.Random(f"tokenizer {number}")
    byte_level = choose.random() < 0.4
    contents = choose.sample(CONTENTS, choose.randrange(1, 7))
    model = _model(choose, byte_level, contents)
    known = (
        model["vocab"]
        if isinstance(model["vocab"], dict)
        else {piece: i for i, (piece, _) in enumerate(model["vocab"])}
    )
    added = []
    for content in [EOS, *contents]:
        flags = {
            key: choose.random() < 0.35
            for key in ("single_word", "lstrip", "rstrip", "normalized", "special")
        }
        if content == EOS:
            flags |= {"single_word": False, "normalized": False}
        identifier = known.get(
            content, len(known) + sum(token["id"] >= len(known) for token in added)
        )
        added.append({"id": identifier, "content": content, **flags})
    if "<unk>" in known and choose.random() < 0.5:
        added.append(
            {"id": known["<unk>"], "content": "<unk>", "special": True, "normalized": False}
        )
        added[-1] |= {"single_word": False, "lstrip": False, "rstrip": False}
    return {
        **{
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": sorted(added, key=lambda t: t["id"]),
        },
        **{"normalizer": _normalizer(choose), "pre_tokenizer": _pre_tokenizer(choose, byte_level)},
        **{"post_processor": None, "decoder": None, "model": model},
    }


def barred_ids(tokenizer: dict[str, Any]) -> set[int]:
    """The ids that no text may become: added tokens, but not the unknown one, nor letters of the
    model that are added
    without being special."""
    model = tokenizer["model"]
    pieces = (
        model["vocab"]
        if isinstance(model["vocab"], dict)
        else [piece for piece, _ in model["vocab"]]
    )
    letters = {
        token["id"]
        for token in tokenizer["added_tokens"]
        if len(token["content"]) == 1 and not token["special"]
    }
    letters &= {token["id"] for token in tokenizer["added_tokens"] if token["content"] in pieces}
    unknown = {token["id"] for token in tokenizer["added_tokens"] if token["content"] == "<unk>"}
    return {token["id"] for token in tokenizer["added_tokens"]} - letters - unknown
