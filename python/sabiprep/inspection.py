"""A row of a dataset to look at: its documents decoded, roles and trained tokens marked.

A `RowView` is plain data. Printed, template, data and target differ by colour where there are
colours, and by marks where there are none; text is escaped, so that data can neither drive the
terminal nor be taken for a mark.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from sabiprep.api import compiled
from sabiprep.dataset import PackedDataset, RowDict, SourceInfo, Split
from sabiprep.doc_id import DocId
from sabiprep.errors import ConfigError, DatasetError
from sabiprep.marks import legend, marked, without_marks
from sabiprep.roles import Role
from sabiprep.terminal import Sentence, counted, has_colours, to_plain, visible

ROWS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class ShownRun:
    """The text and number of consecutive tokens of one role, all trained or all not."""

    role: Role
    trained: bool
    text: str
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownDocument:
    """A document of a row.

    Attributes:
        index: The index in the row, from 0.
        source: The source.
        record_id: The record within the source.
        place: The input of the record and the place in that input.
        copy: The index of the copy of the record.
        part: The index among the documents of the record.
        window: The index among the windows of a text longer than a row.
        runs: The text.
        weight: The weight in the loss; None of a dataset without weights.
    """

    index: int
    source: SourceInfo
    record_id: int
    place: str
    copy: int
    part: int
    window: int
    runs: tuple[ShownRun, ...]
    weight: float | None = None

    @property
    def tokens(self) -> int:
        """The number of tokens."""
        return sum(run.tokens for run in self.runs)

    @property
    def targets(self) -> int:
        """The number of trained tokens."""
        return sum(run.tokens for run in self.runs if run.trained)

    @property
    def heading(self) -> str:
        """The line that separates the document from the one before."""
        parts = [
            f"document {self.index}",
            self.source.name,
            self.source.task,
            self.source.lang,
            self.place,
        ]
        for name, number in (("copy", self.copy), ("part", self.part), ("window", self.window)):
            if number:
                parts.append(f"{name} {number}")
        if self.weight is not None:
            parts.append(f"weight {self.weight:g}")
        parts.append(f"{counted(self.tokens, 'token')}, {self.targets:,} trained")
        return " · ".join(visible(part) for part in parts if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowView:
    """A row, to be printed with ``print`` or on a rich console.

    Attributes:
        split: The name of the split.
        row: The index of the row, from 0.
        rows: The number of rows in the split.
        seq_len: The tokens of the row, padding included.
        documents: The number of documents, shown or not.
        shown: The documents that are shown.
        targets: The number of trained tokens.
        padding: The tokens that only fill the row up.
    """

    split: str
    row: int
    rows: int
    seq_len: int
    documents: int
    shown: tuple[ShownDocument, ...]
    targets: int
    padding: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields the row, in colours if the console has any."""
        yield from self._lines(colours=has_colours(console))

    def __str__(self) -> str:
        """Returns the row, with marks."""
        return to_plain(self)

    def _lines(self, colours: bool) -> Iterator[Sentence]:
        """Yields the lines of the row."""
        strong, weak = ("bold", "dim") if colours else ("", "")
        tokens, documents = counted(self.seq_len, "token"), counted(self.documents, "document")
        heading = f"{self.split} row {self.row:,} (rows 0 to {self.rows - 1:,}): {tokens}, "
        heading += f"{self.targets:,} trained, {self.padding:,} padding; {documents}"
        if len(self.shown) < self.documents:
            heading += f", {len(self.shown):,} shown"
        yield Sentence(Text(heading, strong), 2)
        yield Sentence(legend(colours), 2)
        for document in self.shown:
            yield Sentence(Text(f"── {document.heading}", weak), 3)
            text = Text()
            for run in document.runs:
                text.append_text(marked(run.role, run.trained, without_marks(run.text), colours))
            yield Sentence(text)
        yield Sentence(Text(f"── padding · {counted(self.padding, 'token')}", weak), 3)


def inspect(
    dataset: PackedDataset, *, split: str = "train", row: int | None = None, source: str = ""
) -> RowView:
    """Returns a row of ``dataset``, decoded.

    Args:
        dataset: The dataset.
        split: "train" or "validation".
        row: The row, from 0; by default the first, or the first that has a document of ``source``.
        source: The name of the source whose documents are shown; all documents if empty.

    Raises:
        ConfigError: If no source has that name.
        DatasetError: If there is no such split, row or document, or the dataset is damaged.
        SabiprepError: If the compiled core, which decodes, is missing.
    """
    rows = dataset[split]
    # A wrong name first, so that its error comes even if the split is empty.
    wanted = None if not source else _source_named(dataset, source)
    if not len(rows):
        raise DatasetError(
            f"the {split} split has no rows",
            file=str(dataset.path),
            remedy=_elsewhere(dataset, wanted),
        )
    if row is None:
        row = 0 if wanted is None else _first_row_of(dataset, rows, wanted)
    if not 0 <= row < len(rows):
        raise DatasetError(
            f"there is no row {row} in the {split} split",
            file=str(dataset.path),
            remedy=f"rows are counted from 0 to {len(rows) - 1}",
        )
    return _view(dataset, rows, row, wanted)


