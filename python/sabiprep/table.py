"""The table of a `PackReport`: what `sabiprep pack` prints when it is done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sabiprep.report import Example, PackReport, SourceReport, SplitReport, Tally
from sabiprep.terminal import line, visible

EXAMPLES_SHOWN = 12
WIDEST_NAME = 28
"""Columns that names of sources are given at least, if they need them; longer ones may be folded."""


def report_table(report: PackReport) -> RenderableType:
    """Tasks and their sources, the mix, the splits, some dropped records, warnings, the speed."""
    return Group(
        *(_sources(report), Text()),
        *((_mix(report), Text()) if any(source.epochs != 1 for source in report.sources) else ()),
        *(_splits(report), Text()),
        *_examples(report.sources),
        *(line(f"Note: {visible(note)}") for note in report.notes),
        *(line(f"Warning: {visible(warning)}") for warning in report.warnings),
        *map(line, _speed(report)),
    )


def _sources(report: PackReport) -> Table:
    table = _table()
    names = [source.name for source in report.sources] + [task.task for task in report.tasks]
    table.add_column("task, source", overflow="fold", min_width=min(max(map(len, names)) + 2, WIDEST_NAME))
    table.add_column("lang", no_wrap=True)
    for name in ("records", "documents", "tokens", "targets", "learnt"):
        table.add_column(name, justify="right", no_wrap=True)
    shortened = any(source.truncated for source in report.sources)
    if shortened:
        table.add_column("shortened", justify="right", no_wrap=True)
    table.add_column("dropped", min_width=12)

    def add(name: str, lang: str, tally: Tally, style: str = "") -> None:
        total = tally.total
        cells = [visible(name), visible(lang)]
        cells += [f"{count:,}" for count in (tally.records, total.documents, total.tokens, total.targets)]
        cells.append(_percent(total.share_learnt))
        if shortened:
            cells.append(f"{tally.truncated:,}" if tally.truncated else "")
        table.add_row(*(Text(cell, style) for cell in [*cells, _drops(tally.drops)]))

    for task in report.tasks:
        if [source.name for source in task.sources] == [task.task]:
            add(task.task, task.sources[0].lang, task, "bold")
            continue
        add(task.task, "", task, "bold")
        for source in task.sources:
            add(f"  {source.name}", source.lang, source)
    table.add_section()
    add("total", "", report.total, "bold")
    return table


def _mix(report: PackReport) -> Table:
    """Copies and shares of the training split, asked for → made, of groups of sources and of each."""
    table = _table()
    by = report.mix_by or "task"
    heading = "mix, source" if by == "source" else f"mix by {by}, source"
    names = [source.name for source in report.sources]
    table.add_column(heading, overflow="fold", min_width=min(max(map(len, names)) + 2, WIDEST_NAME))
    for name in ("copies", "of documents", "of tokens", "of targets"):
        table.add_column(name, justify="right", no_wrap=True)

    def add(name: str, copies: str, sources: list[SourceReport], style: str = "") -> None:
        asked, made = report.asked_shares(sources), report.made_shares(sources)
        cells = [visible(name), copies]
        for unit in ("documents", "tokens", "targets"):
            cells.append(f"{_percent(getattr(asked, unit))} → {_percent(getattr(made, unit))}")
        table.add_row(*(Text(cell, style) for cell in cells))

    groups: dict[str, list[SourceReport]] = {}
    for source in report.sources:
        groups.setdefault({"task": source.task, "lang": source.lang}.get(by, source.name), []).append(source)
    for group, sources in groups.items():
        alone = [source.name for source in sources] == [group]
        if not alone:
            add(group, "", sources, "bold")
        for source in sources:
            asked, made = f"{source.asked_epochs:.4g}", f"{source.epochs:.4g}"
            copies = made if asked == made else f"{asked} → {made}"
            add(source.name if alone else f"  {source.name}", copies, [source], "bold" if alone else "")
    return table


def _splits(report: PackReport) -> Table:
    table = _table()
    table.add_column("split")
    for name in ("rows", "documents", "tokens", "targets", "learnt", "utilisation", "rows ≥ 95 % one source"):
        table.add_column(name, justify="right", no_wrap=True)
    for split in (report.train, report.validation):
        table.add_row(*_split_cells(split))
    return table


def _split_cells(split: SplitReport) -> Iterator[str]:
    yield split.name
    yield from (f"{count:,}" for count in (split.rows, split.documents, split.tokens, split.targets))
    if split.rows:
        yield _percent(split.share_learnt)
        yield f"{split.utilisation:.4f}"
        yield f"{split.single_source_rows:,} ({_percent(split.single_source_share)})"
    else:
        yield from ("-", "-", "-")


def _examples(sources: tuple[SourceReport, ...]) -> Iterator[Text]:
    """The first dropped record of each file and reason, whichever of the sources that read the file dropped it."""
    firsts: dict[tuple[str, str], tuple[SourceReport, Example]] = {}
    for source in sources:
        for example in source.examples:
            firsts.setdefault((example.file, example.reason), (source, example))
    shown = list(firsts.values())[:EXAMPLES_SHOWN]
    if not shown:
        return
    dropped = sum(source.dropped for source in sources)
    yield line(f"Dropped records, {len(shown)} of {dropped:,} (files are relative to the corpus):")
    for source, example in shown:
        place = f"  {visible(example.file)}:{example.line}"
        yield line(f"{place}  {visible(source.name)}: {example.reason}: {visible(example.why)}")
    yield Text()


def _speed(report: PackReport) -> Iterator[str]:
    timing = report.timing
    threads = f"{report.threads} thread{'s' if report.threads > 1 else ''}"
    yield (
        f"Packed {report.bytes / 1e6:,.1f} MB of input in {timing.total:.2f} s on {threads}: "
        f"{report.megabytes_per_second:,.1f} MB/s, {report.tokens_per_second:,.0f} tokens/s "
        f"(map {timing.map:.2f} s, settle {timing.settle:.2f} s, reduce {timing.reduce:.2f} s)"
    )
    reused, splits = report.reused_splits
    if reused:
        yield f"{reused:,} of {splits:,} pieces of input were tokenized before"
    yield f"Tokenized by {visible(report.engine)}"
    rows = report.train.rows + report.validation.rows
    yield f"{visible(str(report.out))}: {rows:,} rows of {report.seq_len:,} tokens; look at one with `sabiprep inspect`"


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _drops(drops: Mapping[str, int]) -> str:
    """``10 malformed, 2 too long``, the most frequent reason first."""
    ordered = sorted(drops.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {reason}" for reason, count in ordered)
