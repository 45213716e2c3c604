"""The functions that need the compiled core.

The functions check their arguments and make objects of the core's results. The core is imported by
the first call, so that everything else works without it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, get_args

from sabiprep.benchmarks import benchmark_files
from sabiprep.errors import ConfigError, InputError, SabiprepError
from sabiprep.explanation import Explanation
from sabiprep.hub import HubFiles, corpus_of, hub_files
from sabiprep.options import LARGEST, PackOptions, StrPath, checked_number, checked_path
from sabiprep.places import place_of
from sabiprep.report import PackReport, TokenizerReport, VerifyReport
from sabiprep.survey import CorpusPlan

Engine = Literal["threads", "ray"]


class Progress(Protocol):
    """A function that the work calls with its progress, about twenty times a second.

    The calls come from the thread that called the work. An exception from the function stops the
    work and is then raised again. `sabiprep.progress.show_progress` gives one that draws a bar.
    """

    def __call__(self, phase: str, records: int, done: int, total: int, tokens: int, /) -> object:
        """Takes the counters of the current phase.

        Args:
            phase: "plan", "map", "reduce", "verify", "train" or "export".
            records: Records read.
            done: Bytes of input read (map, train) or rows (the others) done in this phase.
            total: The last value of ``done``, or 0 if unknown. It counts bytes on the disk, so
                ``done`` passes it for compressed files.
            tokens: Tokens made.
        """


def pack(
    corpus: StrPath,
    out: StrPath,
    options: PackOptions = PackOptions(),
    *,
    engine: Engine = "threads",
    ray_address: str | None = None,
    progress: Progress | None = None,
) -> PackReport:
    """Packs a corpus into the dataset folder ``out``, as ``sabiprep pack`` does.

    Args:
        corpus: The folder with ``corpus.toml``.
        out: The folder to make: missing or empty, or a dataset of ours if ``options.overwrite``.
        options: The settings of the run. On a Ray cluster, ``threads`` are the cores of each task
            (by default 1).
        engine: Where the work is done: on threads of this process, or by the workers of a Ray
            cluster whose nodes see both folders. The dataset has the same bytes.
        ray_address: The address of the Ray cluster; None takes ``RAY_ADDRESS``, or the cluster that
            runs on this machine, or starts one on its cores.
        progress: The function that is called with the progress of the work.

    Returns:
        The counts of the dataset, by split, task and source.

    Raises:
        ConfigError: If ``corpus.toml`` or an option cannot be right.
        SabiprepError: If Ray is not installed, its cluster cannot be reached, or workers are lost
            again and again.
        InputError: If an input cannot be read, or a record's policy is to stop.
        TokenizerError: If the tokenizer cannot be loaded, or cannot serve this configuration.
        OutputError: If ``out`` must not, or cannot, be written to, or a run in it cannot be
            resumed.
    """
    if engine not in get_args(Engine):
        raise ConfigError(f"engine is {engine!r}", remedy="give threads or ray")
    if engine == "threads":
        if ray_address is not None:
            raise ConfigError(
                "the address of a Ray cluster (--ray-address, ray_address) is given without Ray",
                remedy="set the engine to ray (--engine ray)",
            )
        return _pack(corpus, out, options, progress)
    from sabiprep.ray_engine import ray_workers

    core, corpus, out, leader, hub = prepared(corpus, out, options)
    leader = replace(leader, threads=available_cores())
    with ray_workers(corpus, out, options, ray_address) as workers:
        made = json.loads(core.pack_with(corpus, out, leader, workers, progress, hub=hub))
        made |= {"threads": workers.cores or 1, "cluster": workers.cluster}
    return PackReport.from_json(made, Path(os.fsdecode(out)))


class Prepared(NamedTuple):
    """The arguments of the core's functions, checked, and the core itself."""

    core: Any
    corpus: str
    out: str
    options: PackOptions
    hub: HubFiles


