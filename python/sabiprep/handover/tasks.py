"""Held-out records as tasks of `lm-eval`: a YAML file and a file of records a source."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from sabiprep.api import Progress, pack
from sabiprep.dataset import PackedDataset, open_dataset
from sabiprep.errors import ConfigError
from sabiprep.handover.folder import NewFolder, new_folder
from sabiprep.handover.held_out import Question, questions_of
from sabiprep.handover.labels import labels_of
from sabiprep.handover.report import ExportedTask, TasksReport
from sabiprep.handover.texts import Texts, texts_of
from sabiprep.manifest import MANIFEST_FILE, SourceInfo
from sabiprep.options import PackOptions, StrPath, checked_path
from sabiprep.places import is_remote

TAG = "heldout"
"""The word by which `lm-eval` finds all of the tasks."""
_PACKED = ".packed"
_BUFFER = 1 << 16
_PERPLEXITIES = ("word_perplexity", "byte_perplexity", "bits_per_byte")
_AGGREGATIONS = {
    "word_perplexity": "weighted_perplexity",
    "byte_perplexity": "weighted_perplexity",
    "bits_per_byte": "bits_per_byte",
    "chrf": "chrf",
}
"""How `lm-eval` sums up the metrics of which it takes no mean."""


def export_tasks(
    corpus: StrPath,
    folder: StrPath,
    options: PackOptions = PackOptions(),
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> TasksReport:
    """Writes each held-out task of a corpus as a task of `lm-eval`.

    A task is a source with held-out records. Its prompts and targets are those of the template that
    was trained, rendered as packing renders them. Sources with a prompt are scored by what the
    model generates, or by the likeliest label where there are few; plain text by its bits per byte.

    Args:
        corpus: The folder with ``corpus.toml``, which is packed for this, or a packed dataset.
        folder: The folder to make: missing or empty, or one of tasks if ``overwrite``.
        options: The settings to pack with.
        overwrite: Whether to replace tasks that are in ``folder``.
        progress: The function that is called with the progress of the work.

    Returns:
        The tasks, and the sources without any held-out record.

    Raises:
        ConfigError: If an argument cannot be right, or no record is held out.
        InputError: As for `pack`.
        TokenizerError: As for `pack`.
        DatasetError: If the dataset is damaged.
        OutputError: If ``folder`` must not, or cannot, be written to.
    """
    checked_path("corpus", corpus)
    if corpus is None:
        raise ConfigError("corpus is None", remedy="name the folder of the corpus")
    if is_remote(corpus):
        raise ConfigError(
            "tasks are made from a corpus or a dataset on this machine",
            remedy="copy it here, and name the copy",
        )
    packed = Path(corpus, MANIFEST_FILE).is_file()
    if packed and (options.seq_len, options.tokenizer, options.seed) != (None, None, None):
        raise ConfigError(
            "options are set, and the dataset is packed already",
            file=os.fspath(corpus),
            remedy="leave them out, or name the folder of the corpus",
        )
    with new_folder(folder, apart_from=corpus, overwrite=overwrite) as made:
        if not packed:
            pack(corpus, made.path / _PACKED, options, progress=progress)
        with open_dataset(Path(corpus) if packed else made.path / _PACKED) as dataset:
            tasks, without = _write(dataset, made, os.fspath(corpus))
            made.marker = {"to": "lm-eval", "dataset": dataset.fingerprint}
        shutil.rmtree(made.path / _PACKED, ignore_errors=True)
    return TasksReport(folder=os.fspath(folder), tasks=tasks, without=without)


def _write(
    dataset: PackedDataset, folder: NewFolder, corpus: str
) -> tuple[tuple[ExportedTask, ...], tuple[str, ...]]:
    """Writes the tasks of a dataset; returns them, and the sources that have none.

    Raises:
        ConfigError: If no record is held out.
    """
    entries = dataset.manifest["sources"]
    held_out = {
        source.id: source
        for source, entry in zip(dataset.sources, entries, strict=True)
        if entry["validation"]["documents"]
    }
    if not held_out:
        raise ConfigError(
            "no record is held out",
            file=corpus,
            remedy="set `validation` in [pack], or `validation_files` of a source",
        )
    texts = texts_of(dataset)
    labels = labels_of(dataset, texts, list(held_out))
    names = _names(held_out.values())
    written = {
        id_: _Task(folder, name, held_out[id_], labels.get(id_)) for id_, name in names.items()
    }
    for question in questions_of(dataset, texts):
        written[question.place.source.id].add(question)
    for task in written.values():
        task.finish(dataset, texts)
    tasks = tuple(task.report() for task in written.values())
    return tasks, tuple(source.name for source in dataset.sources if source.id not in held_out)


def _names(sources: Any) -> dict[int, str]:
    """Returns a name for each source, good for a file and for `lm-eval`, no two alike."""
    names: dict[int, str] = {}
    for source in sources:
        name = TAG + "_" + re.sub(r"[^\w-]", "_", source.name, flags=re.ASCII)
        taken = name in names.values()
        names[source.id] = f"{name}_{source.id}" if taken else name
    return names


class _Task:
    """A task under construction: its records are written as they come."""

    def __init__(
        self, folder: NewFolder, name: str, source: SourceInfo, labels: list[str] | None
    ) -> None:
        """Begins without records."""
        self._folder = folder
        self._name = name
        self._source = source
        self._labels = labels
        self._documents = 0
        self._prompted = False
        self._longest = 0
        # Files stay closed between writes: a corpus may have more sources than files can be open.
        self._lines = bytearray()

    def add(self, question: Question) -> None:
        """Takes a record: its texts, and the place it comes from."""
        place = question.place
        record: dict[str, Any] = {"prompt": question.prompt, "target": question.target}
        if self._labels is not None:
            record["label"] = self._labels.index(question.target)
        record |= {
            "file": place.file,
            "byte": place.byte,
            "row": place.row,
            "document": place.part,
        }
        self._lines += msgspec.json.encode(record) + b"\n"
        if len(self._lines) > _BUFFER:
            self._flush()
        self._documents += 1
        self._prompted |= bool(question.prompt)
        self._longest = max(self._longest, question.tokens)

    def _flush(self) -> None:
        """Writes the records so far."""
        self._folder.append(f"{self._name}.jsonl", bytes(self._lines))
        self._lines.clear()

    def finish(self, dataset: PackedDataset, texts: Texts) -> None:
        """Writes the last records and the file of the task."""
        self._flush()
        self._folder.write(f"{self._name}.yaml", self._yaml(dataset, texts).encode())

    @property
    def _kind(self) -> str:
        """The output type, as `lm-eval` names it."""
        if not self._prompted:
            return "loglikelihood_rolling"
        return "generate_until" if self._labels is None else "multiple_choice"

    def report(self) -> ExportedTask:
        """Returns the task as the report has it."""
        return ExportedTask(self._name, self._source.name, self._kind, self._documents)

    def _yaml(self, dataset: PackedDataset, texts: Texts) -> str:
        """Returns the file of the task."""
        data = self._folder.final / f"{self._name}.jsonl"
        content = {
            "task": self._name,
            "tag": TAG,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(data)}},
            "test_split": "test",
            "output_type": self._kind,
            **self._questions(dataset, texts),
            "num_fewshot": 0,
            "metadata": {
                "version": 1.0,
                "source": self._source.name,
                "task": self._source.task,
                "lang": self._source.lang,
                "template": _template(dataset, self._source),
                "dataset": dataset.fingerprint,
            },
        }
        return "\n".join(_yaml_lines(content, 0)) + "\n"

    def _questions(self, dataset: PackedDataset, texts: Texts) -> dict[str, Any]:
        """Returns the keys that depend on the output type."""
        if self._kind == "loglikelihood_rolling":
            metrics = _metrics(*_PERPLEXITIES)
            return {"doc_to_text": "", "doc_to_target": "target", "metric_list": metrics}
        # The target has the space that separates it: the template is taken as it was trained.
        shared = {"doc_to_text": "prompt", "target_delimiter": "", "fewshot_delimiter": ""}
        if self._kind == "multiple_choice":
            return {
                **shared,
                "doc_to_choice": self._labels,
                "doc_to_target": "label",
                "metric_list": _metrics("acc", "acc_norm"),
            }
        stop = texts.decode(np.array([dataset.eos_id]), [1])
        spaces = {"regexes_to_ignore": [r"^\s+", r"\s+$"]}
        return {
            **shared,
            "doc_to_target": "target",
            "generation_kwargs": {
                "until": [text for text in stop if text],
                "do_sample": False,
                "max_gen_toks": max(16, 2 * self._longest),
            },
            "metric_list": [{**metric, **spaces} for metric in _metrics("exact_match")]
            + _metrics("chrf"),
        }


def _metrics(*names: str) -> list[dict[str, Any]]:
    """Returns the entries of a list of metrics."""
    return [
        {
            "metric": name,
            "aggregation": _AGGREGATIONS.get(name, "mean"),
            "higher_is_better": name not in _PERPLEXITIES,
        }
        for name in names
    ]


def _template(dataset: PackedDataset, source: SourceInfo) -> Any:
    """Returns the template of a source as the manifest has it, for whoever reads the task."""
    match dataset.manifest["config"].get("source"):
        case [*sources] if source.id < len(sources) and isinstance(sources[source.id], dict):
            entry = sources[source.id]
            ways = (entry.get(way) for way in ("segments", "templates", "tagged"))
            return next(filter(None, ways), [])
    return []


def _yaml_lines(value: Any, indent: int) -> Iterator[str]:
    """Yields the lines of a mapping or a list as YAML; scalars are those of JSON."""
    space = "  " * indent
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in pairs:
        head = f"{space}{key}:" if isinstance(value, dict) else f"{space}-"
        if isinstance(item, dict | list) and item:
            yield head
            yield from _yaml_lines(item, indent + 1)
        else:
            yield f"{head} {_scalar(item)}"


def _scalar(value: Any) -> str:
    """Returns a scalar, or an empty list or mapping, on one line."""
    text = json.dumps(value, ensure_ascii=False)
    # YAML knows these escapes, and refuses the characters themselves.
    return "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in text)
