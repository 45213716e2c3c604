"""The documentation names every key of ``corpus.toml``, every option and every key of
``metrics.jsonl``.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from sabiprep import PackOptions, PackReport

ROOT = Path(__file__).parent.parent


def named(page: str) -> set[str]:
    """Returns the words in backquotes of a page of ``docs/``, blocks of code aside."""
    text = re.sub(r"(?ms)^```.*?^```", "", (ROOT / "docs" / page).read_text("utf-8"))
    return {
        word for quoted in re.findall(r"`([^`]+)`", text) for word in re.findall(r"\w+", quoted)
    }


def test_every_key_and_word_of_corpus_toml_is_documented() -> None:
    written = (ROOT / "rust/core/plan/written/keys.rs").read_text("utf-8")
    keys = set(re.findall(r"(?:key|needed)\(\"(\w+)\"", written)) - {"tokenizer", "mix", "source"}
    words = {
        word
        for listed in re.findall(r"Word\(\|\| &\[([^\]]*)\]\)", written)
        for word in re.findall(r"\w+", listed)
    }
    # Formats and packing policies are named in the file of each.
    for table in ("pack", "read/formats"):
        for file in (ROOT / "rust/core" / table).glob("*.rs"):
            text = file.read_text("utf-8")
            words |= set(re.findall(r"fn name\(&self\) -> &'static str \{\s*\"(\w+)\"", text))
    assert len(keys) >= 30 and {"best_fit", "jsonl", "truncate"} <= words
    assert keys | words <= named("configuration.md")


def test_every_option_is_documented_in_python_and_on_the_command_line() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    for option in fields(PackOptions):
        flag = "--" + option.name.replace("_", "-")
        shown = "sabiprep remix" if option.name == "reuse" else flag
        assert re.search(rf"^\| `{option.name}` \| `{shown}", page, re.MULTILINE), option.name


def keys_of(record: dict[str, Any]) -> Iterator[str]:
    """The keys of a line, those of scores by the names of tasks and the like aside."""
    for key, value in record.items():
        yield key
        if key in ("total", "prompt") and isinstance(value, dict):
            yield from value
        elif key == "sources":
            yield from next(iter(value.values()))


def test_every_key_of_metrics_is_documented(packed: PackReport, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    run = tmp_path / "run"
    command = [sys.executable, "-m", "sabitrain", "--data", packed.out, "--run", run]
    options = ["--max-steps", 2, "--model.layers", 1, "--model.width", 16, "--model.mlp-width", 16]
    ran = subprocess.run(
        [str(word) for word in [*command, *options, "--threads", 1]], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    kinds = {line["kind"] for line in lines}
    assert kinds == {"start", "train", "validation", "answer", "end"}
    keys = {key for line in lines for key in keys_of(line)}
    assert kinds | keys <= named("training.md"), (kinds | keys) - named("training.md")


def test_every_drop_reason_is_documented() -> None:
    schema = (ROOT / "rust/core/schema.rs").read_text("utf-8")
    reasons = re.findall(r"Self::\w+ => \"([a-z ]+)\"", schema.partition("impl DropReason")[2])
    page = (ROOT / "docs" / "datasets.md").read_text("utf-8")
    assert len(reasons) >= 11
    for reason in reasons[:11]:
        assert f"| {reason} |" in page, reason
