"""The chat templates that are known by name, and a tokenizer with the control tokens of all."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

KNOWN = Path(__file__).parents[2] / "rust/core/segment/chat_templates"
NAMES = sorted(path.stem for path in KNOWN.glob("*.jinja"))
BOS, EOS = "<s>", "</s>"
SPECIALS = [
    BOS,
    EOS,
    "<|im_start|>",
    "<|im_end|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "[INST]",
    "[/INST]",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
]


def known(name: str) -> str:
    """The text of a template that is known by name."""
    return (KNOWN / f"{name}.jinja").read_text("utf-8")


@cache
def tokenizer_file() -> str:
    """A tokenizer of bytes with the control tokens of every template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({char: id for id, char in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIALS]
    )
    return str(tokenizer.to_str())
