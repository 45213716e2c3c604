"""The documents of a dataset as texts: what each gives, and what it trains."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer

from sabiprep.dataset import PackedDataset
from sabiprep.roles import Role
from support.packer import EOS


class DocumentText(NamedTuple):
    """A document decoded: its prompt and its target, without the closing EOS."""

    prompt: str
    target: str


class Placed(NamedTuple):
    """A document with its source and its record, tokens and all."""

    source: str
    record: int
    part: int
    ids: list[int]
    roles: list[int]
    trained: list[bool]


def placed_documents(dataset: PackedDataset, split: str = "train") -> list[Placed]:
    """Every document of a split, by source, record and part."""
    return sorted(_placed(dataset, split))


def documents_of(dataset: PackedDataset, tokenizer: Path) -> list[DocumentText]:
    """The texts of every document of the training split, by source, record and part."""
    decode = Tokenizer.from_file(str(tokenizer)).decode
    found = []
    for document in placed_documents(dataset):
        pairs = list(zip(document.ids, document.roles, strict=True))
        texts = (
            decode([id for id, role in pairs if (role == Role.TARGET) is trained])
            for trained in (False, True)
        )
        found.append(DocumentText(*(text.removesuffix(EOS) for text in texts)))
    return found


def _placed(dataset: PackedDataset, split: str) -> Iterator[Placed]:
    rows = dataset[split]
    for i in range(len(rows)):
        row = rows[i]
        ends = row["cu_seqlens"].tolist()
        for nth, source in enumerate(row["source_ids"].tolist()):
            ids, roles, trained = (
                row[key][ends[nth] : ends[nth + 1]].tolist()
                for key in ("input_ids", "roles", "loss_mask")
            )
            record, part = (int(row[key][nth]) for key in ("record_ids", "doc_parts"))
            yield Placed(dataset.sources[source].name, record, part, ids, roles, trained)
