"""The texts of a corpus as a base's tokenizer gives them: packed, read back, spelt by pieces.

A corpus is packed into a temporary folder, so that nothing but `sabiprep` reads corpora. A
**stretch** is the text of consecutive tokens of a document that were encoded as one run, without
control and added tokens; it is spelt as the tokenizer's bare form takes it
(`sabitrain.adapt.tokenizer_file`).
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sabiprep import PackOptions, pack
from sabiprep.dataset import PackedDataset, Split, open_dataset
from sabiprep.doc_id import DocId
from sabiprep.errors import DatasetError
from sabiprep.progress import show_progress
from sabiprep.roles import Role
from sabiprep.tokenizer_file import read_tokenizer
from sabitrain.adapt.tokenizer_file import SPACE, BpeFile, letters_to_bytes, read_json

_CONTROL, _TEMPLATE, _DATA = int(Role.CONTROL), int(Role.TEMPLATE), int(Role.DATA)
# Long rows, so that as few texts as possible are cut or shortened; tokens that are read at a time.
_SEQ_LEN = 65_536
_TOKENS_AT_A_TIME = 1 << 20
# Keys that may differ between the tokenizers of a base and of a dataset: they shape no text.
_BESIDE_THE_MODEL = ("post_processor", "decoder", "truncation", "padding")


class Stretch(NamedTuple):
    """The text of a stretch.

    Attributes:
        language: The language of its source.
        held_out: Whether it is of the validation split.
        text: The text, as the bare form of the tokenizer takes it.
        ids: Its tokens.
    """

    language: str
    held_out: bool
    text: str
    ids: list[int]


class Texts:
    """The texts of one packed dataset."""

    def __init__(self, dataset: PackedDataset, file: BpeFile) -> None:
        """Takes a dataset and the tokenizer that it was packed with."""
        self.dataset = dataset
        self._file = file
        # The unknown token has no text either.
        added = sorted(file.closed - file.byte_ids.keys())
        self._added = np.zeros(max([dataset.vocab_size, *(id_ + 1 for id_ in added)]), np.bool_)
        self._added[added] = True
        self._spelt = {id_: letters_to_bytes(piece) for id_, piece in file.pieces.items()}
        self._languages = [source.lang or source.name for source in dataset.sources]

    def stretches(self) -> Iterator[Stretch]:
        """Yields the stretches of every document, the repeated copies of a record aside.

        Raises:
            DatasetError: If a shard is damaged.
        """
        for split, held_out in ((self.dataset.train, False), (self.dataset.validation, True)):
            for language, ids, roles in self._documents(split):
                for run in self._runs(ids, roles):
                    text = self._text(run)
                    if text:
                        yield Stretch(language, held_out, text, run)

    def used(self) -> set[int]:
        """Returns every id in the rows.

        Raises:
            DatasetError: If a shard is damaged.
        """
        found: set[int] = set()
        for split in (self.dataset.train, self.dataset.validation):
            for _, ids, _ in self._documents(split):
                found.update(ids.tolist())
        return found

    def _documents(
        self, split: Split
    ) -> Iterator[tuple[str, npt.NDArray[np.int64], npt.NDArray[np.uint8]]]:
        """Yields the language, the ids and the roles of each document, one copy of each."""
        rows = max(1, _TOKENS_AT_A_TIME // self.dataset.seq_len)
        for start in range(0, len(split), rows):
            batch = split.batch(range(start, min(start + rows, len(split))), labels=False)
            row, begin = -1, 0
            for source, part, length, at in zip(
                batch["source_ids"].tolist(),
                batch["doc_parts"].tolist(),
                batch["seq_lengths"].tolist(),
                batch["doc_rows"].tolist(),
                strict=True,
            ):
                begin = 0 if at != row else begin
                row, end = at, begin + length
                known = DocId.unpack(source, 0, part)
                if known.copy == 0:
                    # A window begins with the last token of the one before.
                    first = begin + (known.window > 0)
                    yield (
                        self._languages[source],
                        batch["input_ids"][row, first:end],
                        batch["roles"][row, first:end],
                    )
                begin = end

    def _runs(
        self, ids_N: npt.NDArray[np.int64], roles_N: npt.NDArray[np.uint8]
    ) -> Iterator[list[int]]:
        """Yields the ids of each stretch of a document."""
        # Template and data are encoded as one run, so they count as one role.
        kinds_N = np.where(roles_N == _DATA, _TEMPLATE, roles_N)
        kinds_N = np.where(self._added[ids_N], _CONTROL, kinds_N)
        edges = (np.flatnonzero(np.diff(kinds_N)) + 1).tolist()
        for begin, end in zip([0, *edges], [*edges, len(ids_N)], strict=True):
            if end > begin and kinds_N[begin] != _CONTROL:
                yield ids_N[begin:end].tolist()

    def _text(self, ids: Sequence[int]) -> str:
        """Returns the text of a stretch; characters that an edge of it cuts are left out."""
        pieces, bytes_ = self._file.pieces, self._file.byte_ids
        if self._file.kind == "byte-level":
            # By token: a look at each letter would take most of the time of a corpus.
            return b"".join(map(self._spelt.__getitem__, ids)).decode(errors="ignore")
        if bytes_.keys().isdisjoint(ids):
            return "".join(pieces[id_] for id_ in ids)
        parts = []
        for is_byte, group in groupby(ids, bytes_.__contains__):
            if is_byte:
                parts.append(bytes(bytes_[id_] for id_ in group).decode(errors="ignore"))
            else:
                parts.extend(pieces[id_] for id_ in group)
        return "".join(parts)


def words_in(text: str) -> int:
    """Returns the number of words, told apart by white space, in the text of a stretch."""
    return len(text.replace(SPACE, " ").split())


@contextlib.contextmanager
def open_texts(path: Path, file: BpeFile) -> Iterator[Texts]:
    """Opens the texts of a corpus, which is packed first, or of a packed dataset.

    Args:
        path: The folder of a corpus, or of a dataset that was packed with the tokenizer.
        file: The tokenizer, as the base has it.

    Raises:
        ConfigError: If the corpus cannot be packed with this tokenizer.
        InputError: If an input cannot be read.
        TokenizerError: If the tokenizer cannot serve this corpus.
        DatasetError: If the dataset is damaged, or was packed with another tokenizer.
    """
    if (path / "manifest.json").exists():
        with open_dataset(path) as dataset:
            check_tokenizer(dataset, file.content, file.file)
            yield Texts(dataset, file)
        return
    with tempfile.TemporaryDirectory(prefix="sabitrain-adapt-") as folder:
        out = Path(folder) / "dataset"
        with show_progress() as progress:
            pack(path, out, PackOptions(tokenizer=file.file, seq_len=_SEQ_LEN), progress=progress)
        with open_dataset(out) as dataset:
            yield Texts(dataset, file)


def check_tokenizer(dataset: PackedDataset, content: Mapping[str, Any], file: str) -> None:
    """Refuses a dataset that was packed with another tokenizer.

    Args:
        dataset: The dataset.
        content: The tokenizer of the base, parsed.
        file: The name of its file.

    Raises:
        DatasetError: If it was, or its own tokenizer is damaged.
        TokenizerError: If its own tokenizer is no JSON.
    """
    mine, theirs = (
        {key: value for key, value in each.items() if key not in _BESIDE_THE_MODEL}
        for each in (content, read_json(read_tokenizer(dataset), str(dataset.tokenizer_path)))
    )
    if mine != theirs:
        raise DatasetError(
            f"was packed with another tokenizer than {file}",
            file=str(dataset.path),
            remedy="pack its corpus with the base's tokenizer: sabiprep pack CORPUS OUT "
            f"--tokenizer {file}",
        )
