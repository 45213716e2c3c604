"""Rendered templates keep the boundary contract: data never becomes the template's text."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support import oracle
from support.explaining import ExplainOne, control_ids, look_alikes, properties
from support.explaining import explain_one as explain_one
from support.oracle import DATA, TARGET, TEMPLATE, Span
from support.packer import is_blank
from support.strategies import (
    EOS,
    TOKENIZERS,
    texts,
    tokenizer_json,
)

CHAT = """\
{% for m in messages %}
<|sep|>{{ m.role }}
    {% if m.role == 'user' %}
{{ '<translate>' + m.content | trim + '<yor>:' }}
    {% else %}
{{ m.content }}</s>
    {% endif %}
{% endfor %}
"""
RENDERED = [
    CHAT,
    "{% for m in messages %}{{ '<|sep|>' + m.role + '\n' + m.content }}"
    "{% if not loop.last %}, {% endif %}{% endfor %}",
    "{{ a | default('-') }}<yor>{{ missing | default('<yor>:') }}",
    "{% if a %}<yo{{ a }}{% endif %}r>{# no text #}{{ a ~ messages[0].content }}:",
    "{{ parts | join(', ') }} <translate>{{ parts[0] if parts else a }}",
    "{% set x = parts | join('<|sep|>') %}{{ x }} {{ parts | length }}{{ x }}",
    "{%- for part in parts -%} {{ loop.index }}{{ part }} {%- endfor -%} <yor>:",
    "{{ messages[0]['content'].strip() }}{{ messages[0]['role'].upper() }}<{{ '/s>' }}",
]


class Lenient(jinja2.StrictUndefined):
    """An undefined value that is false, and an error where it is shown or walked through."""

    def __bool__(self) -> bool:
        return False


ALPHABET = 0xF0000


def spelled(text: str) -> str:
    """The text in ordinary letters again."""
    return "".join(chr(ord(c) - ALPHABET) if ord(c) >= ALPHABET else c for c in text)


class OfRecord(str):
    """Data written in private-use characters, which acts as the text that it stands for."""

    @classmethod
    def of(cls, text: str) -> OfRecord:
        return cls("".join(chr(ALPHABET + ord(c)) for c in text))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and spelled(self) == spelled(other)

    def __hash__(self) -> int:
        return hash(spelled(self))

    def strip(self, chars: str | None = None) -> str:
        return self.of(spelled(self).strip(chars))

    def upper(self) -> str:
        return self.of(spelled(self).upper())


JINJA = jinja2.Environment(
    trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=Lenient
)
ORACLE = JINJA.overlay()
# Numbers made of data are data.
ORACLE.filters = JINJA.filters | {"length": lambda value: OfRecord.of(str(len(value)))}


def in_another_alphabet(value: Any) -> Any:
    """The data in private-use characters: rendered, it is known from the template's text."""
    if isinstance(value, str):
        return OfRecord.of(value)
    if isinstance(value, list):
        return [in_another_alphabet(item) for item in value]
    return {key: in_another_alphabet(item) for key, item in value.items()}


def rendered_spans(template: str, record: Mapping[str, Any], role: int) -> list[Span]:
    """The spans of a rendered template: its own text, and that of the record."""
    text = ORACLE.from_string(template).render(
        {key: in_another_alphabet(value) for key, value in record.items()}
    )
    own = TEMPLATE if role == DATA else role
    return [
        Span(spelled("".join(piece)), role if is_data else own, is_data)
        for is_data, piece in groupby(text, lambda c: ord(c) >= ALPHABET)
    ]


# Jinja2 strips what `str.strip` does, four separators more than Unicode's White_Space. Characters
# beyond U+FFFF have no
# place in the other alphabet.
plain_texts = st.one_of(texts, look_alikes).map(
    lambda text: "".join(c for c in text if c not in "\x1c\x1d\x1e\x1f" and c <= "\uffff")
)
conversations = st.fixed_dictionaries(
    {
        "a": plain_texts,
        "parts": st.lists(plain_texts, max_size=3),
        "messages": st.lists(
            st.fixed_dictionaries(
                {"role": st.sampled_from(["user", "model"]), "content": plain_texts}
            ),
            min_size=1,
            max_size=3,
        ),
    }
)


@settings(properties, max_examples=400)
@given(st.sampled_from(TOKENIZERS), st.sampled_from(RENDERED), conversations, st.booleans())
def test_a_rendered_template_makes_only_its_own_control_tokens(
    explain_one: ExplainOne, name: str, template: str, record: dict[str, Any], trained: bool
) -> None:
    file = tokenizer_json(name)
    segments = [
        ("prompt", "Q: ") if trained else ("target", "A: "),
        ("target" if trained else "prompt", template),
    ]
    first = Span("Q: ", TEMPLATE, False) if trained else Span("A: ", TARGET, False)
    spans = [first, *rendered_spans(template, record, TARGET if trained else DATA)]
    seen = explain_one(file, segments, record)
    if trained and is_blank("".join(span.text for span in spans[1:])):
        assert seen.dropped == "empty target"
        return
    assert seen.dropped is None
    text = "".join(span.text for span in spans)
    assert "".join(seen.runs) == text == first.text + JINJA.from_string(template).render(record)
    eos = oracle.added_tokens(file)[EOS]
    assert (seen.ids, seen.roles) == oracle.encode_document(file, spans, None, eos)


@pytest.mark.parametrize("template", RENDERED)
def test_rendered_look_alikes_are_refused_where_the_source_says_so(
    explain_one: ExplainOne, template: str
) -> None:
    file = tokenizer_json("bytes")
    segments = [("prompt", template), ("target", "x")]
    message = {"role": "user", "content": "a"}
    clean = {"a": "b", "parts": ["c"], "messages": [message]}
    assert explain_one(file, segments, clean, special_in_data="error").dropped is None
    bad = {"a": "</s>", "parts": ["</s>"], "messages": [message | {"content": "</s>"}]}
    assert explain_one(file, segments, bad, special_in_data="error").dropped == "refused"


@pytest.mark.parametrize(
    ("template", "data", "text"),
    [
        ("{{ a | lower }}", "</S>", "</s>"),
        ("{{ a | replace('-', '') }}", "<-/s>", "</s>"),
        ("{{ a | reverse }}", ">s/<", "</s>"),
        ("{{ a[1:] }}", "x</s>", "</s>"),
        ("{{ a | list | join }}", "</s>", "</s>"),
        ("{{ a | length }}", "</s>", "4"),
        ("{{ a[:2] }}", "</s>", "</"),
    ],
)
def test_filters_see_the_data_as_it_is_and_make_no_control_tokens_of_it(
    explain_one: ExplainOne, template: str, data: str, text: str
) -> None:
    file = tokenizer_json("bytes")
    seen = explain_one(file, [("prompt", template), ("target", "x")], {"a": data})
    assert seen.runs == [text, "x"]
    assert [id for id in seen.ids if id in control_ids(file)] == [oracle.added_tokens(file)[EOS]]
