"""The reports of packing, verifying and training a tokenizer, as frozen objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.console import RenderableType


WORTHWHILE_EPOCHS = 4
"""Up to this number, passes are nearly as good as fresh data: Muennighoff et al. 2023,
arXiv:2305.16264.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """The sums of some documents.

    Attributes:
        documents: The number of documents; each copy and each window of a record is one.
        tokens: The number of tokens, control tokens included and padding not.
        targets: The number of trained tokens.
    """

    documents: int = 0
    tokens: int = 0
    targets: int = 0

    @property
    def share_trained(self) -> float:
        """Targets / tokens; 0 if there is no token."""
        return self.targets / self.tokens if self.tokens else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """The outcomes of some records; ``records == kept + sum(drops.values())``.

    Attributes:
        records: Records read.
        kept: Records that are in the dataset.
        truncated: Records kept whose data was shortened to fit a row.
        drops: Records dropped, by reason.
        train: The documents of the records in the training split.
        validation: The documents of the records in the validation split.
    """

    records: int
    kept: int
    truncated: int
    drops: Mapping[str, int]
    train: Counts
    validation: Counts

    @property
    def total(self) -> Counts:
        """The documents in both splits."""
        return _sum_counts([self.train, self.validation])

    @property
    def dropped(self) -> int:
        """Records dropped, for any reason."""
        return sum(self.drops.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """The shares that some sources have of the training split, in each unit.

    Attributes:
        documents: The share of the documents.
        tokens: The share of the tokens.
        targets: The share of the targets, and so of an unweighted loss.
    """

    documents: float
    tokens: float
    targets: float


@dataclass(frozen=True, slots=True)
class Example:
    """A dropped record: its reason, its file and line or row (from 1), and its exact fault."""

    reason: str
    file: str
    line: int | None = None
    why: str = ""
    row: int | None = None


@dataclass(frozen=True, slots=True)
class CleanedExample:
    """A record that cleaning changed.

    Attributes:
        file: Its file.
        change: The first changed word, with the code points before and after.
        line: The line, from 1; None in a file of rows.
        row: The row, from 1, in a file of rows.
    """

    file: str
    change: str
    line: int | None = None
    row: int | None = None


@dataclass(frozen=True, slots=True)
class Cleaned:
    """The records that cleaning changed in one way: their number, and the first of them."""

    records: int
    examples: tuple[CleanedExample, ...]


@dataclass(frozen=True, slots=True)
class LeftOutExample:
    """A record of which a document was left out: its file, its line or row, and the fault."""

    file: str
    why: str
    line: int | None = None
    row: int | None = None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The documents that were left out for one reason: their number, and the first records."""

    documents: int
    examples: tuple[LeftOutExample, ...]


@dataclass(frozen=True, slots=True)
class RecordCounts:
    """The records of a source of several document tables, each counted once.

    Attributes:
        source: The name in ``corpus.toml``.
        records: Records read.
        kept: Records of which some table makes a document.
        without: Records of which none does.
    """

    source: str
    records: int
    kept: int
    without: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceReport(Tally):
    """One source.

    Attributes:
        name: The name in ``corpus.toml``.
        task: The task.
        lang: The language.
        epochs: Copies of each training record, on average.
        asked_epochs: The epochs that ``corpus.toml`` asks for; more than ``epochs`` where
            ``max_epochs`` is the limit.
        unique: The sums over the training records, each once.
        examples: The lowest dropped records of each reason.
        cleaned: The records that cleaning changed, by the key of ``clean`` that asked for it.
        left_out: The documents left out of records that have others, by reason.
        document_of: The source of ``corpus.toml`` whose document table it is; None for a source
            of its own.
    """

    name: str
    task: str
    lang: str
    epochs: float
    asked_epochs: float
    unique: Counts
    examples: tuple[Example, ...]
    cleaned: Mapping[str, Cleaned] = field(default_factory=dict)
    left_out: Mapping[str, LeftOut] = field(default_factory=dict)
    document_of: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskReport(Tally):
    """All sources of one task, added up.

    Attributes:
        task: The task.
        sources: The sources of the task, in the order of ``corpus.toml``.
    """

    task: str
    sources: tuple[SourceReport, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitReport(Counts):
    """One split of the dataset.

    Attributes:
        name: "train" or "validation".
        rows: The number of rows.
        utilisation: Tokens / (rows x seq_len): the share that is no padding. 0 if there is no row.
        single_source_rows: Rows with 95 % or more of their tokens from one source.
    """

    name: str
    rows: int
    utilisation: float
    single_source_rows: int

    @property
    def single_source_share(self) -> float:
        """Rows with 95 % or more of their tokens from one source / rows; 0 if there is no row."""
        return self.single_source_rows / self.rows if self.rows else 0.0


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds by phase: reading and tokenizing, deciding, packing and writing; and all of it."""

    map: float
    settle: float
    reduce: float
    total: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PackReport:
    """The result of `pack`; ``str()`` gives the table that ``sabiprep pack`` prints.

    Attributes:
        out: The dataset's folder.
        seq_len: Tokens in a row.
        seed: The seed of every random choice.
        mix_by: The unit that gets shares, "task", "lang" or "source"; None if nothing is mixed.
        vocab_size: Largest id of the tokenizer + 1.
        sources: Every source, in the order of ``corpus.toml``.
        train: The training split.
        validation: The validation split; it may have no row.
        timing: The seconds of the run, by phase.
        threads: Threads used.
        cluster: The Ray cluster that they are of, in words; None for this process's own.
        bytes: Bytes of input, once for each source that reads them; compressed files count as
            compressed.
        reused_splits: Input splits whose documents were there already (a resumed run, a kept
            spool), and all input splits.
        engine: The engine that tokenized, with its versions; after another than the fast encoder,
            the reason.
        engine_warning: The fault of the fast encoder for this tokenizer, if there is one:
            `tokenizers` encoded instead.
        notes: Sentences on how the dataset was made, as in ``manifest.json``; no errors.
        template_notes: A sentence for each source whose template text could not be told from data.
        dropped_file: The file with the dropped records, one a line; None if none was dropped.
        records: The records of each source of several document tables, each counted once.
    """

    out: Path
    seq_len: int
    seed: int
    mix_by: str | None
    vocab_size: int
    sources: tuple[SourceReport, ...]
    train: SplitReport
    validation: SplitReport
    timing: Timing
    threads: int
    bytes: int
    reused_splits: tuple[int, int]
    engine: str
    engine_warning: str | None
    notes: tuple[str, ...]
    template_notes: tuple[str, ...] = ()
    cluster: str | None = None
    dropped_file: Path | None = None
    records: tuple[RecordCounts, ...] = ()

    @classmethod
    def from_json(cls, report: Mapping[str, Any], out: Path | None = None) -> Self:
        """Returns the report made of the core's JSON.

        Args:
            report: The parsed JSON of the core.
            out: The dataset's folder as the caller named it: JSON holds no name that is not UTF-8.
        """
        manifest = report["manifest"]
        out = Path(report["out"]) if out is None else out
        dropped = manifest.get("dropped")
        return cls(
            out=out,
            seq_len=manifest["seq_len"],
            seed=manifest["seed"],
            mix_by=(manifest["config"]["mix"] or {}).get("by"),
            vocab_size=manifest["tokenizer"]["vocab_size"],
            sources=tuple(_source(source) for source in manifest["sources"]),
            train=_split("train", manifest["splits"]),
            validation=_split("validation", manifest["splits"]),
            timing=Timing(**report["timing"]),
            threads=report["threads"],
            bytes=report["bytes"],
            reused_splits=tuple(report["reused_splits"]),
            engine=manifest["tokenizer"]["engine"],
            notes=tuple(manifest.get("notes", ())),
            engine_warning=report["engine_warning"],
            template_notes=tuple(report["template_notes"]),
            cluster=report.get("cluster"),
            dropped_file=None if dropped is None else out / dropped["file"],
            records=tuple(RecordCounts(**counts) for counts in manifest.get("records", ())),
        )

    @property
    def total(self) -> Tally:
        """All sources, added up."""
        return Tally(**_added_up(self.sources))

    @property
    def tasks(self) -> tuple[TaskReport, ...]:
        """Every task, in the order of its first source."""
        by_task: dict[str, list[SourceReport]] = {}
        for source in self.sources:
            by_task.setdefault(source.task, []).append(source)
        return tuple(
            TaskReport(task=task, sources=tuple(sources), **_added_up(sources))
            for task, sources in by_task.items()
        )

    def asked_shares(self, sources: Iterable[SourceReport]) -> Shares:
        """Returns the shares of these sources with the copies that ``corpus.toml`` asks for."""
        of = [_times(source.unique, source.asked_epochs) for source in sources]
        return _shares(of, [_times(source.unique, source.asked_epochs) for source in self.sources])

    def made_shares(self, sources: Iterable[SourceReport]) -> Shares:
        """Returns the shares that these sources have."""
        return _shares(
            [_each(source.train) for source in sources],
            [_each(source.train) for source in self.sources],
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences about likely mistakes: the engine, templates, records repeated too often."""
        engine = () if self.engine_warning is None else (self.engine_warning,)
        return (
            engine
            + self.template_notes
            + tuple(
                f"{source.name}: {source.epochs:g} copies of each record; "
                f"above {WORTHWHILE_EPOCHS} more are worth little (Muennighoff et al. 2023)"
                for source in self.sources
                if source.epochs > WORTHWHILE_EPOCHS and source.train.documents
            )
        )

    @property
    def utilisation(self) -> float:
        """The share of the training rows that is no padding."""
        return self.train.utilisation

    @property
    def single_source_share(self) -> float:
        """The share of the training rows with 95 % or more of their tokens from one source."""
        return self.train.single_source_share

    @property
    def megabytes_per_second(self) -> float:
        """Input bytes / 10**6 / seconds of the whole run."""
        return self.bytes / 1e6 / self.timing.total

    @property
    def tokens_per_second(self) -> float:
        """Tokens of both splits / seconds of the whole run."""
        return self.total.total.tokens / self.timing.total

    def __rich__(self) -> RenderableType:
        """Returns the table, for a rich console."""
        # Only now: that module imports this one.
        from sabiprep.table import report_table

        return report_table(self)

    def __str__(self) -> str:
        """Returns the table as plain text."""
        from sabiprep.terminal import to_plain

        return to_plain(self.__rich__())


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The result of `verify`.

    Attributes:
        shards: Shards read.
        rows: Rows checked.
        documents: Documents in these rows.
        records_derived: Records whose documents were derived again from the corpus; 0 if the check
            was not asked for.
        documents_derived: Documents of these records in the dataset, each copy one.
        failures: The faults, each with its file; empty if there is none.
    """

    shards: int
    rows: int
    documents: int
    records_derived: int
    documents_derived: int
    failures: list[str]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.failures


@dataclass(frozen=True, slots=True)
class TokenizerReport:
    """The result of `train_tokenizer`.

    Attributes:
        file: The tokenizer's file.
        vocab_size: The number of entries.
        specials: The special tokens: EOS, then the tags of the templates.
        records: Records that the tokenizer was trained on.
        passed_over: Records passed over: malformed, a field missing and so on.
        drops: The records passed over, by reason.
        examples: The lowest records passed over, for each reason and source.
    """

    file: str
    vocab_size: int
    specials: list[str]
    records: int
    passed_over: int
    drops: Mapping[str, int]
    examples: tuple[Example, ...]

    @classmethod
    def from_json(cls, file: str, report: Mapping[str, Any]) -> Self:
        """Returns the report of the tokenizer in ``file``, made of the core's JSON."""
        examples = tuple(Example(**example) for example in report["examples"])
        return cls(file=file, **{**report, "examples": examples})


def _source(source: Mapping[str, Any]) -> SourceReport:
    """Returns the report of a source's entry in the manifest."""
    return SourceReport(
        name=source["name"],
        task=source["task"],
        lang=source["lang"],
        epochs=source["epochs"],
        asked_epochs=source["asked_epochs"],
        unique=Counts(**source["unique"]),
        records=source["records"],
        kept=source["kept"],
        truncated=source["truncated"],
        drops=source["drops"],
        train=Counts(**source["train"]),
        validation=Counts(**source["validation"]),
        examples=tuple(Example(**example) for example in source["examples"]),
        cleaned={key: _cleaned(entry) for key, entry in source.get("cleaned", {}).items()},
        left_out={key: _left_out(entry) for key, entry in source.get("left_out", {}).items()},
        document_of=source.get("document_of"),
    )


def _cleaned(entry: Mapping[str, Any]) -> Cleaned:
    """Returns the records that one key of ``clean`` changed."""
    examples = tuple(CleanedExample(**example) for example in entry["examples"])
    return Cleaned(entry["records"], examples)


def _left_out(entry: Mapping[str, Any]) -> LeftOut:
    """Returns the documents that were left out for one reason."""
    examples = tuple(LeftOutExample(**example) for example in entry["examples"])
    return LeftOut(entry["documents"], examples)


def _split(name: str, splits: Mapping[str, Mapping[str, Any]]) -> SplitReport:
    """Returns the report of a split's entry in the manifest."""
    return SplitReport(
        name=name, **{key: value for key, value in splits[name].items() if key != "shards"}
    )


def _each(counts: Counts) -> tuple[float, float, float]:
    return counts.documents, counts.tokens, counts.targets


def _times(counts: Counts, copies: float) -> tuple[float, float, float]:
    documents, tokens, targets = _each(counts)
    return documents * copies, tokens * copies, targets * copies


def _shares(some: Iterable[tuple[float, ...]], of: Iterable[tuple[float, ...]]) -> Shares:
    """Returns the shares of documents, tokens and targets; 0 if the whole is 0."""
    # Without any part `zip` gives no column at all.
    parts = [sum(column) for column in zip(*some, strict=True)] or [0.0] * 3
    totals = [sum(column) for column in zip(*of, strict=True)]
    documents, tokens, targets = (
        part / total if total else 0.0 for part, total in zip(parts, totals, strict=True)
    )
    return Shares(documents=documents, tokens=tokens, targets=targets)


def _sum_counts(counts: Iterable[Counts]) -> Counts:
    counts = list(counts)
    return Counts(
        documents=sum(count.documents for count in counts),
        tokens=sum(count.tokens for count in counts),
        targets=sum(count.targets for count in counts),
    )


def _added_up(sources: Iterable[SourceReport]) -> dict[str, Any]:
    """Returns the fields of the `Tally` of several sources."""
    sources = list(sources)
    drops: Counter[str] = Counter()
    for source in sources:
        drops.update(source.drops)
    return {
        "records": sum(source.records for source in sources),
        "kept": sum(source.kept for source in sources),
        "truncated": sum(source.truncated for source in sources),
        "drops": dict(drops),
        "train": _sum_counts(source.train for source in sources),
        "validation": _sum_counts(source.validation for source in sources),
    }
