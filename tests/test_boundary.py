"""The core's boundaries, roles and masks are the oracle's, whatever the text, the template and the tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

import oracle
import packer
from oracle import CONTROL, DATA, TARGET, TEMPLATE, Span
from packer import Explained, is_blank
from sabiprep.errors import TokenizerError
from strategies import (
    BOS,
    EOS,
    LOSSLESS,
    TAGS,
    TOKENIZERS,
    UNKNOWN,
    records,
    segments,
    texts,
    tokenizer_json,
)

GOLDEN = Path(__file__).parent / "golden"
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
    """Whether a record has nothing to learn: the data of one of its targets is blank, or all of its targets are."""
    targets = [oracle.render([segment], record) for segment in segments if segment[0] == "target"]
    for spans in targets:
        data = "".join(span.text for span in spans if span.data)
        if is_blank(data) and any(span.data for span in spans):
            return True
    return all(is_blank("".join(span.text for span in spans)) for spans in targets)


def foreign_look_alike(file: str, spans: Sequence[Span]) -> bool:
    """Whether data spells a control token, alone or with the text around it: an occurrence not within the template."""
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


# --- templates that only substitute ---


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
    if name in LOSSLESS:
        body = seen.ids[bos:-1]
        decoded = load(file).decode(body, skip_special_tokens=False)
        metaspace = name.startswith("metaspace")
        normalised = oracle.normalised_text(file, expected["spans"])
        assert decoded == (normalised.replace("▁", " ") if metaspace else normalised)


@settings(properties, max_examples=300)
@given(st.sampled_from(TOKENIZERS), texts, texts)
def test_the_prompts_ids_are_those_of_generation(
    explain_one: ExplainOne, name: str, data: str, answer: str
) -> None:
    """What `tokenizers` gives for the prompt's text alone: as the model will see it when it has to answer."""
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


look_alikes = st.lists(
    st.one_of(
        st.sampled_from([*TAGS, BOS, EOS, UNKNOWN, "<", ">", ":", "r>", "<yo", "/s>"]), texts
    ),
    max_size=4,
).map("".join)


@settings(properties, max_examples=250)
@given(st.sampled_from(TOKENIZERS), look_alikes, look_alikes)
def test_data_never_becomes_a_control_token(
    explain_one: ExplainOne, name: str, data: str, answer: str
) -> None:
    """In and across the edges of fields: all control tokens are the template's three and the closing EOS."""
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


# --- rendered templates ---

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
    "{% for m in messages %}{{ '<|sep|>' + m.role + '\n' + m.content }}{% if not loop.last %}, {% endif %}{% endfor %}",
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


# Jinja2 strips what `str.strip` does, four separators more than Unicode's White_Space. Characters beyond U+FFFF have no
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


# --- models that hold their control tokens as pieces ---


def _unigram() -> str:
    letters = [(letter, -4.0) for letter in "▁abcs</>"]
    tokenizer = Tokenizer(
        models.Unigram([("<unk>", -20.0), ("</s>", 0.0), ("<s>", 0.0), *letters], unk_id=0)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="never")
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in ("</s>", "<s>")]
    )
    file: str = tokenizer.to_str()
    return file


def _ignore_merges() -> str:
    vocabulary = {
        token: i
        for i, token in enumerate(["</s>", "<s>", *sorted(pre_tokenizers.ByteLevel.alphabet())])
    }
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in ("</s>", "<s>")]
    )
    file: str = tokenizer.to_str()
    return file


@pytest.mark.parametrize("make", [_unigram, _ignore_merges])
@given(
    st.lists(st.sampled_from(["</s>", "<s>", "</", "s>", "a", " ", "b", "<"]), max_size=6).map(
        "".join
    )
)
@settings(properties, max_examples=60)
def test_no_model_makes_control_tokens_of_data(
    explain_one: ExplainOne, make: Callable[[], str], data: str
) -> None:
    file = make()
    bare = load(file).encode("</s>", add_special_tokens=False).ids
    assert bare == [oracle.added_tokens(file)["</s>"]], "the model would"
    seen = explain_one(file, [("prompt", "a{{ a }}b"), ("target", "{{ a }}c")], {"a": data + "a"})
    control = set(oracle.added_tokens(file).values())
    assert [id for id in seen.ids if id in control] == [
        oracle.added_tokens(file)["</s>"]
    ] and seen.ids[-1] in control
    letters = "".join(load(file).id_to_token(id) for id in seen.ids[:-1]).replace("▁", "")
    assert letters == ("a" + data + "ab" + data + "ac").replace(" ", "")


