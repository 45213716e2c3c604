"""Tokenizers and folders that packing must refuse, or survive."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

import sabiprep
from sabiprep import PackOptions
from sabiprep.dataset import PackedDataset, open_dataset
from sabiprep.errors import OutputError, TokenizerError
from support import packer
from support.one_source import number, one_source


def unigram(
    pre_tokenizer: pre_tokenizers.PreTokenizer, normalizer: normalizers.Normalizer | None = None
) -> Tokenizer:
    """A Unigram tokenizer whose model holds its control tokens as pieces like any other."""
    pieces = [
        ("<unk>", 0.0),
        ("</s>", 0.0),
        ("\u2581", -2.0),
        ("\u2581the", -3.0),
        ("the", -4.0),
        ("cat", -4.0),
    ]
    letters = [(letter, -6.0) for letter in "abcdefghijklmnopqrstuvwxyz<>/:"]
    tokenizer = Tokenizer(models.Unigram([*pieces, *letters], unk_id=0))
    tokenizer.add_special_tokens(["</s>", "<unk>"])
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    return tokenizer


def pack_with(tmp_path: Path, tokenizer: Tokenizer, record: Mapping[str, str]) -> PackedDataset:
    folder = tmp_path / f"corpus{next(number)}"
    folder.mkdir()
    (folder / "a.jsonl").write_text(json.dumps(record) + "\n", "utf-8")
    segments = [{"prompt": "the: {{ a }}"}, {"target": " {{ b }}"}]
    packer.write_config(
        folder, [{"name": "a", "files": ["a.jsonl"], "overflow": "drop", "segments": segments}]
    )
    file = folder / "tokenizer.json"
    tokenizer.save(str(file))
    packer.pack(folder, folder.with_suffix(".out"), tokenizer=file, seq_len=65536)
    return open_dataset(folder.with_suffix(".out"))


@pytest.mark.parametrize(
    ("pre_tokenizer", "normalizer"),
    [
        (
            pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]),
            None,
        ),
        (pre_tokenizers.Metaspace(), normalizers.Strip()),
    ],
)
def test_a_tokenizer_whose_continuation_would_lose_spaces_is_refused(
    tmp_path: Path,
    pre_tokenizer: pre_tokenizers.PreTokenizer,
    normalizer: normalizers.Normalizer | None,
) -> None:
    with pytest.raises(TokenizerError, match="loses the space"):
        pack_with(tmp_path, unigram(pre_tokenizer, normalizer), {"a": "cat", "b": "the cat"})


def test_many_look_alikes_that_the_model_holds_as_pieces(tmp_path: Path) -> None:
    """Regression: each look-alike was a recursion and a pass over the rest."""
    record = {"a": "</s>" * 16_000, "b": "the <unk> cat"}
    with pack_with(tmp_path, unigram(pre_tokenizers.Metaspace()), record) as dataset:
        [row] = [dataset.train[at] for at in range(len(dataset.train))]
        ids = row["input_ids"][: row["seq_lengths"].sum()]
    assert len(ids) > 64_000
    assert list(ids).count(1) == 1, "the closing EOS alone"
    assert 0 not in ids


def test_a_source_that_reads_a_file_of_out_is_refused(tmp_path: Path) -> None:
    lines = [{"a": "x", "b": "y"}]
    with one_source(tmp_path, lines, 64, segments=[{"target": "{{ b }}"}]) as dataset:
        out = Path(dataset.path)
    folder = tmp_path / "outer"
    folder.mkdir()
    (folder / "a.jsonl").write_text('{"a": "x", "b": "y"}\n', "utf-8")
    shutil.copytree(out, folder / "out")
    config = [{"name": "a", "files": ["**/*.json*"], "segments": [{"target": "{{ a }}"}]}]
    packer.write_config(folder, config)
    before = sorted(path.name for path in (folder / "out").rglob("*"))
    with pytest.raises(OutputError, match="which a source reads"):
        sabiprep.pack(
            folder, folder / "out", PackOptions(tokenizer=out / "tokenizer.json", overwrite=True)
        )
    assert sorted(path.name for path in (folder / "out").rglob("*")) == before


def test_the_chat_template_beside_a_tokenizer_goes_along(corpus: Path, tmp_path: Path) -> None:
    """Into the manifest, and from there into checkpoints; a dataset without one has the bytes it
    would have had.
    """
    several = [{"name": "tool_use", "template": "a"}, {"name": "default", "template": "b"}]
    beside: list[tuple[dict[str, str], str | None]] = [
        ({}, None),
        ({"tokenizer_config.json": json.dumps({"eos_token": "</s>"})}, None),
        ({"tokenizer_config.json": json.dumps({"chat_template": "{{ x }}"})}, "{{ x }}"),
        ({"tokenizer_config.json": json.dumps({"chat_template": several})}, "b"),
        ({"chat_template.jinja": "{{ messages }}\n"}, "{{ messages }}\n"),
    ]
    manifests = []
    for nth, (files, template) in enumerate(beside):
        for name, text in files.items():
            (corpus / name).write_text(text, "utf-8")
        sabiprep.pack(corpus, tmp_path / str(nth), PackOptions(threads=1))
        manifest = json.loads((tmp_path / str(nth) / "manifest.json").read_text("utf-8"))
        assert manifest["tokenizer"].pop("chat_template", None) == template
        manifests.append({key: value for key, value in manifest.items() if key != "sha256"})
    assert all(manifest == manifests[0] for manifest in manifests)
    assert (tmp_path / "0" / "manifest.json").read_bytes() == (
        tmp_path / "1" / "manifest.json"
    ).read_bytes()
