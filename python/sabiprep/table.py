"""The table of a `PackReport`, which `sabiprep pack` prints at its end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from rich.console import Group, RenderableType
from rich.text import Text

from sabiprep.errors import place_in_file
from sabiprep.grid import Column, Grid
from sabiprep.places import place_of
from sabiprep.report import Example, PackReport, SourceReport, SplitReport, Tally
from sabiprep.terminal import Sentence, counted, visible

EXAMPLES_SHOWN = 12


def report_table(report: PackReport) -> RenderableType:
    """Returns the table: sources by task, mix, splits, dropped records, warnings, notes, speed."""
    return Group(
        *(_sources(report), Text()),
        *((_mix(report), Text()) if any(source.epochs != 1 for source in report.sources) else ()),
        *(_splits(report), Text()),
        *_records(report),
        *_cleaned(report),
        *_left_out(report),
        *_examples(report),
        *(Sentence(f"Warning: {visible(warning)}", 2) for warning in report.warnings),
        *(Sentence(f"Note: {visible(note)}", 2) for note in report.notes),
        *(Sentence(sentence, 2) for sentence in _speed(report)),
    )


def _sources(report: PackReport) -> Grid:
    """Returns the counts of each task and source, and of all."""
    # A column that would be empty throughout is left out.
    shortened = any(source.truncated for source in report.sources)
    figures = ["records", "documents", "tokens", "targets", "trained"]
    figures += ["shortened"] if shortened else []
    names = [Column("task, source", "name"), Column("lang", "words")]
    grid = Grid([*names, *map(Column, figures), Column("dropped", "words")])

    def add(name: str, lang: str, tally: Tally, style: str = "") -> None:
        total = tally.total
        cells: list[str | int] = [visible(name), visible(lang), tally.records]
        cells += [total.documents, total.tokens, total.targets, _percent(total.share_trained)]
        if shortened:
            cells.append(tally.truncated or "")
        grid.add([*cells, drops_text(tally.drops)], style)

    for task in report.tasks:
        # The only source of a task, of the same name, would repeat the row of the task.
        if [source.name for source in task.sources] == [task.task]:
            add(task.task, task.sources[0].lang, task, "bold")
            continue
        add(task.task, "", task, "bold")
        for source in task.sources:
            add(f"  {source.name}", source.lang, source)
    grid.section()
    add("total", "", report.total, "bold")
    return grid


def _mix(report: PackReport) -> Grid:
    """Returns copies and shares of the training split, asked for → made, by group and source."""
    by = report.mix_by or "task"
    heading = "mix, source" if by == "source" else f"mix by {by}, source"
    figures = ("copies", "of documents", "of tokens", "of targets")
    grid = Grid([Column(heading, "name"), *map(Column, figures)])

    def add(name: str, copies: str, sources: list[SourceReport], style: str = "") -> None:
        asked, made = report.asked_shares(sources), report.made_shares(sources)
        cells = [visible(name), copies]
        for unit in ("documents", "tokens", "targets"):
            cells.append(f"{_percent(getattr(asked, unit))} → {_percent(getattr(made, unit))}")
        grid.add(cells, style)

    # A mix by source has groups of one.
    groups: dict[str, list[SourceReport]] = {}
    for source in report.sources:
        groups.setdefault(
            {"task": source.task, "lang": source.lang}.get(by, source.name), []
        ).append(source)
    for group, sources in groups.items():
        # A source that is its whole group has one row instead of two.
        alone = [source.name for source in sources] == [group]
        if not alone:
            add(group, "", sources, "bold")
        for source in sources:
            asked, made = f"{source.asked_epochs:.4g}", f"{source.epochs:.4g}"
            copies = made if asked == made else f"{asked} → {made}"
            add(
                source.name if alone else f"  {source.name}",
                copies,
                [source],
                "bold" if alone else "",
            )
    return grid


def _splits(report: PackReport) -> Grid:
    """Returns the counts of each split."""
    figures = (
        "rows",
        "documents",
        "tokens",
        "targets",
        "trained",
        "utilisation",
        "rows ≥ 95 % one source",
    )
    grid = Grid([Column("split", "name"), *map(Column, figures)])
    for split in (report.train, report.validation):
        grid.add(list(_split_cells(split)))
    return grid


def _split_cells(split: SplitReport) -> Iterator[str | int]:
    """Yields the cells of a split's row."""
    yield split.name
    yield from (split.rows, split.documents, split.tokens, split.targets)
    # A split without rows has no shares.
    if split.rows:
        yield _percent(split.share_trained)
        yield f"{split.utilisation:.4f}"
        yield f"{split.single_source_rows:,} ({_percent(split.single_source_share)})"
    else:
        yield from ("-", "-", "-")


