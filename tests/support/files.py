"""Folders as bytes, and files changed in place."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text("utf-8")
    assert old in text
    file.write_text(text.replace(old, new), "utf-8")


ZEROS = "0" * 64


def reseal(file: Path, **changes: object) -> None:
    """Change values of a state file, and its digest with them."""
    state = {**json.loads(file.read_text("utf-8")), **changes, "sha256": ZEROS}
    text = json.dumps(state, indent=2, ensure_ascii=False)
    file.write_text(text.replace(ZEROS, hashlib.sha256(text.encode()).hexdigest(), 1), "utf-8")
