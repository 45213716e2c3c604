"""Tokenizer files changed at random, towards what could hang, grow or crash a reader."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

from support.random_tokenizers import EOS, random_tokenizer
from support.strategies import tokenizer_json

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
