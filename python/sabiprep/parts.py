"""A run in parts: what an array of jobs needs, which knows nothing of its other jobs.

Each part of a corpus is read and tokenized by a process of its own, on any machine that sees the
same folders; then one process finishes the dataset, or settles it for others to make its shards.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from sabiprep.api import Progress, prepared
from sabiprep.errors import ConfigError
from sabiprep.options import PackOptions, StrPath, checked_number
from sabiprep.report import PackReport

MOST_PARTS = 1 << 20


@dataclass(frozen=True, kw_only=True)
class PartReport:
    """What was done of a run in parts."""

    tasks: int
    """Input splits, or shards, of this part."""
    reused: int
    """Those that an earlier run had made."""
    all: int
    """Those of all parts."""
    bytes: int
    """Bytes of input of this part."""
    template_notes: list[str]
    """A sentence for each source about whose templates there is something to say."""


def pack_part(
    corpus: StrPath,
    out: StrPath,
    part: int,
    parts: int,
    options: PackOptions = PackOptions(),
    *,
    progress: Progress | None = None,
) -> PartReport:
    """Reads and tokenizes one part of a corpus, as ``sabiprep pack --part`` does.

    Parts may run at a time, on any machines that see both folders; `finish` makes the dataset of
    them, with the bytes that `pack` gives.

    Args:
        corpus: The folder with ``corpus.toml``.
        out: The folder of the dataset, which all parts share.
        part: The part, from 1 to ``parts``.
        parts: The number of parts.
        options: The settings of the run, the same for every part.
        progress: The function that is called with the progress of the work.

    Returns:
        What was done.

    Raises:
        ConfigError: As for `pack`, or if there is no such part.
        InputError: As for `pack`.
        TokenizerError: As for `pack`.
        OutputError: As for `pack`, or if the run in ``out`` is another.
    """
    _checked_part(part, parts)
    core, corpus, out, options, hub = prepared(corpus, out, options)
    made = core.map_part(corpus, out, options, (part - 1, parts), progress, hub=hub)
    return PartReport(**json.loads(made))


def settle(
    corpus: StrPath,
    out: StrPath,
    options: PackOptions = PackOptions(),
    *,
    progress: Progress | None = None,
) -> int:
    """Settles a dataset whose parts are done, so that `finish_part` can make its shards.

    Args:
        corpus: As for `pack_part`.
        out: As for `pack_part`.
        options: As for `pack_part`.
        progress: The function that is called with the progress of the work.

    Returns:
        The number of shards.

    Raises:
        OutputError: If there is no run in parts in ``out``, or a part is not done.
        ConfigError: As for `pack`.
        InputError: As for `pack`.
        TokenizerError: As for `pack`.
    """
    core, corpus, out, options, hub = prepared(corpus, out, options)
    shards: int = core.settle_parts(corpus, out, options, progress, hub=hub)
    return shards


def finish_part(
    corpus: StrPath,
    out: StrPath,
    part: int,
    parts: int,
    options: PackOptions = PackOptions(),
    *,
    progress: Progress | None = None,
) -> PartReport:
    """Makes a part of the shards of a dataset that `settle` has settled.

    Args:
        corpus: As for `pack_part`.
        out: As for `pack_part`.
        part: The part of the shards, from 1 to ``parts``.
        parts: The number of parts, which need not be that of `pack_part`.
        options: As for `pack_part`.
        progress: The function that is called with the progress of the work.

    Returns:
        What was done; its tasks are shards.

    Raises:
        OutputError: If the dataset is not settled, or a shard cannot be written.
        ConfigError: As for `pack_part`.
        InputError: As for `pack`.
        TokenizerError: As for `pack`.
    """
    _checked_part(part, parts)
    core, corpus, out, options, hub = prepared(corpus, out, options)
    worker = core.Worker(corpus, out, options, hub=hub)
    tasks, all_tasks = worker.reduce_part((part - 1, parts), progress)
    return PartReport(tasks=tasks, reused=0, all=all_tasks, bytes=0, template_notes=[])


def finish(
    corpus: StrPath,
    out: StrPath,
    options: PackOptions = PackOptions(),
    *,
    progress: Progress | None = None,
) -> PackReport:
    """Finishes a dataset whose parts are done, as ``sabiprep finish`` does.

    Shards that `finish_part` has made serve as they are; the others are made here.

    Args:
        corpus: As for `pack_part`.
        out: As for `pack_part`.
        options: As for `pack_part`.
        progress: The function that is called with the progress of the work.

    Returns:
        The counts of the dataset, by split, task and source.

    Raises:
        OutputError: If there is no run in parts in ``out``, or a part is not done.
        ConfigError: As for `pack`.
        InputError: As for `pack`.
        TokenizerError: As for `pack`.
    """
    core, corpus, out, options, hub = prepared(corpus, out, options)
    made = core.finish(corpus, out, options, progress, hub=hub)
    return PackReport.from_json(json.loads(made), Path(os.fsdecode(out)))


def _checked_part(part: int, parts: int) -> None:
    """Refuses a part that there is not.

    Raises:
        ConfigError: If ``part`` is not one of 1 to ``parts``.
    """
    most = checked_number("parts", parts, 1, MOST_PARTS)
    if checked_number("part", part, 1, MOST_PARTS) is None or most is None or part > most:
        raise ConfigError(f"part {part} of {parts} is none", remedy="give a part from 1 to parts")
