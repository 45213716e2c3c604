"""A corpus of one source, packed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from sabiprep.dataset import PackedDataset, open_dataset
from support import packer
from support.strategies import tokenizer_json

number = count()


def one_source(
    tmp_path: Path, lines: Sequence[Mapping[str, Any]], seq_len: int, **source: Any
) -> PackedDataset:
    """A corpus of one source over JSON lines, packed."""
    folder = tmp_path / f"corpus{next(number)}"
    folder.mkdir()
    (folder / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    packer.write_config(folder, [{"name": "a", "files": ["a.jsonl"], **source}])
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text(tokenizer_json("bytes"), "utf-8")
    out = folder.with_suffix(".out")
    packer.pack(folder, out, tokenizer=tokenizer, seq_len=seq_len)
    return open_dataset(out)


LABEL = [{"prompt": "{{ a }} | {{ b }} <yor>:"}, {"target": " {{ c }}"}]
