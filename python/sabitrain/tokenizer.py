"""The tokenizer that a dataset came with: it turns ids back into text, and is checked to be the right one."""

from __future__ import annotations

from tokenizers import Tokenizer

from sabiprep.dataset import PackedDataset
from sabiprep.errors import DatasetError


def open_tokenizer(dataset: PackedDataset) -> Tokenizer:
    """The tokenizer of a dataset.

    Raises:
        DatasetError: If it cannot be read, its vocabulary is not the dataset's, or it has drifted: it gives the
            manifest's probe strings other ids.
    """
    file = str(dataset.tokenizer_path)
    remedy = "pack the dataset again, or put back the tokenizer.json it came with"
    try:
        tokenizer = Tokenizer.from_file(file)
    except Exception as error:  # the library raises nothing more specific
        raise DatasetError(f"cannot be read as a tokenizer: {error}", file=file, remedy=remedy) from error
    known = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
    if known != dataset.vocab_size:
        raise DatasetError(
            f"the dataset was packed with a vocabulary of {dataset.vocab_size}, but this tokenizer has one of {known}",
            file=file,
            remedy=remedy,
        )
    tokenizer.no_padding()
    tokenizer.no_truncation()
    for probe in dataset.manifest["tokenizer"]["probes"]:
        if tokenizer.encode(probe["text"], add_special_tokens=False).ids != probe["ids"]:
            raise DatasetError(
                f"gives {probe['text']!r} other ids than when the dataset was packed: the tokenizer has drifted",
                file=file,
                remedy=remedy,
            )
    return tokenizer
