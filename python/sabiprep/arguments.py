"""The types of a command line's arguments, and `PackOptions` as arguments."""

from __future__ import annotations

from dataclasses import Field, field, fields, make_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, get_type_hints

from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, Suppress, arg
from tyro.constructors import PrimitiveConstructorSpec

from sabiprep.options import PackOptions, StrPath

# tyro's own reading of `int | None` takes the word None, and its message for a mistyped number
# speaks of instantiated types.
Number = PrimitiveConstructorSpec(
    nargs=1,
    metavar="N",
    instance_from_str=lambda words: int(words[0]),
    is_instance=lambda value: value is None or isinstance(value, int),
    str_from_instance=lambda value: [str(value)],
)
# tyro reads no union of a text and a path.
File = PrimitiveConstructorSpec(
    nargs=1,
    metavar="FILE",
    instance_from_str=lambda words: _place(words[0]),
    is_instance=lambda value: value is None or isinstance(value, StrPath),
    str_from_instance=lambda value: [str(value)],
)
Flag = FlagCreatePairsOff[bool]
Part = tuple[int, int]
"""A part, counted from 1, and the number of parts."""


def _part(words: list[str]) -> Part:
    """Reads ``3/16``."""
    part, _, parts = words[0].partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise ValueError(f"{words[0]} is no part: write 1/16 to 16/16 for the parts of 16")
    return int(part), int(parts)


PART = PrimitiveConstructorSpec(
    nargs=1,
    metavar="I/N",
    instance_from_str=_part,
    is_instance=lambda value: value is None or isinstance(value, tuple),
    str_from_instance=lambda value: [str(value)],
)


def _place(word: str) -> StrPath:
    """Returns a URL as the text it is, since `Path` makes one slash of two, and a path as such."""
    return word if "://" in word else Path(word)


def folder(metavar: str) -> PrimitiveConstructorSpec[Any]:
    """Returns the spec of a folder on a disk or in a bucket, called ``metavar`` in the help."""
    return replace(File, metavar=metavar)


Corpus = Annotated[Positional[StrPath], folder("CORPUS")]
Out = Annotated[Positional[StrPath], folder("OUT")]


def _argument(option: Field[Any], hint: object) -> Any:
    """Returns the type of an option of `PackOptions` with the markers that tyro reads."""
    shown = option.metadata.get("shown")
    behavior = arg(help_behavior_hint=f"(default: {shown})" if shown else "")
    if hint is bool:
        return Annotated[Flag, behavior]
    return Annotated[hint, File if hint == StrPath | None else Number, behavior]


def _arguments(*names: str) -> Any:
    """Returns `PackOptions` for tyro, in which only the options ``names`` are arguments."""
    hints = get_type_hints(PackOptions)
    marked = []
    for option in fields(PackOptions):
        kind = _argument(option, hints[option.name])
        if option.name not in names:
            kind = Annotated[kind, Suppress]
        marked.append((option.name, kind, field(default=option.default)))
    options = make_dataclass("PackOptions", marked, bases=(PackOptions,), frozen=True, kw_only=True)
    # Without a name, the options are shown among the others, not in a box of their own.
    return Annotated[options, OmitArgPrefixes, arg(name="")]


if TYPE_CHECKING:
    PackArguments: TypeAlias = PackOptions
    FinishArguments: TypeAlias = PackOptions
    RemixArguments: TypeAlias = PackOptions
    ExplainArguments: TypeAlias = PackOptions
    PlanArguments: TypeAlias = PackOptions
    InitArguments: TypeAlias = PackOptions
    TaskArguments: TypeAlias = PackOptions
else:
    _ALL = {option.name for option in fields(PackOptions)}
    PackArguments = _arguments(*_ALL - {"reuse"})
    FinishArguments = _arguments(
        "seq_len", "tokenizer", "seed", "threads", "spool_bytes", "strict", "keep_spool"
    )
    RemixArguments = _arguments(*_ALL - {"reuse", "split_bytes"})
    ExplainArguments = _arguments("seq_len", "tokenizer")
    PlanArguments = _arguments("seq_len", "tokenizer", "threads")
    InitArguments = _arguments("tokenizer")
    TaskArguments = _arguments("seq_len", "tokenizer", "seed", "threads")
