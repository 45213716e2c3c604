"""Texts read back from a packed corpus: whole, once each, run by run, spelt as encoded."""

from __future__ import annotations

import json
from collections import Counter

import pytest

import sabiprep
from sabitrain.adapt.texts import open_texts, words_in
from sabitrain.adapt.tokenizer_file import SPACE, BpeFile, parse_bpe
from sabitrain.adapt.words import WordCutter, count_words
from support.train.adapt_bases import ENGLISH, KINDS, YORUBA, tokenizer_of

TOML = """\
[pack]
seq_len = 64
validation = {validation}

[[source]]
name = "translate"
lang = "yor"
files = ["pairs.jsonl"]
segments = [{{ prompt = "<tag> {{{{ en }}}} <eos>:" }}, {{ target = " {{{{ yor }}}}" }}]
epochs = {epochs}

[[source]]
name = "plain"
files = ["plain.txt"]
"""


@pytest.fixture(params=KINDS)
def file(request, tmp_path) -> BpeFile:
    (tmp_path / "base").mkdir()
    path = tmp_path / "base" / "tokenizer.json"
    tokenizer_of(request.param).save(str(path))
    (path.parent / "tokenizer_config.json").write_text('{"eos_token": "<eos>"}')
    return parse_bpe(path.read_bytes(), str(path))


def corpus(tmp_path, epochs: float = 3.0, validation: float = 0.3):
    folder = tmp_path / "corpus"
    folder.mkdir()
    pairs = [{"en": en, "yor": yor} for en, yor in zip(ENGLISH, YORUBA, strict=False)]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)) + "\n", "utf-8")
    (folder / "plain.txt").write_text(f"{YORUBA[-1]}\n{' '.join(ENGLISH * 30)}\n", "utf-8")
    (folder / "corpus.toml").write_text(TOML.format(epochs=epochs, validation=validation), "utf-8")
    return folder


def shown(file: BpeFile, text: str) -> str:
    return text.replace(SPACE, " ") if file.kind == "SentencePiece" else text


def letters(texts: list[str]) -> str:
    return "".join("".join(texts).split())


def test_each_text_comes_once_and_whole(tmp_path, file):
    tagged = "<tag>" in file.added
    with open_texts(corpus(tmp_path), file) as texts:
        stretches = list(texts.stretches())
        used = texts.used()
    found = Counter(shown(file, stretch.text).strip() for stretch in stretches)
    # Control tokens cut the prompt: before and after them are stretches of their own.
    prompts = [en if tagged else f"<tag> {en}" for en in ENGLISH]
    want = [*prompts, *[":"] * 4, *YORUBA[:4], YORUBA[-1], " ".join(ENGLISH * 30)]
    assert found == Counter(want)
    assert {stretch.language for stretch in stretches} == {"yor", "und"}
    words = sum(words_in(stretch.text) for stretch in stretches)
    assert words == sum(len(text.split()) for text in want)
    seen = {id_ for stretch in stretches for id_ in stretch.ids}
    assert seen.isdisjoint(file.closed - file.byte_ids.keys())
    assert used - seen <= set(file.added.values()) and file.added["<eos>"] in used


def test_the_bare_form_encodes_each_stretch_as_packing_did(tmp_path, file):
    bare = file.bare()
    with open_texts(corpus(tmp_path), file) as texts:
        for stretch in texts.stretches():
            assert bare.encode(stretch.text, add_special_tokens=False).ids == stretch.ids


def test_windows_of_a_long_text_give_each_word_once(tmp_path, file):
    folder = corpus(tmp_path)
    options = sabiprep.PackOptions(tokenizer=file.file)
    sabiprep.pack(folder, tmp_path / "packed", options)
    with open_texts(tmp_path / "packed", file) as texts, open_texts(folder, file) as whole:
        cut, uncut = (
            # The pairs are shortened to fit the short rows.
            [shown(file, s.text) for s in each.stretches() if s.language == "und"]
            for each in (texts, whole)
        )
    assert len(cut) > len(uncut)
    assert Counter(letters(cut)) == Counter(letters(uncut))


def test_held_out_texts_decide_nothing(tmp_path, file):
    with open_texts(corpus(tmp_path, validation=0.5), file) as texts:
        stretches = list(texts.stretches())
    held_out = [stretch for stretch in stretches if stretch.held_out]
    assert held_out and len(held_out) < len(stretches)
    cutter = WordCutter(file)
    want = Counter(
        word for stretch in stretches if not stretch.held_out for word in cutter.cut(stretch.text)
    )
    assert count_words(stretches, file) == want


def test_words_lose_no_letter(file):
    for text in (*ENGLISH, *YORUBA, "  two  spaces\n\n\ttabs 12 ọ́n ọ̀nà 'tis (a) x1y22 "):
        spelt = text if file.kind == "byte-level" else text.replace(" ", SPACE)
        cut = list(WordCutter(file).cut(spelt))
        letters = "".join(cut)
        if file.kind == "SentencePiece":
            assert letters == spelt
            assert all(SPACE not in word[1:] or set(word) == {SPACE} for word in cut)
            assert all(len(word) == 1 for word in cut if any(c.isnumeric() for c in word))
        else:
            assert len(letters) == len(text.encode())