def prepared(corpus: StrPath, out: StrPath, options: PackOptions) -> Prepared:
    """Returns the arguments of a run as the core takes them; the options have their threads.

    Raises:
        ConfigError: If an argument cannot be right.
        SabiprepError: If the core cannot be imported.
    """
    if not isinstance(options, PackOptions):
        raise ConfigError(f"options are {options!r}", remedy="give them as sabiprep.PackOptions(…)")
    for name, value in (("corpus", corpus), ("out", out)):
        checked_path(name, value)
        if value is None:
            raise ConfigError(f"{name} is None", remedy="name the folder")
    with compiled():
        from sabiprep import _core
    # Resolved here, since Python knows the cores that the process may use.
    options = replace(options, threads=options.threads or available_cores())
    hub = named_files(corpus, options.reuse)
    return Prepared(_core, place_of(corpus), place_of(out), options, hub)


def remix(
    dataset: StrPath,
    out: StrPath,
    options: PackOptions = PackOptions(),
    *,
    corpus: StrPath | None = None,
    progress: Progress | None = None,
) -> PackReport:
    """Packs the corpus of ``dataset`` again, as its ``corpus.toml`` is now.

    The documents come from the spool that ``dataset`` kept, so that new epochs, rows, overflow or
    validation cost no tokenizing. A source whose templates or files changed is tokenized again, and
    with another seed every source is. The bytes are those that `pack` gives.

    Args:
        dataset: A dataset packed with ``keep_spool``; it stays as it is.
        out: The folder to make, as for `pack`.
        options: The settings of the run. Without a tokenizer here or in ``corpus.toml``, the
            tokenizer of ``dataset`` is used.
        corpus: The folder with ``corpus.toml``; by default its place when ``dataset`` was packed.
        progress: The function that is called with the progress of the work.

    Returns:
        The counts of the new dataset, by split, task and source.

    Raises:
        DatasetError: If ``dataset`` keeps no spool, or it is damaged.
        ConfigError: As for `pack`.
        InputError: As for `pack`.
        TokenizerError: As for `pack`.
        OutputError: As for `pack`.
    """
    if options.reuse is not None:
        raise ConfigError("reuse is set, and remix names the dataset", remedy="leave reuse out")
    # Packing with documents from elsewhere: every other rule is that of `pack`.
    return _pack(corpus, out, replace(options, reuse=dataset), progress)


def named_files(corpus: StrPath | None, reuse: StrPath | None = None) -> HubFiles:
    """Returns the files that a corpus names and the core cannot find by itself, by what names them.

    Args:
        corpus: The corpus; None for that of the dataset ``reuse``.
        reuse: The dataset whose kept documents are used again, if one is.
    """
    folder = corpus_of(reuse) if corpus is None else place_of(corpus)
    files = benchmark_files(folder)
    # Of one class, whose files live as long as it does.
    files.update(hub_files(corpus, reuse))
    return files


def _pack(
    corpus: StrPath | None, out: StrPath, options: PackOptions, progress: Progress | None
) -> PackReport:
    """Calls the core. Without ``corpus``, the core takes the corpus of the reused dataset."""
    if not isinstance(options, PackOptions):
        raise ConfigError(f"options are {options!r}", remedy="give them as sabiprep.PackOptions(…)")
    checked_path("corpus", corpus)
    checked_path("out", out)
    if out is None:
        raise ConfigError("out is None", remedy="name the folder of the dataset")
    with compiled():
        from sabiprep import _core
    # Resolved here, since Python knows the cores that the process may use.
    options = replace(options, threads=options.threads or available_cores())
    hub = named_files(corpus, options.reuse)
    corpus = None if corpus is None else place_of(corpus)
    made = _core.pack(corpus, place_of(out), options, progress, hub=hub)
    return PackReport.from_json(json.loads(made), Path(os.fsdecode(out)))


