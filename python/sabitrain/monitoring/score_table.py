"""The table of a validation: how well targets are predicted, by task and language."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from sabitrain.evaluation.scores import Evaluation, Score

ALL = "all"
_NUMBERS = (
    "targets",
    "target\nloss",
    "baseline",
    "tokens\nright",
    "answers\nright",
    "bits per\nbyte",
    "prompt\nloss",
)
_LEAST_NAME = 8  # columns that a name is cut to, at least


class _Row(NamedTuple):
    """A row before its names are cut; ``source`` says that it is one of several sources."""

    task: str
    language: str
    score: Score
    source: bool = False


def score_table(evaluation: Evaluation, width: int) -> Table:
    """Returns a table with a row for each task in each language, each task, each language, and all.

    A task with one language, and a language with one task, have no row of their own: the row would
    repeat another. If a task in a language has several sources, their rows stand below. Names that
    leave no room for the numbers in ``width`` columns are cut in their middle.
    """
    pairs, rest = list(_pair_rows(evaluation)), list(_other_rows(evaluation))
    cells = [_numbers(row.score) for row in (*pairs, *rest)]
    columns = [
        max(max(map(cell_len, name.split("\n"))), *(cell_len(row[i]) for row in cells))
        for i, name in enumerate(_NUMBERS)
    ]
    longest = [
        max(cell_len(heading), *(cell_len(name(row)) for row in (*pairs, *rest)))
        for heading, name in (("task", _task), ("language", lambda row: row.language))
    ]
    gaps = len(columns) + 1
    # Wide gaps if names and numbers fit with them; narrow ones before any name is cut.
    wide = sum(columns) + sum(longest) + 2 * gaps <= width
    task_width, language_width = _name_widths(
        width - sum(columns) - (2 if wide else 1) * gaps, *longest
    )
    # Columns of the box itself are one apart.
    padding = (0, 1 if wide else 0, 0, 0)
    table = Table(
        box=box.SIMPLE_HEAD, padding=padding, pad_edge=False, show_edge=False, header_style="bold"
    )
    for name in ("task", "language"):
        table.add_column(name, no_wrap=True)
    for name, size in zip(_NUMBERS, columns, strict=True):
        lines = (line.rjust(size) for line in name.split("\n"))
        table.add_column("\n".join(lines), justify="right", no_wrap=True)
    # Widths are of characters on the terminal, not of code points: `cell_len` counts them.
    for section in (pairs, rest):
        for row in section:
            style = "bold" if row.task == row.language == ALL else "dim" if row.source else ""
            names = (elide(_task(row), task_width), elide(row.language, language_width))
            table.add_row(*(Text(cell, style) for cell in (*names, *_numbers(row.score))))
        table.add_section()
    return table


def elide(name: str, width: int) -> str:
    """Returns ``name`` in at most ``width`` columns, an ellipsis in its middle if it is longer."""
    if cell_len(name) <= width:
        return name
    tail = (width - 1) // 3
    head = width - 1 - tail
    begin, end = name, name
    while cell_len(begin) > head:
        begin = begin[:-1]
    while cell_len(end) > tail:
        end = end[1:]
    return f"{begin}…{end}"


def _pair_rows(evaluation: Evaluation) -> Iterator[_Row]:
    for task, of_language in evaluation.pairs.items():
        for language, score in of_language.items():
            yield _Row(task, language, score)
            sources = {
                name: source
                for name, source in evaluation.sources.items()
                if (source.task, source.language) == (task, language)
            }
            if len(sources) > 1:
                yield from (_Row(name, language, source, True) for name, source in sources.items())


def _other_rows(evaluation: Evaluation) -> Iterator[_Row]:
    pairs = evaluation.pairs
    for task, score in evaluation.tasks.items():
        if len(pairs[task]) > 1:
            yield _Row(task, ALL, score)
    for language, score in evaluation.languages.items():
        if sum(language in of_language for of_language in pairs.values()) > 1:
            yield _Row(ALL, language, score)
    yield _Row(ALL, ALL, evaluation.total)


def _task(row: _Row) -> str:
    """Returns the first column of a row: a source stands a little further in than its task."""
    return f"  {row.task}" if row.source else row.task


def _numbers(score: Score) -> list[str]:
    """Returns the cells of `_NUMBERS`, empty where there is no number."""

    def cell(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    return [
        f"{score.targets:,}",
        f"{score.loss:.4f}",
        cell(score.baseline, ".4f"),
        cell(score.accuracy, ".1%"),
        cell(score.answers_right, ".1%"),
        cell(score.bits_per_byte, ".3f"),
        cell(None if score.prompt is None else score.prompt.loss, ".4f"),
    ]


def _name_widths(room: int, task: int, language: int) -> tuple[int, int]:
    """Returns the columns of both names within ``room``; tasks give way first.

    ``task`` and ``language`` are the widths of the longest names.
    """
    # Tasks give way first: names of languages are short, and cut ones say nothing.
    task = min(task, max(_LEAST_NAME, room - language))
    return task, min(language, max(_LEAST_NAME, room - task))
