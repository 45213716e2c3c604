"""Trains two steps with TRL on an export, and prints what the trainer saw.

python train_with_trl.py EXPORT TOKENIZER RUN
"""

from __future__ import annotations

import itertools
import json
import sys

import datasets
import torch
import trl
from tiny_llama import tiny_llama


def main(export: str, tokenizer_file: str, run: str) -> None:
    """Trains, and prints one JSON object."""
    rows = datasets.load_from_disk(export)
    model, tokenizer = tiny_llama(tokenizer_file)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    config = trl.SFTConfig(
        run,
        padding_free=True,
        max_length=None,
        max_steps=2,
        per_device_train_batch_size=2,
        logging_steps=1,
        use_cpu=True,
        bf16=False,
        report_to=[],
        save_strategy="no",
        shuffle_dataset=False,
    )
    trainer = trl.SFTTrainer(
        model,
        config,
        train_dataset=rows["train"],
        eval_dataset=rows["validation"],
        processing_class=tokenizer,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    alone = loss_of_documents_alone(model, batch)
    trainer.train()
    seen = {name: batch[name].tolist() for name in ("input_ids", "labels", "position_ids")}
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    moved = any(
        (model.state_dict()[name] != weight).any().item() for name, weight in before.items()
    )
    evaluated = trainer.evaluate()["eval_loss"]
    print(json.dumps({**seen, "losses": losses, "alone": alone, "moved": moved, "eval": evaluated}))


def loss_of_documents_alone(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> float:
    """Returns the mean loss of the batch's trained tokens, each document in a pass of its own."""
    bounds = batch["cu_seq_lens_q"].tolist()
    total, count = 0.0, 0
    for start, end in itertools.pairwise(bounds):
        ids, labels = batch["input_ids"][:, start:end], batch["labels"][0, start + 1 : end]
        with torch.no_grad():
            logits = model(ids).logits[0, :-1]
        total += torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item()
        count += int((labels != -100).sum())
    return total / count


if __name__ == "__main__":
    main(*sys.argv[1:])
