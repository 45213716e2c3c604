"""Tables and sentences on narrow terminals: rendered, and looked at word by word."""

from __future__ import annotations

import dataclasses
import io
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console, RenderableType

import sabiprep
from sabiprep import PackReport
from sabiprep.grid import Column, Grid, elided
from sabiprep.inspection import inspect
from sabiprep.terminal import Sentence, to_plain

NOTE = (
    "source 'label': its templates use no field of a record, "
    "so that every document of it is the same text"
)


def on_terminal(renderable: RenderableType, width: int) -> list[str]:
    """The lines a terminal of this width gets, without colours."""
    file = io.StringIO()
    console = Console(
        file=file,
        width=width,
        force_terminal=True,
        color_system=None,
        highlight=False,
        markup=False,
    )
    console.print(renderable, crop=False)
    return [line.rstrip() for line in file.getvalue().split("\n")]


def words(text: str) -> set[str]:
    return set(re.findall(r"[^\s─]+", text))


@pytest.fixture
def wide(packed: PackReport) -> PackReport:
    """A report with large counts, long names, every column and a note."""
    sources = tuple(
        dataclasses.replace(
            source,
            name=f"{source.name}-of-a-corpus-that-many-people-have-collected-{source.lang}",
            records=source.records * 12_345_678,
            truncated=1_234_567,
            epochs=2.5,
        )
        for source in packed.sources
    )
    return dataclasses.replace(packed, sources=sources, notes=(NOTE,))


@pytest.mark.parametrize("width", [100, 80, 60, 40])
def test_tables_at_80_columns_break_no_word(
    packed: PackReport, wide: PackReport, width: int
) -> None:
    for report in (packed, wide):
        # In a list a comma follows each figure, and names lose their middle in tables.
        whole = {word.strip(",") for word in words(str(report))}
        for line in on_terminal(report, width):
            assert cell_len(line) <= width or len(line.split()) == 1, line
            for word in words(line):
                shortened = "…" in word or re.fullmatch(r"[\d.]+[kMGT]", word)
                assert shortened or word.strip(",") in whole, (word, line)


def test_pack_at_80_columns_keeps_both_ends_of_long_names(wide: PackReport) -> None:
    shown = on_terminal(wide, 80)
    [line] = [line for line in shown if re.match(r"  sum.*eng +eng ", line)]
    assert "…" in line and "877M" in line and "1.23M" in line
    mix = [line for line in shown if line.startswith("  sum-") and "→" in line]
    assert mix and all(cell_len(line) <= 80 for line in mix)
    assert "876,543,138" in str(wide)  # where there is room, every digit


def test_a_narrow_terminal_gets_lists(wide: PackReport) -> None:
    shown = on_terminal(wide, 40)
    text = " ".join(" ".join(shown).split())
    assert "records 740,740,680, documents 60" in text


def test_notes_stand_after_the_tables_wrapped_at_words(
    packed: PackReport, wide: PackReport
) -> None:
    assert "Note:" not in str(packed)
    assert f"Note: {NOTE}" in str(wide).splitlines()
    shown = on_terminal(wide, 80)
    first = next(number for number, line in enumerate(shown) if line.startswith("Note: "))
    assert f"{shown[first]} {shown[first + 1].strip()}" == f"Note: {NOTE}"
    assert first > next(
        number for number, line in enumerate(shown) if line.startswith("validation")
    )


def test_notes_of_the_manifest_are_read(packed: PackReport) -> None:
    manifest = json.loads((packed.out / "manifest.json").read_text("utf-8"))
    told = {
        "out": "x",
        "manifest": {**manifest, "notes": ["one", "two"]},
        "timing": dataclasses.asdict(packed.timing),
        "threads": 1,
        "bytes": 1,
        "reused_splits": [0, 0],
        "engine_warning": None,
        "template_notes": ["three"],
    }
    report = PackReport.from_json(told)
    assert report.notes == ("one", "two") and "three" in report.warnings
    assert PackReport.from_json({**told, "manifest": manifest}).notes == ()


def test_inspect_at_60_columns_breaks_no_word(packed: PackReport) -> None:
    view = inspect(sabiprep.open_dataset(packed.out))
    whole = words(str(view))
    for line in on_terminal(view, 60):
        assert cell_len(line) <= 60
        assert words(line) <= whole, line


@settings(deadline=None, max_examples=200)
@given(st.text(alphabet="ab ẹ̀漢", max_size=60), st.integers(5, 40), st.integers(0, 4))
def test_a_sentence_loses_nothing_but_white_space(text: str, width: int, indent: int) -> None:
    lines = on_terminal(Sentence(text, indent), width)
    assert "".join("".join(lines).split()) == "".join(text.split())
    for line in lines:
        assert cell_len(line) <= width or len(line.split()) == 1
    assert to_plain(Sentence(text)) == text.rstrip()


@given(st.text(alphabet="abcẹ漢é", max_size=40), st.integers(1, 20))
def test_an_elided_name_fits_and_keeps_its_ends(name: str, width: int) -> None:
    short = elided(name, width)
    assert cell_len(short) <= width
    if short != name:
        head, tail = short.split("…")
        assert name.startswith(head) and name.endswith(tail)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 10**14), min_size=1, max_size=5), st.integers(24, 100))
def test_a_grid_never_goes_over_its_room(counts: list[int], width: int) -> None:
    grid = Grid(
        [
            Column("name", "name"),
            *(Column(f"figure {i}") for i in range(len(counts))),
            Column("why", "words"),
        ]
    )
    grid.add(["a-name-that-is-long-indeed", *counts, "3 missing field, 2 malformed"])
    assert all(cell_len(line) <= width for line in on_terminal(grid, width))
