"""The oracle still yields the golden cases that Rust reads too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support import oracle

GOLDEN = Path(__file__).parent / "golden"
BOUNDARY = json.loads((GOLDEN / "boundary.json").read_text("utf-8"))
WINDOWS = json.loads((GOLDEN / "windows.json").read_text("utf-8"))


@pytest.mark.parametrize("case", BOUNDARY["cases"], ids=lambda case: case["name"])
def test_boundary(case: dict[str, Any]) -> None:
    file = (GOLDEN / BOUNDARY["tokenizers"][case["tokenizer"]]).read_text("utf-8")
    control = oracle.added_tokens(file)
    document = oracle.document(
        file,
        [pair for segment in case["segments"] for pair in segment.items()],
        case["record"],
        bos_id=None if case["bos"] is None else control[case["bos"]],
        eos_id=control[case["eos"]],
    )
    spans = [
        {"text": span.text, "role": span.role, "data": span.data} for span in document.pop("spans")
    ]
    assert {"spans": spans, **document} == {
        key: case[key] for key in ("spans", "ids", "roles", "loss_mask")
    }


@pytest.mark.parametrize("case", WINDOWS, ids=lambda case: f"{case['n']} in {case['seq_len']}")
def test_windows_train_every_token_once_and_the_last_two_are_balanced(case: dict[str, Any]) -> None:
    assert [list(window) for window in oracle.windows(case["n"], case["seq_len"])] == case[
        "windows"
    ]


def test_case_names_are_unique() -> None:
    names = [case["name"] for case in BOUNDARY["cases"]]
    assert len(set(names)) == len(names) >= 25
