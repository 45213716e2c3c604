"""Tokenizers made at random, and files that are meant to do harm: each a function of its number
alone.
"""

from __future__ import annotations

import copy
import json
import random
from typing import Any

from strategies import tokenizer_json

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


DOUBLE = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
PATTERNS = [
    "(a+)+$",
    "(a|aa)+b",
    "(a?){30}a{30}",
    "",
    "a*",
    "(?=a)",
    r"(\w+\s?)*$",
    "((((",
    "[",
    "(?<n>a\\g<n>?b)",
    "\\",
]
HOSTILE_NORMALIZERS: list[Any] = [
    {"type": "Replace", "pattern": {"String": ""}, "content": "x" * 10_000},
    {"type": "Replace", "pattern": {"String": "a"}, "content": "x" * 1_000_000},
    {"type": "Replace", "pattern": {"Regex": ".?"}, "content": "ab" * 5_000},
    {"type": "Prepend", "prepend": "x" * 5_000_000},
    {"type": "Sequence", "normalizers": [DOUBLE] * 60},
    {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "aaaa"}, DOUBLE] * 20},
    {"type": "Sequence", "normalizers": [{"type": "ByteLevel"}] * 40},
    {"type": "Sequence", "normalizers": [{"type": "Lowercase"}] * 5_000},
    {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
    {"type": "Precompiled", "precompiled_charsmap": "/////w=="},
    *({"type": "Replace", "pattern": {"Regex": pattern}, "content": "b"} for pattern in PATTERNS),
]
BYTE_LEVEL = {
    "type": "ByteLevel",
    "add_prefix_space": True,
    "trim_offsets": True,
    "use_regex": False,
}
HOSTILE_PRE_TOKENIZERS: list[Any] = [
    {"type": "FixedLength", "length": 0},
    {"type": "Sequence", "pretokenizers": [{"type": "FixedLength", "length": 1}] * 30},
    {"type": "Sequence", "pretokenizers": [BYTE_LEVEL] * 40},
    {"type": "Sequence", "pretokenizers": [{"type": "FixedLength", "length": 1}, BYTE_LEVEL] * 20},
    {"type": "Metaspace", "replacement": " ", "prepend_scheme": "always", "split": True},
    {
        "type": "Sequence",
        "pretokenizers": [{"type": "Metaspace", "replacement": "😀", "prepend_scheme": "always"}]
        * 9,
    },
    *(
        {
            "type": "Split",
            "pattern": {kind: pattern},
            "behavior": behavior,
            "invert": behavior == "Removed",
        }
        for kind, behavior in (
            ("Regex", "Isolated"),
            ("Regex", "Removed"),
            ("String", "Contiguous"),
        )
        for pattern in PATTERNS
    ),
]
SEQUENCE = {"Sequence": {"id": "A", "type_id": 0}}
HOSTILE_PARTS: dict[str, list[Any]] = {
    "normalizer": HOSTILE_NORMALIZERS,
    "pre_tokenizer": HOSTILE_PRE_TOKENIZERS,
    "post_processor": [
        {
            "type": "TemplateProcessing",
            "single": [SEQUENCE] * 5_000,
            "pair": [SEQUENCE],
            "special_tokens": {},
        },
        {"type": "BertProcessing", "sep": ["x", 4_000_000_000], "cls": ["y", 0]},
    ],
    "decoder": [
        {"type": "Sequence", "decoders": [DOUBLE] * 40},
        {"type": "Replace", "pattern": {"String": ""}, "content": "x" * 100_000},
        {"type": "Strip", "content": "a", "start": 2**40, "stop": 2**40},
        {"type": "CTC", "pad_token": "", "word_delimiter_token": "", "cleanup": True},
    ],
    "padding": [
        {"strategy": {"Fixed": 2**40}, "direction": "Right", "pad_to_multiple_of": 0, "pad_id": 0}
    ],
    "truncation": [
        {"direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 2**40}
    ],
}
EXTREMES = [
    None,
    True,
    "",
    "x" * 100_000,
    -1,
    0,
    2**31,
    2**32 - 1,
    2**63,
    1e308,
    [],
    {},
    [[]],
    "\x00",
    "\ud7ff",
    "a",
]


def hostile_file(number: int) -> bytes:
    """Returns the bytes of a tokenizer.json that was changed to do harm; some of them are still
    good.
    """
    choose = random.Random(f"hostile {number}")
    base = choose.choice(["bytes", "llama", "metaspace-first", "random"])
    file = random_tokenizer(number) if base == "random" else json.loads(tokenizer_json(base))
    for _ in range(choose.randrange(1, 3)):
        choose.choice(
            [_replace_part, _replace_part, _nest, _change_added, _change_model, _change_anything]
        )(choose, file)
    text = json.dumps(file).encode()
    if choose.random() < 0.05:
        text = choose.choice(
            [
                text[: choose.randrange(len(text))],
                b"[" * 100_000,
                text.replace(b"a", b"\xff", 1),
                b"",
            ]
        )
    return text


def _replace_part(choose: random.Random, file: dict[str, Any]) -> None:
    part = choose.choice(
        ["normalizer", "normalizer", "pre_tokenizer", "pre_tokenizer", *HOSTILE_PARTS]
    )
    file[part] = copy.deepcopy(choose.choice(HOSTILE_PARTS[part]))


def _nest(choose: random.Random, file: dict[str, Any]) -> None:
    part, key = choose.choice([("normalizer", "normalizers"), ("pre_tokenizer", "pretokenizers")])
    own = [file[part]] if file.get(part) else []
    file[part] = {
        "type": "Sequence",
        key: [*own, choose.choice(HOSTILE_PARTS[part]), *own] * choose.randrange(1, 9),
    }


def _change_added(choose: random.Random, file: dict[str, Any]) -> None:
    added: list[Any] = file["added_tokens"] if isinstance(file.get("added_tokens"), list) else []
    token: dict[str, Any] = {
        key: choose.random() < 0.5 for key in ("single_word", "lstrip", "rstrip", "normalized")
    }
    content = choose.choice(
        ["", "a" * 1_000_000, "a" * 5_000, " ", "\n", "a", EOS, "\u0301", "(a+)+$"]
    )
    token |= {
        "id": choose.choice([0, 1, 300, 2**24, 2**32 - 1]),
        "content": content,
        "special": choose.random() < 0.5,
    }
    file["added_tokens"] = [*added, *[token] * choose.choice([1, 1, 3])]


def _change_model(choose: random.Random, file: dict[str, Any]) -> None:
    model = file["model"] if isinstance(file.get("model"), dict) else {}
    vocabulary = model.get("vocab")
    change = choose.randrange(6)
    if change == 0 and isinstance(vocabulary, dict) and vocabulary:
        vocabulary[choose.choice([*vocabulary])] = choose.choice([0, 2**21, 2**31, 2**32 - 1])
    elif change == 1 and isinstance(vocabulary, dict) and vocabulary:
        for word in choose.sample([*vocabulary], len(vocabulary) // 2):
            del vocabulary[word]
    elif change == 2 and isinstance(model.get("merges"), list):
        choose.shuffle(model["merges"])
        model["merges"] += [["a", "zz"]] * choose.randrange(2)
    elif change == 3:
        model["unk_token"] = choose.choice([None, "", "<none>", EOS])
    elif change == 4 and isinstance(vocabulary, list):
        vocabulary += [["a" * 100_000, 0.0], ["a", float(choose.choice([0, -1e300]))]]
    else:
        model[choose.choice([*model, "type"])] = choose.choice(EXTREMES)


def _change_anything(choose: random.Random, file: dict[str, Any]) -> None:
    """Puts an extreme in the place of a value at random, or takes it out."""
    here: Any = file
    while True:
        if not isinstance(here, dict | list) or not here:
            return
        keys = [*here] if isinstance(here, dict) else [*range(len(here))]
        key = choose.choice(keys)
        if not isinstance(here[key], dict | list) or not here[key] or choose.random() < 0.2:
            if choose.random() < 0.3:
                del here[key]
            else:
                here[key] = copy.deepcopy(choose.choice(EXTREMES))
            return
        here = here[key]
