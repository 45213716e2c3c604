"""Tiny random checkpoints of every family, made by ``transformers`` itself."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

VOCAB_SIZE = 40

_SMALL = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 24,
    "intermediate_size": 36,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 0,
    "pad_token_id": None,
    "use_cache": False,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 50.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
_FULL, _SLIDING = "full_attention", "sliding_attention"

# By name: the class of the configuration, and what differs from `_SMALL`.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {"tie_word_embeddings": True}),
    "llama-untied": ("LlamaConfig", {"tie_word_embeddings": False, "head_dim": 10}),
    "llama-3": ("LlamaConfig", {"tie_word_embeddings": True, "rope_parameters": _LLAMA3}),
    "llama-linear": (
        "LlamaConfig",
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 100.0}},
    ),
    "mistral": ("MistralConfig", {"sliding_window": None, "head_dim": 8}),
    "mistral-windowed": ("MistralConfig", {"sliding_window": 5}),
    "qwen2": ("Qwen2Config", {"tie_word_embeddings": True}),
    "qwen2-untied": ("Qwen2Config", {"tie_word_embeddings": False}),
    "qwen3": ("Qwen3Config", {"head_dim": 16, "tie_word_embeddings": True}),
    "gemma3": (
        "Gemma3TextConfig",
        {
            "head_dim": 12,
            "query_pre_attn_scalar": 7,
            "sliding_window": 5,
            "num_hidden_layers": 7,
            "initializer_range": 0.2,
        },
    ),
    "gemma3-linear": (
        "Gemma3TextConfig",
        {
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "sliding_window": 3,
            "layer_types": [_FULL, _SLIDING, _SLIDING],
            "rope_parameters": {
                _FULL: {"rope_type": "linear", "factor": 8.0, "rope_theta": 300.0},
                _SLIDING: {"rope_type": "default", "rope_theta": 30.0},
            },
        },
    ),
    "olmo2": ("Olmo2Config", {"head_dim": None, "num_key_value_heads": 4}),
    "olmo2-grouped": ("Olmo2Config", {"tie_word_embeddings": True, "rms_norm_eps": 1e-3}),
}


def make_theirs(name: str, seed: int = 0) -> Any:
    """A model of ``transformers`` in which every weight is random, norms and biases too."""
    import transformers

    class_name, changes = FAMILIES[name]
    settings = {key: value for key, value in {**_SMALL, **changes}.items() if key != "head_dim"}
    if changes.get("head_dim"):
        settings["head_dim"] = changes["head_dim"]
    config = getattr(transformers, class_name)(**settings, attn_implementation="sdpa")
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return model.eval()


def in_float64(model: Any) -> Any:
    """The same model in float64 throughout: its own norms compute in float32 whatever the input.

    The oracle's norms are the formula: x / sqrt(mean(x²) + eps), times the gain.
    """

    def formula(norm: Any, x: Tensor) -> Tensor:
        gain = 1 + norm.weight if type(norm).__name__.startswith("Gemma") else norm.weight
        eps = norm.eps if hasattr(norm, "eps") else norm.variance_epsilon
        return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * gain

    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = partial(formula, module)
    return model.double()


def save_theirs(model: Any, folder: Path, tokenizer: bytes, **options: Any) -> Path:
    """Writes a checkpoint as ``transformers`` does, with a tokenizer beside it."""
    model.save_pretrained(folder, **options)
    (folder / "tokenizer.json").write_bytes(tokenizer)
    return folder


def logits_alone(model: Any, ids: Tensor, lengths: list[int]) -> Tensor:
    """The logits of each document by itself, laid end to end."""
    parts = [model(part[None]).logits[0] for part in ids.split(lengths)]
    return torch.cat(parts)


def word_tokenizer(words: int = VOCAB_SIZE) -> Tokenizer:
    """A tokenizer of one token a word: ``</s>``, ``<s>``, ``w2``, ``w3``, …"""
    from tokenizers import AddedToken, models, pre_tokenizers

    names = ["</s>", "<s>", *(f"w{index}" for index in range(2, words))]
    vocabulary = {name: id_ for id_, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="w2"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in names[:2]])
    return tokenizer
