"""The plan of a corpus before it is packed, as frozen objects made of the core's JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

from sabiprep.errors import place_in_file
from sabiprep.explanation import Span
from sabiprep.roles import Role

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True, slots=True)
class SeenField:
    """A field of the sampled records.

    Attributes:
        name: The name; a field of an object is named after it, with a dot.
        types: The types of its values, nulls aside.
        labels: The names of its class labels in order of their numbers; empty for other fields.
        null: The share of the records in which it is null.
        missing: The share of the records that lack it.
    """

    name: str
    types: tuple[str, ...]
    labels: tuple[str, ...]
    null: float
    missing: float


@dataclass(frozen=True, slots=True)
class PlannedFiles:
    """Some files: their number, their bytes, and the names of the first ones."""

    count: int
    bytes: int
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedToken:
    """A token of a shown record: the text it adds, its role, and whether it is trained."""

    text: str
    role: Role
    trained: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRecord:
    """One of the first records of a source, rendered and tokenized.

    Attributes:
        file: The file of the record.
        line: The line, from 1; None in a file of rows, or if it was not looked for.
        row: The row, from 1, in a file of rows.
        spans: The text, span by span.
        tokens: The first tokens; empty without a tokenizer.
        token_count: The number of its tokens.
        trained: The number of its trained tokens.
        cut: Whether text or tokens go on beyond what is here.
        dropped: The reason why it makes no document, if it makes none.
    """

    file: str
    line: int | None = None
    row: int | None = None
    spans: tuple[Span, ...]
    tokens: tuple[PlannedToken, ...]
    token_count: int
    trained: int
    cut: bool
    dropped: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What packing would give and take, estimated from samples.

    Attributes:
        records: Records in the files.
        documents: Documents, copies and windows included.
        tokens: Tokens, control tokens included and padding not.
        targets: Trained tokens.
        rows: Rows of both splits; of a source alone, 0.
        bytes: Bytes of the dataset; of a source alone, 0.
        seconds: Seconds of packing at the speed of the sample; of a source alone, 0.
        exact: Whether every record was read and tokenized.
        at_least: Whether there is more than these numbers: the sample says little of the rest.
    """

    records: int
    documents: int
    tokens: int
    targets: int
    rows: int
    bytes: int
    seconds: float
    exact: bool
    at_least: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedSource:
    """A source of a plan.

    Attributes:
        name: The name.
        task: The task.
        lang: The language, as written.
        language: The English name of the language, if it is known.
        files: The files that are trained on.
        validation_files: The files that are held out.
        format: The name of the format.
        described: The format in words, with its dialect.
        encoding: The encoding of the files.
        compression: How the files are compressed; None if they are plain.
        segments: The templates, each ``{"prompt": …}`` or ``{"target": …}``.
        chat: The conversations that take the place of templates; None for other sources.
        augment: The task that is made from the texts, with its options; None for other sources.
        tagged: The tagged texts that take the place of templates; None for other sources.
        templates: The segments of each template, where there are several.
        when: The condition of a document, if there is one.
        each: The list of which each element makes a document, if there is one.
        fields: The fields of the sampled records.
        records: The first records.
        sampled_files: Files that were read.
        sampled: Records that were read.
        tokenized: Records that were tokenized too.
        whole: Whether every record of every file was read.
        drops: Dropped records of the sample, by reason.
        cleaned: Records of the sample that cleaning changed, by the keys of ``clean``.
        estimate: What would come of it; None without a tokenizer.
    """

    name: str
    task: str
    lang: str
    language: str | None
    files: PlannedFiles
    validation_files: PlannedFiles
    format: str
    described: str
    encoding: str
    compression: str | None
    segments: tuple[Mapping[str, str], ...]
    chat: Mapping[str, Any] | None
    augment: Mapping[str, Any] | None
    tagged: Mapping[str, Any] | None
    templates: tuple[Sequence[Mapping[str, str]], ...]
    when: str | None
    each: str | None
    fields: tuple[SeenField, ...]
    records: tuple[PlannedRecord, ...]
    sampled_files: int
    sampled: int
    tokenized: int
    whole: bool
    drops: Mapping[str, int]
    cleaned: Mapping[str, int]
    estimate: Estimate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that is wrong with a corpus, or may be.

    Attributes:
        severity: "error" if packing would fail, "warning" if records would be lost, else "note".
        kind: One of a fixed list of words, see docs/configuration.md.
        source: The source that it is about, if it is about one.
        file: The file that it is about, if it is about one.
        line: The line in that file, from 1, if it has lines.
        row: The row in that file, from 1, if it has rows.
        message: The problem in words.
        remedy: The advice, if there is one.
    """

    severity: Literal["error", "warning", "note"]
    kind: str
    source: str | None
    file: str | None
    line: int | None = None
    row: int | None = None
    message: str
    remedy: str | None

    def __str__(self) -> str:
        """Returns the problem with its place, as errors have it."""
        place = "" if self.file is None else self.file
        place += place_in_file(self.line, self.row)
        place += ": " if place else ""
        source = "" if self.source is None else f"source '{self.source}': "
        return f"{place}{source}{self.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusPlan:
    """A corpus before it is packed; ``str()`` gives what ``sabiprep plan`` prints.

    Attributes:
        corpus: The folder.
        configured: Whether the folder has a ``corpus.toml``; otherwise its sources are guessed.
        understood: What was guessed and passed over, a sentence each.
        tokenizer: ``file``, ``vocab_size``, ``eos``, ``bos`` and ``engine``; None without a
            tokenizer that can be used.
        seq_len: Tokens in a row; None if the configuration cannot be right.
        threads: Threads that the time is estimated for.
        sources: Every source that could be looked at.
        estimate: What packing would give; None without a tokenizer.
        problems: Every problem, errors first.
        read_bytes: Bytes that were read of the inputs.
        would_fail: Whether packing would fail.
        json: All of this as ``sabiprep plan --json`` prints it.
    """

    corpus: str
    configured: bool
    understood: tuple[str, ...]
    tokenizer: Mapping[str, Any] | None
    seq_len: int | None
    threads: int
    sources: tuple[PlannedSource, ...]
    estimate: Estimate | None
    problems: tuple[Problem, ...]
    read_bytes: int
    would_fail: bool
    json: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, survey: Mapping[str, Any]) -> Self:
        """Returns the plan made of the core's JSON."""
        return cls(
            corpus=survey["corpus"],
            configured=survey["configured"],
            understood=tuple(survey["understood"]),
            tokenizer=survey["tokenizer"],
            seq_len=survey["seq_len"],
            threads=survey["threads"],
            sources=tuple(_source(source) for source in survey["sources"]),
            estimate=_estimate(survey["estimate"]),
            problems=tuple(Problem(**problem) for problem in survey["problems"]),
            read_bytes=survey["read_bytes"],
            would_fail=survey["would_fail"],
            json=survey,
        )

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems for which packing would fail."""
        return tuple(problem for problem in self.problems if problem.severity == "error")

    def __rich__(self) -> RenderableType:
        """Returns the plan, for a rich console."""
        # Only now: that module imports this one.
        from sabiprep.survey_table import plan_table

        return plan_table(self)

    def __str__(self) -> str:
        """Returns the plan as plain text."""
        from sabiprep.terminal import to_plain

        return to_plain(self.__rich__())


def _source(source: Mapping[str, Any]) -> PlannedSource:
    """Returns a source made of the core's JSON."""
    same = ("name", "task", "lang", "language", "format", "described", "encoding", "compression")
    return PlannedSource(
        **{name: source[name] for name in same},
        files=_files(source["files"]),
        validation_files=_files(source["validation_files"]),
        segments=tuple(source["segments"]),
        chat=source["chat"],
        augment=source["augment"],
        tagged=source["tagged"],
        templates=tuple(source["templates"]),
        when=source["when"],
        each=source["each"],
        fields=tuple(
            SeenField(**{**seen, "types": tuple(seen["types"]), "labels": tuple(seen["labels"])})
            for seen in source["fields"]
        ),
        records=tuple(_record(record) for record in source["records"]),
        sampled_files=source["sample"]["files"],
        sampled=source["sample"]["records"],
        tokenized=source["sample"]["tokenized"],
        whole=source["sample"]["whole"],
        drops=source["sample"]["drops"],
        cleaned=source["sample"]["cleaned"],
        estimate=_estimate(source["estimate"]),
    )


def _files(files: Mapping[str, Any]) -> PlannedFiles:
    return PlannedFiles(**{**files, "names": tuple(files["names"])})


def _record(record: Mapping[str, Any]) -> PlannedRecord:
    """Returns a record made of the core's JSON."""
    spans = tuple(
        Span(Role(span["role"]), span["literal"], span["text"]) for span in record["spans"]
    )
    tokens = tuple(
        PlannedToken(text=token["text"], role=Role(token["role"]), trained=token["trained"])
        for token in record["tokens"]
    )
    return PlannedRecord(**{**record, "spans": spans, "tokens": tokens})


def _estimate(estimate: Mapping[str, Any] | None) -> Estimate | None:
    return None if estimate is None else Estimate(**estimate)
