"""Epochs: how many copies of a record are made."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from sabiprep.errors import ConfigError
from support.one_source import LABEL, one_source
from support.packing_check import documents


@pytest.mark.parametrize("epochs", [0.25, 1.75, 3.0, 255.0])
def test_epochs_are_met_on_average(tmp_path: Path, epochs: float) -> None:
    lines = [{"text": f"record {i}"} for i in range(40 if epochs > 100 else 400)]
    with one_source(
        tmp_path, lines, 64, segments=[{"target": "{{ text }}"}], epochs=epochs
    ) as dataset:
        copies = [len(found) for found in documents(dataset).values()]
        [source] = dataset.manifest["sources"]
    assert set(copies) <= {math.floor(epochs), math.ceil(epochs)}
    assert abs(sum(copies) - epochs * len(lines)) < 0.2 * len(lines)
    assert source["train"]["documents"] == sum(copies)


def test_epochs_at_and_above_their_limit(tmp_path: Path) -> None:
    """Regression: 256 copies were counted, and none made."""
    lines, segments = [{"text": "a"}], [{"target": "{{ text }}"}]
    with one_source(tmp_path, lines, 64, segments=segments, epochs=255.0) as dataset:
        [copies] = documents(dataset).values()
    assert len(copies) == 255
    with (
        pytest.raises(ConfigError, match="at most 255"),
        one_source(tmp_path, lines, 64, segments=segments, epochs=255.1),
    ):
        pass


def test_records_left_out_by_epochs_are_not_counted_as_truncated(tmp_path: Path) -> None:
    lines = [{"a": f"{i} " + "x " * 100, "b": "y", "c": "z"} for i in range(40)]
    with one_source(tmp_path, lines, 64, segments=LABEL, epochs=0.25) as dataset:
        [source] = dataset.manifest["sources"]
    assert 0 < source["kept"] < 30
    assert source["truncated"] == source["kept"]
