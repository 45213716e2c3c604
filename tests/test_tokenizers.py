"""Tokenizer files from anywhere: the ids of the library where it gives any, no control token from
data, nothing that
hangs, grows without end or shows a panic."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

import sabiprep
from sabiprep import PackOptions
from sabiprep.errors import SabiprepError, TokenizerError
from support import packer
from support.random_tokenizers import EOS, barred_ids, random_texts, random_tokenizer
from support.strategies import tokenizer_json

RANDOM = int(os.environ.get("SABIPREP_RANDOM_TOKENIZERS", "60"))


def library_ids(tokenizer: Tokenizer, text: str) -> list[int] | None:
    """The library's ids; None where it fails or panics."""
    try:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    except BaseException as error:  # a panic of the library is no Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        return None
    return ids


def normalized_tokens(tokenizer: Tokenizer, file: dict[str, Any]) -> list[str]:
    """What normalizing makes of the added tokens that are looked for in normalized text."""
    contents = [token["content"] for token in file["added_tokens"] if token["normalized"]]
    return [
        tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text
        for text in contents
    ]


def packed_documents(folder: Path, file: dict[str, Any], texts: list[str]) -> list[list[int]]:
    """The documents of texts that are all data, packed each in a row of its own."""
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text(json.dumps(file), "utf-8")
    lines = [json.dumps({"text": text}) for text in texts]
    (folder / "a.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    source = {"name": "a", "files": ["a.jsonl"], "segments": [{"target": "{{ text }}"}]}
    packer.write_config(folder, [source], pack={"seq_len": 128, "pack": "none"})
    sabiprep.pack(
        folder, folder / "out", PackOptions(tokenizer=tokenizer, threads=1, overwrite=True)
    )
    documents = []
    with sabiprep.open_dataset(folder / "out") as dataset:
        for row in dataset.train:
            documents.append(row["input_ids"][: row["seq_lengths"][0]].tolist())
    return documents


def test_random_tokenizers_give_the_ids_of_the_library_and_no_control_token_from_data(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The library says what the ids are; the file itself which of them no text may become."""
    compared = documents = 0
    for number in range(RANDOM):
        file, texts = random_tokenizer(number), random_texts(number)
        path = tmp_path / "tokenizer.json"
        path.write_text(json.dumps(file), "utf-8")
        try:
            library = Tokenizer.from_file(str(path))
        except Exception:
            with pytest.raises(TokenizerError):
                sabiprep.Encoder.from_file(path)
            continue
        if "" in normalized_tokens(library, file):  # the library would hang
            with pytest.raises(TokenizerError, match="nothing is left of its added token"):
                sabiprep.Encoder.from_file(path)
            continue
        encoder = sabiprep.Encoder.from_file(path)
        spelled = normalized_tokens(library, file)
        # Of two that are spelled alike the library takes one at random.
        for text in texts if len(set(spelled)) == len(spelled) else []:
            expected = library_ids(library, text)
            capfd.readouterr()  # of what the library in Python prints
            if expected is None:
                with pytest.raises(TokenizerError):
                    encoder.encode([text])
            else:
                assert encoder.encode([text]).to_pylist() == [expected], (
                    number,
                    text,
                    encoder.engine,
                )
                compared += 1
        try:
            packed = packed_documents(tmp_path, file, texts)
        except SabiprepError as error:
            # Where a letter of the model is a special token, texts with it are refused, or the file
            # is.
            known = (
                "no training document is left",
                "none of its records",
                "has no ordinary token for",
            )
            assert any(words in str(error) for words in known), (number, error)
            continue
        barred = barred_ids(file)
        for ids in packed:
            assert not barred & set(ids[:-1]), (number, ids)
        documents += len(packed)
        assert not capfd.readouterr().err
    assert compared > 20 * RANDOM and documents > 15 * RANDOM


def bpe_that_drops_letters() -> dict[str, Any]:
    """A BPE without an unknown token, whose merges make `EOS` of letters."""
    letters = ["<", "/", "s", ">", "a"]
    vocabulary = {letter: nth for nth, letter in enumerate([*letters, "</", "</s", EOS])}
    merges = [["<", "/"], ["</", "s"], ["</s", ">"]]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "added_tokens": [{"id": vocabulary[EOS], "content": EOS, "special": False, **flags}],
        "model": {"type": "BPE", "vocab": vocabulary, "merges": merges},
    }


def test_of_added_tokens_spelled_alike_the_one_of_the_lowest_id_is_taken(tmp_path: Path) -> None:
    """The library takes one at random, as its hash map has them."""
    file = bpe_that_drops_letters()
    flags = {
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "special": False,
        "normalized": True,
    }
    file["added_tokens"] += [
        {"id": 8, "content": "<A>", **flags},
        {"id": 9, "content": "<a>", **flags},
    ]
    file["normalizer"] = {"type": "Lowercase"}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(file), "utf-8")
    for _ in range(8):
        assert sabiprep.Encoder.from_file(path).encode(["a<A><a>"]).to_pylist() == [[4, 8, 8]]


def test_letters_that_a_bpe_drops_do_not_let_data_become_a_control_token(tmp_path: Path) -> None:
    file = bpe_that_drops_letters()
    documents = packed_documents(
        tmp_path, file, ["aa</s>a", "ąa</s>a", "ąą</s>aa", "a<ą/s>", "ą" * 50 + "</s></s>"]
    )
    less, slash, s, more, a = range(5)
    # Each is cut after the control token's first letter; the rest merges as the model has it.
    rest = [slash, s, more]
    end = file["added_tokens"][0]["id"]
    assert sorted(documents) == sorted(
        [
            [a, a, less, *rest, a, end],
            [a, less, *rest, a, end],
            [less, *rest, a, a, end],
            [a, less, *rest, end],
            [less, *rest, less, *rest, end],
        ]
    )


def test_a_report_says_of_which_source_letters_are_left_out(tmp_path: Path) -> None:
    packed_documents(tmp_path, bpe_that_drops_letters(), ["aa", "ąa", "aąa ą"])
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text("utf-8"))
    [note] = manifest["notes"]
    assert note.startswith(
        "source 'a': the tokenizer has no tokens for letters in 2 of its words, and leaves them out"
    )


def pack_one(
    folder: Path, file: dict[str, Any], segments: list[dict[str, str]], **tokenizer: str
) -> Any:
    """Pack one record ``{"p": "one", "t": "two"}``; give the report, and its ids and mask."""
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(file), "utf-8")
    (folder / "a.jsonl").write_text('{"p": "one", "t": "two"}\n', "utf-8")
    source = {"name": "a", "files": ["a.jsonl"], "segments": segments}
    packer.write_config(folder, [source], tokenizer=tokenizer, pack={"seq_len": 128})
    report = sabiprep.pack(
        folder, folder / "out", PackOptions(tokenizer=path, threads=1, overwrite=True)
    )
    with sabiprep.open_dataset(folder / "out") as dataset:
        row = dataset.train[0]
        length = row["seq_lengths"][0]
        return report, row["input_ids"][:length].tolist(), row["loss_mask"][:length].tolist()


def test_a_word_without_letters_is_counted_once_where_the_library_encodes_its_run(
    tmp_path: Path,
) -> None:
    """The fast encoder gives up a run whose word crosses from template to data."""
    file = bpe_that_drops_letters()
    flags = {"add_prefix_space": False, "use_regex": True, "trim_offsets": True}
    file["pre_tokenizer"] = {"type": "ByteLevel", **flags}
    segments = [{"prompt": "aą{{ p }}"}, {"target": "a{{ t }}"}]
    report, ids, _ = pack_one(tmp_path, file, segments)
    assert ids == [4, 4, 7]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text("utf-8"))
    assert manifest["tokenizer"]["engine"].startswith("sabiprep")
    [note] = report.notes
    # One word in the prompt, one in the target.
    assert "has no tokens for letters in 2 of its words" in note


@pytest.mark.parametrize("name", ["bytes", "metaspace-first"])
def test_bos_and_eos_in_template_and_configuration_are_one_of_each(
    tmp_path: Path, name: str
) -> None:
    file = json.loads(tokenizer_json(name))
    spelled = [{"prompt": "<s><translate> {{ p }}:"}, {"target": " {{ t }}</s>"}]
    bare = [{"prompt": "<translate> {{ p }}:"}, {"target": " {{ t }}"}]
    report, ids, mask = pack_one(tmp_path, file, spelled, bos="<s>")
    assert (ids.count(1), ids.count(2), ids[0], ids[-1]) == (1, 1, 1, 2)
    assert mask[-1] and not mask[0]
    assert [note.split(",")[0] for note in report.notes] == [
        "source 'a': its templates begin with `<s>`",
        "source 'a': its templates end with `</s>`",
    ]
    assert (
        "Note: source 'a': its templates begin" in str(report)
        and sabiprep.verify(tmp_path / "out").ok
    )
    # A template that leaves them out gives the same row, and a clean manifest.
    other = tmp_path / "bare"
    other.mkdir()
    clean, bare_ids, bare_mask = pack_one(other, file, bare, bos="<s>")
    assert (clean.notes, "notes" in json.loads((other / "out" / "manifest.json").read_text())) == (
        (),
        False,
    )
    if name == "bytes":
        assert (ids, mask) == (bare_ids, bare_mask)


def test_a_post_processor_that_the_configuration_contradicts_is_told(tmp_path: Path) -> None:
    file = json.loads(tokenizer_json("bytes"))
    special = [{"SpecialToken": {"id": token, "type_id": 0}} for token in ("<s>", "</s>")]
    tokens = {
        token: {"id": token, "ids": [nth + 1], "tokens": [token]}
        for nth, token in enumerate(("<s>", "</s>"))
    }
    sequence = {"Sequence": {"id": "A", "type_id": 0}}
    file["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [special[0], sequence, special[1]],
        "pair": [sequence],
        "special_tokens": tokens,
    }
    segments = [{"prompt": "{{ p }}:"}, {"target": " {{ t }}"}]
    report, ids, _ = pack_one(tmp_path, file, segments, bos="")
    [note] = report.notes
    assert (
        "post-processor begins a text with `<s>`, the configuration begins a document with nothing"
        in note
    )
    assert 1 not in ids and ids[-1] == 2
    assert pack_one(tmp_path, file, segments, bos="<s>")[0].notes == ()
    [note] = pack_one(tmp_path, file, segments, bos="<s>", eos="<|sep|>")[0].notes
    assert (
        "post-processor ends a text with `</s>`, the configuration ends a document with `<|sep|>`"
        in note
    )


def test_tags_that_are_no_token_and_unknown_tokens_are_told_by_source(tmp_path: Path) -> None:
    file = json.loads(tokenizer_json("metaspace-first"))
    segments = [{"prompt": "<translate> {{ p }} <hausa>:"}, {"target": " {{ t }} 漢字"}]
    report, ids, _ = pack_one(tmp_path, file, segments)
    tags, unknown = report.notes
    assert tags.startswith(
        "source 'a': its templates spell `<hausa>`, which the tokenizer does not know as one token"
    )
    unknown_id = file["model"]["vocab"]["<unk>"]
    assert unknown.startswith(
        f"source 'a': {ids.count(unknown_id)} tokens of its documents are `<unk>`"
    )
    assert ids.count(unknown_id) > 0


@pytest.mark.parametrize("where", ["option", "configuration"])
def test_the_folder_of_a_checkpoint_stands_for_its_tokenizer(tmp_path: Path, where: str) -> None:
    base, corpus = tmp_path / "base", tmp_path / "corpus"
    for folder in (base, corpus):
        folder.mkdir()
    (base / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    (base / "tokenizer_config.json").write_text(json.dumps({"eos_token": EOS}), "utf-8")
    (corpus / "a.jsonl").write_text('{"text": "bata"}\n', "utf-8")
    told = {"tokenizer": {"file": "../base"}} if where == "configuration" else {}
    source = {"name": "a", "files": ["a.jsonl"], "segments": [{"target": "{{ text }}"}]}
    packer.write_config(corpus, [source], pack={"seq_len": 64}, **told)
    options = {} if told else {"tokenizer": base}
    sabiprep.pack(corpus, tmp_path / "out", PackOptions(**options))
    packed = (tmp_path / "out" / "tokenizer.json").read_bytes()
    assert packed == (base / "tokenizer.json").read_bytes()
    with sabiprep.open_dataset(tmp_path / "out") as data:
        assert data.eos_id == Tokenizer.from_buffer(packed).token_to_id(EOS)
    (base / "tokenizer.json").unlink()
    with pytest.raises(TokenizerError, match=r"tokenizer\.json") as caught:
        sabiprep.pack(corpus, tmp_path / "again", PackOptions(**options))
    assert isinstance(caught.value, FileNotFoundError)
