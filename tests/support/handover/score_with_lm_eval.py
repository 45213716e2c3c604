"""Scores a tiny random model on exported tasks with `lm-eval`, and prints what it made of them.

python score_with_lm_eval.py TASKS TOKENIZER MODEL
"""

from __future__ import annotations

import json
import sys

import lm_eval
import torch
import transformers
from lm_eval.tasks import TaskManager


def main(tasks: str, tokenizer_file: str, folder: str) -> None:
    """Makes the checkpoint, scores it, and prints one JSON object."""
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
    transformers.LlamaForCausalLM(shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    scored = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": folder, "dtype": "float32"},
        tasks=["heldout"],
        task_manager=TaskManager(include_path=tasks),
        device="cpu",
        batch_size=4,
        log_samples=True,
    )
    asked = {
        name: [
            [
                [
                    tokenizer(text, add_special_tokens=False).input_ids
                    for text in of
                    if is_text(text)
                ]
                for of in sample["arguments"]
            ]
            for sample in samples
        ]
        for name, samples in scored["samples"].items()
    }
    numbers = {
        name: {key: value for key, value in of.items() if isinstance(value, int | float)}
        for name, of in scored["results"].items()
    }
    configs = {name: {"output_type": of["output_type"]} for name, of in scored["configs"].items()}
    print(json.dumps({"results": numbers, "ids": asked, "configs": configs}))


def is_text(value: object) -> bool:
    """Returns whether an argument of a request is text, not settings."""
    return isinstance(value, str)


if __name__ == "__main__":
    main(*sys.argv[1:])
