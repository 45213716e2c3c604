"""A corpus of one source of several document tables, written and packed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sabiprep import _core
from support import packer
from support.strategies import tokenizer_json

HEADLINE = {
    "name": "headline",
    "task": "headline",
    "when": "{{ title and rating > 2 }}",
    "segments": [{"prompt": "<headline> {{ text }} <title>:"}, {"target": " {{ title }}"}],
}
THERE = {
    "task": "translate",
    "lang": "eng",
    "segments": [{"prompt": "<translate> {{ text }} <eng>:"}, {"target": " {{ en }}"}],
}
BACK = {
    "task": "translate",
    "lang": "yor",
    "segments": [{"prompt": "<translate> {{ en }} <yor>:"}, {"target": " {{ text }}"}],
}
ANSWERS = {
    "task": "qa",
    "each": "answers",
    "when": "{{ item.score }}",
    "segments": [{"prompt": "{{ text }} <qa>"}, {"target": " {{ item.text }}"}],
}
TABLES = [HEADLINE, THERE, BACK, ANSWERS]
NAMES = ["news/headline", "news/2", "news/3", "news/4"]


def write(
    folder: Path, lines: Sequence[Any], tables: Sequence[Any] = TABLES, **pack: Any
) -> list[int]:
    """A corpus of one source of these tables; returns the byte of each record."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    encoded = [json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines]
    (folder / "news.jsonl").write_bytes(b"".join(encoded))
    source = {"name": "news", "files": ["news.jsonl"], "document": list(tables)}
    pack = {"seq_len": 512, "max_bad_fraction": 1.0, **pack}
    packer.write_config(folder, [source], pack=pack)
    return [sum(map(len, encoded[:nth])) for nth in range(len(encoded))]


def pack(folder: Path, out: str = "out", **options: Any) -> tuple[Path, dict[str, Any]]:
    """The dataset of a corpus, verified, and its manifest."""
    place = folder.with_name(f"{folder.name}-{out}")
    manifest = packer.pack(folder, place, tokenizer=folder / "tokenizer.json", **options)
    assert packer.verify(place)["failures"] == []
    against = _core.verify_against(place, folder, sample=None, threads=1, progress=None)
    assert json.loads(against)["failures"] == []
    return place, manifest


def many(count: int) -> list[dict[str, Any]]:
    """Records of which each table takes some."""
    return [
        {
            "text": f"ọ̀rọ̀ {nth}",
            "en": f"word {nth}",
            "title": f"title {nth}" if nth % 3 else "",
            "rating": nth % 7,
            "answers": [{"text": f"a{nth}-{k}", "score": (nth + k) % 3} for k in range(nth % 5)],
        }
        for nth in range(count)
    ]