def _view(dataset: PackedDataset, rows: Split, row: int, wanted: SourceInfo | None) -> RowView:
    """Returns a row with all its documents, or those of one source.

    Raises:
        DatasetError: If the row has no document of the source, or is damaged.
    """
    content = rows[row]
    sources = content["source_ids"]
    shown = [at for at, source in enumerate(sources) if wanted is None or source == wanted.id]
    if wanted is not None and not shown:
        names = ", ".join(
            dataset.sources[source].name
            for source in np.unique(sources)
            if source < len(dataset.sources)
        )
        raise DatasetError(
            f"row {row} of the {rows.name} split has no document of this source",
            file=str(dataset.path),
            source=wanted.name,
            remedy="leave --row out for the first row that has one; "
            f"this one has documents of {names}",
        )
    # The whole row at once: the text of a token depends on the tokens before it.
    pieces = _pieces(dataset, content["input_ids"])
    # The loader checks what training needs; roles and records may still be out of their bounds.
    try:
        documents = tuple(_document(dataset, content, at, pieces) for at in shown)
    except (ValueError, IndexError) as error:
        raise DatasetError(
            f"row {row} of the {rows.name} split is damaged: {error}",
            file=str(dataset.path),
            remedy=f"sabiprep verify {dataset.path} tells what is wrong with it",
        ) from error
    return RowView(
        split=rows.name,
        row=row,
        rows=len(rows),
        seq_len=dataset.seq_len,
        documents=len(sources),
        shown=documents,
        targets=content["n_targets"],
        padding=dataset.seq_len - int(content["seq_lengths"].sum()),
    )


def _document(
    dataset: PackedDataset, content: RowDict, at: int, pieces: list[str]
) -> ShownDocument:
    """Returns document ``at`` of a row, its text cut where role or training changes."""
    source = dataset.sources[content["source_ids"][at]]
    record_id = int(content["record_ids"][at])
    document = DocId.unpack(source.id, record_id, int(content["doc_parts"][at]))
    start, end = content["cu_seqlens"][at : at + 2]
    tokens = zip(
        content["roles"][start:end], content["loss_mask"][start:end], pieces[start:end], strict=True
    )
    runs = []
    for (role, trained), group in groupby(
        tokens, key=lambda token: (int(token[0]), bool(token[1]))
    ):
        texts = [text for _, _, text in group]
        runs.append(ShownRun(Role(role), trained, "".join(texts), len(texts)))
    return ShownDocument(
        index=at,
        source=source,
        record_id=record_id,
        place=dataset.place(source.id, record_id),
        copy=document.copy,
        part=document.part,
        window=document.window,
        runs=tuple(runs),
        weight=float(content["doc_weights"][at]) if "doc_weights" in content else None,
    )


def _pieces(dataset: PackedDataset, ids: npt.NDArray[np.int64]) -> list[str]:
    """Returns the text that each token adds.

    A token that ends inside a character adds nothing; the one that ends the character adds it.
    """
    with compiled():
        from sabiprep._core import Decoder
    pieces: Any = pa.array(Decoder(dataset.folder).pieces(pa.array(ids, pa.uint32())))
    return [str(piece) for piece in pieces.to_pylist()]


def _source_named(dataset: PackedDataset, name: str) -> SourceInfo:
    """Returns a source by its name, or raises `ConfigError` with the nearest names."""
    names = [source.name for source in dataset.sources]
    if name in names:
        return dataset.sources[names.index(name)]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise ConfigError(
        f"no source is named '{name}'",
        file=str(dataset.path),
        remedy=f"{hint}sources: {', '.join(names)}",
    )


def _first_row_of(dataset: PackedDataset, rows: Split, wanted: SourceInfo) -> int:
    """Returns the first row with a document of a source, or raises `DatasetError`."""
    for first in range(0, len(rows), ROWS_AT_ONCE):
        batch = rows.batch(range(first, min(first + ROWS_AT_ONCE, len(rows))))
        found = np.flatnonzero(batch["source_ids"] == wanted.id)
        if len(found):
            return first + int(batch["doc_rows"][found[0]])
    raise DatasetError(
        f"no document of this source is in the {rows.name} split",
        file=str(dataset.path),
        source=wanted.name,
        remedy=_elsewhere(dataset, wanted),
    )


def _elsewhere(dataset: PackedDataset, wanted: SourceInfo | None) -> str:
    """Returns a sentence on the splits that have rows, or documents of a source."""
    if wanted is None:
        counts = {name: split["rows"] for name, split in dataset.manifest["splits"].items()}
        return "; ".join(
            f"the {name} split has {counted(count, 'row')}" for name, count in counts.items()
        )
    entry = dataset.manifest["sources"][wanted.id]
    counts = {name: entry[name]["documents"] for name in ("train", "validation")}
    return "; ".join(
        f"the {name} split has {counted(count, 'document')} of it" for name, count in counts.items()
    )
