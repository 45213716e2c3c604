"""The table of a validation: how well targets are predicted, by task and language."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from sabitrain.evaluate import Evaluation, Score

ALL = "all"


def score_table(evaluation: Evaluation) -> Table:
    """A row for each task in each language, then for each task, for each language, and for all.

    A task that has one language, and a language of one task, have no row of their own: it would be another's again.
    """
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    for name in ("task", "language"):
        table.add_column(name, overflow="fold")
    for name in ("targets", "target loss", "tokens right", "bits per byte", "prompt loss"):
        table.add_column(name, justify="right", no_wrap=True)
    pairs = evaluation.pairs
    for task, of_language in pairs.items():
        for language, score in of_language.items():
            _add(table, task, language, score)
    table.add_section()
    for task, score in evaluation.tasks.items():
        if len(pairs[task]) > 1:
            _add(table, task, ALL, score)
    for language, score in evaluation.languages.items():
        if sum(language in of_language for of_language in pairs.values()) > 1:
            _add(table, ALL, language, score)
    _add(table, ALL, ALL, evaluation.total, "bold")
    return table


def _add(table: Table, task: str, language: str, score: Score, style: str = "") -> None:
    """A row."""
    bits = "" if score.bits_per_byte is None else f"{score.bits_per_byte:.3f}"
    prompt = "" if score.prompt is None else f"{score.prompt.loss:.4f}"
    cells = (task, language, f"{score.targets:,}", f"{score.loss:.4f}", f"{score.accuracy:.1%}", bits, prompt)
    table.add_row(*(Text(cell, style) for cell in cells))
