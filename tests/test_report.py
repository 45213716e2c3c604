"""The report of a packed corpus: its numbers against the loader's rows, and its table."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import sabiprep
from sabiprep.report import Example, PackReport
from sabiprep.table import EXAMPLES_SHOWN
from sabiprep.terminal import PLAIN_WIDTH
from support.small_corpus import MALFORMED, WITHOUT_FIELD


def count_rows(split: sabiprep.Split) -> tuple[Counter[int], Counter[int], Counter[int]]:
    """Documents, tokens and targets by source, one document at a time."""
    documents: Counter[int] = Counter()
    tokens: Counter[int] = Counter()
    targets: Counter[int] = Counter()
    for row in split:
        start = 0
        for source, length in zip(
            row["source_ids"].tolist(), row["seq_lengths"].tolist(), strict=True
        ):
            documents[source] += 1
            tokens[source] += length
            targets[source] += int((row["labels"][start : start + length] >= 0).sum())
            start += length
    return documents, tokens, targets


def single_source_rows(split: sabiprep.Split) -> int:
    count = 0
    for row in split:
        tokens: Counter[int] = Counter()
        for source, length in zip(
            row["source_ids"].tolist(), row["seq_lengths"].tolist(), strict=True
        ):
            tokens[source] += length
        count += max(tokens.values()) >= 0.95 * sum(tokens.values())
    return count


@pytest.mark.parametrize("name", ["train", "validation"])
def test_documents_tokens_and_targets_are_those_of_the_rows(packed: PackReport, name: str) -> None:
    split = sabiprep.open_dataset(packed.out)[name]
    documents, tokens, targets = count_rows(split)
    for source, report in enumerate(packed.sources):
        counts = report.train if name == "train" else report.validation
        assert (counts.documents, counts.tokens, counts.targets) == (
            documents[source],
            tokens[source],
            targets[source],
        ), report.name
    whole = packed.train if name == "train" else packed.validation
    assert whole.rows == len(split) > 0
    assert (whole.documents, whole.tokens, whole.targets) == (
        documents.total(),
        tokens.total(),
        targets.total(),
    )
    assert whole.utilisation == pytest.approx(tokens.total() / (len(split) * packed.seq_len))
    assert whole.share_trained == pytest.approx(targets.total() / tokens.total())
    assert whole.single_source_rows == single_source_rows(split)
    assert name != "train" or 0 < packed.single_source_share < 1


def test_every_record_is_kept_or_dropped_for_a_reason(
    packed: PackReport, shared_corpus: Path
) -> None:
    lines = len((shared_corpus / "sums.jsonl").read_text("utf-8").splitlines())
    english, yoruba, label, plain = packed.sources
    assert (english.records, yoruba.records, label.records, plain.records) == (lines, lines, 60, 41)
    for source in packed.sources:
        assert source.records == source.kept + source.dropped, source.name
    assert english.drops["malformed"] == yoruba.drops["malformed"] == MALFORMED
    assert english.drops["missing field"] == WITHOUT_FIELD
    assert yoruba.drops["missing field"] == 1
    example = english.examples[0]
    assert (example.reason, example.file, example.line) == ("malformed", "sums.jsonl", 11)


def test_tasks_and_totals_add_their_sources_up(packed: PackReport) -> None:
    assert [task.task for task in packed.tasks] == ["sum", "label", "text"]
    english, yoruba, *_ = packed.sources
    task = packed.tasks[0]
    assert task.sources == (english, yoruba)
    assert task.records == english.records + yoruba.records
    assert task.kept == english.kept + yoruba.kept
    assert task.drops["malformed"] == 2 * MALFORMED
    assert task.drops["missing field"] == WITHOUT_FIELD + 1
    assert (
        task.total.tokens == english.train.tokens + english.validation.tokens + yoruba.total.tokens
    )
    assert task.total.share_trained == pytest.approx(task.total.targets / task.total.tokens)
    assert packed.total.total.documents == packed.train.documents + packed.validation.documents
    assert packed.total.dropped == sum(source.dropped for source in packed.sources)


def test_speed_is_of_the_whole_run(packed: PackReport) -> None:
    timing = packed.timing
    assert timing.total >= max(timing.map, timing.settle, timing.reduce) > 0
    assert packed.megabytes_per_second == pytest.approx(packed.bytes / timing.total / 1e6)
    assert packed.tokens_per_second == pytest.approx(packed.total.total.tokens / timing.total)
    assert packed.threads == 2


def cells(table: str, name: str) -> list[str]:
    """The words of the first line that begins with ``name``."""
    line, *_ = [line for line in table.splitlines() if line.split()[:1] == [name]]
    return line.split()


def test_the_table_has_a_line_for_each_task_and_source(packed: PackReport) -> None:
    table = str(packed)
    assert packed.sources[2].name == packed.tasks[1].task  # one line is enough for both
    for source in packed.sources:
        total = source.total
        numbers = [source.records, total.documents, total.tokens, total.targets]
        expected = [
            source.name,
            source.lang,
            *(f"{n:,}" for n in numbers),
            f"{total.share_trained:.1%}",
        ]
        assert cells(table, source.name)[:7] == expected
    line = " ".join(cells(table, "sum"))
    assert f"{2 * MALFORMED} malformed" in line
    assert f"{WITHOUT_FIELD + 1} missing field" in line
    assert cells(table, "total")[1] == f"{packed.total.records:,}"
    train = cells(table, "train")
    assert f"{packed.utilisation:.4f}" in train
    assert train[-1] == f"({packed.single_source_share:.1%})"
    assert cells(table, "validation")[1] == str(packed.validation.rows)


def test_the_table_shows_the_first_dropped_record_of_each_file_and_reason(
    packed: PackReport,
) -> None:
    shown = [line for line in str(packed).splitlines() if re.match(r"  \S+:\d+  ", line)]
    firsts: dict[tuple[str, str], tuple[str, Example]] = {}
    for source in packed.sources:
        for example in source.examples:
            firsts.setdefault((example.file, example.reason), (source.name, example))
    assert shown == [
        f"  {example.file}:{example.line}  {name}: {example.reason}: {example.why}"
        for name, example in firsts.values()
    ]
    assert shown[0].startswith("  sums.jsonl:11  sum-eng: malformed: ")
    assert f"Dropped records, {len(shown)} of {packed.total.dropped} " in str(packed)


def test_the_table_shows_so_many_dropped_records_at_most(packed: PackReport) -> None:
    examples = tuple(
        Example("malformed", f"file-{i}.jsonl", 1, "why") for i in range(2 * EXAMPLES_SHOWN)
    )
    table = str(
        dataclasses.replace(
            packed, sources=(dataclasses.replace(packed.sources[0], examples=examples),)
        )
    )
    assert table.count(".jsonl:1  ") == EXAMPLES_SHOWN


def test_the_table_is_plain_narrow_and_without_spaces_at_the_end(packed: PackReport) -> None:
    table = str(packed)
    assert "\x1b" not in table
    for line in table.splitlines():
        assert line == line.rstrip()
        assert len(line) <= PLAIN_WIDTH or line.startswith("  sums.jsonl")


def test_names_cannot_drive_the_terminal_nor_be_read_as_markup(packed: PackReport) -> None:
    evil = dataclasses.replace(
        packed.sources[0], name="\x1b[31mred [bold]x[/bold] :smile:", lang="\r"
    )
    table = str(dataclasses.replace(packed, sources=(evil,)))
    assert "\x1b" not in table and "\r" not in table
    assert r"\x1b[31mred [bold]x[/bold] :smile:" in table


def test_a_dataset_without_validation_has_no_shares_of_it(corpus: Path, tmp_path: Path) -> None:
    config = corpus / "corpus.toml"
    config.write_text(config.read_text("utf-8").replace("validation = 0.1", ""), "utf-8")
    report = sabiprep.pack(corpus, tmp_path / "out")
    assert report.validation.rows == 0
    assert report.validation.share_trained == report.validation.single_source_share == 0.0
    assert cells(str(report), "validation")[1:] == ["0", "0", "0", "0", "-", "-", "-"]


def test_the_report_is_the_manifest(packed: PackReport) -> None:
    manifest = json.loads((packed.out / "manifest.json").read_text("utf-8"))
    assert [source["records"] for source in manifest["sources"]] == [
        source.records for source in packed.sources
    ]
    assert manifest["splits"]["train"]["rows"] == packed.train.rows
    assert manifest["seq_len"] == packed.seq_len == 128
    assert packed.vocab_size == sabiprep.open_dataset(packed.out).vocab_size
    assert packed.seed == 0
    assert np.isfinite(packed.tokens_per_second)


def test_the_engine_is_named_and_one_that_failed_its_check_is_warned_of(packed: PackReport) -> None:
    engine = json.loads((packed.out / "manifest.json").read_text())["tokenizer"]["engine"]
    assert (
        packed.engine == engine
        and packed.engine.startswith("sabiprep ")
        and packed.engine_warning is None
    )
    assert f"Tokenized by {engine}" in str(packed)
    failed = dataclasses.replace(packed, engine="tokenizers", engine_warning="differs on 'ab'")
    assert failed.warnings[0] == "differs on 'ab'" and "Warning: differs on 'ab'" in str(failed)
