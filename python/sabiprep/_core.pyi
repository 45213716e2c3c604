"""The Rust core, private to `sabiprep`: its results are JSON and Arrow."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from typing import Any, Final, Protocol, final

from sabiprep.api import Progress
from sabiprep.options import PackOptions

__all__ = [
    "OPTION_NAMES",
    "Decoder",
    "TextEncoder",
    "Worker",
    "__version__",
    "explain",
    "finish",
    "init",
    "map_part",
    "pack",
    "pack_with",
    "read_file",
    "settle_parts",
    "survey",
    "train_tokenizer",
    "verify",
    "verify_against",
]

OPTION_NAMES: Final[list[str]]
__version__: Final[str]

_Hub = Mapping[str, Sequence[tuple[str, str]]]
_Order = tuple[str, list[str], int, int]

class _ArrowArray(Protocol):
    """An array of Arrow's C data interface, as pyarrow's and others' arrays are."""

    def __arrow_c_array__(
        self, requested_schema: object | None = None
    ) -> tuple[object, object]: ...

def read_file(path: str | PathLike[str], limit: int) -> bytes: ...
def pack(
    corpus: str | PathLike[str] | None,
    out: str | PathLike[str],
    options: PackOptions,
    progress: Progress | None,
    *,
    hub: _Hub | None = None,
) -> str: ...
def pack_with(
    corpus: str | PathLike[str],
    out: str | PathLike[str],
    options: PackOptions,
    workers: Callable[[list[_Order]], Iterator[tuple[int, str] | None]],
    progress: Progress | None,
    *,
    hub: _Hub | None = None,
) -> str: ...
def map_part(
    corpus: str | PathLike[str],
    out: str | PathLike[str],
    options: PackOptions,
    part: tuple[int, int],
    progress: Progress | None,
    *,
    hub: _Hub | None = None,
) -> str: ...
def settle_parts(
    corpus: str | PathLike[str],
    out: str | PathLike[str],
    options: PackOptions,
    progress: Progress | None,
    *,
    hub: _Hub | None = None,
) -> int: ...
def finish(
    corpus: str | PathLike[str],
    out: str | PathLike[str],
    options: PackOptions,
    progress: Progress | None,
    *,
    hub: _Hub | None = None,
) -> str: ...
def verify(out: str | PathLike[str], *, progress: Progress | None) -> str: ...
def verify_against(
    out: str | PathLike[str],
    corpus: str | PathLike[str],
    *,
    sample: int | None,
    threads: int,
    progress: Progress | None,
    hub: _Hub | None = None,
) -> str: ...
def explain(
    corpus: str | PathLike[str],
    source: str,
    record: str,
    options: PackOptions,
    *,
    hub: _Hub | None = None,
) -> tuple[str, Any]: ...
def survey(
    corpus: str | PathLike[str], options: PackOptions, *, hub: _Hub | None = None
) -> str: ...
def init(corpus: str | PathLike[str], options: PackOptions, *, write: bool) -> str: ...
def train_tokenizer(
    corpus: str | PathLike[str],
    file: str | PathLike[str],
    vocab_size: int,
    *,
    overwrite: bool,
    progress: Progress | None,
    hub: _Hub | None = None,
) -> str: ...

@final
class Worker:
    """A process that does tasks of a run that another process leads."""

    def __new__(
        cls,
        corpus: str | PathLike[str],
        out: str | PathLike[str],
        options: PackOptions,
        *,
        hub: _Hub | None = None,
    ) -> Worker: ...
    def run(self, kind: str, tasks: Sequence[str], threads: int) -> str: ...
    def reduce_part(self, part: tuple[int, int], progress: Progress | None) -> tuple[int, int]: ...

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
