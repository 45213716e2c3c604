"""A training step of each family beside ``transformers``' own: ``python benches/families.py``.

Both start from one tiny random checkpoint, written by ``transformers``, and train on the same
packed row on one CPU thread in float32: documents told apart by their positions, AdamW included.
Steps are taken by turns, so that other work on the machine slows both alike; medians are shown.
``dense`` is our step with nothing left out: the gain of the rest is what skipping saves.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from sabiprep.dataset import BatchDict
from sabitrain.checkpoints.pretrained import load_pretrained, open_pretrained
from sabitrain.data.batches import make_batch
from sabitrain.data.settings import Compute
from sabitrain.models.loss import predicting_states, weighted_loss

TOKENS, DOCUMENT, PROMPT = 2048, 128, 0.5
WARM_UP = 2
SHAPE = {
    "vocab_size": 16_000,
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
    "use_cache": False,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 0,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "LlamaConfig": {"tie_word_embeddings": True},
    "MistralConfig": {"sliding_window": None},
    "Qwen2Config": {"tie_word_embeddings": True},
    "Qwen3Config": {"tie_word_embeddings": True, "head_dim": 32},
    "Gemma3TextConfig": {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 64},
    "Olmo2Config": {},
}


def make_rows() -> BatchDict:
    """A packed row, the first part of each document a prompt."""
    generator = torch.Generator().manual_seed(0)
    documents = TOKENS // DOCUMENT
    mask = torch.arange(DOCUMENT) >= int(DOCUMENT * PROMPT)
    ids = torch.randint(0, SHAPE["vocab_size"], (1, TOKENS), generator=generator)
    masks = mask.repeat(documents)[None]
    return {
        "input_ids": ids.numpy(),
        "loss_mask": masks.numpy(),
        "labels": torch.where(masks, ids, -100).numpy(),
        "position_ids": torch.arange(DOCUMENT).repeat(documents)[None].numpy(),
        "cu_seqlens": torch.arange(0, TOKENS + 1, DOCUMENT, dtype=torch.int32).numpy(),
        "seq_lengths": torch.full((documents,), DOCUMENT, dtype=torch.int32).numpy(),
        "max_seqlen": DOCUMENT,
    }


def adamw(model: torch.nn.Module) -> torch.optim.Optimizer:
    """The same optimizer for both."""
    return torch.optim.AdamW(model.parameters(), lr=1e-4, foreach=True)


def ours(folder: Path, rows: BatchDict, compute: Compute) -> Callable[[], Tensor]:
    """Returns a function that takes a step of ours, and returns the loss."""
    model = load_pretrained(open_pretrained(folder))
    optimizer = adamw(model)
    mask_N = rows["loss_mask"].reshape(-1)
    batch = make_batch(rows, mask_N / mask_N.sum(), compute)

    def step() -> Tensor:
        loss, _ = weighted_loss(predicting_states(model, batch, compute), model.head_VC, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def theirs(folder: Path, rows: BatchDict) -> Callable[[], Tensor]:
    """Returns a function that takes a step of transformers, and returns the loss."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    optimizer = adamw(model.train())
    given = {
        name: torch.from_numpy(rows[name]).long()
        for name in ("input_ids", "labels", "position_ids")
    }

    def step() -> Tensor:
        loss: Tensor = model(**given).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def measure(name: str, settings: dict[str, Any], steps: int) -> dict[str, Any]:
    """Returns the medians of one family, in seconds, and the first losses."""
    with tempfile.TemporaryDirectory() as place:
        config = getattr(transformers, name)(**SHAPE, **settings)
        torch.manual_seed(0)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(place)
        rows = make_rows()
        takers = {
            "transformers": theirs(Path(place), rows),
            "dense": ours(Path(place), rows, "dense"),
            "ours": ours(Path(place), rows, "full"),
        }
    losses = {who: taker().item() for who, taker in takers.items()}
    if max(losses.values()) - min(losses.values()) > 1e-4:
        raise SystemExit(f"{name}: the first losses differ: {losses}")
    times: dict[str, list[float]] = {who: [] for who in takers}
    for turn in range(WARM_UP + steps):
        for who, taker in takers.items():
            began = time.perf_counter()
            taker()
            if turn >= WARM_UP:
                times[who].append(time.perf_counter() - began)
    medians = {who: statistics.median(each) for who, each in times.items()}
    return {"family": name.removesuffix("Config"), "loss": losses["ours"], **medians}


def main() -> None:
    """Prints a line a family, and a line of JSON each with --json."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=15, help="steps of each by turns")
    parser.add_argument("--json", action="store_true", help="lines of JSON instead of a table")
    given = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    for name, settings in FAMILIES.items():
        line = measure(name, settings, given.steps)
        if given.json:
            print(json.dumps(line), flush=True)
            continue
        print(
            f"{line['family']:12} transformers {line['transformers'] * 1e3:7.1f} ms, "
            f"dense {line['dense'] * 1e3:7.1f}, ours {line['ours'] * 1e3:7.1f}: "
            f"{line['transformers'] / line['dense']:.2f} and "
            f"{line['transformers'] / line['ours']:.2f} times as fast",
            flush=True,
        )


if __name__ == "__main__":
    main()
