"""A tiny random Llama and its tokenizer, for the programs of this folder."""

from __future__ import annotations

import torch
import transformers


def tiny_llama(
    tokenizer_file: str,
) -> tuple[transformers.LlamaForCausalLM, transformers.PreTrainedTokenizerFast]:
    """Returns a model of random weights, the same at every call, and the tokenizer of the file."""
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=tokenizer_file, eos_token="</s>", pad_token="</s>"
    )
    torch.manual_seed(0)
    shape = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=512,
        eos_token_id=tokenizer.eos_token_id,
    )
    return transformers.LlamaForCausalLM(shape), tokenizer
