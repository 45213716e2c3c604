"""Adaptations that are refused or fail: in words, with place and remedy, and nothing is left."""

from __future__ import annotations

import errno
import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from sabiprep.errors import SabiprepError
from sabitrain.__main__ import main
from sabitrain.adapt.draft import EMBEDDING, HEAD
from sabitrain.adapt.settings import AdaptConfig
from sabitrain.checkpoints import files
from sabitrain.checkpoints.disk import Disk
from support.train.adapt_bases import ENGLISH, GPT2, YORUBA, tokenizer_of, write_base, write_corpus


@pytest.fixture
def base(tmp_path):
    write_base(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path / "corpus", {"eng": ENGLISH})


@pytest.fixture
def refused(tmp_path, capsys):
    """Runs a command that must fail in words, and returns the words."""

    def run(*words, new="new", code=1) -> str:
        try:
            ended = main(["adapt", str(tmp_path / "base"), str(tmp_path / new), *map(str, words)])
        except SystemExit as exit_:
            ended = exit_.code
        printed = capsys.readouterr()
        assert ended == code and "Traceback" not in printed.err and "bug" not in printed.err
        assert not (tmp_path / ".new.unfinished").exists()
        return printed.err

    return run


def with_tensors(base, **changed) -> None:
    """Changes tensors of a base by name; None removes one."""
    file = base / "model.safetensors"
    tensors = load_file(file)
    for name, tensor in changed.items():
        name = {"embedding": EMBEDDING, "head": HEAD}.get(name, name.replace("__", "."))
        tensors.pop(name)
        if tensor is not None:
            tensors[name] = tensor
    save_file(tensors, file)


def with_json(file, **changed) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **changed}), "utf-8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "nothing is to be changed"),
        ({"add_language": "c"}, "--add-language and --vocab go together"),
        ({"vocab": 5}, "--add-language and --vocab go together"),
        ({"add_language": "c", "vocab": 0}, "--vocab is 0"),
        ({"add_language": "c", "vocab": 10**9}, "--vocab is 1000000000"),
        ({"extend": "t", "new_rows": "list"}, "--new-rows list and --bilingual go together"),
        ({"trim": ("c",), "new_rows": "random"}, "--new-rows is for new tokens"),
        ({"drop_layers": 2}, "--rows goes with"),
        ({"drop_layers": 0, "rows": "d"}, "--drop-layers is 0"),
        ({"trim": ("c",), "rows": "d"}, "--rows goes with"),
        ({"prune_width": ("heads=4", "heads=2"), "rows": "d"}, "--prune-width has 'heads=2'"),
        ({"prune_width": ("layers=4",), "rows": "d"}, "--prune-width has 'layers=4'"),
        ({"prune_width": ("mlp=0",), "rows": "d"}, "--prune-width has 'mlp=0'"),
        ({"trim": ("c",), "seed": -1}, "--seed is -1"),
    ],
)
def test_options_that_cannot_be_right(options, message):
    with pytest.raises(SabiprepError, match=message) as error:
        AdaptConfig(base="base", new="new", **options)
    assert error.value.remedy


def test_a_wrong_command_line_exits_with_2(base, corpus, refused):
    assert "--vocab" in refused("--add-language", corpus, "--vocab", "many", code=2)


def test_a_number_of_tokens_without_its_plus_sign_was_taken_for_one_with_it(base, corpus, refused):
    for words in (("--vocab", "300"), ("--vocab=300",)):
        told = refused("--add-language", corpus, *words, code=2)
        assert "the number of tokens to add, as +300" in " ".join(told.replace("│", " ").split())


