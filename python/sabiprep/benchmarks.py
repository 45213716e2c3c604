"""Tasks of `lm-eval` that a ``corpus.toml`` keeps training clean of: ``"lm-eval:TASK"``.

The core reads files. This module has `lm-eval` load the documents of each task and writes their
texts to files of a temporary folder, a line a document. The name of each holds the task, its
version and its split, so a dataset does not depend on where the folder lies; the dataset records
the checksum of the file.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import shutil
import tempfile
import tomllib
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from sabiprep.corpus_file import config_text
from sabiprep.errors import ConfigError, InputError, SabiprepError
from sabiprep.places import StrPath, is_remote

SCHEME = "lm-eval:"


class BenchmarkFiles(dict[str, list[tuple[str, str]]]):
    """By the name in ``corpus.toml``: the path of each task's file, and its name in the dataset.

    The files are removed together with this object.
    """

    def folder(self) -> Path:
        """Makes the folder of the files and returns it."""
        folder = tempfile.mkdtemp(prefix="sabiprep-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return Path(folder)


def benchmark_files(corpus: StrPath | None) -> BenchmarkFiles:
    """Loads the tasks that a corpus names, and writes the texts of their documents.

    Args:
        corpus: The folder with ``corpus.toml``; None names no task.

    Returns:
        The files; empty, without a look at `lm-eval`, if no task is named.

    Raises:
        ConfigError: If there is no task of a name.
        InputError: If the documents of a task cannot be had.
        SabiprepError: If `lm-eval` is not installed.
    """
    files = BenchmarkFiles()
    named = [] if corpus is None else list(dict.fromkeys(_names(corpus)))
    if corpus is None or not named:
        return files
    folder = files.folder()
    for name in named:
        files[name] = [
            _written(task, folder / f"{len(files)}-{nth}.jsonl", name)
            for nth, task in enumerate(_tasks(name, corpus))
        ]
    return files


def _names(corpus: StrPath) -> Iterator[str]:
    """Yields each task that ``decontaminate`` names, as it is written.

    A file that cannot be read, or is no TOML, names none here: the core says what is wrong with it.
    """
    text = config_text(corpus)
    if text is None or SCHEME not in text:
        return
    try:
        pack = tomllib.loads(text).get("pack")
    except (ValueError, RecursionError):
        return
    listed = pack.get("decontaminate") if isinstance(pack, dict) else None
    for name in listed if isinstance(listed, list) else ():
        if isinstance(name, str) and name.startswith(SCHEME):
            yield name


def _tasks(name: str, corpus: StrPath) -> list[Any]:
    """Returns the task of a name, or those of a group, loaded."""
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise SabiprepError(
            f"tasks of lm-eval need lm-eval: {error}",
            file=name,
            remedy="pip install 'sabiprep[lm-eval]', or name a file with the test set",
        ) from error
    place, _, task = name.removeprefix(SCHEME).rpartition("/")
    if place and is_remote(corpus):
        raise ConfigError(
            f"{place} would be a folder of a bucket, and lm-eval reads tasks from a disk alone",
            file=name,
            remedy="write lm-eval:TASK for a task that is installed",
        )
    folder = Path(corpus) / place
    if place and not folder.is_dir():
        raise ConfigError(
            f"{place} is no folder of the corpus",
            file=name,
            remedy="write lm-eval:TASK for a task that is installed, lm-eval:FOLDER/TASK for one "
            "whose YAML is in a folder",
        )
    # What lm-eval prints is not for the reader of a JSON report.
    with contextlib.redirect_stdout(None):
        manager = TaskManager(include_path=str(folder) if place else None)
        if task not in manager.all_tasks:
            near = difflib.get_close_matches(task, manager.all_tasks, 3, 0.5)
            raise ConfigError(
                f"lm-eval has no task '{task}'",
                file=name,
                remedy=f"did you mean {' or '.join(near)}?"
                if near
                else "`lm_eval ls tasks` lists what is installed",
            )
        try:
            return list(manager.load([task])["tasks"].values())
        except Exception as error:
            raise _unreadable(name, error) from error


def _written(task: Any, path: Path, name: str) -> tuple[str, str]:
    """Writes the texts of a task's documents; returns the path and the name in the dataset."""
    config = task.config
    split = config.test_split if task.has_test_docs() else config.validation_split
    version = (config.metadata or {}).get("version", task.VERSION)
    encoder = msgspec.json.Encoder()
    try:
        with path.open("xb") as file:
            for document in task.eval_docs:
                file.write(encoder.encode(_texts(task, document)) + b"\n")
    except Exception as error:
        raise _unreadable(name, error) from error
    return str(path), f"{SCHEME}{config.task}@{version}/{split}.jsonl"


def _texts(task: Any, document: Any) -> dict[str, Any]:
    """Returns what is asked of a document and what is right, each a text or several."""
    asked, right = task.doc_to_text(document), task.doc_to_target(document)
    choices: Any = None
    if isinstance(asked, int) or _is_index(right):
        choices = task.doc_to_choice(document)
    # A task of several questions asks by the index of one; of several answers, it names the right.
    asked = choices[asked] if isinstance(asked, int) and choices else asked
    right = right if isinstance(right, list) else [right]
    return {
        "text": str(asked),
        "target": [choices[of] if _is_index(of) and choices else str(of) for of in right],
    }


def _is_index(value: Any) -> bool:
    """Returns whether a target is the index of a choice, or a list of such."""
    listed = value if isinstance(value, list) else [value]
    return bool(listed) and all(type(of) is int for of in listed)


def _unreadable(name: str, error: Exception) -> SabiprepError:
    """Returns the error of a task whose documents cannot be had."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    offline = any(
        os.environ.get(key, "").upper() in ("1", "ON", "YES", "TRUE")
        for key in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
    )
    remedy = (
        "its data is not in the cache, and the environment says to stay offline: load it once"
        if offline
        else "check the connection; what was loaded once stays in the cache"
    )
    return InputError(f"its documents cannot be read: {line}", file=name, remedy=remedy)
