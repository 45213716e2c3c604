"""The oracle is held against `tokenizers` itself where the two must agree, and against its
contracts elsewhere.
"""

from __future__ import annotations

import json
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from support import oracle
from support.oracle import CONTROL, DATA, TARGET, TEMPLATE, Span
from support.strategies import (
    BOS,
    EOS,
    LOSSLESS,
    TAGS,
    TOKENIZERS,
    UNKNOWN,
    records,
    segments,
    texts,
    token_id,
    tokenizer_json,
)

tokenizer_names = st.sampled_from(TOKENIZERS)
load = cache(Tokenizer.from_str)


@st.composite
def spans(draw: st.DrawFn) -> list[Span]:
    return oracle.render(draw(segments), draw(records()))


def has_look_alike(name: str, run: list[Span]) -> bool:
    """Whether the text of a run has a control token that its template does not."""
    tokens = oracle.added_tokens(tokenizer_json(name))
    return oracle.matches("".join(span.text for span in run), tokens) != oracle.template_matches(
        run, tokens
    )


@settings(deadline=None, max_examples=400)
@given(tokenizer_names, spans())
def test_a_run_without_look_alikes_is_encoded_as_the_tokenizer_does(
    name: str, spans: list[Span]
) -> None:
    file = tokenizer_json(name)
    forms = [load(file), load(oracle.continuation_json(file))]
    for i, run in enumerate(oracle.runs(spans)):
        if not has_look_alike(name, run):
            joined = "".join(span.text for span in run)
            expected = forms[min(i, 1)].encode(joined, add_special_tokens=False).ids
            assert oracle.encode_run(file, run, continues=i > 0)[0] == expected


@settings(deadline=None, max_examples=200)
@given(tokenizer_names, st.lists(texts, min_size=1, max_size=4), st.booleans())
def test_template_text_alone_is_encoded_as_the_tokenizer_does(
    name: str, parts: list[str], continues: bool
) -> None:
    """Nothing here is data, so there is nothing that could be a look-alike."""
    file = tokenizer_json(name)
    form = load(oracle.continuation_json(file) if continues else file)
    run = [Span(part, TEMPLATE, False) for part in parts]
    ids, roles = oracle.encode_run(file, run, continues=continues)
    assert ids == form.encode("".join(parts), add_special_tokens=False).ids
    assert set(roles) <= {TEMPLATE}


@settings(deadline=None, max_examples=300)
@given(tokenizer_names, spans())
def test_only_the_template_makes_control_tokens(name: str, spans: list[Span]) -> None:
    file = tokenizer_json(name)
    tokens = oracle.added_tokens(file)
    expected = [
        tokens["".join(span.text for span in run)[start:end]]
        for run in oracle.runs(spans)
        for start, end in oracle.template_matches(run, tokens)
    ]
    ids, _ = oracle.encode_document(file, spans, None, None)
    control = set(tokens.values()) - {tokens[UNKNOWN]}
    assert [token for token in ids if token in control] == [
        token for token in expected if token in control
    ]


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(LOSSLESS), spans())
def test_the_ids_decode_to_the_normalised_runs(name: str, spans: list[Span]) -> None:
    file = tokenizer_json(name)
    spans = [span._replace(text=span.text.replace("▁", "_")) for span in spans]
    ids, _ = oracle.encode_document(file, spans, None, None)
    decoded = load(file).decode(ids, skip_special_tokens=False)
    assert decoded == oracle.normalised_text(file, spans)


@settings(deadline=None, max_examples=200)
@given(tokenizer_names, spans(), st.sampled_from([None, BOS]), st.sampled_from([None, EOS]))
def test_every_token_has_the_role_of_its_text(
    name: str, spans: list[Span], bos: str | None, eos: str | None
) -> None:
    """Control tokens at the ends only; targets are exactly the tokens of target runs; a prompt's
    roles are in order.
    """
    file = tokenizer_json(name)
    bos_id, eos_id = (None if token is None else token_id(name, token) for token in (bos, eos))
    ids, roles = oracle.encode_document(file, spans, bos_id, eos_id)
    assert len(ids) == len(roles)
    inner = roles[(bos is not None) : len(roles) - (eos is not None)]
    assert CONTROL not in inner
    tokens: list[tuple[int, int]] = []
    for i, run in enumerate(oracle.runs(spans)):
        run_ids, run_roles = oracle.encode_run(file, run, continues=i > 0)
        tokens += zip(run_ids, run_roles, strict=True)
        if run[0].role == TARGET:
            assert set(run_roles) <= {TARGET}
        else:
            in_order = [span.role for span in run if span.text]
            changes = [
                role for j, role in enumerate(run_roles) if j == 0 or role != run_roles[j - 1]
            ]
            assert is_subsequence(changes, in_order)
    # A BOS that the template begins with, and an EOS that it ends with, are the configuration's.
    while tokens and tokens[0][0] == bos_id:
        tokens.pop(0)
    while tokens and tokens[-1][0] == eos_id:
        tokens.pop()
    assert inner == [role for _, role in tokens]


def is_subsequence(some: list[int], of: list[int]) -> bool:
    rest = iter(of)
    return all(item in rest for item in some)


@settings(deadline=None, max_examples=200)
@given(tokenizer_names, spans())
def test_a_prompt_is_encoded_as_generation_will_see_it(name: str, spans: list[Span]) -> None:
    """The ids of the first run do not depend on what follows it."""
    file = tokenizer_json(name)
    grouped = oracle.runs(spans)
    if grouped:
        whole, _ = oracle.encode_document(file, spans, None, None)
        alone, _ = oracle.encode_document(file, grouped[0], None, None)
        assert whole[: len(alone)] == alone


