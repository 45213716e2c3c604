"""The tokenizer file of a packed dataset, read and held against the manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from sabiprep.errors import DatasetError
from sabiprep.files import TOKENIZER_LIMIT, read_whole

REMEDY = "pack the dataset again, or put back the tokenizer.json it came with"


class WithTokenizer(Protocol):
    """A dataset, as far as its tokenizer goes."""

    @property
    def tokenizer_path(self) -> Path:
        """The file of the tokenizer."""

    @property
    def manifest(self) -> Mapping[str, Any]:
        """The manifest."""


def read_tokenizer(dataset: WithTokenizer) -> bytes:
    """Reads the bytes of the tokenizer's file.

    Raises:
        DatasetError: If it cannot be read, or is not the one that the dataset was packed with.
    """
    file = str(dataset.tokenizer_path)
    try:
        content = read_whole(dataset.tokenizer_path, TOKENIZER_LIMIT)
    except OSError as error:
        raise DatasetError(
            f"cannot be read as a tokenizer: {error.strerror or error}",
            file=file,
            remedy=REMEDY,
            errno=error.errno,
        ) from error
    if hashlib.sha256(content).hexdigest() != dataset.manifest["tokenizer"]["sha256"]:
        raise DatasetError(
            "is not the tokenizer this dataset was packed with: its sha256 is not the manifest's",
            file=file,
            remedy=REMEDY,
        )
    return content
