"""What ``sabiprep plan`` prints of a `CorpusPlan`."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text

from sabiprep.errors import place_in_file
from sabiprep.grid import Column, Grid
from sabiprep.marks import legend, marked, without_marks
from sabiprep.roles import Role
from sabiprep.survey import CorpusPlan, Estimate, PlannedFiles, PlannedRecord, PlannedSource
from sabiprep.table import drops_text
from sabiprep.terminal import Sentence, counted, has_colours, on_one_line, visible

LETTERS_SHOWN = 240
TOKENS_SHOWN = 24
FIELDS_SHOWN = 12
LABELS_SHOWN = 8
STYLES = {"error": "bold red", "warning": "yellow", "note": ""}


def plan_table(plan: CorpusPlan) -> RenderableType:
    """Returns the plan: what was found, each source with its first records, sums, problems."""
    return Group(
        *(Sentence(sentence, 2) for sentence in _heading(plan)),
        *(Sentence(visible(sentence[:1].upper() + sentence[1:]), 2) for sentence in _guessed(plan)),
        Text(),
        *_sources(plan),
        *((_Legend(), Text()) if any(source.records for source in plan.sources) else ()),
        *(line for source in plan.sources for line in _source(source)),
        *_problems(plan),
        *(Sentence(sentence, 2) for sentence in _ending(plan)),
    )


def _heading(plan: CorpusPlan) -> Iterator[str]:
    """Yields what the corpus is, and its tokenizer."""
    files = sum(_all_files(source) for source in plan.sources)
    size = _size(sum(source.files.bytes + source.validation_files.bytes for source in plan.sources))
    sources = counted(len(plan.sources), "source")
    yield f"{visible(plan.corpus)}: {sources}, {counted(files, 'file')}, {size}"
    if plan.tokenizer is not None:
        name, eos = visible(plan.tokenizer["file"]), visible(plan.tokenizer["eos"])
        yield f"{name}: {plan.tokenizer['vocab_size']:,} tokens; {eos} closes every document"


def _guessed(plan: CorpusPlan) -> Iterator[str]:
    """Yields what was guessed and passed over; the sources show the rest."""
    if not plan.configured:
        yield "no corpus.toml: sources are guessed from the files; `sabiprep init` writes them down"
        lead = "no corpus.toml: "
        for sentence in plan.understood:
            if not sentence.startswith(f"{lead}source "):
                yield sentence.removeprefix(lead)


def _sources(plan: CorpusPlan) -> Iterator[RenderableType]:
    """Yields the table of sources, if there is one."""
    if not plan.sources:
        return
    columns = [Column("source", "name"), Column("lang", "words"), Column("files"), Column("size")]
    figures = ["records", "documents", "tokens", "targets"]
    has_estimates = plan.estimate is not None
    grid = Grid([*columns, *map(Column, figures)] if has_estimates else columns)
    for source in plan.sources:
        size = _size(source.files.bytes + source.validation_files.bytes)
        cells: list[str | int] = [visible(source.name), visible(source.lang)]
        cells += [_all_files(source), size]
        grid.add([*cells, *(_figures(source.estimate) if has_estimates else ())])
    if plan.estimate is not None and len(plan.sources) > 1:
        grid.section()
        grid.add(["total", "", "", "", *_figures(plan.estimate)], "bold")
    yield grid
    estimates = [source.estimate for source in plan.sources if source.estimate is not None]
    if any(not (estimate.exact or estimate.at_least) for estimate in estimates):
        yield Sentence("~ is estimated from a sample", 2)
    if any(estimate.at_least for estimate in estimates):
        yield Sentence("≥ is at least: the sample says little of the rest of these files", 2)
    yield Text()


def _figures(estimate: Estimate | None) -> list[str | int]:
    """Returns the cells of an estimate."""
    if estimate is None:
        return ["-"] * 4
    counts = (estimate.records, estimate.documents, estimate.tokens, estimate.targets)
    if estimate.exact:
        return list(counts)
    # Of a sample that says little of the rest, nothing found means that nothing is known.
    if estimate.at_least:
        return [f"≥ {_rounded(count)}" if count else "unknown" for count in counts]
    return [f"~{_rounded(count)}" for count in counts]


class _Legend:
    """The line that explains the colours, or the marks, of records."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields the line."""
        yield Sentence(legend(has_colours(console)), 2)


def _source(source: PlannedSource) -> Iterator[RenderableType]:
    """Yields a source: files, format, fields, first records."""
    name, task = visible(source.name), visible(source.task)
    language = f" ({source.language})" if source.language not in (None, source.lang) else ""
    yield Sentence(Text(f"── {name} · {task} · {visible(source.lang)}{language}", "bold"), 3)
    yield Sentence(f"   {_files(source.files)}", 5)
    if source.validation_files.count:
        yield Sentence(f"   held out: {_files(source.validation_files)}", 5)
    compressed = f", {source.compression}" if source.compression else ""
    yield Sentence(
        f"   {visible(source.described)}, {source.encoding}{compressed}; {_sample(source)}", 5
    )
    if source.fields:
        yield Sentence(f"   fields: {_fields(source)}", 5)
    for record in source.records:
        yield _Record(record)
    yield Text()


def _files(files: PlannedFiles) -> str:
    """Returns the names of some files, and their number and size."""
    names = ", ".join(visible(name) for name in files.names)
    more = files.count - len(files.names)
    names += f" and {more:,} more" if more else ""
    return f"{names or 'no file'} ({_size(files.bytes)})"