def test_a_bad_list_and_a_folder_that_cannot_be_made_were_told_when_all_was_done(
    base, corpus, refused, tmp_path, monkeypatch
):
    monkeypatch.setattr("sabitrain.adapt.run.read_draft", lambda *_: pytest.fail("too late"))
    listed = tmp_path / "words.tsv"
    listed.write_text("one\ttwo\nthree\n")
    words = ("--add-language", corpus, "--vocab", "+5", "--new-rows", "list", "--bilingual", listed)
    assert f"{listed}:2" in refused(*words).replace(": line ", ":").replace(", line ", ":")
    listed.write_text("one\ttwo\n")
    told = refused(*words, new="words.tsv/new")
    assert "cannot be made" in told and "is no folder" in told and "Remedy" in told
    monkeypatch.setattr("os.access", lambda place, mode: False)
    assert "is not writable" in refused(*words, new="far/new")
    assert not (tmp_path / "far").exists()


def test_a_folder_that_exists_is_left_alone(base, corpus, refused, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("there", "link"):
        assert "exists already" in refused("--trim", corpus, new=name)
    assert "lies within the base" in refused("--trim", corpus, new="base/new")
    assert sorted(each.name for each in (tmp_path / "base").iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_a_base_that_is_not_there(tmp_path, corpus, refused):
    assert "no folder of a checkpoint" in refused("--trim", corpus)
    (tmp_path / "base").mkdir()
    assert "holds no config.json" in refused("--trim", corpus)


def test_a_corpus_that_is_not_there(base, refused, tmp_path):
    assert "nowhere" in refused("--trim", tmp_path / "nowhere")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"embedding": None}, "lacks the tensor model.embed_tokens.weight"),
        ({"embedding": torch.zeros(10, 32)}, "is 10 x 32 float32, where config.json asks for"),
        ({"embedding": torch.zeros(378, 32, dtype=torch.int8)}, "int8, where"),
        ({"head": torch.zeros(378, 32).to(torch.float8_e5m2)}, "float8_e5m2, where"),
        ({"head": torch.zeros(378, 16)}, "lm_head.weight is 378 x 16"),
        ({"head": torch.full((378, 32), torch.nan)}, "lm_head.weight holds NaN or infinity"),
        ({"embedding": torch.ones(378, 32).index_fill(0, torch.tensor([7]), torch.inf)}, "row 7"),
        ({"model__layers__2__mlp__up_proj__weight": None}, "layers.2.mlp.up_proj.weight"),
    ],
)
def test_a_base_with_wrong_tensors(base, corpus, refused, changed, message):
    with_tensors(base, **changed)
    assert message in refused("--trim", corpus)


def test_a_base_that_lacks_a_layer(base, corpus, refused):
    with_json(base / "config.json", num_hidden_layers=6)
    assert "lacks layer 4 of the 6" in refused("--trim", corpus)


@pytest.mark.parametrize("value", [None, "many", -4, True, 1.5])
def test_a_configuration_with_wrong_sizes(base, corpus, refused, value):
    with_json(base / "config.json", hidden_size=value)
    assert "`hidden_size`" in refused("--trim", corpus)


def test_weights_that_are_cut_short(base, corpus, refused):
    file = base / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert "model.safetensors: cannot be read" in refused("--trim", corpus)


