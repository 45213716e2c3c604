"""Records longer than a row: truncated, dropped, refused or split."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sabiprep.errors import InputError
from support import oracle, packer
from support.any_corpus import long_texts, properties, words
from support.expected_packing import word_ends
from support.one_source import LABEL, one_source
from support.packing_check import documents
from support.strategies import EOS, tokenizer_json


@settings(properties, max_examples=120)
@given(
    long_texts,
    long_texts,
    words,
    st.sampled_from(["bytes", "bytes-prefix", "metaspace-always", "llama"]),
)
def test_truncation_cuts_one_field_at_a_word_and_no_more_than_it_must(
    tmp_path_factory: pytest.TempPathFactory, a: str, b: str, c: str, name: str
) -> None:
    folder = tmp_path_factory.getbasetemp() / "truncation"
    folder.mkdir(exist_ok=True)
    (folder / "a.jsonl").write_text("{}\n")
    (folder / "tokenizer.json").write_text(tokenizer_json(name), "utf-8")
    packer.write_config(folder, [{"name": "a", "files": ["a.jsonl"], "segments": LABEL}])
    record = {"a": "Ọjọ́ " + a, "b": b, "c": c}
    pairs = [pair for segment in LABEL for pair in segment.items()]
    seen = packer.explain(folder, "a", record, tokenizer=folder / "tokenizer.json", seq_len=64)
    if not seen.truncated:
        return
    before = oracle.render(pairs, record)
    after = [oracle.Span(text, role, not literal) for text, role, literal in seen.spans]
    parts = "".join(span.text for span in after if span.role != oracle.TARGET).removesuffix(
        " <yor>:"
    )
    cut = None
    for field, other in (("a", "b"), ("b", "a")):
        for end in word_ends(record[field]):
            shorter = record | {field: record[field][:end]}
            if f"{shorter['a']} | {shorter['b']}" == parts:
                cut = (field, other, end)
    assert len(seen.ids) <= 64
    assert seen.runs[-1] == " " + c
    if cut is not None:
        field, other, end = cut
        assert (
            oracle.truncation_problem(
                before, oracle.render(pairs, record | {field: record[field][:end]})
            )
            is None
        )
        longer = min((more for more in word_ends(record[field]) if more > end), default=None)
        if longer is not None:
            eos = oracle.added_tokens(tokenizer_json(name))[EOS]
            spans = oracle.render(pairs, record | {field: record[field][:longer]})
            ids, _ = oracle.encode_document(tokenizer_json(name), spans, None, eos)
            assert len(ids) > 64, "one more word would fit"
    else:
        # Both are cut: the longer keeps one word, and could keep no more.
        field = max("a", "b", key=lambda name: len(record[name]))
        assert record[field][: word_ends(record[field])[0]] in parts


@pytest.mark.parametrize("spaces", [0, 100])
def test_white_space_at_the_end_of_a_field_is_cut_before_its_words(
    tmp_path: Path, spaces: int
) -> None:
    record = {"a": "o k" + " " * spaces, "b": "no", "c": "yes"}
    with one_source(tmp_path, [record], 64, segments=LABEL) as dataset:
        decoded = dataset.train[0]["input_ids"][: dataset.train[0]["seq_lengths"][0]]
        expected = oracle.document(
            tokenizer_json("bytes"),
            [pair for segment in LABEL for pair in segment.items()],
            record | {"a": "o k"},
            eos_id=dataset.eos_id,
        )
        assert decoded.tolist() == expected["ids"]


def test_a_target_that_does_not_fit_is_dropped_and_counted(tmp_path: Path) -> None:
    lines = [{"a": "x " * 50, "b": "y", "c": "z " * 100}, {"a": "x", "b": "y", "c": "z"}]
    with one_source(tmp_path, lines, 64, segments=LABEL) as dataset:
        [source] = dataset.manifest["sources"]
    assert source["drops"] == {"too long": 1} and source["kept"] == 1 and source["truncated"] == 0
    assert source["examples"][0]["line"] == 1


def test_overflow_error_stops_the_run_at_the_line(tmp_path: Path) -> None:
    lines = [{"a": "x", "b": "y", "c": "z"}, {"a": "x " * 100, "b": "y", "c": "z"}]
    with pytest.raises(InputError) as caught:
        one_source(tmp_path, lines, 64, segments=LABEL, overflow="error")
    assert (caught.value.file, caught.value.line, caught.value.source) == ("a.jsonl", 2, "a")
    assert caught.value.remedy
    assert not list(tmp_path.glob("*.out"))


@pytest.mark.parametrize("tokens", [63, 64, 65, 66, 127, 128, 190, 191, 1000])
def test_plain_text_is_split_into_balanced_windows_each_token_learnt_once(
    tmp_path: Path, tokens: int
) -> None:
    text = "".join(str(i * 7 % 10) + " " for i in range(tokens))[: tokens - 1]
    segments = [{"target": "{{ text }}"}]
    with one_source(tmp_path, [{"text": text}], 64, segments=segments) as dataset:
        whole = oracle.document(
            tokenizer_json("bytes"),
            [("target", "{{ text }}")],
            {"text": text},
            eos_id=dataset.eos_id,
        )["ids"]
        [found] = documents(dataset).values()
    windows = sorted(found, key=lambda document: document.window)
    assert [(len(document.ids)) for document in windows] == [
        end - start for start, end in oracle.windows(len(whole), 64)
    ]
    trained = [
        id
        for document in windows
        for id, bit in zip(document.ids, document.mask, strict=True)
        if bit
    ]
    assert trained == whole[1:], "every token but the first, once"
    closing = [document.ids[-1] == dataset.eos_id for document in windows]
    assert closing == [False] * (len(windows) - 1) + [True]
