"""The command ``sabiprep``: one dataclass for each subcommand, whose fields are its arguments.

A command gives an `Outcome`; `main` prints it, and turns errors into messages and exit codes: 0, 1
for whatever is refused or fails, 2 for a wrong command line, 130 for Ctrl-C, 143 for SIGTERM.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Annotated, Literal, NamedTuple

import tyro
from rich.console import Group, RenderableType
from tyro.conf import Positional, arg, subcommand

import sabiprep
from sabiprep.arguments import (
    PART,
    Corpus,
    ExplainArguments,
    File,
    FinishArguments,
    Flag,
    InitArguments,
    Number,
    Out,
    PackArguments,
    Part,
    PlanArguments,
    RemixArguments,
    TaskArguments,
    folder,
)
from sabiprep.corpus_file import small_file
from sabiprep.errors import ConfigError, InputError, Interrupted, SabiprepError, unforeseen
from sabiprep.files import MANIFEST_LIMIT
from sabiprep.places import StrPath, join, place_of
from sabiprep.progress import show_progress
from sabiprep.terminal import (
    Sentence,
    Verbatim,
    accept_any_text,
    counted,
    harmless,
    show,
    unobeyed,
    visible,
)


class Outcome(NamedTuple):
    """The output of a command, and its exit code."""

    shown: RenderableType
    code: int = 0


@dataclass(frozen=True)
class Plan:
    """Look at a corpus before packing: its files, first records, estimates, and every problem."""

    corpus: Corpus
    """The folder with the files, with corpus.toml or without."""
    options: PlanArguments
    json: Annotated[Flag, arg(help_behavior_hint="")] = False
    """Print one JSON object instead; docs/configuration.md lists its keys."""

    def run(self) -> Outcome:
        """Returns the plan; the exit code is 1 if packing would fail."""
        plan = sabiprep.plan(self.corpus, self.options)
        shown = (
            Verbatim(unobeyed(json.dumps(plan.json, ensure_ascii=False, indent=1)))
            if self.json
            else plan
        )
        return Outcome(shown, 1 if plan.would_fail else 0)


@dataclass(frozen=True)
class Init:
    """Begin a corpus.toml, guessed from the files of a folder."""

    corpus: Corpus
    """The folder with the files."""
    options: InitArguments
    overwrite: Annotated[Flag, arg(help_behavior_hint="")] = False
    """Replace the corpus.toml that is there."""
    print: Annotated[Flag, arg(help_behavior_hint="")] = False
    """Print it instead of writing it."""

    def run(self) -> Outcome:
        """Writes the file and returns where, or its text."""
        text = sabiprep.init(
            self.corpus, self.options, overwrite=self.overwrite, write=not self.print
        )
        if self.print:
            return Outcome(Verbatim(harmless(text.rstrip("\n"))))
        file = visible(join(self.corpus, "corpus.toml"))
        return Outcome(Sentence(f"{file}: written; `sabiprep plan` shows what it makes", 2))


@dataclass(frozen=True)
class Pack:
    """Pack a corpus into fixed-length rows with exact loss masks."""

    corpus: Corpus
    """The folder with corpus.toml, or its URL in an object store, as s3://BUCKET/FOLDER."""
    out: Out
    """The folder to make, or its URL; it must be empty or new. Nothing is written elsewhere."""
    options: PackArguments
    engine: Annotated[
        sabiprep.Engine, arg(metavar="ENGINE", help_behavior_hint="(default: threads)")
    ] = "threads"
    """threads of this process, or ray: a Ray cluster whose nodes see both folders."""
    ray_address: Annotated[
        str | None,
        arg(metavar="HOST:PORT", help_behavior_hint="(default: $RAY_ADDRESS, or this machine's)"),
    ] = None
    """The Ray cluster. Where this machine has none, one is started for the run."""
    part: Annotated[Part | None, PART, arg(help_behavior_hint="(default: the whole corpus)")] = None
    """Read and tokenize part I of N alone, for an array of jobs; `sabiprep finish` makes the
    dataset once each is done.
    """

    def run(self) -> Outcome:
        """Packs and returns the table."""
        with show_progress() as progress:
            if self.part is None:
                report = sabiprep.pack(
                    self.corpus,
                    self.out,
                    self.options,
                    engine=self.engine,
                    ray_address=self.ray_address,
                    progress=progress,
                )
                return Outcome(report)
            if self.engine != "threads":
                raise ConfigError(
                    "--part is given, and --engine ray divides the work by itself",
                    remedy="leave one of them out",
                )
            part, parts = self.part
            made = sabiprep.pack_part(
                self.corpus, self.out, part, parts, self.options, progress=progress
            )
        splits = f"{made.tasks:,} of {made.all:,} input splits, {made.reused:,} of them before"
        done = (
            f"{visible(place_of(self.out))}: part {part} of {parts} is done ({splits}; "
            f"{made.bytes / 1e6:,.1f} MB); once every part is, `sabiprep finish CORPUS OUT` "
            "makes the dataset"
        )
        notes = [Sentence(visible(note), 2) for note in made.template_notes]
        return Outcome(Group(Sentence(done, 2), *notes))