def test_added_tokens_matched_after_normalization_are_text_in_data(explain_one: ExplainOne) -> None:
    """An added token that is matched in the normalized text: data that only becomes its spelling stays text."""
    trained = json.loads(tokenizer_json("bytes-nfc"))
    trained["normalizer"] = json.loads(Tokenizer(models.BPE()).to_str())["normalizer"]
    tokenizer = Tokenizer.from_str(json.dumps(trained))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.add_tokens([AddedToken("<tag>", special=False, normalized=True)])
    file = tokenizer.to_str()
    tag, eos = tokenizer.token_to_id("<tag>"), tokenizer.token_to_id(EOS)
    segments = [("prompt", "<TAG>{{ a }} <ta{{ a }}"), ("target", "g>")]
    for data in ("<TAG>", "<tag>", "G>", "a"):
        seen = explain_one(file, segments, {"a": data})
        assert [id for id in seen.ids if id in (tag, eos)] == [tag, eos], data
        refused = explain_one(file, segments, {"a": data}, special_in_data="error")
        assert refused.dropped == (None if data == "a" else "refused")


# --- added tokens with flags, and tokenizers that are refused ---


@cache
def _flagged(
    name: str, normalizer: str, lstrip: bool, rstrip: bool, single_word: bool, normalized: bool
) -> str:
    tokenizer = Tokenizer.from_str(tokenizer_json(name))
    if normalizer == "lower":
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    elif normalizer == "marks apart":
        tokenizer.normalizer = normalizers.NFD()
    elif normalizer == "strip":
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Strip(left=False), normalizers.Replace("o", "0")]
        )
    flags = {"rstrip": rstrip, "single_word": single_word, "normalized": normalized}
    tokenizer.add_tokens(
        [AddedToken("<Ma>", lstrip=lstrip, **flags), AddedToken("<e\u0323>", **flags)]
    )
    tokenizer.add_tokens([AddedToken("lo>", single_word=single_word, normalized=True)])
    file: str = tokenizer.to_str()
    return file


FLAGGED = [
    "<Ma>",
    "<ma>",
    "<MA>",
    "<ẹ>",
    "<e\u0323>",
    "lo>",
    "LO>",
    "l",
    "hello",
    "<yor>",
    "</s>",
    "a",
    "b ",
    "1",
    "0",
]
FLAGGED += [" ", "  ", "\n", "\u00a0", "o\u0323", "ọ̀", "ﬁ"]
flagged_texts = st.lists(st.sampled_from(FLAGGED), min_size=1, max_size=6).map("".join)
flag_sets = st.tuples(
    st.sampled_from(["bytes", "bytes-prefix", "metaspace-always", "metaspace-first"]),
    st.sampled_from(["none", "lower", "marks apart", "strip"]),
    *[st.booleans()] * 4,
)


@settings(properties, max_examples=200)
@given(flag_sets, flagged_texts)
def test_flags_of_added_tokens_are_heeded_as_tokenizers_does(
    explain_one: ExplainOne, flags: tuple[str, str, bool, bool, bool, bool], text: str
) -> None:
    """Before, after and within words, matched before normalization or after it."""
    file = _flagged(*flags)
    expected = load(file).encode(oracle.as_jinja_reads(text), add_special_tokens=False).ids
    seen = explain_one(file, [("prompt", text), ("target", "x")], {})
    assert seen.ids[: len(expected)] == expected
    assert set(seen.roles[len(expected) :]) == {TARGET, CONTROL}


def test_a_tokenizer_that_cannot_continue_a_text_is_refused_where_it_would_have_to(
    explain_one: ExplainOne,
) -> None:
    vocabulary = {"[UNK]": 0, "</s>": 1, "a": 2, "##a": 3}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens(["</s>"])
    assert explain_one(tokenizer.to_str(), [("target", "{{ a }}")], {"a": "aa"}).ids == [2, 3, 1]
    with pytest.raises(TokenizerError, match="WordPiece") as caught:
        explain_one(tokenizer.to_str(), [("prompt", "a"), ("target", "{{ a }}")], {"a": "aa"})
    assert caught.value.source == "a" and caught.value.remedy
