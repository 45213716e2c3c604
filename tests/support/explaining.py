"""Records explained by the core, beside what the oracle expects of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from support import oracle, packer
from support.oracle import Span
from support.packer import Explained, is_blank
from support.strategies import (
    BOS,
    EOS,
    TAGS,
    UNKNOWN,
    texts,
)

GOLDEN = Path(__file__).parents[1] / "golden"
BOUNDARY = json.loads((GOLDEN / "boundary.json").read_text("utf-8"))
LONG = 1 << 20
load = cache(Tokenizer.from_str)

properties = settings(
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
Segments = Sequence[tuple[str, str]]
ExplainOne = Callable[..., Explained]


@pytest.fixture(scope="module")
def explain_one(tmp_path_factory: pytest.TempPathFactory) -> ExplainOne:
    """Explains a record of a source made for it."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "a.jsonl").write_text("{}\n")

    def explain(
        file: str,
        segments: Segments,
        record: Mapping[str, Any],
        *,
        bos: str | None = None,
        **source: Any,
    ) -> Explained:
        tokenizer = folder / "tokenizer.json"
        tokenizer.write_text(file, "utf-8")
        source |= {
            "name": "a",
            "files": ["a.jsonl"],
            "segments": [{kind: template} for kind, template in segments],
        }
        packer.write_config(folder, [source], tokenizer={"bos": bos or ""})
        return packer.explain(folder, "a", record, tokenizer=tokenizer, seq_len=LONG)

    return explain


def empty_target(segments: Segments, record: Mapping[str, Any]) -> bool:
    """Whether a record has nothing to learn: the data of one of its targets is blank, or all of its
    targets are.
    """
    targets = [oracle.render([segment], record) for segment in segments if segment[0] == "target"]
    for spans in targets:
        data = "".join(span.text for span in spans if span.data)
        if is_blank(data) and any(span.data for span in spans):
            return True
    return all(is_blank("".join(span.text for span in spans)) for spans in targets)


def foreign_look_alike(file: str, spans: Sequence[Span]) -> bool:
    """Whether data spells a control token, alone or with the text around it: an occurrence not
    within the template.
    """
    tokens = oracle.added_tokens(file)
    for run in oracle.runs(spans):
        text, own, at = "".join(span.text for span in run), [], 0
        for data, stretch in groupby(run, lambda span: span.data):
            end = at + sum(len(span.text) for span in stretch)
            own += [] if data else [(at, end)]
            at = end
        for token in tokens:
            for start in range(len(text)):
                if text.startswith(token, start):
                    within = [a <= start and start + len(token) <= b for a, b in own]
                    if not any(within):
                        return True
    return False


def control_ids(file: str) -> set[int]:
    """The ids that text must not become."""
    return {id for token, id in oracle.added_tokens(file).items() if token != UNKNOWN}


look_alikes = st.lists(
    st.one_of(
        st.sampled_from([*TAGS, BOS, EOS, UNKNOWN, "<", ">", ":", "r>", "<yo", "/s>"]), texts
    ),
    max_size=4,
).map("".join)
