"""Continued BPE: the merges of a slow oracle, and what the library makes of them."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from sabitrain.adapt.extending import learn_tokens, merges_of, take_tokens, unreached
from sabitrain.adapt.merging import Merges, continue_merges
from sabitrain.adapt.tokenizer_file import BpeFile, parse_bpe, piece_text
from sabitrain.adapt.words import WordCutter
from support.train.adapt_bases import ENGLISH, GPT2, KINDS, LLAMA3, YORUBA, tokenizer_of
from support.train.bpe_oracle import slow_continue, slow_split

WANTED = 36
words = st.dictionaries(st.text("abcd", min_size=1, max_size=8), st.integers(1, 5), max_size=12)


def file_of(tokenizer: Tokenizer) -> BpeFile:
    return parse_bpe(tokenizer.to_str().encode(), "tokenizer.json")


@pytest.fixture(scope="module", params=KINDS)
def base(request) -> BpeFile:
    return file_of(tokenizer_of(request.param))


def counted(file: BpeFile, texts: list[str]) -> Counter[str]:
    cutter = WordCutter(file)
    bare_texts = texts if file.kind == "byte-level" else [text.replace(" ", "▁") for text in texts]
    return Counter(word for text in bare_texts for word in cutter.cut(text))


def learnt_by_oracle(first: dict[str, int], wanted: int) -> tuple[dict[str, int], list]:
    """A base of a few merges, learnt by the oracle too."""
    vocab = {letter: id_ for id_, letter in enumerate("abcd")}
    merges = slow_continue(first, vocab, [], wanted)
    for pair in merges:
        vocab["".join(pair)] = len(vocab)
    return vocab, merges


@settings(deadline=None, max_examples=300)
@given(words, st.integers(0, 4), words, st.integers(0, 12))
def test_the_merges_are_those_of_the_oracle(first, own, second, wanted):
    vocab, merges = learnt_by_oracle(first, own)
    split = [
        ([vocab[piece] for piece in slow_split(word, merges)], times)
        for word, times in second.items()
    ]
    pieces = {id_: piece for piece, id_ in vocab.items()}
    made = continue_merges(split, pieces, frozenset(), len(vocab), wanted)
    for merge in made:
        pieces[merge.made] = pieces[merge.left] + pieces[merge.right]
    found = [(pieces[merge.left], pieces[merge.right]) for merge in made]
    assert found == slow_continue(second, vocab, merges, wanted)


@settings(deadline=None, max_examples=200)
@given(words, st.integers(0, 6), st.text("abcd", max_size=12))
def test_pieces_are_split_as_the_library_splits_them(first, own, text):
    vocab, merges = learnt_by_oracle(first, own)
    model = models.BPE(vocab=vocab, merges=merges)
    want = [token.value for token in model.tokenize(text)]
    ids = Merges(vocab, merges, {}).split(text)
    assert [piece for id_ in ids for piece, each in vocab.items() if each == id_] == want
    assert slow_split(text, merges) == want


def test_the_tokens_of_a_language_are_those_of_the_oracle(base):
    words = counted(base, YORUBA)
    extension = learn_tokens(base, words, WANTED)
    letters = {piece: id_ for piece, id_ in extension.tokens.items() if len(piece) == 1}
    vocab = {**base.vocab, **base.added, **letters}
    # Letters without a token are spelt by bytes, which no merge takes.
    bytes_ = {letter for word in words for letter in word if letter not in vocab}
    wanted = WANTED - len(letters)
    want = slow_continue(words, vocab, base.merges, wanted, [*base.added, *bytes_])
    assert list(extension.merges) == want and len(want) > 5
    assert len(extension.tokens) == WANTED and extension.left_out == 0


def test_every_token_is_reached_by_its_own_text(base):
    extension = learn_tokens(base, counted(base, YORUBA), WANTED)
    grown = base.extended(extension.tokens, extension.merges)
    tokenizer, bare = grown.load(), grown.bare_by_merges
    assert not unreached(bare, extension.tokens)
    whole = 0
    for piece, id_ in extension.tokens.items():
        assert id_ >= base.end and tokenizer.token_to_id(piece) == id_
        text = piece_text(grown, piece)
        if "\ufffd" not in text and len(grown.bare().encode(text).ids) == 1:
            whole += 1
    assert whole > 20
    # And in the words that they were learnt from.
    ids = {id_ for text in YORUBA for id_ in tokenizer.encode(text).ids}
    assert len(ids & set(extension.tokens.values())) > 10


def test_old_text_is_split_as_before(base):
    extension = learn_tokens(base, counted(base, YORUBA), WANTED)
    old, new = base.load(), base.extended(extension.tokens, extension.merges).load()
    pairs = {left + right for left, right in extension.merges}
    for text in [*ENGLISH, "", " ", "a\n\n b<eos>c<pad>", "<bos>the <tag> weather"]:
        encoded = old.encode(text)
        merged = {a + b for a, b in zip(encoded.tokens, encoded.tokens[1:], strict=False)}
        if pairs.isdisjoint(merged):
            assert new.encode(text).ids == encoded.ids
    assert all(new.encode(text).ids == old.encode(text).ids for text in ENGLISH)
    shorter = [len(new.encode(text).ids) < len(old.encode(text).ids) for text in YORUBA]
    assert all(shorter)


@pytest.mark.parametrize("text", [*YORUBA, *ENGLISH, "ọ́n ọ̀nà  two  spaces\n\ttab 漢字 🙂 x1y22"])
def test_decoding_gives_the_text_back(base, text):
    extension = learn_tokens(base, counted(base, YORUBA), WANTED)
    new = base.extended(extension.tokens, extension.merges).load()
    ids = new.encode(text, add_special_tokens=False).ids
    assert new.decode(ids, skip_special_tokens=False).removeprefix(" ") == text


def test_control_tokens_keep_their_ids_and_are_never_made(base):
    texts = ["<eos> <eos> <pad> eos eos <unk> <0x41> <0x41> <0x41>"] * 9
    extension = learn_tokens(base, counted(base, texts), 60)
    assert extension.tokens.keys().isdisjoint({*base.added, *base.byte_ids})
    grown = base.extended(extension.tokens, extension.merges)
    assert dict(grown.added) == dict(base.added)
    loaded = grown.load()
    assert all(loaded.token_to_id(token) == id_ for token, id_ in base.added.items())
    before, after = (
        file.bare().encode("<eos>", add_special_tokens=False).ids for file in (base, grown)
    )
    assert base.added["<eos>"] not in after and len(after) <= len(before)


def test_merges_as_text_stay_text_and_pairs_pairs(base):
    for as_text in (False, True):
        content = json.loads(base.to_bytes())
        if as_text:
            content["model"]["merges"] = [" ".join(merge) for merge in content["model"]["merges"]]
        file = parse_bpe(json.dumps(content).encode(), "tokenizer.json")
        assert file.merges == base.merges
        extension = learn_tokens(file, counted(file, YORUBA), 20)
        written = json.loads(file.extended(extension.tokens, extension.merges).to_bytes())
        merges = written["model"]["merges"]
        assert {type(merge) for merge in merges} == {str if as_text else list}
        assert len(merges) == len(base.merges) + len(extension.merges)


def test_frequent_letters_come_first_and_rare_ones_stay_bytes():
    base = file_of(tokenizer_of("metaspace"))
    words = Counter({"▁ẹẹẹ": 1000, "▁漢": 1, "▁the": 1000})
    extension = learn_tokens(base, words, 10)
    assert next(iter(extension.tokens)) == "ẹ" and "漢" not in extension.tokens
    assert extension.letters == 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_tokens_of_another_file_are_taken(kind):
    base = file_of(tokenizer_of(kind))
    other = file_of(tokenizer_of(kind, YORUBA, 80))
    extension = take_tokens(base, other)
    asked = [piece for piece in other.vocab if piece not in base.ids and piece not in other.added]
    assert extension.tokens.keys() <= set(asked)
    assert len(extension.tokens) + extension.left_out == len(asked)
    assert len(extension.tokens) > 0.6 * len(asked)
    grown = base.extended(extension.tokens, extension.merges)
    assert not unreached(grown.bare_by_merges, extension.tokens)
    old, new = base.load(), grown.load()
    assert all(new.encode(text).ids == old.encode(text).ids for text in ENGLISH)
    assert sum(len(new.encode(text).ids) for text in YORUBA) < 0.6 * sum(
        len(old.encode(text).ids) for text in YORUBA
    )
    # Each that is left out is one that the merges cut otherwise.
    merges = merges_of(grown)
    for piece in asked:
        if piece not in extension.tokens:
            assert len(merges.split(piece)) > 1


def test_a_file_of_another_kind_is_refused():
    base, other = file_of(tokenizer_of(GPT2)), file_of(tokenizer_of("gemma"))
    with pytest.raises(Exception, match="is a SentencePiece BPE"):
        take_tokens(base, other)


def test_whole_words_of_ignore_merges_are_no_proof():
    base = file_of(tokenizer_of(LLAMA3))
    loose = base.extended({"xyzzy": base.end}, [])
    assert [token.value for token in loose.bare().model.tokenize("xyzzy")] == ["xyzzy"]
    assert unreached(loose.bare_by_merges, ["xyzzy"]) == {"xyzzy"}
