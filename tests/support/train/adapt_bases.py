"""Tiny bases to adapt: tokenizers trained here, and random models of several families."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

ENGLISH = [
    "the weather is good this morning and the children went to the market",
    "they were reading the newspaper while others were walking to the river",
    "there is nothing better than the other thing, said the father; that is it",
    "in 2024 there were 15 meetings; 3 of them with the minister of health (health!)",
]
YORUBA = [
    "Ẹ kú àárọ̀ o, ṣé dáadáa ni ẹ jí?",
    "Àwọn ọmọ náà lọ sí ọjà ní àárọ̀ yìí",
    "Ọjà náà kún fún àwọn ènìyàn láti ọ̀pọ̀lọpọ̀ ìlú",
    "Bàbá náà sọ pé kò sí ohun tí ó dára ju ọmọ lọ",
    "Àwọn ọmọ kéékèèké ń ka ìwé ní ilé ẹ̀kọ́ ní àárọ̀",
]

GPT2 = "byte-level"
LLAMA2 = "prepend"
METASPACE = "metaspace"
GEMMA = "gemma"
LLAMA3 = "ignore_merges"
KINDS = (GPT2, LLAMA3, LLAMA2, METASPACE, GEMMA)
"""The tokenizers, by what is particular about them."""

CONTROLS = ["<pad>", "<eos>", "<bos>"]
_LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def tokenizer_of(kind: str, texts: Iterable[str] = ENGLISH, size: int = 150) -> Tokenizer:
    """A tokenizer of a kind, trained on a few texts."""
    if kind in (GPT2, LLAMA3):
        return _byte_level(kind, texts, size)
    made = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    space = normalizers.Replace(" ", "▁")
    if kind == GEMMA:
        made.normalizer = space
        made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    elif kind == METASPACE:
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), space])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    # Trained on words, as SentencePiece does, whatever the file's own pre-tokenizer leaves whole.
    teacher = Tokenizer(models.BPE())
    teacher.pre_tokenizer = pre_tokenizers.Metaspace()
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=len(CONTROLS) + 1 + 256 + size,
        special_tokens=[*CONTROLS, "<unk>", *bytes_],
        show_progress=False,
    )
    teacher.train_from_iterator(texts, trainer)
    learnt = json.loads(teacher.to_str())["model"]
    content = json.loads(made.to_str())
    content["model"] |= {"vocab": learnt["vocab"], "merges": learnt["merges"]}
    made = Tokenizer.from_str(json.dumps(content))
    made.add_special_tokens([*CONTROLS, "<unk>"])
    return made


def _byte_level(kind: str, texts: Iterable[str], size: int) -> Tokenizer:
    made = Tokenizer(models.BPE(ignore_merges=kind == LLAMA3))
    by_pattern = pre_tokenizers.Split(Regex(_LLAMA3_PATTERN), "isolated")
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind == GPT2)
    made.pre_tokenizer = letters if kind == GPT2 else pre_tokenizers.Sequence([by_pattern, letters])
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    # Behind the model's vocabulary, as Llama 3 and Qwen have them.
    made.add_special_tokens(CONTROLS)
    made.add_tokens([AddedToken("<tag>", normalized=False)])
    first = made.token_to_id("<bos>")
    made.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", first)]
    )
    return made


SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "head_dim": 8,
}
FAMILIES: dict[str, tuple[type[Any], type[Any], dict[str, Any]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM, {"tie_word_embeddings": False}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {"tie_word_embeddings": True, "head_dim": 8}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"tie_word_embeddings": False}),
    "gemma3_text": (
        Gemma3TextConfig,
        Gemma3ForCausalLM,
        {"tie_word_embeddings": True, "sliding_window": 16, "query_pre_attn_scalar": 8},
    ),
    "olmo2": (Olmo2Config, Olmo2ForCausalLM, {"tie_word_embeddings": False}),
}
"""The configuration, the model and the particular settings of each family."""


def write_base(
    folder: Path,
    family: str = "llama",
    tokenizer: Tokenizer | None = None,
    rows_more: int = 0,
    **settings: Any,
) -> PreTrainedModel:
    """Writes a random model of a family with a tokenizer, as a checkpoint, and returns it.

    ``rows_more`` are rows of the embedding behind the last token, as Qwen has them.
    """
    tokenizer = tokenizer or tokenizer_of(GPT2)
    config_class, model_class, particular = FAMILIES[family]
    controls = {name: tokenizer.token_to_id(f"<{name}>") for name in ("bos", "eos", "pad")}
    size = max(tokenizer.get_vocab().values()) + 1
    config = config_class(
        **{
            **SIZES,
            **particular,
            "vocab_size": size + rows_more,
            **{f"{name}_token_id": id_ for name, id_ in controls.items()},
            **settings,
        }
    )
    torch.manual_seed(0)
    model = model_class(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.generation_config.eos_token_id = [controls["eos"], controls["pad"]]
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {f"{name}_token": f"<{name}>" for name in controls}
    written = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(written), "utf-8")
    made: PreTrainedModel = model
    return made


def write_corpus(folder: Path, texts: dict[str, list[str]], toml: str = "") -> Path:
    """Writes a corpus with a source of plain text for each language."""
    folder.mkdir(parents=True)
    sources = [
        f'[[source]]\nname = "text-{lang}"\ntask = "text"\nlang = "{lang}"\n'
        f'files = ["{lang}.txt"]\n'
        for lang in texts
    ]
    for lang, lines in texts.items():
        (folder / f"{lang}.txt").write_text("\n".join(lines) + "\n", "utf-8")
    head = "[pack]\nseq_len = 64\nvalidation = 0.0\n"
    (folder / "corpus.toml").write_text(f"{toml or head}\n" + "\n".join(sources), "utf-8")
    return folder
