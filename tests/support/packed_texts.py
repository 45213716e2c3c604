"""One file packed as a corpus of its own: the text of each document by its record's place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from sabiprep import _core
from sabiprep.dataset import open_dataset
from support import packer
from support.strategies import EOS, tokenizer_json


class PackedFile(NamedTuple):
    """The documents of a file, and its source's entry in the manifest."""

    texts: dict[int, str]
    """The text of each record's document, by the byte offset of the record."""
    source: dict[str, Any]
    config: dict[str, Any]


def pack_file(
    folder: Path, name: str, content: bytes, *, split_bytes: int | None = None, **source: Any
) -> PackedFile:
    """Pack a file that is the only one of its corpus, and decode what came of it."""
    corpus, out = folder / "corpus", folder / "out"
    corpus.mkdir(parents=True)
    (corpus / name).write_bytes(content)
    tokenizer = corpus / "tokenizer.json"
    tokenizer.write_text(tokenizer_json("bytes"), "utf-8")
    packer.write_config(
        corpus,
        [{"name": "file", "files": [name], **source}],
        pack={"seq_len": 1024, "max_bad_fraction": 1.0},
    )
    manifest = packer.pack(corpus, out, tokenizer=tokenizer, threads=2, split_bytes=split_bytes)
    assert packer.verify(out)["failures"] == []
    against = _core.verify_against(out, corpus, sample=None, threads=1, progress=None)
    assert json.loads(against)["failures"] == []
    decode = Tokenizer.from_file(str(tokenizer)).decode
    texts: dict[int, str] = {}
    with open_dataset(out) as dataset:
        for i in range(len(dataset.train)):
            row = dataset.train[i]
            ends = row["cu_seqlens"].tolist()
            for nth, record in enumerate(row["record_ids"].tolist()):
                ids = row["input_ids"][ends[nth] : ends[nth + 1]].tolist()
                text = decode(ids, skip_special_tokens=False)
                assert record not in texts and text.endswith(EOS)
                texts[record] = text.removesuffix(EOS)
    [entry] = manifest["sources"]
    [config] = manifest["config"]["source"]
    return PackedFile(dict(sorted(texts.items())), entry, config)
