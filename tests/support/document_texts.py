"""The documents of a dataset as texts, by source, record, copy and number."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer

from sabiprep.dataset import open_dataset
from sabiprep.roles import Role
from support import oracle
from support.oracle.documents import Text


class Place(NamedTuple):
    """A document: its source, the byte of its record, its copy, its number in the record."""

    source: str
    byte: int
    copy: int
    part: int


def texts_of(out: Path, side: str | None = None) -> dict[Place, Text]:
    """The documents of a dataset, or of one of its sides, every row checked on the way.

    Windows are not put together: rows must be long enough.
    """
    found: dict[Place, Text] = {}
    with open_dataset(out) as dataset:
        decode = Tokenizer.from_file(str(out / "tokenizer.json")).decode
        names = [source.name for source in dataset.sources]
        for split in ("train", "validation") if side is None else (side,):
            for number in range(len(dataset[split])):
                row = dataset[split][number]
                assert not oracle.check_row(row, pad_id=dataset.pad_id, eos_id=dataset.eos_id)
                ends = row["cu_seqlens"].tolist()
                for nth, parts in enumerate(row["doc_parts"].tolist()):
                    own = slice(ends[nth], ends[nth + 1] - 1)
                    ids, roles = row["input_ids"][own], row["roles"][own]
                    place = Place(
                        names[row["source_ids"][nth]],
                        int(row["record_ids"][nth]) & ((1 << 40) - 1),
                        parts >> 24,
                        parts >> 16 & 0xFF,
                    )
                    assert place not in found and parts & 0xFFFF == 0
                    prompt, target = (
                        decode(ids[is_part].tolist(), skip_special_tokens=False)
                        for is_part in (roles != Role.TARGET, roles == Role.TARGET)
                    )
                    found[place] = Text(prompt, target)
    return found


def by_record(texts: Mapping[Place, Text], source: str, copy: int = 0) -> dict[int, list[Text]]:
    """The documents of a source by the byte of their record, in order of their number."""
    found: dict[int, list[Text]] = defaultdict(list)
    for place in sorted(texts):
        if (place.source, place.copy) == (source, copy):
            assert place.part == len(found[place.byte]), "numbers begin at 0 and leave none out"
            found[place.byte].append(texts[place])
    return dict(found)


def contents(out: Path) -> dict[str, bytes]:
    """Every file of a dataset."""
    return {
        str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()
    }
