"""The story of an export: every row of both splits, in order, to a form; then the sums are checked.

Memory is bounded by a chunk of rows; a shard's file is closed when its rows are written.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any

from sabiprep.api import Progress
from sabiprep.dataset import PackedDataset, open_dataset
from sabiprep.errors import ConfigError, DatasetError
from sabiprep.handover.chunks import Chunk, chunks_of
from sabiprep.handover.disk_folder import rows_for_trl, tokenized_documents
from sabiprep.handover.folder import new_folder
from sabiprep.handover.forms import Form, MakeForm
from sabiprep.handover.report import ExportedSplit, ExportReport
from sabiprep.handover.tables import JsonlForm, ParquetForm
from sabiprep.handover.tar_shards import TarShards
from sabiprep.options import StrPath, checked_path

FORMS: Mapping[str, MakeForm] = {
    "trl": rows_for_trl,
    "axolotl": tokenized_documents,
    "llamafactory": tokenized_documents,
    "parquet": ParquetForm,
    "jsonl": JsonlForm,
    "webdataset": TarShards,
}
WITHOUT_WEIGHTS = ("trl", "axolotl", "llamafactory")
"""Tools that give every token that is trained the same weight."""
SPLITS = ("train", "validation")


def export(
    out: StrPath,
    folder: StrPath,
    to: str,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ExportReport:
    """Writes the rows or documents of a packed dataset as another tool reads them.

    Two exports of a dataset are equal byte for byte, wherever they are written.

    Args:
        out: The packed dataset; it stays as it is.
        folder: The folder to make: missing or empty, or an export if ``overwrite``.
        to: The tool or the format: "trl", "axolotl", "llamafactory", "parquet", "jsonl" or
            "webdataset"; docs/handover.md shows each.
        overwrite: Whether to replace an export that is in ``folder``.
        progress: The function that is called with the progress of the work.

    Returns:
        The counts of what was written, which are those of the manifest.

    Raises:
        ConfigError: If an argument cannot be right.
        DatasetError: If ``out`` is no finished dataset, or damaged.
        OutputError: If ``folder`` must not, or cannot, be written to.
    """
    if to not in FORMS:
        raise ConfigError(f"to is {to!r}", remedy=f"name one of {', '.join(FORMS)}")
    checked_path("out", out)
    if out is None:
        raise ConfigError("out is None", remedy="name the folder of the dataset")
    started = time.monotonic()
    with (
        open_dataset(out) as dataset,
        new_folder(folder, apart_from=dataset.folder, overwrite=overwrite) as made,
    ):
        form = FORMS[to](dataset, made)
        splits = _write(dataset, form, progress)
        form.finish()
        made.marker = {
            "to": to,
            "dataset": dataset.fingerprint,
            "splits": {name: split.counts for name, split in splits.items()},
        }
        files = [path for path in made.path.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
    return ExportReport(
        to=to,
        folder=os.fspath(folder),
        splits=splits,
        bytes=size,
        read=sum(shard["bytes"] for _, shard in _shards(dataset.manifest)),
        seconds=time.monotonic() - started,
        loses_weights=dataset.weighted and to in WITHOUT_WEIGHTS,
    )


def _shards(manifest: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the shards of a dataset that have rows, each with its split."""
    for split in SPLITS:
        for shard in manifest["splits"][split]["shards"]:
            if shard["rows"]:
                yield split, shard


def _write(
    dataset: PackedDataset, form: Form, progress: Progress | None
) -> dict[str, ExportedSplit]:
    """Writes the rows of both splits and returns their counts; a split without rows has no file.

    Raises:
        DatasetError: If the counts of a split are not those of the manifest.
    """
    splits: dict[str, ExportedSplit] = {}
    total = sum(len(dataset[split]) for split in SPLITS)
    done = tokens = 0
    for split in SPLITS:
        counts = ExportedSplit()
        rows = [shard["rows"] for of, shard in _shards(dataset.manifest) if of == split]
        for index, end in enumerate(accumulate(rows)):
            with form.shard(split, index, len(rows)) as write:
                for chunk in chunks_of(dataset, split, range(end - rows[index], end)):
                    write(chunk)
                    counts = counts + _counts(chunk)
                    done, tokens = done + chunk.rows, tokens + len(chunk.ids_N)
                    if progress is not None:
                        progress("export", 0, done, total, tokens)
            # Only one shard is mapped at a time, however many there are.
            dataset.close()
        _require_sums(dataset, split, counts)
        splits[split] = counts
    return splits


def _counts(chunk: Chunk) -> ExportedSplit:
    """Returns the counts of a chunk, from what was written of it."""
    return ExportedSplit(
        rows=chunk.rows,
        documents=len(chunk.lengths_D),
        tokens=len(chunk.ids_N),
        targets=int(chunk.mask_N.sum()),
    )


def _require_sums(dataset: PackedDataset, split: str, counts: ExportedSplit) -> None:
    """Refuses counts that are not those of the manifest.

    Raises:
        DatasetError: If one is another.
    """
    for name, count in counts.counts.items():
        said = dataset.manifest["splits"][split][name]
        if said != count:
            raise DatasetError(
                f"the {split} split has {count:,} {name}, where the manifest says {said:,}",
                file=str(dataset.path),
                remedy=f"sabiprep verify {dataset.path} tells what is wrong",
            )
