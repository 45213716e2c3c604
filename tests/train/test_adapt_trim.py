"""Trimming: the logits of kept tokens, the texts, and every id that a checkpoint's files name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from sabiprep.errors import DatasetError
from sabitrain.adapt.draft import EMBEDDING, HEAD, Draft, read_draft
from sabitrain.adapt.run import adapt
from sabitrain.adapt.settings import AdaptConfig
from sabitrain.adapt.tokenizer_file import parse_bpe
from sabitrain.adapt.trimming import keep_tokens
from support.train.adapt_bases import (
    CONTROLS,
    ENGLISH,
    FAMILIES,
    GPT2,
    KINDS,
    YORUBA,
    tokenizer_of,
    write_base,
    write_corpus,
)

SEEN = [*ENGLISH[:2], *YORUBA[:1]]
UNSEEN = "they said nothing is other than the minister"


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path / "corpus", {"eng": SEEN[:2], "yor": SEEN[2:]})


def trimmed(tmp_path, corpus, **options):
    config = AdaptConfig(
        base=str(tmp_path / "base"), new=tmp_path / "new", trim=(corpus,), **options
    )
    return adapt(config)


def both(tmp_path, name: str) -> list[dict]:
    return [json.loads((tmp_path / each / name).read_text("utf-8")) for each in ("base", "new")]


def kept_ids(tmp_path) -> dict[int, int]:
    """The new id of each kept token, found by its text."""
    old, new = (
        Tokenizer.from_file(str(tmp_path / name / "tokenizer.json")).get_vocab()
        for name in ("base", "new")
    )
    return {old[token]: id_ for token, id_ in new.items()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rows_more", [0, 5])
def test_logits_of_kept_tokens_are_those_of_the_base(tmp_path, corpus, family, rows_more):
    base = write_base(tmp_path / "base", family, rows_more=rows_more)
    report = trimmed(tmp_path, corpus)
    new, loading = AutoModelForCausalLM.from_pretrained(
        tmp_path / "new", output_loading_info=True, dtype=torch.float32
    )
    assert not any(loading.values()), loading
    ids = kept_ids(tmp_path)
    assert report.after.rows == len(ids) < report.before.rows
    old_N = torch.tensor(sorted(ids))
    new_N = torch.tensor([ids[id_] for id_ in old_N.tolist()])
    drawn = torch.randint(len(old_N), (2, 20), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        want = base(old_N[drawn]).logits[..., old_N]
        have = new.eval()(new_N[drawn]).logits[..., new_N]
    assert want.std() > 0.05
    torch.testing.assert_close(have, want, rtol=1e-6, atol=1e-6)
    tied = new.config.tie_word_embeddings
    assert tied == base.config.tie_word_embeddings
    assert (HEAD in read_draft(tmp_path / "new").tensors) == (not tied)


@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_split_as_before(tmp_path, corpus, kind):
    write_base(tmp_path / "base", tokenizer=tokenizer_of(kind))
    report = trimmed(tmp_path, corpus)
    old, new = (AutoTokenizer.from_pretrained(tmp_path / name) for name in ("base", "new"))
    for text in SEEN:
        ids = [tokenizer(text).input_ids for tokenizer in (old, new)]
        assert old.convert_ids_to_tokens(ids[0]) == new.convert_ids_to_tokens(ids[1])
    # Any other text can still be spelt.
    back = new.decode(new(UNSEEN, add_special_tokens=False).input_ids)
    assert back.strip() == UNSEEN
    assert len(new(UNSEEN).input_ids) > len(old(UNSEEN).input_ids)
    (step,) = report.steps
    assert step.numbers["kept"] == report.after.tokens < report.before.tokens
    assert step.numbers["kept"] + step.numbers["dropped"] == report.before.tokens
    for control in CONTROLS:
        assert new.convert_tokens_to_ids(control) is not None


def test_ids_in_all_files_follow(tmp_path, corpus):
    tokenizer = tokenizer_of("gemma")
    write_base(tmp_path / "base", tokenizer=tokenizer)
    generation = tmp_path / "base" / "generation_config.json"
    written = json.loads(generation.read_text())
    seen = "".join(SEEN).replace(" ", "▁")
    seldom = [
        id_ for token, id_ in tokenizer.get_vocab().items() if len(token) == 5 and token not in seen
    ]
    written |= {"suppress_tokens": [seldom[0]], "bad_words_ids": [[seldom[1], -1]]}
    generation.write_text(json.dumps(written))
    written_config = tmp_path / "base" / "tokenizer_config.json"
    written_config.write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "eos_token": "<eos>",
                "added_tokens_decoder": {
                    str(id_): {"content": token}
                    for token, id_ in tokenizer.get_vocab().items()
                    if token in CONTROLS
                },
            }
        )
    )
    trimmed(tmp_path, corpus)
    ids = kept_ids(tmp_path)
    for name in ("config.json", "generation_config.json"):
        old, new = both(tmp_path, name)
        for key in ("bos_token_id", "pad_token_id"):
            assert new[key] == ids[old[key]]
    assert new["eos_token_id"] == [ids[id_] for id_ in old["eos_token_id"]]
    assert new["suppress_tokens"] == [ids[seldom[0]]]
    assert new["bad_words_ids"] == [[ids[seldom[1]], -1]]
    old, new = both(tmp_path, "tokenizer_config.json")
    assert new["added_tokens_decoder"] == {
        str(ids[int(id_)]): entry for id_, entry in old["added_tokens_decoder"].items()
    }
    old, new = both(tmp_path, "tokenizer.json")
    assert {entry["content"]: ids[entry["id"]] for entry in old["added_tokens"]} == {
        entry["content"]: entry["id"] for entry in new["added_tokens"]
    }


def test_the_post_processor_follows(tmp_path, corpus):
    write_base(tmp_path / "base", tokenizer=tokenizer_of(GPT2))
    trimmed(tmp_path, corpus)
    new = Tokenizer.from_file(str(tmp_path / "new" / "tokenizer.json"))
    assert new.encode("the").ids[0] == new.token_to_id("<bos>")
    assert new.encode("<tag>", add_special_tokens=False).tokens == ["<tag>"]


def test_a_control_token_behind_the_last_row_stays_there(tmp_path, corpus):
    # As <image_soft_token> of Gemma 3.
    tokenizer = tokenizer_of("gemma")
    tokenizer.add_special_tokens(["<image>"])
    write_base(tmp_path / "base", "gemma3_text", tokenizer, rows_more=-1)
    report = trimmed(tmp_path, corpus)
    new = Tokenizer.from_file(str(tmp_path / "new" / "tokenizer.json"))
    assert new.token_to_id("<image>") == report.after.rows == report.after.tokens - 1
    AutoModelForCausalLM.from_pretrained(tmp_path / "new")


def test_a_packed_dataset_is_taken_if_its_tokenizer_is_the_base_s(tmp_path, corpus):
    import sabiprep

    write_base(tmp_path / "base")
    options = sabiprep.PackOptions(tokenizer=tmp_path / "base" / "tokenizer.json")
    sabiprep.pack(corpus, tmp_path / "packed", options)
    report = trimmed(tmp_path, tmp_path / "packed")
    shutil.rmtree(tmp_path / "new")
    from_corpus = trimmed(tmp_path, corpus)
    assert report.steps[0].numbers == from_corpus.steps[0].numbers
    shutil.rmtree(tmp_path / "base")
    shutil.rmtree(tmp_path / "new")
    write_base(tmp_path / "base", tokenizer=tokenizer_of(GPT2, YORUBA))
    with pytest.raises(DatasetError, match="was packed with another tokenizer") as error:
        trimmed(tmp_path, tmp_path / "packed")
    assert "pack its corpus with the base's tokenizer" in str(error.value)
    assert not (tmp_path / "new").exists()


def test_held_out_texts_and_repeated_ones_keep_their_tokens(tmp_path):
    write_base(tmp_path / "base")
    toml = "[pack]\nseq_len = 64\nvalidation = 0.5\n"
    corpus = write_corpus(tmp_path / "held-out", {"eng": ENGLISH, "yor": YORUBA}, toml)
    trimmed(tmp_path, corpus)
    old, new = (AutoTokenizer.from_pretrained(tmp_path / name) for name in ("base", "new"))
    for text in (*ENGLISH, *YORUBA):
        ids = [tokenizer(text).input_ids for tokenizer in (old, new)]
        assert old.convert_ids_to_tokens(ids[0]) == new.convert_ids_to_tokens(ids[1])


def test_rows_are_those_of_the_base_bit_by_bit(tmp_path, corpus):
    write_base(tmp_path / "base")
    trimmed(tmp_path, corpus)
    old, new = (read_draft(tmp_path / name) for name in ("base", "new"))
    ids = kept_ids(tmp_path)
    for name in (EMBEDDING, HEAD):
        for before, after in ids.items():
            assert torch.equal(old.tensors[name][before], new.tensors[name][after])
    for name in old.tensors.keys() - {EMBEDDING, HEAD}:
        assert torch.equal(old.tensors[name], new.tensors[name])


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(KINDS),
    st.lists(st.text("abcẹọ́ \n12.!<s>", max_size=30), min_size=1, max_size=4),
    st.lists(st.sampled_from([*ENGLISH, *YORUBA]), max_size=2),
)
def test_any_texts_are_split_as_before(kind, odd, known):
    file = parse_bpe(tokenizer_of(kind).to_str().encode(), "tokenizer.json")
    tensors = {EMBEDDING: torch.zeros(file.end, 2)}
    draft = Draft(Path("base"), {"eos_token_id": file.ids["<eos>"]}, {}, {}, tensors)
    bare = file.bare()
    texts = [*odd, *known]
    used = {id_ for text in texts for id_ in bare.encode(text, add_special_tokens=False).ids}
    kept = keep_tokens(draft, file, used)
    after = file.selected(kept.new_ids)
    assert sorted(kept.new_ids.values()) == list(range(len(kept.new_ids)))
    again = after.bare()
    for text in texts:
        before = bare.encode(text, add_special_tokens=False)
        now = again.encode(text, add_special_tokens=False)
        assert now.tokens == before.tokens
        assert now.ids == [kept.new_ids[id_] for id_ in before.ids]
    # No token is there for nothing: each is of the texts, on the way to one, a letter or control.
    assert len(kept.new_ids) == kept.used + kept.on_the_way + kept.spelling + kept.control
    made = {left + right for left, right in after.merges}
    longer = {piece for piece in after.vocab if len(piece) > 1} - made
    assert {after.vocab[piece] for piece in longer} <= after.closed | set(after.byte_ids)