@dataclass(frozen=True)
class Finish:
    """Finish a dataset that was packed in parts, once each part is done."""

    corpus: Corpus
    """The folder with corpus.toml, or its URL, as it was for the parts."""
    out: Out
    """The folder of the dataset, or its URL."""
    options: FinishArguments
    settle: Annotated[Flag, arg(help_behavior_hint="")] = False
    """Only decide what goes where, so that other processes can make the shards by --part."""
    part: Annotated[Part | None, PART, arg(help_behavior_hint="(default: all that is left)")] = None
    """Make part I of N of the shards alone, once --settle is done."""

    def run(self) -> Outcome:
        """Finishes the dataset and returns the table, or what was done of it."""
        if self.settle and self.part is not None:
            raise ConfigError(
                "--settle and --part are both given", remedy="settle once, then make each part"
            )
        where = visible(place_of(self.out))
        with show_progress() as progress:
            if self.settle:
                shards = sabiprep.settle(self.corpus, self.out, self.options, progress=progress)
                done = (
                    f"{where}: settled, {counted(shards, 'shard')} to make: "
                    "`sabiprep finish CORPUS OUT --part I/N` for each part, "
                    "then `sabiprep finish CORPUS OUT`"
                )
                return Outcome(Sentence(done, 2))
            if self.part is None:
                report = sabiprep.finish(self.corpus, self.out, self.options, progress=progress)
                return Outcome(report)
            part, parts = self.part
            made = sabiprep.finish_part(
                self.corpus, self.out, part, parts, self.options, progress=progress
            )
        done = (
            f"{where}: part {part} of {parts} is done ({made.tasks:,} of "
            f"{counted(made.all, 'shard')}); once every part is, "
            "`sabiprep finish CORPUS OUT` makes the dataset"
        )
        return Outcome(Sentence(done, 2))


@dataclass(frozen=True)
class Remix:
    """Pack the corpus of a dataset again, from the tokenized documents it kept."""

    dataset: Annotated[Positional[StrPath], folder("DATASET")]
    """A dataset packed with --keep-spool; it stays as it is."""
    out: Out
    """The folder to make; it must be empty or new."""
    options: RemixArguments
    corpus: Annotated[
        StrPath | None, folder("CORPUS"), arg(help_behavior_hint="(default: where it was)")
    ] = None
    """The folder with corpus.toml."""

    def run(self) -> Outcome:
        """Packs from the spool and returns the table."""
        with show_progress() as progress:
            report = sabiprep.remix(
                self.dataset, self.out, self.options, corpus=self.corpus, progress=progress
            )
            return Outcome(report)


@dataclass(frozen=True)
class Inspect:
    """Show a row of a packed dataset: its documents decoded, role by role."""

    out: Out
    """The packed dataset."""
    row: Annotated[
        int | None, Number, arg(help_behavior_hint="(default: the first one to show)")
    ] = None
    """The row to show, counted from 0."""
    source: Annotated[str, arg(metavar="NAME", help_behavior_hint="(default: all sources)")] = ""
    """Show the documents of this source only."""
    split: Literal["train", "validation"] = "train"
    """The split it is in."""

    def run(self) -> Outcome:
        """Returns the decoded row."""
        from sabiprep.inspection import inspect

        with sabiprep.open_dataset(place_of(self.out)) as dataset:
            return Outcome(inspect(dataset, split=self.split, row=self.row, source=self.source))


