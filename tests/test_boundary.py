"""The core's boundaries, roles and masks are the oracle's, whatever the text, the template and the
tokenizer.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from support import oracle
from support.explaining import (
    BOUNDARY,
    GOLDEN,
    ExplainOne,
    Segments,
    control_ids,
    empty_target,
    foreign_look_alike,
    load,
    look_alikes,
    properties,
)
from support.explaining import explain_one as explain_one
from support.oracle import CONTROL, DATA, TARGET, TEMPLATE
from support.packer import is_blank
from support.strategies import (
    BOS,
    EOS,
    LOSSLESS,
    TOKENIZERS,
    records,
    segments,
    texts,
    tokenizer_json,
)


@settings(properties, max_examples=500)
@given(st.sampled_from(TOKENIZERS), segments, records(), st.booleans())
def test_ids_roles_and_masks_are_the_oracles(
    explain_one: ExplainOne, name: str, segments: Segments, record: dict[str, Any], bos: bool
) -> None:
    assume(any(kind == "target" for kind, _ in segments))
    file = tokenizer_json(name)
    tokens = oracle.added_tokens(file)
    seen = explain_one(file, segments, record, bos=BOS if bos else None)
    if empty_target(segments, record):
        assert seen.dropped == "empty target"
        return
    expected = oracle.document(
        file, segments, record, bos_id=tokens[BOS] if bos else None, eos_id=tokens[EOS]
    )
    if TARGET not in expected["roles"]:
        assert seen.dropped == "no target left"
        return
    assert seen.dropped is None and not seen.truncated
    assert seen.ids == expected["ids"]
    assert seen.roles == expected["roles"]
    assert seen.loss_mask == expected["loss_mask"]
    runs = ["".join(span.text for span in run) for run in oracle.runs(expected["spans"])]
    assert seen.runs == runs
    assert "".join(text for text, _, _ in seen.spans) == "".join(runs)
    # A template that begins with BOS or ends with EOS spells what its document keeps once.
    body = seen.ids[bos:-1]
    if name in LOSSLESS and body == oracle.encode_document(file, expected["spans"], None, None)[0]:
        decoded = load(file).decode(body, skip_special_tokens=False)
        metaspace = name.startswith("metaspace")
        normalised = oracle.normalised_text(file, expected["spans"])
        assert decoded == (normalised.replace("▁", " ") if metaspace else normalised)


@pytest.mark.parametrize("bos", [False, True])
def test_a_target_of_nothing_but_eos_leaves_no_target(explain_one: ExplainOne, bos: bool) -> None:
    """It was kept, with nothing in it to train on."""
    for target in (EOS, EOS * 2, *([BOS + EOS] if bos else [])):
        segments = [("prompt", "{{ a }}"), ("target", target)]
        record = {"a": "" if target.startswith(BOS) else "Ada"}
        seen = explain_one(tokenizer_json("bytes"), segments, record, bos=BOS if bos else None)
        assert seen.dropped == "no target left", (target, seen)


@settings(properties, max_examples=300)
@given(st.sampled_from(TOKENIZERS), texts, texts)
def test_the_prompts_ids_are_those_of_generation(
    explain_one: ExplainOne, name: str, data: str, answer: str
) -> None:
    """What `tokenizers` gives for the prompt's text alone: as the model will see it when it has to
    answer.
    """
    file = tokenizer_json(name)
    record = {"a": data, "b": answer}
    segments = [("prompt", "<translate> {{ a }} <yor>:"), ("target", " {{ b }}")]
    spans = oracle.render(segments, record)
    assume(not is_blank(answer) and not foreign_look_alike(file, spans))
    seen = explain_one(file, segments, record)
    prompt = load(file).encode(seen.runs[0], add_special_tokens=False).ids
    assert seen.ids[: len(prompt)] == prompt
    assert set(seen.roles[: len(prompt)]) <= {TEMPLATE, DATA}
    assert set(seen.roles[len(prompt) : -1]) == {TARGET} and seen.roles[-1] == CONTROL


@settings(properties, max_examples=250)
@given(st.sampled_from(TOKENIZERS), look_alikes, look_alikes)
def test_data_never_becomes_a_control_token(
    explain_one: ExplainOne, name: str, data: str, answer: str
) -> None:
    """In and across the edges of fields: all control tokens are the template's three and the
    closing EOS.
    """
    assume(not is_blank(answer))
    file = tokenizer_json(name)
    tokens = oracle.added_tokens(file)
    segments = [
        ("prompt", "<translate>{{ a }}r>{{ a }}<yor>{{ a }}<"),
        ("target", "{{ b }}:<|sep|>{{ b }}/s>"),
    ]
    seen = explain_one(file, segments, {"a": data, "b": answer})
    own = [tokens[token] for token in ("<translate>", "<yor>", "<|sep|>", EOS)]
    assert [id for id in seen.ids if id in control_ids(file)] == own


@settings(properties, max_examples=250)
@given(st.sampled_from(TOKENIZERS), segments, records())
def test_look_alikes_are_refused_where_the_source_says_so(
    explain_one: ExplainOne, name: str, segments: Segments, record: dict[str, Any]
) -> None:
    assume(any(kind == "target" for kind, _ in segments) and not empty_target(segments, record))
    file = tokenizer_json(name)
    seen = explain_one(file, segments, record, special_in_data="error")
    refused = foreign_look_alike(file, oracle.render(segments, record))
    assert (seen.dropped == "refused") == refused, seen.dropped


@pytest.mark.parametrize("case", BOUNDARY["cases"], ids=lambda case: case["name"])
def test_golden_cases(explain_one: ExplainOne, case: dict[str, Any]) -> None:
    file = (GOLDEN / BOUNDARY["tokenizers"][case["tokenizer"]]).read_text("utf-8")
    pairs = [pair for segment in case["segments"] for pair in segment.items()]
    seen = explain_one(file, pairs, case["record"], bos=case["bos"])
    assert (seen.ids, seen.roles, seen.loss_mask) == (case["ids"], case["roles"], case["loss_mask"])


@pytest.mark.parametrize(
    ("segments", "record", "reason"),
    [
        ([("target", "{{ a }}")], {}, "missing field"),
        ([("target", "{{ a }}")], {"a": None}, "missing field"),
        ([("prompt", "{{ a.b }}"), ("target", "x")], {"a": "b"}, "missing field"),
        ([("target", "x {{ a }}")], {"a": " \u3000\r\n"}, "empty target"),
        ([("target", " {{ a | default('') }}")], {}, "empty target"),
        ([("target", "{{ a | default('y') }}")], {"a": None}, None),
        ([("prompt", "{% for b in a %}{{ b }}{% endfor %}"), ("target", "x")], {}, "missing field"),
        ([("prompt", "{{ a[0] }}"), ("target", "x")], {"a": []}, "missing field"),
        ([("prompt", "{{ a + 1 }}"), ("target", "x")], {"a": "b"}, "template error"),
        ([("prompt", "{{ raise_exception('no') }}"), ("target", "x")], {}, "template error"),
    ],
)
def test_why_a_record_has_no_document(
    explain_one: ExplainOne, segments: Segments, record: dict[str, Any], reason: str | None
) -> None:
    assert explain_one(tokenizer_json("bytes"), segments, record).dropped == reason
