"""The text of token ids, document by document.

A byte-level tokenizer is a table of bytes, so that text is made by the array; any other one is
decoded by the core, a document at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sabiprep.api import compiled
from sabiprep.dataset import PackedDataset
from sabiprep.tokenizer_file import read_tokenizer


class Texts(Protocol):
    """A decoder of runs of tokens."""

    def decode(
        self, ids_N: npt.NDArray[np.int64], lengths: npt.NDArray[Any] | Sequence[int]
    ) -> list[str]:
        """Returns the text of each run of ids, given their lengths. A run may be empty."""


def texts_of(dataset: PackedDataset) -> Texts:
    """Returns the decoder of a dataset.

    Raises:
        DatasetError: If its tokenizer cannot be read, or is not the one it was packed with.
        SabiprepError: If the compiled core is needed and missing.
    """
    content = read_tokenizer(dataset)
    try:
        table = _byte_table(msgspec.json.decode(content), dataset.vocab_size)
    except (ValueError, RecursionError, TypeError, LookupError, AttributeError):
        table = None  # an odd file: the core says what is wrong with it, or decodes
    return CoreTexts(dataset) if table is None else ByteTexts(table)


class CoreTexts:
    """A decoder that asks the compiled core."""

    def __init__(self, dataset: PackedDataset) -> None:
        """Loads the tokenizer of a dataset."""
        with compiled():
            from sabiprep._core import Decoder
        self._decoder = Decoder(dataset.folder)

    def decode(
        self, ids_N: npt.NDArray[np.int64], lengths: npt.NDArray[Any] | Sequence[int]
    ) -> list[str]:
        """Returns the text of each run; a character that its last token leaves open is left out."""
        ends = np.cumsum(lengths, dtype=np.int64).tolist()
        runs = zip([0, *ends], ends, strict=False)
        return [self._text(ids_N[start:end]) for start, end in runs]

    def _text(self, ids: npt.NDArray[np.int64]) -> str:
        """Returns the text of one run."""
        # A decoder of its own for each: the first token of a text may lose its space.
        pieces: Any = pa.array(self._decoder.pieces(pa.array(ids, pa.uint32())))
        return "".join(pieces.to_pylist())


class ByteTexts:
    """A decoder by a table of the bytes of each token."""

    def __init__(self, table: Sequence[bytes]) -> None:
        """Takes the bytes of each id."""
        self._bytes = np.frombuffer(b"".join(table) or b"\0", np.uint8)
        self._lengths_V = np.array([len(each) for each in table], np.int64)
        self._starts_V = np.cumsum(self._lengths_V) - self._lengths_V

    def decode(
        self, ids_N: npt.NDArray[np.int64], lengths: npt.NDArray[Any] | Sequence[int]
    ) -> list[str]:
        """Returns the text of each run; bytes that are no UTF-8 become U+FFFD."""
        lengths_N = self._lengths_V[ids_N]
        ends_N = np.cumsum(lengths_N)
        size = int(ends_N[-1]) if len(ends_N) else 0
        # The byte at i of the text is byte i - (start of its token in the text) of its token.
        from_B = np.arange(size) + np.repeat(
            self._starts_V[ids_N] - (ends_N - lengths_N), lengths_N
        )
        content = self._bytes[from_B].tobytes()
        last_D = np.concatenate(([0], ends_N))[np.cumsum(lengths, dtype=np.int64)]
        ends = last_D.tolist()
        return [
            content[start:end].decode("utf-8", "replace")
            for start, end in zip([0, *ends], ends, strict=False)
        ]


def _byte_table(tokenizer: Any, vocab_size: int) -> list[bytes] | None:
    """Returns the bytes of each id of a byte-level tokenizer, or None for another kind."""
    decoder, model = tokenizer["decoder"], tokenizer["model"]
    vocab = model["vocab"]
    if decoder is None or decoder["type"] != "ByteLevel" or not isinstance(vocab, dict):
        return None
    of_letter = _bytes_of_letters()
    table = [b""] * vocab_size
    added = {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    for id_, token in [*((id_, token) for token, id_ in vocab.items()), *added.items()]:
        letters = [of_letter.get(letter) for letter in token]
        # A token with a letter that stands for no byte is text as it is, as in `tokenizers`.
        spelt = [byte for byte in letters if byte is not None]
        table[id_] = bytes(spelt) if len(spelt) == len(letters) else token.encode()
    return table


def _bytes_of_letters() -> dict[str, int]:
    """Returns the byte that each letter of a byte-level vocabulary stands for.

    Printable characters of Latin-1 stand for themselves, the other bytes for letters from U+0100
    on, in order.
    """
    themselves = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in themselves]
    return {
        **{chr(byte): byte for byte in themselves},
        **{chr(0x100 + index): byte for index, byte in enumerate(others)},
    }