@dataclass(frozen=True)
class Verify:
    """Check a packed dataset: manifest, checksums, and the rules of the loss mask on every row."""

    out: Out
    """The packed dataset."""
    against: Annotated[StrPath | None, folder("CORPUS"), arg(help_behavior_hint="")] = None
    """Also derive documents again from the records of this corpus, by the slow path, and compare
    ids and roles.
    """
    sample: Annotated[int, arg(metavar="N")] = 1000
    """Records to derive again, about as many; 0 for all."""

    def run(self) -> Outcome:
        """Verifies the dataset; the exit code is 1 if anything is wrong."""
        with show_progress() as progress:
            report = sabiprep.verify(
                self.out, against=self.against, sample=self.sample or None, progress=progress
            )
        checked = (
            f"{counted(report.shards, 'shard')}, {counted(report.rows, 'row')}, "
            f"{counted(report.documents, 'document')}"
        )
        if self.against is not None:
            checked += f"; {counted(report.documents_derived, 'document')}"
            checked += f" of {counted(report.records_derived, 'record')} derived again"
        if report.ok:
            return Outcome(Sentence(f"{visible(place_of(self.out))}: in order ({checked})", 2))
        failures = [Sentence(f"  {visible(failure)}", 4) for failure in report.failures]
        head = f"{visible(place_of(self.out))}: {len(failures)} failed ({checked} were checked)"
        return Outcome(
            Group(
                Sentence(head, 2), *failures, Sentence("Remedy: copy it again, or pack it again", 2)
            ),
            1,
        )


@dataclass(frozen=True)
class Export:
    """Write the rows or documents of a packed dataset as another tool reads them."""

    out: Out
    """The packed dataset; it stays as it is."""
    folder: Annotated[Positional[Path], arg(metavar="DIR")]
    """The folder to make; it must be empty or new."""
    to: Annotated[
        Literal["trl", "axolotl", "llamafactory", "parquet", "jsonl", "webdataset"],
        arg(metavar="TOOL"),
    ]
    """trl, axolotl, llamafactory, parquet, jsonl or webdataset; docs/handover.md shows each."""
    overwrite: Annotated[Flag, arg(help_behavior_hint="")] = False
    """Replace the export in DIR once the new one is complete. Any other folder is left alone."""

    def run(self) -> Outcome:
        """Exports and returns the counts."""
        with show_progress() as progress:
            report = sabiprep.export(
                self.out, self.folder, self.to, overwrite=self.overwrite, progress=progress
            )
        return Outcome(report)


@dataclass(frozen=True)
class ExportTasks:
    """Write each held-out task of a corpus as a task of lm-eval, by the template it trains."""

    corpus: Corpus
    """The folder with corpus.toml, which is packed for this, or a dataset packed from it."""
    folder: Annotated[Positional[Path], arg(metavar="DIR")]
    """The folder to make; it must be empty or new."""
    options: TaskArguments
    overwrite: Annotated[Flag, arg(help_behavior_hint="")] = False
    """Replace the tasks in DIR once the new ones are complete. Any other folder is left alone."""

    def run(self) -> Outcome:
        """Writes the tasks and returns their names."""
        with show_progress() as progress:
            report = sabiprep.export_tasks(
                self.corpus,
                self.folder,
                self.options,
                overwrite=self.overwrite,
                progress=progress,
            )
        return Outcome(report)


@dataclass(frozen=True)
class Tokenizer:
    """Train a byte-level BPE tokenizer on a corpus; each tag of its templates is one token."""

    action: Annotated[Positional[Literal["train"]], arg(help_behavior_hint="")]
    """What to do: train one."""
    corpus: Corpus
    """The folder with corpus.toml; it need not name a tokenizer yet."""
    file: Annotated[Positional[StrPath], File]
    """The tokenizer.json to write."""
    vocab_size: Annotated[int, arg(metavar="N")]
    """Entries wanted; a small corpus may yield fewer."""
    overwrite: Annotated[Flag, arg(help_behavior_hint="")] = False
    """Replace FILE if it exists."""

    def run(self) -> Outcome:
        """Trains the tokenizer, writes the file and returns its counts."""
        with show_progress() as progress:
            report = sabiprep.train_tokenizer(
                self.corpus, self.file, self.vocab_size, overwrite=self.overwrite, progress=progress
            )
        from sabiprep.table import dropped_records, drops_text

        made = (
            f"{visible(report.file)}: {report.vocab_size:,} entries from {report.records:,} records"
        )
        if report.passed_over:
            made += f" ({report.passed_over:,} passed over: {drops_text(report.drops)})"
        passed_over = dropped_records(
            [("", example) for example in report.examples], report.passed_over, "Passed over"
        )
        specials = f"special tokens: {visible(' '.join(report.specials))}"
        return Outcome(Group(Sentence(made, 2), *passed_over, Sentence(specials, 2)))


