"""The table of a validation: rows, columns, and names that are cut to fit."""

from __future__ import annotations

import pytest

from sabitrain.evaluation.scores import Evaluation, Score, SourceScore, TargetLoss
from sabitrain.monitoring.clock import Clock
from sabitrain.monitoring.console import Console as PlainConsole
from sabitrain.monitoring.score_table import elide
from support.train.terminals import sent, terminal


def score(loss: float, prompt: float | None) -> Score:
    return Score(
        loss,
        1_000,
        0.25,
        None if prompt is None else 0.5,
        None if prompt is None else TargetLoss(prompt, 10),
    )


@pytest.mark.parametrize("width", [120, 40])
def test_a_validation_is_a_table(width):
    pairs = {
        "copy": {"hau": score(1.5, 5.5), "yor": score(2.5, 6.5)},
        "label": {"yor": score(3.5, 7.5)},
        "text": {"ibo": score(4.5, None)},
    }
    tasks = {
        "copy": score(1.25, 5.25),
        "label": pairs["label"]["yor"],
        "text": pairs["text"]["ibo"],
    }
    languages = {"hau": pairs["copy"]["hau"], "ibo": pairs["text"]["ibo"], "yor": score(2.25, 6.25)}
    console = terminal(width)
    PlainConsole(console, Clock(10)).validation(
        20, Evaluation(score(1.125, 5.125), tasks, languages, pairs)
    )
    title, above, names, rule, *rows = sent(console).splitlines()
    assert title == "validation at step 20: target loss 1.1250"
    assert above.split() == ["target", "tokens", "answers", "bits", "per", "prompt"]
    assert names.split() == [
        "task",
        "language",
        "targets",
        "loss",
        "baseline",
        "right",
        "right",
        "byte",
        "loss",
    ]
    assert set(rule) == {"─"}
    assert [row.split() for row in rows] == [
        ["copy", "hau", "1,000", "1.5000", "25.0%", "0.500", "5.5000"],
        ["copy", "yor", "1,000", "2.5000", "25.0%", "0.500", "6.5000"],
        ["label", "yor", "1,000", "3.5000", "25.0%", "0.500", "7.5000"],
        ["text", "ibo", "1,000", "4.5000", "25.0%"],
        [],
        ["copy", "all", "1,000", "1.2500", "25.0%", "0.500", "5.2500"],
        ["all", "yor", "1,000", "2.2500", "25.0%", "0.500", "6.2500"],
        ["all", "all", "1,000", "1.1250", "25.0%", "0.500", "5.1250"],
    ]


def wide_score(targets: int) -> Score:
    return Score(10.1234, targets, 1.0, 12.345, TargetLoss(10.5, 3), 10.9999, 55, 0.625)


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("targets", [99, 12_345_678])
def test_long_names_are_cut_and_nothing_wraps(width, targets):
    """Every line fits, every number stands whole, whatever the names; where there is room they do
    too.
    """
    task, language, score = "headline-generation-from-the-body", "yor-Latn-NG", wide_score(targets)
    sources = {
        name: SourceScore(**vars(score), task=task, language="hau") for name in ("news-a", "news-b")
    }
    pairs = {task: {"hau": score, language: score}}
    console = terminal(width)
    found = Evaluation(
        score, {task: score}, {"hau": score, language: score}, pairs, sources, 128, 1_054
    )
    PlainConsole(console, Clock(10)).validation(20, found)
    title, _, names, rule, *rows = sent(console).splitlines()
    assert title == "validation at step 20: target loss 10.1234 (128 of 1,054 held-out rows)"
    assert all(len(line) <= width for line in (names, rule, *rows))
    numbers = [f"{targets:,}", "10.1234", "10.9999", "100.0%", "62.5%", "12.345", "10.5000"]
    rows = [row.split() for row in rows if row.strip()]
    assert [row[-7:] for row in rows] == [numbers] * 6
    assert [row[:-7][0][:3] for row in rows] == ["hea", "new", "new", "hea", "hea", "all"]
    assert ("…" in rows[0][0]) == (width == 80)
    if width == 120:
        assert rows[0][:2] == [task, "hau"] and rows[3][:2] == [task, language]


def test_names_are_cut_in_their_middle():
    assert elide("translate", 9) == "translate"
    assert elide("translate-eng-yor", 9) == "transl…or"
    assert [elide("ọjọ́-ẹ̀kọ́-ńlá", width) for width in (1, 2)] == ["…", "ọ…"]
