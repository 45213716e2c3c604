"""Rows of new tokens in embedding and head: means, random ones, a bilingual list."""

from __future__ import annotations

import json

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from sabiprep.errors import ConfigError
from sabitrain.adapt.draft import BY_TOKEN, EMBEDDING, HEAD, read_draft
from sabitrain.adapt.run import adapt
from sabitrain.adapt.settings import AdaptConfig
from support.train.adapt_bases import (
    ENGLISH,
    FAMILIES,
    KINDS,
    YORUBA,
    tokenizer_of,
    write_base,
    write_corpus,
)

MORE = 24


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path / "corpus", {"yor": YORUBA})


def extended(tmp_path, corpus, **options):
    config = AdaptConfig(
        base=str(tmp_path / "base"),
        new=tmp_path / "new",
        add_language=corpus,
        **{"vocab": MORE, **options},
    )
    return adapt(config)


def new_tokens(tmp_path) -> dict[str, int]:
    old, new = (
        Tokenizer.from_file(str(tmp_path / name / "tokenizer.json")).get_vocab()
        for name in ("base", "new")
    )
    assert all(new[token] == id_ for token, id_ in old.items())
    return {token: id_ for token, id_ in new.items() if token not in old}


def slow_pieces(base: Tokenizer, token: str) -> list[int]:
    """The base's tokens for the text of a token: its merges in turn."""
    content = json.loads(base.to_str())["model"]
    pieces = list(token)
    for left, right in content["merges"]:
        place = 0
        while place < len(pieces) - 1:
            if pieces[place : place + 2] == [left, right]:
                pieces[place : place + 2] = [left + right]
            place += 1
    ids = []
    for piece in pieces:
        known = base.token_to_id(piece)
        spelt = [f"<0x{byte:02X}>" for byte in piece.encode()]
        ids += [known] if known is not None else [base.token_to_id(byte) for byte in spelt]
    return ids


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows_more", [0, 7, 100])
def test_a_row_is_the_mean_of_the_base_s(tmp_path, corpus, kind, rows_more):
    tokenizer = tokenizer_of(kind)
    write_base(tmp_path / "base", tokenizer=tokenizer, rows_more=rows_more)
    report = extended(tmp_path, corpus)
    old, new = (read_draft(tmp_path / name) for name in ("base", "new"))
    found = new_tokens(tmp_path)
    assert len(found) == MORE and report.after.tokens == report.before.tokens + MORE
    assert new.rows == new.config["vocab_size"] == max(old.rows, old.rows - rows_more + MORE)
    assert report.steps[0].numbers["rows_taken"] == min(rows_more, MORE)
    for name in (EMBEDDING, HEAD):
        for token, id_ in found.items():
            want = old.tensors[name][slow_pieces(tokenizer, token)].double().mean(0).float()
            torch.testing.assert_close(new.tensors[name][id_], want, rtol=1e-6, atol=1e-7)
        known = old.rows - rows_more
        assert torch.equal(new.tensors[name][:known], old.tensors[name][:known])


@pytest.mark.parametrize("family", FAMILIES)
def test_old_tokens_have_the_logits_of_the_base(tmp_path, corpus, family):
    base = write_base(tmp_path / "base", family)
    extended(tmp_path, corpus)
    new, loading = AutoModelForCausalLM.from_pretrained(
        tmp_path / "new", output_loading_info=True, dtype=torch.float32
    )
    assert not any(loading.values()), loading
    old_ids, new_ids = (
        AutoTokenizer.from_pretrained(tmp_path / name)(ENGLISH[0]).input_ids
        for name in ("base", "new")
    )
    assert old_ids == new_ids
    with torch.no_grad():
        want = base(torch.tensor([old_ids])).logits
        have = new.eval()(torch.tensor([old_ids])).logits[..., : want.shape[-1]]
    torch.testing.assert_close(have, want, rtol=1e-5, atol=1e-6)
    shared = new.get_input_embeddings().weight is new.get_output_embeddings().weight
    assert shared == FAMILIES[family][2]["tie_word_embeddings"]


def test_random_rows_are_spread_as_the_base_s(tmp_path, corpus):
    write_base(tmp_path / "base", rows_more=5)
    extended(tmp_path, corpus, new_rows="random", seed=1)
    old, new = (read_draft(tmp_path / name) for name in ("base", "new"))
    ids = sorted(new_tokens(tmp_path).values())
    for name in (EMBEDDING, HEAD):
        known = old.tensors[name][:-5]
        drawn = new.tensors[name][ids]
        scaled = (drawn - known.mean(0)) / known.std(0, correction=0)
        assert abs(scaled.mean()) < 0.15 and 0.85 < scaled.std() < 1.15
        assert len({tuple(row.tolist()) for row in drawn}) == MORE


