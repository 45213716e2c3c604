"""The reports of `export` and `export_tasks`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from rich.console import Console, ConsoleOptions, RenderResult

from sabiprep.terminal import Sentence, counted, to_plain, visible


@dataclass(frozen=True, slots=True)
class ExportedSplit:
    """The counts of one split, which are those of the manifest.

    Attributes:
        rows: Rows of the dataset, whatever a row of the export is.
        documents: Documents in them.
        tokens: Tokens, without padding.
        targets: Trained tokens.
    """

    rows: int = 0
    documents: int = 0
    tokens: int = 0
    targets: int = 0

    def __add__(self, other: ExportedSplit) -> ExportedSplit:
        """Returns the sums of both."""
        return ExportedSplit(
            self.rows + other.rows,
            self.documents + other.documents,
            self.tokens + other.tokens,
            self.targets + other.targets,
        )

    @property
    def counts(self) -> dict[str, int]:
        """The counts by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """The result of `export`; ``print`` shows it.

    Attributes:
        to: The tool or format it is for.
        folder: The folder that was made.
        splits: The counts by split.
        bytes: The bytes of its files.
        read: The bytes of the dataset's shards.
        seconds: The time it took.
        loses_weights: Whether the dataset has weights, for which the tool has no place.
    """

    to: str
    folder: str
    splits: Mapping[str, ExportedSplit]
    bytes: int
    read: int = field(compare=False)
    seconds: float = field(compare=False)
    loses_weights: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields a line a split, then where it is and how fast it went."""
        for name, split in self.splits.items():
            yield Sentence(
                f"{name}: {counted(split.rows, 'row')}, {counted(split.documents, 'document')}, "
                f"{counted(split.tokens, 'token')}, {split.targets:,} trained",
                2,
            )
        speed = self.read / 1e6 / max(self.seconds, 1e-9)
        yield Sentence(
            f"{visible(self.folder)}: {self.bytes / 1e6:,.1f} MB for {self.to} in "
            f"{self.seconds:,.1f} s ({speed:,.0f} MB/s of the dataset)",
            2,
        )
        if self.loses_weights:
            yield Sentence(
                f"The weights of documents are left out: {self.to} gives each trained token the "
                "same weight; parquet, jsonl and webdataset have them.",
                2,
            )

    def __str__(self) -> str:
        """Returns the lines."""
        return to_plain(self)


@dataclass(frozen=True, slots=True)
class ExportedTask:
    """A task of `lm-eval`.

    Attributes:
        name: The name of the task, and of its files.
        source: The source of ``corpus.toml``.
        kind: The output type, as `lm-eval` names it.
        documents: The held-out documents.
    """

    name: str
    source: str
    kind: str
    documents: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TasksReport:
    """The result of `export_tasks`; ``print`` shows it.

    Attributes:
        folder: The folder that was made.
        tasks: The tasks, by source.
        without: The sources without held-out records.
    """

    folder: str
    tasks: tuple[ExportedTask, ...]
    without: tuple[str, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields a line a task, then the command that runs them."""
        for task in self.tasks:
            yield Sentence(f"{task.name}: {counted(task.documents, 'document')}, {task.kind}", 2)
        if self.without:
            names = ", ".join(map(visible, self.without))
            yield Sentence(f"nothing is held out of: {names}", 2)
        yield Sentence(
            f"To score a model: lm_eval --model hf --model_args pretrained=MODEL "
            f"--include_path {visible(self.folder)} --tasks heldout",
            2,
        )

    def __str__(self) -> str:
        """Returns the lines."""
        return to_plain(self)
