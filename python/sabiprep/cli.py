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
from typing import Annotated, Any, Literal, NamedTuple

import tyro
from rich.console import Group, RenderableType
from tyro.conf import FlagCreatePairsOff, Positional, arg, subcommand
from tyro.constructors import PrimitiveConstructorSpec

import sabiprep
from sabiprep.errors import InputError, Interrupted, SabiprepError, unforeseen
from sabiprep.files import MANIFEST_LIMIT, read_whole
from sabiprep.progress import show_progress
from sabiprep.terminal import Sentence, accept_any_text, harmless, show, visible

FromConfig = "(default: as in corpus.toml)"
# tyro's own reading of `int | None` takes the word None, and speaks of instantiated types to who
# mistypes a number.
Number = PrimitiveConstructorSpec(
    nargs=1,
    metavar="N",
    instance_from_str=lambda words: int(words[0]),
    is_instance=lambda value: value is None or isinstance(value, int),
    str_from_instance=lambda value: [str(value)],
)
Corpus = Annotated[Positional[Path], arg(metavar="CORPUS")]
NumberFromConfig = Annotated[int | None, Number, arg(help_behavior_hint=FromConfig)]
TokenizerFile = Annotated[Path | None, arg(metavar="FILE", help_behavior_hint=FromConfig)]
Overwrite = Annotated[FlagCreatePairsOff[bool], arg(help_behavior_hint="")]
Resume = Annotated[FlagCreatePairsOff[bool], arg(help_behavior_hint="")]
KeepSpool = Annotated[FlagCreatePairsOff[bool], arg(help_behavior_hint="")]
SpoolBytes = Annotated[int | None, Number, arg(help_behavior_hint="(default: 192 MiB)")]


class Outcome(NamedTuple):
    """What a command prints, and its exit code."""

    shown: RenderableType
    code: int = 0


@dataclass(frozen=True)
class Pack:
    """Pack a corpus into fixed-length rows with exact loss masks."""

    corpus: Corpus
    """The folder with corpus.toml."""
    out: Annotated[Positional[Path], arg(metavar="OUT")]
    """The folder to make; it must be empty or new. Nothing is written elsewhere."""
    seq_len: NumberFromConfig = None
    """Tokens in a row, a multiple of 64."""
    tokenizer: TokenizerFile = None
    """The tokenizer.json to use."""
    seed: NumberFromConfig = None
    """Decides every random choice: the order of the documents, and which records are held out."""
    threads: Annotated[int | None, Number, arg(help_behavior_hint="(default: all cores)")] = None
    """Threads to work with; they never change the output."""
    split_bytes: Annotated[int | None, Number, arg(help_behavior_hint="")] = None
    """Bytes of input that a thread takes on at a time: a matter of speed only, never of the output.
    """
    spool_bytes: SpoolBytes = None
    """Bytes of tokenized documents held in memory; beyond them they are files in OUT/.work until
    the end.
    """
    overwrite: Overwrite = False
    """Replace the dataset in OUT, once the new one is complete. Any other folder is left alone."""
    resume: Resume = False
    """Go on with the run that was stopped in OUT, if there is one."""
    keep_spool: KeepSpool = False
    """Leave the tokenized documents in OUT/.work, for `sabiprep remix` or for packing a grown
    corpus there.
    """

    def run(self) -> Outcome:
        """Pack, and show the table."""
        with show_progress() as progress:
            options = _options(self) | {"split_bytes": self.split_bytes}
            return Outcome(sabiprep.pack(self.corpus, self.out, progress=progress, **options))


@dataclass(frozen=True)
class Remix:
    """Pack the corpus of a dataset again, from the tokenized documents it kept: new weights, rows,
    validation.
    """

    dataset: Annotated[Positional[Path], arg(metavar="OUT")]
    """A dataset packed with --keep-spool; it stays as it is."""
    out: Annotated[Positional[Path], arg(metavar="NEW")]
    """The folder to make; it must be empty or new."""
    corpus: Annotated[
        Path | None, arg(metavar="CORPUS", help_behavior_hint="(default: where it was)")
    ] = None
    """The folder with corpus.toml."""
    seq_len: NumberFromConfig = None
    """Tokens in a row, a multiple of 64."""
    tokenizer: TokenizerFile = None
    """The tokenizer.json OUT was packed with, if it was moved."""
    seed: NumberFromConfig = None
    """Decides every random choice; another one than OUT's has everything tokenized again."""
    threads: Annotated[int | None, Number, arg(help_behavior_hint="(default: all cores)")] = None
    """Threads to work with; they never change the output."""
    spool_bytes: SpoolBytes = None
    """Bytes of tokenized documents held in memory, of those that are tokenized again."""
    overwrite: Overwrite = False
    """Replace the dataset in NEW, once the new one is complete. Any other folder is left alone."""
    resume: Resume = False
    """Go on with the run that was stopped in NEW, if there is one."""
    keep_spool: KeepSpool = False
    """Have the tokenized documents in NEW/.work too, linked where the file system can."""

    def run(self) -> Outcome:
        """Pack from the spool, and show the table."""
        with show_progress() as progress:
            options = _options(self) | {"corpus": self.corpus}
            return Outcome(sabiprep.remix(self.dataset, self.out, progress=progress, **options))


