"""The terminal: output that suits where it goes, and text that cannot drive what it is shown on."""

from __future__ import annotations

import io
from typing import TextIO

from rich.console import Console, RenderableType
from rich.text import Text

PLAIN_WIDTH = 120
"""Columns for tables that are not shown on a terminal."""
NARROWEST = 100
"""Columns that tables have at least: on a narrower terminal lines wrap, which reads better than names in shreds."""


def console_for(file: TextIO) -> Console:
    """A console on ``file`` that reads nothing into the text: no markup, no emoji codes, no highlighting."""
    return Console(file=file, highlight=False, markup=False, emoji=False)


def has_colours(console: Console) -> bool:
    """Whether colours can be told apart on it: a terminal with them, and no ``NO_COLOR``."""
    return console.is_terminal and console.color_system is not None and not console.no_color


def show(renderable: RenderableType, file: TextIO) -> None:
    """Print on ``file``: for the terminal that it is, or as `to_plain` has it."""
    console = console_for(file)
    if console.is_terminal:
        console.width = max(console.width, NARROWEST)
        console.print(renderable, crop=False)
    else:
        print(to_plain(renderable), file=file)


def to_plain(renderable: RenderableType) -> str:
    """What is shown where there is no terminal: no colours, tables of a fixed width, no spaces that end a line."""
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


def line(text: str, style: str = "") -> Text:
    """A line that is never broken, so that what is copied from it is what was meant; the terminal wraps it."""
    return Text(text, style, no_wrap=True, overflow="ignore", end="\n")


def visible(text: str) -> str:
    r"""``text`` on one line, as a Python string spells it: ``\n``, ``\x1b``, ``\u200d``; a backslash is doubled."""
    if text.isprintable() and "\\" not in text:
        return text
    return "".join("\\\\" if char == "\\" else _escaped(char) for char in text)


def harmless(message: str) -> str:
    """A message for the terminal, which may quote data: its lines stay, other control characters are escaped."""
    return "".join(char if char == "\n" else _escaped(char) for char in message)


def _escaped(char: str) -> str:
    if "\udc80" <= char <= "\udcff":  # a byte of a path that is not UTF-8, as `os.fsdecode` has it
        return f"\\x{ord(char) & 0xFF:02x}"
    return char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