@dataclass(frozen=True)
class Explain:
    """Show one record at every stage, as `sabiprep pack` would treat it."""

    corpus: Corpus
    """The folder with corpus.toml."""
    source: Annotated[str, arg(metavar="NAME")]
    """The source it is a record of."""
    record: Annotated[str, arg(metavar="JSON")]
    """The record as a JSON object, or - to read it from standard input. A line of plain text is
    {"text": "..."}.
    """
    options: ExplainArguments

    def run(self) -> Outcome:
        """Returns the record at every stage."""
        record = _read_stdin() if self.record == "-" else self.record
        explanation = sabiprep.explain(
            record,
            self.source,
            corpus=self.corpus,
            seq_len=self.options.seq_len,
            tokenizer=self.options.tokenizer,
        )
        return Outcome(Group(*(Sentence(line, 4) for line in str(explanation).split("\n"))))


Command = (
    Annotated[Init, subcommand("init", prefix_name=False)]
    | Annotated[Plan, subcommand("plan", prefix_name=False)]
    | Annotated[Pack, subcommand("pack", prefix_name=False)]
    | Annotated[Finish, subcommand("finish", prefix_name=False)]
    | Annotated[Remix, subcommand("remix", prefix_name=False)]
    | Annotated[Inspect, subcommand("inspect", prefix_name=False)]
    | Annotated[Verify, subcommand("verify", prefix_name=False)]
    | Annotated[Explain, subcommand("explain", prefix_name=False)]
    | Annotated[Export, subcommand("export", prefix_name=False)]
    | Annotated[ExportTasks, subcommand("export-tasks", prefix_name=False)]
    | Annotated[Tokenizer, subcommand("tokenizer", prefix_name=False)]
)

DESCRIPTION = """Pack multitask corpora into rows with exact loss masks, and look at what was made.
`sabiprep COMMAND --help` explains a command; `sabiprep --version` names the version."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line (by default the process's own) and returns its exit code.

    Raises:
        SystemExit: If the command line is wrong (2), or asked for help (0).
    """
    accept_any_text()
    code = 0
    command: Command | None = None
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        try:
            command = _parse(arguments)
            code = 1  # until the command has done its work, whoever stops listening
            outcome = command.run()
            code = outcome.code
            show(outcome.shown, sys.stdout)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output left, as `head` does. What is still buffered must not be written
        # at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except SabiprepError as error:
        print(f"sabiprep: {harmless(str(error))}", file=sys.stderr)
        return 130 if isinstance(error, Interrupted) else 1
    except KeyboardInterrupt as stop:
        terminated = isinstance(stop, Terminated)
        print(f"sabiprep: stopped by {'SIGTERM' if terminated else 'Ctrl-C'}", file=sys.stderr)
        if isinstance(command, Pack | Remix) and _can_resume(command):
            given = [word for word in _given(arguments) if word != "--resume"]
            print(f"To go on: {shlex.join(['sabiprep', *given, '--resume'])}", file=sys.stderr)
        return 143 if terminated else 130
    except Exception as error:
        print(f"sabiprep: {harmless(unforeseen(error))}", file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGTERM, previous)
    return code


class Terminated(KeyboardInterrupt):
    """The interruption by SIGTERM: work stops as it does for Ctrl-C."""


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise Terminated


def _can_resume(command: Pack | Remix) -> bool:
    """Returns whether a command has left a run that goes on with ``--resume``."""
    # A part goes on when it is given again.
    if isinstance(command, Pack) and command.part is not None:
        return False
    try:
        state = json.loads(small_file(join(command.out, ".work", "state.json"), MANIFEST_LIMIT))
        return bool(state["stage"] != "kept")
    except (OSError, SabiprepError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _given(arguments: Sequence[str] | None) -> list[str]:
    return sys.argv[1:] if arguments is None else list(arguments)


def _parse(arguments: Sequence[str] | None) -> Command:
    given = _given(arguments)
    if given == ["--version"]:
        print(f"sabiprep {version('sabiprep')}")
        sys.exit(0)
    return tyro.cli(Command, prog="sabiprep", description=DESCRIPTION, args=given)


def _read_stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise InputError(
            f"standard input is not UTF-8: {error}", remedy="give the record as UTF-8"
        ) from error
