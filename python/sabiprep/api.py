"""The functions that need the compiled core: their arguments checked, their results made into
objects.

The core is imported when one of them is called, so that everything else works without it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from sabiprep.errors import ConfigError, InputError, SabiprepError
from sabiprep.explanation import Explanation
from sabiprep.report import PackReport, TokenizerReport, VerifyReport

StrPath = str | os.PathLike[str]


class Progress(Protocol):
    """What is told how far the work has come, about twenty times a second, from the calling thread.

    An exception that it raises stops the work and is raised again once it has stopped.
    `sabiprep.progress.show_progress` makes one that draws a bar.
    """

    def __call__(self, phase: str, records: int, done: int, total: int, tokens: int, /) -> object:
        """Show it.

        Args:
            phase: "plan", "map", "reduce", "verify" or "train".
            records: Records read.
            done: Bytes of input read (map, train) or rows (reduce, verify) done in this phase.
            total: What ``done`` ends at; 0 if unknown. Bytes on the disk: ``done`` passes it if
                they are compressed.
            tokens: Tokens made.
        """


def pack(
    corpus: StrPath,
    out: StrPath,
    *,
    seq_len: int | None = None,
    tokenizer: StrPath | None = None,
    seed: int | None = None,
    threads: int | None = None,
    overwrite: bool = False,
    resume: bool = False,
    keep_spool: bool = False,
    spool_bytes: int | None = None,
    split_bytes: int | None = None,
    progress: Progress | None = None,
) -> PackReport:
    """Pack a corpus into the dataset folder ``out``: what ``sabiprep pack`` does.

    Args:
        corpus: The folder with ``corpus.toml``.
        out: The folder to make: missing or empty, or a dataset of ours if ``overwrite``.
        seq_len: Tokens in a row, a multiple of 64; instead of the one in ``corpus.toml``.
        tokenizer: A tokenizer.json; instead of the one in ``corpus.toml``.
        seed: Decides every random choice, from 0 to 2**64 - 1; instead of the one in
            ``corpus.toml``.
        threads: Threads to work with, all cores by default; never changes the output.
        overwrite: Replace a dataset of ours in ``out``, once the new one is complete.
        resume: Go on with a run that was stopped in ``out``; without one, pack as usual.
        keep_spool: Leave the tokenized documents in ``out``, for `remix` or for packing a grown
            corpus there.
        spool_bytes: Bytes of tokenized documents held in memory, 192 MiB by default; beyond them
            they are files in ``out`` until the end. Never changes the output.
        split_bytes: Bytes of input a task takes on; a matter of speed alone, never of the output.
        progress: Told how far the work has come.

    Raises:
        ConfigError: If ``corpus.toml`` or an argument cannot be right.
        InputError: If an input cannot be read, or a record's policy is to stop.
        TokenizerError: If the tokenizer cannot be loaded, or cannot serve this configuration.
        OutputError: If ``out`` must not, or cannot, be written to, or a run in it cannot be
            resumed.
    """
    seq_len, seed, threads, spool_bytes = _checked_options(seq_len, seed, threads, spool_bytes)
    split_bytes = _checked("split_bytes", split_bytes, 1, 2**63 - 1)
    with compiled():
        from sabiprep import _core
    made = _core.pack(
        corpus,
        out,
        seq_len=seq_len,
        tokenizer=tokenizer,
        seed=seed,
        threads=threads,
        split_bytes=split_bytes,
        spool_bytes=spool_bytes,
        overwrite=overwrite,
        resume=resume,
        keep_spool=keep_spool,
        progress=progress,
    )
    return PackReport.from_json(json.loads(made), Path(os.fsdecode(out)))


def remix(
    dataset: StrPath,
    out: StrPath,
    *,
    corpus: StrPath | None = None,
    seq_len: int | None = None,
    tokenizer: StrPath | None = None,
    seed: int | None = None,
    threads: int | None = None,
    overwrite: bool = False,
    resume: bool = False,
    keep_spool: bool = False,
    spool_bytes: int | None = None,
    progress: Progress | None = None,
) -> PackReport:
    """Pack the corpus of ``dataset`` again, as its ``corpus.toml`` is now: what ``sabiprep remix``
    does.

    The documents come from the spool that ``dataset`` kept, so that new epochs, rows, overflow or
    validation cost no tokenizing; a source whose templates or files changed is tokenized again. The
    bytes are those that `pack` gives.

    Args:
        dataset: A dataset packed with ``keep_spool``; it stays as it is.
        out: The folder to make, as for `pack`.
        corpus: The folder with ``corpus.toml``; by default where it was when ``dataset`` was
            packed.
        seq_len: As for `pack`.
        tokenizer: As for `pack`; if neither this nor ``corpus.toml`` names one, the one ``dataset``
            was packed with.
        seed: As for `pack`. Another one than that of ``dataset`` has everything tokenized again.
        threads: As for `pack`.
        overwrite: As for `pack`.
        resume: As for `pack`.
        keep_spool: As for `pack`.
        spool_bytes: As for `pack`.
        progress: Told how far the work has come.

    Raises:
        DatasetError: If ``dataset`` keeps no spool, or it is damaged.
        ConfigError: As for `pack`.
        InputError: As for `pack`.
        TokenizerError: As for `pack`.
        OutputError: As for `pack`.
    """
    seq_len, seed, threads, spool_bytes = _checked_options(seq_len, seed, threads, spool_bytes)
    with compiled():
        from sabiprep import _core
    made = _core.remix(
        dataset,
        out,
        corpus=corpus,
        seq_len=seq_len,
        tokenizer=tokenizer,
        seed=seed,
        threads=threads,
        spool_bytes=spool_bytes,
        overwrite=overwrite,
        resume=resume,
        keep_spool=keep_spool,
        progress=progress,
    )
    return PackReport.from_json(json.loads(made), Path(os.fsdecode(out)))


def _checked_options(
    seq_len: int | None, seed: int | None, threads: int | None, spool_bytes: int | None
) -> tuple[int | None, int | None, int, int | None]:
    """What `pack` and `remix` are told, checked; the threads filled in."""
    threads = _checked("threads", threads, 1, 4096)
    return (
        _checked("seq_len", seq_len, 1, 2**31 - 1),
        _checked("seed", seed, 0, 2**64 - 1),
        available_cores() if threads is None else threads,
        _checked("spool_bytes", spool_bytes, 0, 2**63 - 1),
    )


def verify(
    out: StrPath,
    *,
    against: StrPath | None = None,
    sample: int | None = 1000,
    threads: int | None = None,
    progress: Progress | None = None,
) -> VerifyReport:
    """Check a packed dataset: its checksums, and the rules of the mask contract on every row.

    With ``against``, also derive documents again from their records, by the slow path, and compare
    ids and roles.

    Args:
        out: The dataset's folder.
        against: The folder of the corpus it was packed from, with its ``corpus.toml`` as it was
            then.
        sample: Records to derive again, about as many, chosen by hash; None for all.
        threads: Threads to derive with, all cores by default.
        progress: Told how far the work has come.

    Returns:
        What was checked and what is wrong; nothing is raised for a damaged shard.

    Raises:
        DatasetError: If there is no manifest, or it was altered.
        InputError: If ``against`` is not the corpus it was packed from; it says what differs.
        ConfigError: If an argument, or the ``corpus.toml`` of ``against``, cannot be right.
    """
    sample = _checked("sample", sample, 1, 2**63 - 1)
    threads = _checked("threads", threads, 1, 4096)
    with compiled():
        from sabiprep import _core
    found = json.loads(_core.verify(out, progress=progress))
    derived: dict[str, Any] = {"records": 0, "documents": 0, "failures": []}
    # A dataset that is damaged already need not be read to know it.
    if against is not None and not found["failures"]:
        threads = available_cores() if threads is None else threads
        derived = json.loads(
            _core.verify_against(out, against, sample=sample, threads=threads, progress=progress)
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
    """Show one record at every stage, from its fields to its tokens, as `pack` would treat it.

    Args:
        record: Its fields, or the text of the JSON object that holds them; a line of plain text is
            ``{"text": line}``.
        source: The source of ``corpus.toml`` it belongs to.
        corpus: The folder with ``corpus.toml``.
        seq_len: As for `pack`.
        tokenizer: As for `pack`.

    Raises:
        ConfigError: If ``corpus.toml`` or an argument cannot be right, or there is no such source.
        InputError: If the record's fields cannot be written as JSON.
        TokenizerError: As for `pack`.
    """
    seq_len = _checked("seq_len", seq_len, 1, 2**31 - 1)
    with compiled():
        from sabiprep import _core
    text = _as_json(record)
    stages, tokens = _core.explain(corpus, source, text, seq_len=seq_len, tokenizer=tokenizer)
    return Explanation.from_json(json.loads(stages), record=text, tokens=tokens)


def train_tokenizer(
    corpus: StrPath,
    file: StrPath,
    vocab_size: int,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> TokenizerReport:
    """Train a byte-level BPE tokenizer on the texts of a corpus; every tag in the templates is one
    special token.

    Args:
        corpus: The folder with ``corpus.toml``; the tokenizer it names, if any, is not read.
        file: The tokenizer.json to write.
        vocab_size: Entries wanted. A small corpus may yield fewer.
        overwrite: Replace ``file`` if it exists.
        progress: Told how far the work has come.

    Raises:
        ConfigError: If ``corpus.toml`` or an argument cannot be right.
        InputError: If an input cannot be read, or there is no text to train on.
        TokenizerError: If no tokenizer of that size can be made.
        OutputError: If ``file`` exists, or cannot be written.
    """
    _checked("vocab_size", vocab_size, 1, 2**32 - 1)
    with compiled():
        from sabiprep import _core
    made = _core.train_tokenizer(corpus, file, vocab_size, overwrite=overwrite, progress=progress)
    return TokenizerReport.from_json(os.fspath(file), json.loads(made))


def available_cores() -> int:
    """The cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def compiled() -> Iterator[None]:
    """Around an import of the core: where it fails, the error says what to do.

    Raises:
        SabiprepError: If the core cannot be imported.
    """
    try:
        yield
    except ImportError as error:
        raise SabiprepError(
            f"the compiled core of sabiprep cannot be loaded: {error}",
            remedy="install a wheel of sabiprep for this platform, or build it in a checkout with `make setup`",
        ) from error


def _checked(name: str, value: int | None, low: int, high: int) -> int | None:
    """``value``, if it is None or a whole number from ``low`` to ``high``."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(
            f"{name} is {value!r}", remedy=f"give a whole number from {low} to {high}"
        )
    return value


def _as_json(record: Mapping[str, Any] | str) -> str:
    """The record as the text of a JSON object."""
    try:
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
            remedy="give its fields as text, numbers, truth values, lists and mappings, or give the line itself",
        ) from error