def verify(
    out: StrPath,
    *,
    against: StrPath | None = None,
    sample: int | None = 1000,
    threads: int | None = None,
    progress: Progress | None = None,
) -> VerifyReport:
    """Checks the checksums of a dataset, and the mask contract on every row.

    With ``against``, documents are also derived again from their records, by the slow path, and
    their ids and roles compared.

    Args:
        out: The dataset's folder.
        against: The folder of the dataset's corpus, with ``corpus.toml`` as it was then.
        sample: The approximate number of records to derive again, chosen by hash; None for all.
        threads: Threads to derive with, all cores by default.
        progress: The function that is called with the progress of the work.

    Returns:
        The counts and the failures; nothing is raised for a damaged shard.

    Raises:
        DatasetError: If there is no manifest, or it was altered.
        InputError: If ``against`` is not the dataset's corpus; the message names the difference.
        ConfigError: If an argument, or the ``corpus.toml`` of ``against``, cannot be right.
    """
    # Before the core is imported: a wrong argument is refused without it.
    sample = checked_number("sample", sample, 1, LARGEST)
    threads = checked_number("threads", threads, 1, 4096)
    with compiled():
        from sabiprep import _core
    found = json.loads(_core.verify(place_of(out), progress=progress))
    derived: dict[str, Any] = {"records": 0, "documents": 0, "failures": []}
    # A dataset that is damaged already need not be read to know it.
    if against is not None and not found["failures"]:
        threads = available_cores() if threads is None else threads
        derived = json.loads(
            _core.verify_against(
                place_of(out),
                place_of(against),
                sample=sample,
                threads=threads,
                progress=progress,
                hub=named_files(against),
            )
        )
    return VerifyReport(
        shards=found["shards"],
        rows=found["rows"],
        documents=found["documents"],
        records_derived=derived["records"],
        documents_derived=derived["documents"],
        failures=found["failures"] + derived["failures"],
    )


def explain(
    record: Mapping[str, Any] | str,
    source: str,
    *,
    corpus: StrPath = ".",
    seq_len: int | None = None,
    tokenizer: StrPath | None = None,
) -> Explanation:
    """Returns one record at every stage, from its fields to its tokens, as `pack` treats it.

    A record that makes several documents has the others in `Explanation.others`. Where a record
    takes one of several templates, all of them are shown, since `pack` chooses by its place in its
    file.

    Args:
        record: The fields of the record, or the text of a JSON object with the fields; a line of
            plain text is ``{"text": line}``.
        source: The source of the record in ``corpus.toml``; with document tables, the name of the
            source or that of one table (``"news/1"``).
        corpus: The folder with ``corpus.toml``.
        seq_len: As for `pack`.
        tokenizer: As for `pack`.

    Raises:
        ConfigError: If ``corpus.toml`` or an argument cannot be right, or there is no such source.
        InputError: If the record's fields cannot be written as JSON.
        TokenizerError: As for `pack`.
    """
    options = PackOptions(seq_len=seq_len, tokenizer=tokenizer, threads=1)
    with compiled():
        from sabiprep import _core
    text = _as_json(record)
    stages, tokens = _core.explain(place_of(corpus), source, text, options, hub=named_files(corpus))
    return Explanation.from_json(json.loads(stages), record=text, tokens=tokens)


def plan(corpus: StrPath, options: PackOptions = PackOptions()) -> CorpusPlan:
    """Looks at a corpus before it is packed, as ``sabiprep plan`` does.

    Reads the starts of files and a few places of long ones, never a whole corpus. Whatever is wrong
    with the configuration, the tokenizer or the files is one of the problems of the result.

    Args:
        corpus: The corpus folder; without a ``corpus.toml``, its sources are guessed.
        options: The settings of the run that is planned; only ``seq_len``, ``tokenizer`` and
            ``threads`` matter.

    Returns:
        The sources with their first records, estimates of what packing would give, and problems.

    Raises:
        ConfigError: If there is no such folder.
        InputError: If the folder cannot be listed.
    """
    options = _resolved(corpus, options)
    with compiled():
        from sabiprep import _core
    return CorpusPlan.from_json(
        json.loads(_core.survey(place_of(corpus), options, hub=named_files(corpus)))
    )


