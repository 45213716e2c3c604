"""The Rust core. Private: `sabiprep.api` and `sabiprep.inspection` are its callers, and its results
are JSON.
"""

from collections.abc import Sequence
from os import PathLike
from typing import Any, Final, Protocol, final

from sabiprep.api import Progress

__all__ = [
    "Decoder",
    "TextEncoder",
    "__version__",
    "explain",
    "pack",
    "remix",
    "train_tokenizer",
    "verify",
    "verify_against",
]

__version__: Final[str]

class _ArrowArray(Protocol):
    """An array of Arrow's C data interface, as pyarrow's and others' arrays are."""

    def __arrow_c_array__(
        self, requested_schema: object | None = None
    ) -> tuple[object, object]: ...

def pack(
    corpus: str | PathLike[str],
    out: str | PathLike[str],
    *,
    seq_len: int | None,
    tokenizer: str | PathLike[str] | None,
    seed: int | None,
    threads: int,
    split_bytes: int | None,
    spool_bytes: int | None,
    overwrite: bool,
    resume: bool,
    keep_spool: bool,
    progress: Progress | None,
) -> str: ...
def remix(
    dataset: str | PathLike[str],
    out: str | PathLike[str],
    *,
    corpus: str | PathLike[str] | None,
    seq_len: int | None,
    tokenizer: str | PathLike[str] | None,
    seed: int | None,
    threads: int,
    spool_bytes: int | None,
    overwrite: bool,
    resume: bool,
    keep_spool: bool,
    progress: Progress | None,
) -> str: ...
def verify(out: str | PathLike[str], *, progress: Progress | None) -> str: ...
def verify_against(
    out: str | PathLike[str],
    corpus: str | PathLike[str],
    *,
    sample: int | None,
    threads: int,
    progress: Progress | None,
) -> str: ...
def explain(
    corpus: str | PathLike[str],
    source: str,
    record: str,
    *,
    seq_len: int | None,
    tokenizer: str | PathLike[str] | None,
) -> tuple[str, Any]: ...
def train_tokenizer(
    corpus: str | PathLike[str],
    file: str | PathLike[str],
    vocab_size: int,
    *,
    overwrite: bool,
    progress: Progress | None,
) -> str: ...

@final
class Decoder:
    def __new__(cls, out: str | PathLike[str]) -> Decoder: ...
    def pieces(self, ids: _ArrowArray) -> _ArrowArray: ...

@final
class TextEncoder:
    def __new__(cls, file: str | PathLike[str]) -> TextEncoder: ...
    @property
    def engine(self) -> str: ...
    @property
    def warning(self) -> str | None: ...
    def encode(self, texts: Sequence[str] | _ArrowArray, *, threads: int) -> _ArrowArray: ...