def _sample(source: PlannedSource) -> str:
    """Returns what was read of a source."""
    read = "all" if source.whole else "the first"
    sample = f"{read} {counted(source.sampled, 'record')} read"
    if source.sampled_files < _all_files(source):
        sample += f", of {counted(source.sampled_files, 'file')}"
    sample += f"; cleaned: {drops_text(source.cleaned)}" if source.cleaned else ""
    return sample + (f"; dropped: {drops_text(source.drops)}" if source.drops else "")


def _fields(source: PlannedSource) -> str:
    """Returns the fields with their types and the shares of nulls and gaps."""
    shown = []
    for seen in source.fields[:FIELDS_SHOWN]:
        text = f"{visible(seen.name)} {' or '.join(seen.types)}".rstrip()
        if seen.labels:
            names = ", ".join(visible(name) for name in seen.labels[:LABELS_SHOWN])
            names += ", …" if len(seen.labels) > LABELS_SHOWN else ""
            text = f"{visible(seen.name)}: ClassLabel ({names})"
            text += ", by number" if any("number" in kind for kind in seen.types) else ""
        gaps = [(seen.null, "null"), (seen.missing, "missing")]
        shares = [f"{share:.1%} {word}" for share, word in gaps if share]
        shown.append(f"{text} ({', '.join(shares)})" if shares else text)
    more = len(source.fields) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more else "")


class _Record:
    """A record with its roles in colours, or in marks, and its tokens."""

    def __init__(self, record: PlannedRecord) -> None:
        """Takes the record."""
        self._record = record

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields its place, its text and its tokens."""
        record, colours = self._record, has_colours(console)
        place = visible(record.file) + place_in_file(record.line, record.row)
        if record.token_count:
            place += f": {counted(record.token_count, 'token')}, {record.trained:,} trained"
        if record.dropped is not None:
            place += f": dropped: {visible(record.dropped)}"
        yield Sentence(f"   {place}", 5)
        if record.spans:
            yield Sentence(Text("     ").append_text(self._text(colours)), 5)
        if record.tokens:
            yield Sentence(Text("     tokens: ").append_text(self._tokens(colours)), 7)

    def _text(self, colours: bool) -> Text:
        """Returns the first letters of its text."""
        text, left = Text(), LETTERS_SHOWN
        for span in self._record.spans:
            shown = span.text[:left]
            if not shown:
                break
            left -= len(shown)
            more = "…" if len(shown) < len(span.text) else ""
            trained = span.role is Role.TARGET
            text.append_text(marked(span.role, trained, without_marks(shown) + more, colours))
        return text

    def _tokens(self, colours: bool) -> Text:
        """Returns its first tokens, apart from each other."""
        tokens = Text()
        for token in self._record.tokens[:TOKENS_SHOWN]:
            piece = visible(token.text).replace("|", "\\x7c")
            tokens.append("" if not tokens else "|", "dim" if colours else "")
            tokens.append(piece, token.role.colour if colours else "")
        if self._record.token_count > TOKENS_SHOWN:
            tokens.append(" …")
        return tokens


def _problems(plan: CorpusPlan) -> Iterator[RenderableType]:
    """Yields the problems, errors first."""
    for problem in plan.problems:
        text = Text(f"{problem.severity.capitalize()}: ", STYLES[problem.severity])
        yield Sentence(text.append(visible(str(problem)), ""), 2)
        if problem.remedy is not None:
            # A command in it stays one that can be copied.
            yield Sentence(f"  Remedy: {on_one_line(problem.remedy)}", 4)
    if plan.problems:
        yield Text()


def _ending(plan: CorpusPlan) -> Iterator[str]:
    """Yields the sums, and whether packing would work."""
    if plan.estimate is not None and plan.seq_len is not None:
        estimate = plan.estimate
        share = estimate.targets / estimate.tokens if estimate.tokens else 0.0
        lead = "At least" if estimate.at_least else "About"
        rows = counted(estimate.rows, "row")
        yield (
            f"{lead} {rows} of {plan.seq_len:,} tokens, {share:.1%} trained, "
            f"{_size(estimate.bytes)} of disk, {_duration(estimate.seconds)} on "
            f"{counted(plan.threads, 'thread')} (measured on the sample, on this machine)"
        )
    errors = len(plan.errors)
    if errors:
        yield f"Packing would fail: {counted(errors, 'error')}, see above"
    elif plan.problems:
        yield f"Packing would work; {counted(len(plan.problems), 'problem')}, see above"
    else:
        yield "Packing would work; no problem was found"


def _all_files(source: PlannedSource) -> int:
    return source.files.count + source.validation_files.count


def _size(count: int) -> str:
    """Returns a number of bytes in the largest unit that it fills."""
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 999.5:
            break
        size, unit = size / 1000, larger
    return f"{count} B" if unit == "B" else f"{size:.{1 if size < 99.95 else 0}f} {unit}"


def _rounded(count: int) -> str:
    """Returns a count to three digits, as estimates are known at best."""
    digits = len(str(count)) - 3
    return f"{round(count, -digits) if digits > 0 else count:,}"


def _duration(seconds: float) -> str:
    """Returns a time in words."""
    if seconds < 60:
        return f"{max(seconds, 0.1):.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