def init(
    corpus: StrPath,
    options: PackOptions = PackOptions(),
    *,
    overwrite: bool = False,
    write: bool = True,
) -> str:
    """Returns a ``corpus.toml`` guessed from the files of a folder, and writes it there.

    It packs to the same documents as the folder without it.

    Args:
        corpus: The folder with the files.
        options: ``tokenizer`` names the tokenizer whose EOS is written.
        overwrite: Whether to replace a ``corpus.toml`` that is there.
        write: Whether to write the file, rather than only return its text.

    Raises:
        ConfigError: If there is no such folder.
        InputError: If the folder has no data file, or cannot be listed.
        OutputError: If ``corpus.toml`` exists, or cannot be written.
    """
    options = replace(_resolved(corpus, options), overwrite=overwrite)
    with compiled():
        from sabiprep import _core
    return _core.init(place_of(corpus), options, write=write)


def _resolved(corpus: StrPath, options: PackOptions) -> PackOptions:
    """Returns the options with their threads, after a check of both arguments."""
    if not isinstance(options, PackOptions):
        raise ConfigError(f"options are {options!r}", remedy="give them as sabiprep.PackOptions(…)")
    checked_path("corpus", corpus)
    if corpus is None:
        raise ConfigError("corpus is None", remedy="name the folder of the corpus")
    return replace(options, threads=options.threads or available_cores())


def train_tokenizer(
    corpus: StrPath,
    file: StrPath,
    vocab_size: int,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> TokenizerReport:
    """Trains a byte-level BPE tokenizer on the texts of a corpus.

    Every tag in the templates becomes one special token.

    Args:
        corpus: The folder with ``corpus.toml``; the tokenizer it names, if any, is not read.
        file: The tokenizer.json to write.
        vocab_size: Entries wanted; a small corpus may yield fewer.
        overwrite: Whether to replace ``file`` if it exists.
        progress: The function that is called with the progress of the work.

    Raises:
        ConfigError: If ``corpus.toml`` or an argument cannot be right.
        InputError: If an input cannot be read, or there is no text to train on.
        TokenizerError: If no tokenizer of that size can be made.
        OutputError: If ``file`` exists, or cannot be written.
    """
    # Ids are 32-bit in the core; a larger number would not reach it.
    checked_number("vocab_size", vocab_size, 1, 2**32 - 1)
    with compiled():
        from sabiprep import _core
    made = _core.train_tokenizer(
        place_of(corpus),
        place_of(file),
        vocab_size,
        overwrite=overwrite,
        progress=progress,
        hub=named_files(corpus),
    )
    return TokenizerReport.from_json(place_of(file), json.loads(made))


def available_cores() -> int:
    """Returns the number of cores that this process may run on."""
    # macOS has no such question; a container may allow fewer cores than the machine has.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def compiled() -> Iterator[None]:
    """Turns a failed import of the core, within the ``with``, into an error with a remedy.

    Raises:
        SabiprepError: If the core cannot be imported.
    """
    try:
        yield
    except ImportError as error:
        raise SabiprepError(
            f"the compiled core of sabiprep cannot be loaded: {error}",
            remedy="install a wheel of sabiprep for this platform, "
            "or build it in a checkout with `make setup`",
        ) from error


def _as_json(record: Mapping[str, Any] | str) -> str:
    """Returns the record as the text of a JSON object."""
    try:
        # Encoded and decoded once, which refuses lone surrogates: the core takes UTF-8 alone.
        if not isinstance(record, str):
            return (
                json.dumps(dict(record), ensure_ascii=False, allow_nan=False)
                .encode("utf-8")
                .decode()
            )
        return record.encode("utf-8").decode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"the record cannot be written as JSON: {error}",
            remedy="give its fields as text, numbers, truth values, lists and mappings, "
            "or give the line itself",
        ) from error
