"""A language added to a checkpoint, and the new rows trained: adapt, pack, train."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tokenizers import Tokenizer

import sabiprep
from sabiprep import PackOptions
from sabitrain.__main__ import main
from sabitrain.config import BatchConfig, OptimConfig, TrainConfig
from sabitrain.trainer import run_training
from support.train.adapt_bases import ENGLISH, YORUBA, write_base, write_corpus


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_new_rows_alone_are_trained_after_a_language_is_added(tmp_path: Path, family: str) -> None:
    base, new = tmp_path / "base", tmp_path / "new"
    before = len(write_base(base, family).get_input_embeddings().weight)
    corpus = write_corpus(tmp_path / "corpus", {"yor": YORUBA * 4, "eng": ENGLISH * 2})
    words = ["adapt", base, new, "--add-language", corpus, "--vocab", "+40"]
    assert main([str(word) for word in words]) == 0
    first, end = json.loads((new / "adapt.json").read_text())["new_rows"]
    assert (first, end) == (before, before + 40)
    report = sabiprep.pack(corpus, tmp_path / "data", PackOptions(tokenizer=new))
    assert report is not None
    held = load_file(new / "model.safetensors")
    trained = run_training(
        TrainConfig(
            data=(str(tmp_path / "data"),),
            run=tmp_path / "run",
            init=str(new),
            train="new-rows",
            batch=BatchConfig(tokens=128, micro_tokens=128),
            optim=OptimConfig(lr=1e-2),
            max_steps=3,
            eval_every=0,
            answers=0,
            device="cpu",
            threads=1,
        )
    )
    for name, value in load_file(trained.checkpoint / "model.safetensors").items():
        moved = (value != held[name]).reshape(len(value), -1).any(1)
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            assert moved[first:end].any() and not moved[:first].any()
        else:
            assert not moved.any(), name
    # The checkpoint of the run still says which rows are new.
    kept = json.loads((trained.checkpoint / "adapt.json").read_text())
    assert kept["new_rows"] == [first, end]


def test_new_rows_of_an_earlier_adaptation_are_still_new(tmp_path: Path) -> None:
    """They were forgotten by a second one."""
    write_base(tmp_path / "base")
    corpus = write_corpus(tmp_path / "corpus", {"yor": YORUBA * 4, "eng": ENGLISH * 2})
    adapted = tmp_path / "one"
    words = ["adapt", tmp_path / "base", adapted, "--add-language", corpus, "--vocab", "+40"]
    assert main([str(word) for word in words]) == 0
    first, end = json.loads((adapted / "adapt.json").read_text())["new_rows"]
    more = [("two", "--add-language", corpus, "--vocab", "+5"), ("three", "--trim", corpus)]
    for name, *options in more:
        words = ["adapt", adapted, tmp_path / name, *options]
        assert main([str(word) for word in words]) == 0
    rows = [
        json.loads((tmp_path / name / "adapt.json").read_text())["new_rows"] for name, *_ in more
    ]
    assert rows[0] == [first, end + 5]
    tokenizer = Tokenizer.from_file(str(tmp_path / "three" / "tokenizer.json"))
    before = Tokenizer.from_file(str(adapted / "tokenizer.json"))
    size = tokenizer.get_vocab_size()
    still = [id_ for id_ in range(size) if before.token_to_id(tokenizer.id_to_token(id_)) >= first]
    assert rows[1] == [still[0], still[-1] + 1] and len(still) == rows[1][1] - rows[1][0]


def test_a_checkpoint_without_new_tokens_names_no_new_rows(tmp_path: Path) -> None:
    write_base(tmp_path / "base")
    corpus = write_corpus(tmp_path / "corpus", {"eng": ENGLISH})
    words = ["adapt", tmp_path / "base", tmp_path / "new", "--trim", corpus]
    assert main([str(word) for word in words]) == 0
    assert not (tmp_path / "new" / "adapt.json").exists()
