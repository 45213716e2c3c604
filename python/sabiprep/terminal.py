"""Output for terminals and pipes, and text that cannot drive a terminal."""

from __future__ import annotations

import io
import re
import sys
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

PLAIN_WIDTH = 120
"""Columns for tables that are not shown on a terminal."""
NARROWEST = 24
"""Columns that are reckoned with at least: on a narrower terminal lines wrap wherever they end."""


def accept_any_text() -> None:
    """Lets the standard streams take any text.

    The streams escape characters that they cannot encode, as in a name that is not UTF-8.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def counted(number: int, noun: str) -> str:
    """Returns a number and the noun of what is counted, with an ``s`` unless there is one."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def console_for(file: TextIO) -> Console:
    """Returns a console on ``file`` without markup, emoji codes or highlighting."""
    return Console(file=file, highlight=False, markup=False, emoji=False)


def has_colours(console: Console) -> bool:
    """Returns whether a console shows colours: a terminal with them, and no ``NO_COLOR``."""
    return console.is_terminal and console.color_system is not None and not console.no_color


def show(renderable: RenderableType, file: TextIO) -> None:
    """Prints on ``file``: for the terminal that it is, or as `to_plain` has it."""
    console = console_for(file)
    if console.is_terminal:
        console.width = max(console.width, NARROWEST)
        console.print(renderable, crop=False)
    else:
        print(to_plain(renderable), file=file)


def to_plain(renderable: RenderableType) -> str:
    """Returns the text for a file or a pipe.

    The text has no colours, tables of a fixed width, and no spaces at the end of a line.
    """
    file = io.StringIO()
    console = Console(
        file=file,
        width=PLAIN_WIDTH,
        color_system=None,
        force_terminal=False,
        force_jupyter=False,
        highlight=False,
        markup=False,
        emoji=False,
    )
    console.print(renderable, crop=False)
    return "\n".join(line.rstrip() for line in file.getvalue().rstrip("\n").split("\n"))


class Sentence:
    """A line that a terminal gets wrapped at words; elsewhere it is never broken.

    A word that is longer than a line stays whole, so that a path can be copied.
    """

    def __init__(self, text: str | Text, indent: int = 0, *, wrapped: bool = False) -> None:
        """Takes a line.

        Args:
            text: The content of the line.
            indent: Spaces before each further line of a wrapped sentence.
            wrapped: Whether to wrap outside of terminals too.
        """
        self._text = Text(text) if isinstance(text, str) else text
        self._indent = indent
        self._wrapped = wrapped

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields the line, or lines."""
        if not (self._wrapped or console.is_terminal):
            whole = self._text.copy()
            whole.no_wrap, whole.overflow = True, "ignore"
            yield whole
            return
        for number, part in enumerate(self._text.divide(self._breaks(options.max_width))):
            part.rstrip()
            part.no_wrap, part.overflow = True, "ignore"
            if number:
                part.pad_left(self._indent)
            yield part

    def _breaks(self, width: int) -> list[int]:
        """Returns the ends of lines: before a word over ``width``, unless it begins its line."""
        breaks: list[int] = []
        for word in re.finditer(r"\S+", self._text.plain):
            start, end = (breaks[-1] if breaks else 0), word.end()
            column = cell_len(self._text.plain[start:end]) + (self._indent if breaks else 0)
            if column > width and self._text.plain[start : word.start()].strip():
                breaks.append(word.start())
        return breaks


class Verbatim:
    """Lines that are printed as they are, whatever the width: text to be copied or parsed."""

    def __init__(self, text: str) -> None:
        """Takes the lines."""
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields the lines."""
        for line in self._text.split("\n"):
            yield Text(line, no_wrap=True, overflow="ignore")


def visible(text: str) -> str:
    r"""Returns ``text`` on one line, as a Python string spells it.

    Escapes: ``\n``, ``\x1b``, ``\u200d``; a backslash is doubled.
    """
    if text.isprintable() and "\\" not in text:
        return text
    return "".join("\\\\" if char == "\\" else _escaped(char) for char in text)


def on_one_line(message: str) -> str:
    """Returns a message, which may quote data, on one line; its backslashes stay."""
    return "".join(map(_escaped, message))


def unobeyed(text: str) -> str:
    """Returns JSON with what a terminal would obey as escapes of JSON."""
    return re.sub(
        "[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]",
        lambda match: f"\\u{ord(match[0]):04x}",
        text,
    )


def harmless(message: str) -> str:
    """Returns a message, which may quote data, for the terminal.

    Its lines stay; other control characters are escaped.
    """
    return "".join(char if char == "\n" else _escaped(char) for char in message)


def _escaped(char: str) -> str:
    if "\udc80" <= char <= "\udcff":  # a byte of a path that is not UTF-8, as `os.fsdecode` has it
        return f"\\x{ord(char) & 0xFF:02x}"
    return char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