def _records(report: PackReport) -> Iterator[Text | Sentence]:
    """Yields the records of each source of several document tables, each counted once."""
    for counts in report.records:
        without = f", {counts.without:,} without" if counts.without else ""
        name = visible(counts.source)
        yield Sentence(
            f"{name}: {counts.records:,} records, {counts.kept:,} with a document{without}", 2
        )
    if report.records:
        yield Text()


def _cleaned(report: PackReport) -> Iterator[Text | Sentence]:
    """Yields the number of records that cleaning changed, by source and key, with the first one."""
    lines = [
        (source.name, key, cleaned)
        for source in report.sources
        for key, cleaned in source.cleaned.items()
    ]
    if not lines:
        return
    yield Sentence("Cleaned records (files are relative to the corpus):")
    for name, key, cleaned in lines[:EXAMPLES_SHOWN]:
        first = cleaned.examples[0]
        place = f"{visible(first.file)}{place_in_file(first.line, first.row)}"
        count = f"  {visible(name)}: {key}: {cleaned.records:,}"
        yield Sentence(f"{count}, first {place}: {visible(first.change)}", 4)
    more = len(lines) - EXAMPLES_SHOWN
    if more > 0:
        yield Sentence(f"  and {more} more, in manifest.json", 4)
    yield Text()


def _left_out(report: PackReport) -> Iterator[Text | Sentence]:
    """Yields the documents left out of records with others, by source and reason."""
    lines = [
        (source.name, reason, left_out)
        for source in report.sources
        for reason, left_out in source.left_out.items()
    ]
    if not lines:
        return
    yield Sentence("Documents left out of records that have others:")
    for name, reason, left_out in lines[:EXAMPLES_SHOWN]:
        first = left_out.examples[0]
        place = f"{visible(first.file)}{place_in_file(first.line, first.row)}"
        count = f"  {visible(name)}: {reason}: {left_out.documents:,}"
        yield Sentence(f"{count}, first {place}: {visible(first.why)}", 4)
    more = len(lines) - EXAMPLES_SHOWN
    if more > 0:
        yield Sentence(f"  and {more} more, in manifest.json", 4)
    yield Text()


def _examples(report: PackReport) -> Iterator[Text | Sentence]:
    """Yields the first dropped record of each file and reason, and the file that lists them."""
    examples = [(source.name, example) for source in report.sources for example in source.examples]
    file = report.dropped_file
    listed = "" if file is None else f"They are listed in {visible(place_of(file))}"
    yield from dropped_records(examples, report.total.dropped, "Dropped records", listed)


def dropped_records(
    examples: Iterable[tuple[str, Example]], dropped: int, heading: str, listed: str = ""
) -> Iterator[Text | Sentence]:
    """Yields the lines for the first example of each file and reason; nothing if there is none.

    Args:
        examples: Dropped records, each with the name of its source, or "".
        dropped: The number of all dropped records.
        heading: The words before the number.
        listed: The sentence after the lines, if any.
    """
    firsts: dict[tuple[str, str], tuple[str, Example]] = {}
    for name, example in examples:
        firsts.setdefault((example.file, example.reason), (name, example))
    shown = list(firsts.values())[:EXAMPLES_SHOWN]
    if not shown:
        return
    yield Sentence(f"{heading}, {len(shown)} of {dropped:,} (files are relative to the corpus):")
    for name, example in shown:
        source = f"{visible(name)}: " if name else ""
        place = f"  {visible(example.file)}{place_in_file(example.line, example.row)}"
        yield Sentence(f"{place}  {source}{example.reason}: {visible(example.why)}", 4)
    if listed:
        yield Sentence(listed, 2)
    yield Text()


def _speed(report: PackReport) -> Iterator[str]:
    """Yields the sentences about the time, the tokenizer and the result."""
    timing = report.timing
    of_cluster = f" of {visible(report.cluster)}" if report.cluster else ""
    yield (
        f"Packed {report.bytes / 1e6:,.1f} MB of input in {timing.total:.2f} s "
        f"on {counted(report.threads, 'thread')}{of_cluster}: "
        f"{report.megabytes_per_second:,.1f} MB/s, {report.tokens_per_second:,.0f} tokens/s "
        f"(map {timing.map:.2f} s, settle {timing.settle:.2f} s, reduce {timing.reduce:.2f} s)"
    )
    reused, splits = report.reused_splits
    if reused:
        yield f"{reused:,} of {splits:,} pieces of input were tokenized before"
    yield f"Tokenized by {visible(report.engine)}"
    rows = report.train.rows + report.validation.rows
    yield (
        f"{visible(place_of(report.out))}: {counted(rows, 'row')} of {report.seq_len:,} tokens; "
        "look at one with `sabiprep inspect`"
    )


def _percent(share: float) -> str:
    return f"{share:.1%}"


def drops_text(drops: Mapping[str, int]) -> str:
    """Returns ``10 malformed, 2 too long``, the most frequent reason first."""
    ordered = sorted(drops.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {reason}" for reason, count in ordered)
