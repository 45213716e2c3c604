"""The data of the self-test: rows of random tokens, and a small corpus to pack."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, cast

import numpy as np

from sabiprep.dataset import BatchDict
from sabitrain.data.batches import Batch, make_batch

_CORPUS = """\
[tokenizer]
eos = "</s>"

[pack]
seq_len = 128
validation = 0.1

[[source]]
name = "spell"
task = "spell"
lang = "mul"
files = ["words.jsonl"]
segments = [{ prompt = "<spell> {{ word }} <letters>:" }, { target = " {{ letters }}" }]

[[source]]
name = "text"
task = "text"
lang = "mul"
files = ["text.txt"]
"""
_SYLLABLES = ("ba", "do", "fi", "gu", "ka", "le", "mi", "no", "ru", "sa", "to", "wé", "ya", "zị")


def random_rows(
    seed: int, rows: int, seq_len: int, documents: int, share: float, vocab_size: int
) -> BatchDict:
    """Returns rows of random tokens without padding.

    Args:
        seed: Decides the tokens and the lengths.
        rows: Rows.
        seq_len: Tokens of a row.
        documents: Documents of a row, of random lengths; at most ``seq_len``.
        share: The share of each document that is trained, its end; never its first token.
        vocab_size: Tokens of the vocabulary.
    """
    rng = np.random.default_rng(seed)
    lengths_RD = np.empty((rows, documents), np.int64)
    for row in range(rows):
        cuts = np.sort(rng.choice(seq_len - 1, documents - 1, replace=False)) + 1
        lengths_RD[row] = np.diff(cuts, prepend=0, append=seq_len)
    lengths = lengths_RD.ravel()
    bounds = np.append(0, lengths.cumsum())
    positions_N = np.arange(bounds[-1]) - np.repeat(bounds[:-1], lengths)
    prompt_N = np.repeat(np.maximum(1, np.round(lengths * (1 - share))), lengths)
    shape = rows, seq_len
    made: dict[str, Any] = {
        "input_ids": rng.integers(0, vocab_size, shape),
        "loss_mask": (positions_N >= prompt_N).reshape(shape),
        "position_ids": positions_N.reshape(shape),
        "cu_seqlens": bounds.astype(np.int32),
        "seq_lengths": lengths.astype(np.int32),
        "max_seqlen": int(lengths.max()),
    }
    # No key is there that `make_batch` does not read.
    return cast(BatchDict, made)


def batch_of(rows: BatchDict, pin: bool, share: float = 1.0) -> Batch:
    """Returns a micro-batch of rows on the CPU.

    Args:
        rows: The rows, their weights equal.
        pin: Whether to put it into page-locked memory, for a GPU.
        share: The share of the step's targets that the micro-batch has.
    """
    mask_N = rows["loss_mask"].reshape(-1)
    weight = share / max(1, int(np.count_nonzero(mask_N)))
    batch = make_batch(rows, mask_N.astype(np.float64) * weight)
    return batch.pin() if pin else batch


def write_corpus(folder: Path, records: int = 800) -> None:
    """Writes a corpus of invented words to spell, and of text made of them, into a new folder."""
    rng = random.Random(0)
    words = [
        "".join(rng.choice(_SYLLABLES) for _ in range(rng.randint(2, 4))) for _ in range(records)
    ]
    folder.mkdir()
    (folder / "corpus.toml").write_text(_CORPUS, encoding="utf-8")
    lines = (json.dumps({"word": word, "letters": " ".join(word)}) for word in words)
    (folder / "words.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    texts = (" ".join(rng.sample(words, 9)) for _ in range(records // 4))
    (folder / "text.txt").write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
