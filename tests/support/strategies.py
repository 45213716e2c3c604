"""Hypothesis strategies for what the contracts must survive: adversarial text, tokenizers of every
kind, templates.

The tokenizers are trained once, on a little text in several languages, by the Python `tokenizers`
library. All of them have the same added tokens, none of which the model itself can make out of
ordinary text.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

BOS, EOS, UNKNOWN = "<s>", "</s>", "<unk>"
TAGS = ["<translate>", "<yor>", "<yor>:", "<|sep|>"]

TEXTS = [
    "The children are going to school in the morning.",
    "Àwọn ọmọdé ń lọ sí ilé-ìwé ní òwúrọ̀. Ẹ káàárọ̀ o.",
    "Ọjọ́ Ajé, Ọjọ́ Ìṣẹ́gun, Ọjọ́rú, Ọjọ́bọ̀, Ọjọ́ Ẹtì.",
    "Yara suna zuwa makaranta da safe. Ɗaya, biyu, uku, huɗu.",
    "Ụmụaka na-aga ụlọ akwụkwọ n'ụtụtụ. Otu, abụọ, atọ, anọ.",
    "ọ̀ ẹ̀ ṣ́ ọ̀ ẹ́ o\u0323\u0300 e\u0323\u0301",
    "1 2 3 10 12 2024 one two three",
    "positive negative neutral: yes no yes no yes no yes",
]


def _byte_level(add_prefix_space: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _metaspace(prepend_scheme: str, split: bool = True) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend_scheme, split=split)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=prepend_scheme, split=split)
    return tokenizer


def _train(tokenizer: Tokenizer, vocab_size: int = 360) -> dict[str, Any]:
    byte_level = "ByteLevel" in json.dumps(json.loads(tokenizer.to_str())["pre_tokenizer"])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        show_progress=False,
        special_tokens=[UNKNOWN, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if byte_level else [],
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    tokenizer.add_special_tokens(
        [AddedToken(tag, special=True, normalized=False) for tag in TAGS[:-1]]
    )
    tokenizer.add_tokens([AddedToken(TAGS[-1], special=False, normalized=False)])
    trained: dict[str, Any] = json.loads(tokenizer.to_str())
    return trained


def _with_byte_fallback(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """Give a character-level BPE the 256 tokens that spell what its alphabet lacks, and a decoder
    that reads them.

    The tags move up behind them: `tokenizers` numbers added tokens on from the model's, whatever
    the file says.
    """
    vocabulary = tokenizer["model"]["vocab"]
    for token in tokenizer["added_tokens"]:
        if token["content"] not in vocabulary:
            token["id"] += 256
    first = len(vocabulary)
    vocabulary.update({f"<0x{byte:02X}>": first + byte for byte in range(256)})
    tokenizer["model"]["byte_fallback"] = True
    tokenizer["decoder"] = {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
        ],
    }
    return tokenizer


@cache
def tokenizer_json(name: str, vocab_size: int = 360) -> str:
    """The file of the tokenizer called ``name``; see `TOKENIZERS`."""
    if name == "llama":
        # The older Llama files: no pre-tokenizer, the prefix put there by a normalizer, one piece
        # for a whole text.
        tokenizer = _metaspace("never", split=False)
        trained = _with_byte_fallback(_train(tokenizer, vocab_size))
        trained["pre_tokenizer"] = None
        trained["normalizer"] = {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        }
        return json.dumps(trained)
    base = name.removesuffix("-nfc")
    tokenizer = (
        _byte_level(base == "bytes-prefix")
        if base.startswith("bytes")
        else _metaspace(base.split("-")[1])
    )
    if base != name:
        tokenizer.normalizer = normalizers.NFC()
    trained = _train(tokenizer, vocab_size)
    return json.dumps(
        trained
        if base.startswith("bytes") or base == "metaspace-first"
        else _with_byte_fallback(trained)
    )


TOKENIZERS = [
    "bytes",
    "bytes-prefix",
    "bytes-nfc",
    "metaspace-always",
    "metaspace-first",
    "metaspace-never",
    "metaspace-never-nfc",
    "llama",
]
"""Byte-level BPE without and with a prefix space; Metaspace of each scheme ("first" without byte
fallback); Llama's.
"""

LOSSLESS = ["bytes", "bytes-nfc", "metaspace-never", "metaspace-never-nfc"]
"""Those whose ids decode to the normalised text (Metaspace aside from U+2581 itself, which reads as
a space).
"""


def token_id(name: str, token: str) -> int:
    """The id of an added token."""
    ids = {
        entry["content"]: entry["id"] for entry in json.loads(tokenizer_json(name))["added_tokens"]
    }
    identifier: int = ids[token]
    return identifier


FRAGMENTS = [
    *TAGS,
    BOS,
    EOS,
    UNKNOWN,
    "<yo",
    "r>",
    "r>:",
    ":",
    "<",
    ">",
    "</",
    "s>",
    "<0x41>",
    "\u0300",
    "\u0323",
    "\u0301",
    "\u0338",
    "o\u0323\u0300",
    "ọ̀",
    "ẹ",
    "ń",
    "👩🏽‍👩🏽‍👧",
    "\u200d",
    "\ufe0f",
    "\ufdd0",
    "\ufeff",
    "\u00a0",
    "\u3000",
    "▁",
    "Ġ",
    "\x00",
    "\r",
    "\n",
    "\r\n",
    "\t",
    " ",
    "  ",
    "1",
    "12",
    "2024",
    "one",
    " two",
    "ilé-ìwé",
    "school",
    "Ɗ",
    "漢字",
    "{{ a }}",
    "{% x %}",
    "\U0010ffff",
    "",
]

texts = st.one_of(
    st.lists(st.sampled_from(FRAGMENTS), max_size=8).map("".join),
    st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=4)), max_size=5).map("".join),
    st.sampled_from(TEXTS),
    st.sampled_from([" 1", " yes", "3", "", "yes"]),
)
"""Adversarial text: whatever a corpus may hold, without lone surrogates, which JSON text cannot
carry.
"""

FIELDS = ["a", "b.c", "long name".replace(" ", "_")]
_literals = texts.map(lambda text: text.replace("{", "(").replace("}", ")"))


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    """A record with every field of `FIELDS`, text or a whole number."""
    values = st.one_of(texts, st.integers(-5, 3000))
    return {"a": draw(values), "b": {"c": draw(values)}, "long_name": draw(values)}


@st.composite
def templates(draw: st.DrawFn) -> str:
    """A template that substitutes fields, with literal text around them that may look like half a
    control token.
    """
    parts = draw(
        st.lists(st.one_of(_literals, st.sampled_from(FIELDS).map(_placeholder)), max_size=5)
    )
    return "".join(parts)


def _placeholder(field: str) -> str:
    return "{{ " + field + " }}" if len(field) % 2 else "{{" + field + "}}"


segments = st.lists(
    st.tuples(st.sampled_from(["prompt", "target"]), templates()), min_size=1, max_size=4
)
"""Segments in any order: prompts and targets, adjacent or not, some of them empty."""