def _options(command: Pack | Remix) -> dict[str, Any]:
    """The options that both take."""
    names = [
        "seq_len",
        "tokenizer",
        "seed",
        "threads",
        "spool_bytes",
        "overwrite",
        "resume",
        "keep_spool",
    ]
    return {name: getattr(command, name) for name in names}


@dataclass(frozen=True)
class Inspect:
    """Show a row of a packed dataset: its documents decoded, with what is template, data and
    target.
    """

    out: Annotated[Positional[Path], arg(metavar="OUT")]
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
        """Decode the row."""
        from sabiprep.inspection import inspect

        with sabiprep.open_dataset(self.out) as dataset:
            return Outcome(inspect(dataset, split=self.split, row=self.row, source=self.source))


@dataclass(frozen=True)
class Verify:
    """Check a packed dataset: manifest, checksums, and the rules of the loss mask on every row."""

    out: Annotated[Positional[Path], arg(metavar="OUT")]
    """The packed dataset."""
    against: Annotated[Path | None, arg(metavar="CORPUS", help_behavior_hint="")] = None
    """Also derive documents again from the records of this corpus, by the slow path, and compare
    ids and roles.
    """
    sample: Annotated[int, arg(metavar="N")] = 1000
    """Records to derive again, about as many; 0 for all."""

    def run(self) -> Outcome:
        """Verify; exit code 1 if anything is wrong."""
        with show_progress() as progress:
            report = sabiprep.verify(
                self.out, against=self.against, sample=self.sample or None, progress=progress
            )
        checked = f"{report.shards:,} shards, {report.rows:,} rows, {report.documents:,} documents"
        if self.against is not None:
            checked += f"; {report.documents_derived:,} documents of {report.records_derived:,} records derived again"
        if report.ok:
            return Outcome(Sentence(f"{visible(str(self.out))}: in order ({checked})", 2))
        failures = [Sentence(f"  {visible(failure)}", 4) for failure in report.failures]
        head = f"{visible(str(self.out))}: {len(failures)} failed ({checked} were checked)"
        return Outcome(
            Group(
                Sentence(head, 2), *failures, Sentence("Remedy: copy it again, or pack it again", 2)
            ),
            1,
        )


@dataclass(frozen=True)
class Tokenizer:
    """Train a byte-level BPE tokenizer on the texts of a corpus; each tag of its templates is one
    special token.
    """

    action: Annotated[Positional[Literal["train"]], arg(help_behavior_hint="")]
    """What to do: train one."""
    corpus: Corpus
    """The folder with corpus.toml; it need not name a tokenizer yet."""
    file: Annotated[Positional[Path], arg(metavar="FILE")]
    """The tokenizer.json to write."""
    vocab_size: Annotated[int, arg(metavar="N")]
    """Entries wanted; a small corpus may yield fewer."""
    overwrite: Overwrite = False
    """Replace FILE if it exists."""

    def run(self) -> Outcome:
        """Train and write the file."""
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
    """Show one record at every stage, as `sabiprep pack` would treat it: text, runs, tokens, what
    is trained.
    """

    corpus: Corpus
    """The folder with corpus.toml."""
    source: Annotated[str, arg(metavar="NAME")]
    """The source it is a record of."""
    record: Annotated[str, arg(metavar="JSON")]
    """The record as a JSON object, or - to read it from standard input. A line of plain text is
    {"text": "..."}.
    """
    seq_len: NumberFromConfig = None
    """Tokens in a row, a multiple of 64."""
    tokenizer: TokenizerFile = None
    """The tokenizer.json to use."""

    def run(self) -> Outcome:
        """Explain the record."""
        record = _read_stdin() if self.record == "-" else self.record
        explanation = sabiprep.explain(
            record, self.source, corpus=self.corpus, seq_len=self.seq_len, tokenizer=self.tokenizer
        )
        return Outcome(Group(*(Sentence(line, 4) for line in str(explanation).split("\n"))))


Command = (
    Annotated[Pack, subcommand("pack", prefix_name=False)]
    | Annotated[Remix, subcommand("remix", prefix_name=False)]
    | Annotated[Inspect, subcommand("inspect", prefix_name=False)]
    | Annotated[Verify, subcommand("verify", prefix_name=False)]
    | Annotated[Explain, subcommand("explain", prefix_name=False)]
    | Annotated[Tokenizer, subcommand("tokenizer", prefix_name=False)]
)

DESCRIPTION = """Pack multitask corpora into fixed-length rows with exact loss masks, and look at what was made.
`sabiprep COMMAND --help` explains a command; `sabiprep --version` names the version."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (by default the process's own) and give its exit code.

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
        if isinstance(command, Pack | Remix) and _is_unfinished(command.out):
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
    """The process was asked to end (SIGTERM): work stops as it does for Ctrl-C."""


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise Terminated


def _is_unfinished(out: Path) -> bool:
    """Whether a run that can go on is in ``out``."""
    try:
        stage = json.loads(read_whole(out / ".work" / "state.json", MANIFEST_LIMIT))["stage"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
    return bool(stage != "kept")


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