def test_a_record_renders_to_spans_of_its_roles() -> None:
    record = {"a": "x", "b": {"c": 7}, "n": None, "e": ""}
    template = [("prompt", "<t> {{ a }}{{b.c}}"), ("target", " {{ e }}!")]
    assert oracle.render(template, record) == [
        Span("<t> ", TEMPLATE, False),
        Span("x", DATA, True),
        Span("7", DATA, True),
        Span(" ", TARGET, False),
        Span("", TARGET, True),
        Span("!", TARGET, False),
    ]
    for field in ("n", "z", "b.z", "a.b", "b.c.d"):
        with pytest.raises(oracle.MissingField):
            oracle.render([("prompt", "{{ " + field + " }}")], record)


def test_adjacent_prompt_text_is_one_run() -> None:
    def span(text: str, role: int) -> Span:
        return Span(text, role, role == DATA)

    a, b, empty = span("a", TEMPLATE), span("b", DATA), span("", DATA)
    t, nothing = span("t", TARGET), span("", TARGET)
    assert oracle.runs([a, b, t, t, b]) == [[a, b], [t, t], [b]]
    assert oracle.runs([empty, nothing, t]) == [[t]]
    assert oracle.runs([a, nothing, b]) == [[a, nothing, b]]
    assert oracle.runs([nothing, empty]) == []


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_field_never_completes_a_control_token(name: str) -> None:
    file = tokenizer_json(name)
    control = set(oracle.added_tokens(file).values()) - {token_id(name, UNKNOWN)}
    for template, value in [
        ("<yo{{ x }}", "r>"),
        ("{{ x }}r>", "<yo"),
        ("<yo{{ x }}r>", ""),
        ("{{ x }}", "<yor>"),
    ]:
        run = oracle.render([("prompt", template)], {"x": value})
        assert not control.intersection(oracle.encode_run(file, run, continues=False)[0])
    ids, roles = oracle.encode_run(
        file, oracle.render([("target", "{{ x }}<yor>:")], {"x": "</s>"}), continues=True
    )
    assert ids[-1] == token_id(name, "<yor>:") and not control.intersection(ids[:-1])
    assert set(roles) == {TARGET}


def test_a_one_token_target_after_a_space_is_one_token() -> None:
    """ " yes" goes on from a prompt as one token where the training text has it so, and gains no
    second space.
    """
    file = tokenizer_json("bytes-prefix")
    prompt, target = Span("label:", TEMPLATE, False), Span(" yes", TARGET, True)
    ids, roles = oracle.encode_document(file, [prompt, target], None, None)
    decoder = load(file)
    assert [
        decoder.decode([token]) for token, role in zip(ids, roles, strict=True) if role == TARGET
    ] == [" yes"]
    alone, _ = oracle.encode_document(file, [target._replace(text="yes")], None, None)
    assert decoder.decode(alone) == " yes"


def test_a_role_is_that_of_the_first_character() -> None:
    """With NFC a letter of the template and a mark of the data make one character, and maybe one
    token.
    """
    file = tokenizer_json("bytes-nfc")
    run = oracle.render([("prompt", "o{{ x }}")], {"x": "\u0323 school"})
    ids, roles = oracle.encode_run(file, run, continues=False)
    tokenizer = load(file)
    assert tokenizer.decode(ids) == "ọ school"
    in_template = [token for token, role in zip(ids, roles, strict=True) if role == TEMPLATE]
    assert tokenizer.decode(in_template) == "ọ"


def test_the_continuation_form_puts_nothing_before_a_text() -> None:
    prefix = {
        "type": "ByteLevel",
        "add_prefix_space": True,
        "trim_offsets": True,
        "use_regex": True,
    }
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    tokenizer = {
        "normalizer": {
            "type": "Sequence",
            "normalizers": [{"type": "NFC"}, {"type": "Prepend", "prepend": "▁"}],
        },
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [prefix, metaspace]},
        "post_processor": {"type": "ByteLevel"},
        "model": {"type": "BPE"},
        "added_tokens": [],
    }
    form = json.loads(oracle.continuation_json(json.dumps(tokenizer)))
    assert form["normalizer"] == {"type": "Sequence", "normalizers": [{"type": "NFC"}]}
    assert form["pre_tokenizer"]["pretokenizers"] == [
        {**prefix, "add_prefix_space": False},
        {**metaspace, "prepend_scheme": "never"},
    ]
    assert form["post_processor"] is None
    tokenizer["normalizer"] = {"type": "Prepend", "prepend": "▁"}
    assert json.loads(oracle.continuation_json(json.dumps(tokenizer)))["normalizer"] is None
    word_piece = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]")).to_str()
    with pytest.raises(oracle.NoContinuation):
        oracle.continuation_json(word_piece)
    two_runs = [Span("a", TEMPLATE, False), Span("a", TARGET, True)]
    with pytest.raises(oracle.NoContinuation):
        oracle.encode_document(word_piece, two_runs, None, None)
    assert oracle.encode_document(word_piece, two_runs[:1], None, None) == ([1], [TEMPLATE])


def test_an_added_token_of_another_kind_is_not_understood() -> None:
    for flag in ("normalized", "lstrip", "rstrip", "single_word"):
        tokenizer = json.loads(tokenizer_json("bytes"))
        tokenizer["added_tokens"][-1][flag] = True
        with pytest.raises(ValueError, match="knows no added token"):
            oracle.added_tokens(json.dumps(tokenizer))


def test_matches_are_leftmost_then_longest() -> None:
    assert oracle.matches("a<yor>:<yor><yor", TAGS) == [(1, 7), (7, 12)]
    assert oracle.matches("aabab", ["aa", "ab", "aba"]) == [(0, 2), (3, 5)]