def test_tokenizers_of_other_kinds_are_refused_by_name(base, corpus, refused, tmp_path):
    unigram = Tokenizer(models.Unigram([("a", -1.0), ("b", -2.0)]))
    pieces = Tokenizer(models.WordPiece({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    plain = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    clip = Tokenizer(models.BPE({"a": 0, "b</w>": 1}, [], end_of_word_suffix="</w>"))
    sound = (base / "tokenizer.json").read_bytes()
    for tokenizer, message in (
        (unigram, "is Unigram, and only a BPE"),
        (pieces, "is WordPiece, and only a BPE"),
        (plain, "spells neither bytes by letters nor spaces"),
        (clip, "`end_of_word_suffix`"),
    ):
        tokenizer.save(str(tmp_path / "other.json"))
        assert message in refused("--extend", tmp_path / "other.json")
        tokenizer.save(str(base / "tokenizer.json"))
        assert message in refused("--trim", corpus)
        (base / "tokenizer.json").write_bytes(sound)


def test_damaged_tokenizers(base, corpus, refused):
    file = base / "tokenizer.json"
    sound = json.loads(file.read_text("utf-8"))
    vocab, merges = sound["model"]["vocab"], sound["model"]["merges"]
    for model, message in (
        ({"vocab": {**vocab, "xyz": 2**31}}, "no id of a token"),
        ({"vocab": {**vocab, "xyz": -1}}, "no id of a token"),
        ({"vocab": {**vocab, "xyz": 5000}}, "the id 5,000, and the embedding has 378 rows"),
        ({"vocab": {**vocab, "xyz": 5}}, "gives one id to two tokens"),
        ({"vocab": 5}, "cannot be read as a tokenizer"),
        ({"merges": [*merges, ["x", "yz"]]}, "beyond its vocabulary"),
        ({"merges": [*merges, "xyz"]}, "cannot be read as a tokenizer"),
        ({"merges": None}, "cannot be read as a tokenizer"),
    ):
        file.write_text(json.dumps({**sound, "model": {**sound["model"], **model}}), "utf-8")
        assert message in refused("--trim", corpus)
    for content in (b"", b"{", b"[]", b"[" * 100_000, b'{"model": {}}', b"\xff\xfe"):
        file.write_bytes(content)
        refused("--trim", corpus)
    file.unlink()
    assert "tokenizer.json: is missing" in refused("--trim", corpus)


def test_a_fifo_and_a_folder_for_the_file_to_extend_by(base, refused, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    for name in ("fifo", "folder", "nowhere"):
        assert "cannot be read" in refused("--extend", tmp_path / name)


def test_a_full_disk_leaves_nothing(base, corpus, refused, tmp_path, monkeypatch):
    class Full(Disk):
        def write_tensors(self, path, tensors, metadata):
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "disk", Full())
    told = refused("--trim", corpus)
    assert "No space left" in told and "make room" in told and "--resume" not in told
    assert sorted(each.name for each in tmp_path.iterdir()) == ["base", "corpus"]


def test_an_eos_that_the_base_lacks_is_told_by_packing(base, refused, tmp_path):
    toml = '[tokenizer]\neos = "</s>"\n[pack]\nseq_len = 64\n'
    corpus = write_corpus(tmp_path / "corpus", {"eng": ENGLISH}, toml)
    assert "candidates" in refused("--trim", corpus)


def test_json_has_the_numbers_of_the_table(base, corpus, tmp_path, capsys):
    tokenizer_of(GPT2, YORUBA, 40).save(str(tmp_path / "other.json"))
    words = ["--extend", tmp_path / "other.json", "--trim", corpus, "--measure", corpus]
    code = main(["adapt", str(base), str(tmp_path / "new"), *map(str, words), "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert code == 0 and [step["step"] for step in printed["steps"]] == ["extend", "trim"]
    assert printed["before"]["tokens"] == 378 == printed["before"]["rows"]
    assert printed["after"]["float32_bytes"] == 4 * printed["after"]["parameters"]
    counts = printed["languages"]["eng"]["training"]
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    tokens = sum(len(tokenizer.encode(text, add_special_tokens=False).ids) for text in ENGLISH)
    assert counts["words"] == sum(len(text.split()) for text in ENGLISH)
    assert counts["tokens_per_word_before"] == pytest.approx(tokens / counts["words"])
    assert counts["tokens_per_word_after"] == counts["tokens_per_word_before"]


def test_the_table_fits_80_columns(base, corpus, tmp_path, capsys):
    long = write_corpus(tmp_path / "long", {"a-language-with-a-very-long-name-indeed" * 2: ENGLISH})
    words = ["--trim", str(corpus), str(long)]
    assert main(["adapt", str(base), str(tmp_path / "new"), *words]) == 0
    table = capsys.readouterr().out.partition("written: ")[0]
    assert max(map(len, table.splitlines())) <= 80
    assert "tokens" in table and "float32" in table
