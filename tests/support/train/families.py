"""Tiny random checkpoints of every family, made by ``transformers`` itself."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sabitrain.models.architecture import CausalModel

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


LENGTHS = [1, 30, 2, 17, 9, 40]
"""The documents of a packed row."""


def _ids() -> Tensor:
    return torch.randint(0, VOCAB_SIZE, (sum(LENGTHS),), generator=torch.Generator().manual_seed(3))


def logits_packed(model: CausalModel, ids: Tensor, at: Tensor | None = None) -> Tensor:
    """Our logits of documents packed into one row, at all positions or at some."""
    bounds = torch.tensor([0, *LENGTHS, 0]).cumsum(0).int()
    positions = torch.cat([torch.arange(length) for length in LENGTHS])
    return F.linear(model(ids, positions, bounds, max(LENGTHS), at), model.head_VC)


def assert_equal_logits(theirs: Any, ours: CausalModel) -> None:
    """Holds packed documents to each document alone, in float32 and in float64."""
    ids = _ids()
    with torch.no_grad():
        expected = logits_alone(theirs, ids, LENGTHS)
        assert expected.std() > 0.1, "logits that hardly differ would show nothing"
        torch.testing.assert_close(logits_packed(ours, ids), expected, rtol=1e-5, atol=1e-5)
        expected = logits_alone(in_float64(theirs), ids, LENGTHS)
        packed = logits_packed(ours.double(), ids)
        torch.testing.assert_close(packed, expected, rtol=1e-10, atol=1e-10)


def assert_equal_gradients(theirs: Any, ours: CausalModel) -> None:
    """Holds the gradients of all parameters to theirs in float64, the end skipped or not."""
    theirs, ours, ids = in_float64(theirs), ours.double(), _ids()
    wanted = torch.tensor([3, 4, 20, 31, 40, 60, 98])
    targets = (ids[wanted] + 1) % VOCAB_SIZE
    # Theirs gives the row of the padding token no gradient, wherever it stands.
    theirs.get_input_embeddings().padding_idx = None
    theirs.zero_grad()
    F.cross_entropy(logits_alone(theirs, ids, LENGTHS)[wanted], targets).backward()
    expected = {name: value.grad for name, value in theirs.named_parameters()}
    for at in (None, wanted):
        ours.zero_grad()
        found = logits_packed(ours, ids, at)
        F.cross_entropy(found if at is not None else found[wanted], targets).backward()
        for name, parameter in ours.named_parameters():
            torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-9, atol=1e-10)
