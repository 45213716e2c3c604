"""Scores a tiny random model on exported tasks with `lm-eval`, and prints what it made of them.

python score_with_lm_eval.py TASKS TOKENIZER MODEL
"""

from __future__ import annotations

import json
import sys

import lm_eval
from lm_eval.tasks import TaskManager
from tiny_llama import tiny_llama


def main(tasks: str, tokenizer_file: str, folder: str) -> None:
    """Makes the checkpoint, scores it, and prints one JSON object."""
    model, tokenizer = tiny_llama(tokenizer_file)
    model.save_pretrained(folder)
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
