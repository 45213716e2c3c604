"""Text to token ids: the ids of the `tokenizers` library, faster for a byte-level BPE.

encoder = sabiprep.Encoder.from_file("tokenizer.json")
ids = encoder.encode(["Ẹ kú àárọ̀", "Good morning"])  # an Arrow list<uint32> array
ids.values.to_numpy(), ids.offsets.to_numpy()  # flat ids, and the start of each text
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sabiprep.api import compiled
from sabiprep.errors import ConfigError
from sabiprep.options import StrPath

if TYPE_CHECKING:
    from sabiprep._core import TextEncoder


class Encoder:
    """The tokenizer of a `tokenizer.json`, for text alone; made by `from_file`.

    Threads may share it.
    """

    __slots__ = ("_core",)

    def __init__(self, core: TextEncoder) -> None:
        """Wraps a loaded tokenizer; `from_file` loads one."""
        self._core = core

    @classmethod
    def from_file(cls, file: StrPath) -> Encoder:
        """Loads a `tokenizer.json`.

        The engine is sabiprep's fast encoder for byte-level BPE with a known split pattern (GPT-2,
        cl100k and Llama-3, Qwen, o200k, and the pattern of ``sabiprep tokenizer train``) and no
        normalizer or NFC; for any other file it is the `tokenizers` library. Both encode some texts
        first: if their ids differ, a RuntimeWarning says so and the library encodes.

        Raises:
            TokenizerError: If the file cannot be read or is no usable tokenizer.
        """
        with compiled():
            from sabiprep import _core
        encoder = cls(_core.TextEncoder(file))
        if encoder._core.warning is not None:
            warnings.warn(encoder._core.warning, RuntimeWarning, stacklevel=2)
        return encoder

    @property
    def engine(self) -> str:
        """The engine with its versions; after another than the fast encoder, the reason."""
        return self._core.engine

    def encode(
        self, texts: Sequence[str] | pa.Array | pa.ChunkedArray, threads: int = 1
    ) -> pa.ListArray:
        """Returns the ids of texts, never cut or padded.

        The ids are those of `tokenizers`' ``encode(text, add_special_tokens=False)``. The GIL is
        released during the work.

        Args:
            texts: Strings, or an Arrow array of strings (string, large_string or string_view)
                without nulls. A list is read during the work, not copied first: no other thread may
                change it.
            threads: Threads to work with at most; their number never changes the ids.

        Returns:
            An array of type list<uint32>, one list a text: ``.values`` holds the ids of all texts,
            flat; ``.offsets`` (int32, one more than texts) holds the start of each text.

        Raises:
            ConfigError: If ``threads`` is not an integer from 1 to 4096.
            InputError: If the ids are more than 2**31 - 1.
            RuntimeError: If a list is found to have changed size while it was encoded.
            TypeError: If a text is not a string.
            ValueError: If a text is null, or is not valid Unicode (a lone surrogate).
        """
        if not isinstance(threads, int) or not 1 <= threads <= 4096:
            raise ConfigError(f"threads is {threads!r}, not an integer from 1 to 4096")
        # A str is a sequence of strings too, each of one character.
        if isinstance(texts, str):
            raise TypeError("texts is one str, not a list of them")
        if isinstance(texts, pa.ChunkedArray):
            texts = texts.combine_chunks()
        # Copying another sequence to a list takes 2 % of the time that two threads encode it in.
        given: Any = texts if isinstance(texts, pa.Array) or type(texts) is list else list(texts)
        ids: Any = pa.array(self._core.encode(given, threads=threads))
        return ids