def test_the_same_seed_gives_the_same_bytes(tmp_path, corpus):
    write_base(tmp_path / "base")
    extended(tmp_path, corpus, new_rows="random", seed=1)
    (tmp_path / "new").rename(tmp_path / "first")
    extended(tmp_path, corpus, new_rows="random", seed=1)
    for file in sorted((tmp_path / "first").iterdir()):
        assert file.read_bytes() == (tmp_path / "new" / file.name).read_bytes(), file.name


def test_rows_of_a_list_are_those_of_its_words(tmp_path, corpus):
    tokenizer = tokenizer_of("gemma")
    write_base(tmp_path / "base", tokenizer=tokenizer)
    listed = tmp_path / "words.tsv"
    listed.write_text("ọjà\tmarket\nỌMỌ\tchildren\nọmọ\tother\n\nunknown\triver\n", "utf-8")
    report = extended(tmp_path, corpus, new_rows="list", bilingual=listed, vocab=50)
    old, new = (read_draft(tmp_path / name) for name in ("base", "new"))
    found = new_tokens(tmp_path)
    words = {token: id_ for token, id_ in found.items() if token in ("▁ọmọ", "▁ọjà")}
    assert words and report.steps[0].numbers["rows_listed"] == len(words)
    for token, id_ in found.items():
        means = {"▁ọjà": ["▁market"], "▁ọmọ": ["▁children", "▁other"]}.get(token, [token])
        ids = [i for text in means for i in slow_pieces(tokenizer, text)]
        want = old.tensors[EMBEDDING][ids].double().mean(0).float()
        torch.testing.assert_close(new.tensors[EMBEDDING][id_], want)


@pytest.mark.parametrize("line", ["one", "a\tb\tc", "\tb"])
def test_a_line_that_is_no_pair_of_words_is_named(tmp_path, corpus, line):
    write_base(tmp_path / "base")
    (tmp_path / "words.tsv").write_text(f"a\tb\n{line}\n")
    with pytest.raises(ConfigError, match=r"words\.tsv:2: "):
        extended(tmp_path, corpus, new_rows="list", bilingual=tmp_path / "words.tsv")


def test_bf16_stays_bf16(tmp_path, corpus):
    model = write_base(tmp_path / "base")
    model.to(torch.bfloat16).save_pretrained(tmp_path / "base")
    extended(tmp_path, corpus)
    new = read_draft(tmp_path / "new")
    assert {tensor.dtype for tensor in new.tensors.values()} == {torch.bfloat16}
    assert set(new.tensors) & set(BY_TOKEN) == {EMBEDDING, HEAD}


def test_a_control_token_behind_the_last_row_gets_one(tmp_path, corpus):
    tokenizer = tokenizer_of("gemma")
    tokenizer.add_special_tokens(["<image>"])
    write_base(tmp_path / "base", "gemma3_text", tokenizer, rows_more=-1)
    extended(tmp_path, corpus)
    old, new = (read_draft(tmp_path / name) for name in ("base", "new"))
    assert min(new_tokens(tmp_path).values()) == tokenizer.token_to_id("<image>") + 1
    row = new.tensors[EMBEDDING][tokenizer.token_to_id("<image>")]
    torch.testing.assert_close(row, old.tensors[EMBEDDING].mean(0))
    assert new.rows == old.rows + 1 + MORE


@pytest.mark.parametrize("how", ["mean", "random"])
def test_a_corpus_without_a_frequent_pair_adds_nothing(tmp_path, how):
    write_base(tmp_path / "base")
    corpus = write_corpus(tmp_path / "corpus", {"eng": ["zq"]})
    report = extended(tmp_path, corpus, new_rows=how)
    assert report.steps[0].numbers["tokens"] == 0
    old, new = (read_draft(tmp_path / name) for name in ("base", "new"))
    assert torch.equal(old.tensors[EMBEDDING], new.tensors[EMBEDDING])


def test_weights_in_several_files_are_read(tmp_path, corpus):
    model = write_base(tmp_path / "base")
    (tmp_path / "base" / "model.safetensors").unlink()
    model.save_pretrained(tmp_path / "base", max_shard_size="60KB")
    assert len(list((tmp_path / "base").glob("*.safetensors"))) > 2
    extended(tmp_path, corpus)
    new = read_draft(tmp_path / "new")
    for name, tensor in model.state_dict().items():
        assert torch.equal(new.tensors[name][: len(tensor)], tensor)
