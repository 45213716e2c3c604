"""The tokenizer that a dataset came with: it turns ids back into text, and is checked to be the right one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from tokenizers import Tokenizer

from sabiprep.dataset import PackedDataset
from sabiprep.errors import DatasetError
from sabiprep.files import TOKENIZER_LIMIT, read_whole

REMEDY = "pack the dataset again, or put back the tokenizer.json it came with"


def open_tokenizer(dataset: PackedDataset) -> Tokenizer:
    """The tokenizer of a dataset.

    Raises:
        DatasetError: If it cannot be read, its vocabulary is not the dataset's, or it has drifted: it gives the
            manifest's probe strings other ids.
    """
    file = str(dataset.tokenizer_path)
    content = read_tokenizer(dataset)
    try:
        tokenizer = Tokenizer.from_buffer(content)
        known = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        tokenizer.no_padding()
        tokenizer.no_truncation()
        drifted = next((text for text, ids in _probes(dataset) if _ids(tokenizer, text) != ids), None)
    except BaseException as error:  # the library raises `Exception`; where it panics, a class that is no `Exception`
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise DatasetError(f"cannot be read as a tokenizer: {error}", file=file, remedy=REMEDY) from error
    if known != dataset.vocab_size:
        raise DatasetError(
            f"the dataset was packed with a vocabulary of {dataset.vocab_size}, but this tokenizer has one of {known}",
            file=file,
            remedy=REMEDY,
        )
    if drifted is not None:
        raise DatasetError(
            f"gives {drifted!r} other ids than when the dataset was packed: the tokenizer has drifted",
            file=file,
            remedy=REMEDY,
        )
    return tokenizer


def read_tokenizer(dataset: PackedDataset) -> bytes:
    """The bytes of the tokenizer's file.

    Raises:
        DatasetError: If it cannot be read, or is not the one that the dataset was packed with.
    """
    file = str(dataset.tokenizer_path)
    try:
        content = read_whole(dataset.tokenizer_path, TOKENIZER_LIMIT)
    except OSError as error:
        raise DatasetError(
            f"cannot be read as a tokenizer: {error.strerror or error}", file=file, remedy=REMEDY
        ) from error
    if hashlib.sha256(content).hexdigest() != dataset.manifest["tokenizer"]["sha256"]:
        raise DatasetError(
            "is not the tokenizer this dataset was packed with: its sha256 is not the manifest's",
            file=file,
            remedy=REMEDY,
        )
    return content


def _probes(dataset: PackedDataset) -> Iterator[tuple[str, list[int]]]:
    return ((probe["text"], probe["ids"]) for probe in dataset.manifest["tokenizer"]["probes"])


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids
