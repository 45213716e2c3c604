"""A corpus whose documents decode to their text byte for byte."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers

import sabiprep
from support.jinja_records import TAGS


def byte_tokenizer(file: Path) -> dict[int, bytes]:
    """Write a tokenizer with a token for each byte and for each of `TAGS`; returns what each id
    spells.
    """
    letters = pre_tokenizers.ByteLevel.alphabet()
    vocab = {letter: index for index, letter in enumerate(sorted(letters))}
    tokenizer = Tokenizer(models.BPE(vocab, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.add_special_tokens(TAGS)
    tokenizer.save(str(file))
    spelled = {tokenizer.token_to_id(tag): tag.encode() for tag in TAGS}
    for byte in range(256):
        # The alphabet's order by byte: printable ones stand for themselves, the others follow.
        spelled[vocab[letter_of(byte)]] = bytes([byte])
    return spelled


def letter_of(byte: int) -> str:
    """The letter of a byte in byte-level BPE, as GPT-2 has it."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    if byte in printable:
        return chr(byte)
    return chr(256 + [other for other in range(256) if other not in printable].index(byte))


def write_corpus(
    folder: Path, templates: list[str], lines: list[str], head: str = ""
) -> dict[int, bytes]:
    """A corpus of one source for each template, all of the same lines; its prompt is the template,
    its target `.`.
    """
    folder.mkdir()
    spelled = byte_tokenizer(folder / "tokenizer.json")
    (folder / "a.jsonl").write_text("".join(line + "\n" for line in lines), "utf-8")
    toml = [
        '[tokenizer]\nfile = "tokenizer.json"\nbos = "<s>"\neos = "</s>"\n[pack]\nseq_len = 8192\n',
        head,
    ]
    for index, template in enumerate(templates):
        prompt = json.dumps(template, ensure_ascii=False)
        toml.append(
            f'[[source]]\nname = "t{index}"\nfiles = ["a.jsonl"]\noverflow = "error"\n'
            f'segments = [{{ prompt = {prompt} }}, {{ target = "." }}]\n'
        )
    (folder / "corpus.toml").write_text("".join(toml), "utf-8")
    return spelled


def append(file: Path, text: str) -> None:
    file.write_text(file.read_text("utf-8") + text, "utf-8")


def documents(out: Path, spelled: dict[int, bytes]) -> Iterator[tuple[int, int, str]]:
    """Source, offset of the record, and text of every document, BOS and EOS taken off."""
    with sabiprep.open_dataset(out) as data:
        for split in (data.train, data.validation):
            for row in (split[index] for index in range(len(split))):
                at = 0
                for length, source, record in zip(
                    row["seq_lengths"], row["source_ids"], row["record_ids"], strict=True
                ):
                    ids = row["input_ids"][at + 1 : at + int(length) - 1].tolist()
                    at += int(length)
                    yield (
                        int(source),
                        int(record),
                        b"".join(spelled[index] for index in ids).decode("utf-8"),
                    )


def drops(out: Path, source: int = 0) -> list[tuple[int, str, str]]:
    """Line, reason and words of the records of a source that the report shows as dropped."""
    examples = json.loads((out / "manifest.json").read_text("utf-8"))["sources"][source]["examples"]
    return sorted((example["line"], example["reason"], example["why"]) for example in examples)
