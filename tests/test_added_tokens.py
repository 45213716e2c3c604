"""Added tokens of every kind, in models that hold them as pieces and in text from data."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from sabiprep.errors import TokenizerError
from support import oracle
from support.explaining import ExplainOne, load, properties
from support.explaining import explain_one as explain_one
from support.oracle import CONTROL, TARGET
from support.strategies import (
    EOS,
    tokenizer_json,
)


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
    """An added token that is matched in the normalized text: data that only becomes its spelling
    stays text.
    """
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
