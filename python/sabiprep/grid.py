"""A table that fits the terminal it is shown on, without a word that is broken.

Where it is too wide, long names lose their middle and lists of words are wrapped; then counts are
rounded; then each row is a few lines of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from sabiprep.terminal import Sentence

SHORTEST_NAME = 12

Cell = str | int
Kind = Literal["name", "figure", "words"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column.

    Attributes:
        heading: The text above it, wrapped at words.
        kind: ``"name"``: text that may lose its middle; ``"figure"``: numbers, never cut;
            ``"words"``: text that is wrapped at words.
    """

    heading: str
    kind: Kind = "figure"


class Grid:
    """A table under construction; a rich console renders it to its width."""

    def __init__(self, columns: Sequence[Column]) -> None:
        """Begins a table without rows."""
        self._columns = columns
        self._rows: list[tuple[Sequence[Cell], str]] = []
        self._sections: set[int] = set()

    def add(self, cells: Sequence[Cell], style: str = "") -> None:
        """Adds a row: a cell for each column.

        A whole number is a count, which may be rounded to fit.
        """
        self._rows.append((cells, style))

    def section(self) -> None:
        """Sets the rows that follow apart from those so far."""
        self._sections.add(len(self._rows))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields the widest form that fits."""
        for count, gap in ((_exact, 2), (_exact, 1), (_rounded, 1)):
            rows = [
                [count(cell) if isinstance(cell, int) else cell for cell in cells]
                for cells, _ in self._rows
            ]
            widths = self._widths(rows, options.max_width, gap)
            if widths is not None:
                yield self._table(rows, widths, gap)
                return
        yield from self._lines(options.max_width)

    def _widths(self, rows: Sequence[Sequence[str]], room: int, gap: int) -> list[int] | None:
        """Returns the widths of columns ``gap`` apart; None if they cannot fit into ``room``."""
        wanted, least = [], []
        for number, column in enumerate(self._columns):
            cells = [row[number] for row in rows]
            heading = _longest_word([column.heading])
            wanted.append(max(map(cell_len, [*cells, column.heading])))
            least.append(
                {
                    "name": max(heading, min(wanted[-1], SHORTEST_NAME)),
                    "figure": max(heading, *map(cell_len, cells), 0),
                    "words": max(heading, _longest_word(cells)),
                }[column.kind]
            )
        spare = room - sum(least) - gap * (len(least) - 1)
        if spare < 0:
            return None
        for kind in ("name", "words", "figure"):
            for number, column in enumerate(self._columns):
                if column.kind == kind:
                    more = min(spare, wanted[number] - least[number])
                    least[number] += more
                    spare -= more
        return least

    def _table(self, rows: Sequence[Sequence[str]], widths: Sequence[int], gap: int) -> Table:
        # The box itself sets columns one apart.
        table = Table(
            box=box.SIMPLE_HEAD,
            padding=(0, gap - 1, 0, 0),
            pad_edge=False,
            show_edge=False,
            header_style="bold",
        )
        for column, width in zip(self._columns, widths, strict=True):
            table.add_column(
                column.heading, width=width, justify="right" if column.kind == "figure" else "left"
            )
        for number, (cells, (_, style)) in enumerate(zip(rows, self._rows, strict=True)):
            if number in self._sections:
                table.add_section()
            shown = [
                elided(cell, width) if column.kind == "name" else cell
                for cell, column, width in zip(cells, self._columns, widths, strict=True)
            ]
            table.add_row(*(Text(cell, style) for cell in shown))
        return table

    def _lines(self, room: int) -> Iterator[Text | Sentence]:
        """Returns each row as its name and the texts of its columns."""
        headings = [column.heading for column in self._columns]
        for cells, style in self._rows:
            first, *others = (_exact(cell) if isinstance(cell, int) else cell for cell in cells)
            indent = len(first) - len(first.lstrip())
            listed = ", ".join(
                f"{heading} {cell}"
                for heading, cell in zip(headings[1:], others, strict=True)
                if cell.strip()
            )
            yield Text(elided(first, room), style, no_wrap=True, overflow="ignore")
            yield Sentence(Text(" " * (indent + 2) + listed), indent + 2, wrapped=True)


def elided(text: str, width: int) -> str:
    """Returns ``text`` within ``width`` columns, an ellipsis in its middle.

    So names keep both ends.
    """
    if cell_len(text) <= width:
        return text
    head = _head(text, width // 2)
    tail = _head(text[::-1], width - 1 - cell_len(head))[::-1]
    return f"{head}…{tail}"


def _head(text: str, width: int) -> str:
    """Returns as many of the first characters as fit into ``width`` columns."""
    text = text[:width]  # no character is narrower than a column, combining marks aside
    while cell_len(text) > width:
        text = text[:-1]
    return text


def _longest_word(texts: Sequence[str]) -> int:
    return max((cell_len(word) for text in texts for word in text.split()), default=0)


def _exact(count: int) -> str:
    return f"{count:,}"


def _rounded(count: int) -> str:
    """Returns three digits and a unit: ``12.3M``; below ten thousand, all digits."""
    if count < 10_000:
        return f"{count:,}"
    size, units = count / 1000, iter("kMGT")
    unit = next(units)
    while size >= 999.5:
        size, unit = size / 1000, next(units)
    return f"{size:.{2 if size < 9.995 else 1 if size < 99.95 else 0}f}{unit}"
