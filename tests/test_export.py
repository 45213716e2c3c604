"""Exports beside an oracle that walks the rows one by one, and the folder that appears whole."""

from __future__ import annotations

import fcntl
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from tokenizers import Tokenizer

import sabiprep
from sabiprep import ExportReport, PackedDataset, PackOptions
from sabiprep.dataset import open_dataset
from sabiprep.errors import ConfigError, DatasetError, OutputError
from sabiprep.handover import chunks
from sabiprep.handover.exporting import FORMS
from sabiprep.handover.folder import MARKER
from sabiprep.handover.texts import ByteTexts, CoreTexts, texts_of
from support.command import Run
from support.command import run as run
from support.dataset_rows import datasets, expected_row, written
from support.dataset_writer import first_fit
from support.peak_memory import needs_proc

SPLITS = ("train", "validation")


class Document(NamedTuple):
    """A document as an export must hold it."""

    ids: list[int]
    mask: list[bool]
    roles: list[int]
    source: sabiprep.SourceInfo
    file: str
    offset: int
    doc_part: int

    @property
    def labels(self) -> list[int]:
        return [id_ if trained else -100 for id_, trained in zip(self.ids, self.mask, strict=True)]


def rows_of(out: str | Path, split: str) -> Iterator[list[Document]]:
    """The documents of each row, read from the shards' columns one by one."""
    folder = Path(out)
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    infos = open_dataset(folder).sources
    for shard in manifest["splits"][split]["shards"]:
        for row in pa.ipc.open_file(folder / shard["file"]).read_all().to_pylist():
            roles = [
                role
                for role, count in zip(row["segment_roles"], row["segment_lengths"], strict=True)
                for _ in range(count)
            ]
            documents, start = [], 0
            for at, length in enumerate(row["seq_lengths"]):
                end, record = start + length, row["record_ids"][at]
                source = row["source_ids"][at]
                documents.append(
                    Document(
                        row["input_ids"][start:end],
                        row["loss_mask"][start:end],
                        roles[start:end],
                        infos[source],
                        manifest["sources"][source]["inputs"][record >> 40],
                        record & (1 << 40) - 1,
                        row["doc_parts"][at],
                    )
                )
                start = end
            yield documents


def documents_of(out: str | Path, split: str) -> list[Document]:
    return [document for row in rows_of(out, split) for document in row]


@pytest.fixture(scope="session", params=["uint16", "uint32"])
def out(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, shared_corpus: Path
) -> str:
    """A dataset of several shards, of either width of ids: the wider by a token that is far off."""
    folder = tmp_path_factory.mktemp(request.param)
    corpus = folder / "corpus"
    corpus.mkdir()
    for file in shared_corpus.iterdir():
        (corpus / file.name).write_bytes(file.read_bytes())
    config = (corpus / "corpus.toml").read_text("utf-8")
    (corpus / "corpus.toml").write_text(
        config.replace("seq_len = 128", "seq_len = 128\nshard_tokens = 1024"), "utf-8"
    )
    if request.param == "uint32":
        tokenizer = json.loads((corpus / "tokenizer.json").read_text("utf-8"))
        tokenizer["model"]["vocab"]["far"] = 1 << 16
        (corpus / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    sabiprep.pack(corpus, folder / "out", PackOptions(threads=1))
    with open_dataset(folder / "out") as dataset:
        assert dataset.manifest["id_dtype"] == request.param
        assert len(dataset.manifest["splits"]["train"]["shards"]) > 1
    return str(folder / "out")


def content_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def streams(folder: Path) -> list[dict[str, Any]]:
    """The rows of a split's folder as `datasets` finds them: by the list in ``state.json``."""
    state = json.loads((folder / "state.json").read_text("utf-8"))
    return [
        row
        for file in state["_data_files"]
        for row in pa.ipc.open_stream(folder / file["filename"]).read_all().to_pylist()
    ]


def test_trl_has_rows_without_padding(out: str, tmp_path: Path) -> None:
    sabiprep.export(out, tmp_path / "new", "trl")
    for split in SPLITS:
        assert streams(tmp_path / "new" / split) == [
            {
                "input_ids": [id_ for document in row for id_ in document.ids],
                "labels": [label for document in row for label in document.labels],
                "seq_lengths": [len(document.ids) for document in row],
            }
            for row in rows_of(out, split)
        ]


@settings(deadline=None, max_examples=40)
@given(datasets())
def test_any_dataset_keeps_its_ids_and_labels(arguments: dict[str, Any]) -> None:
    with written(arguments) as dataset, tempfile.TemporaryDirectory() as folder:
        for to in ("trl", "axolotl"):
            sabiprep.export(dataset.path, Path(folder, to), to)
        for split, documents in zip(
            SPLITS, (arguments["documents"], arguments["validation"]), strict=True
        ):
            rows = []
            for row in first_fit(documents, arguments["seq_len"]):
                expected = expected_row(row, arguments["seq_len"])
                used = sum(expected["seq_lengths"])
                rows.append(
                    {
                        "input_ids": expected["input_ids"][:used],
                        "labels": expected["labels"][:used],
                        "seq_lengths": expected["seq_lengths"],
                    }
                )
            if not rows:
                assert not Path(folder, "trl", split).exists()
                continue
            assert streams(Path(folder, "trl", split)) == rows
            cut = streams(Path(folder, "axolotl", split))
            assert [len(row["labels"]) for row in cut] == [
                length for row in rows for length in row["seq_lengths"]
            ]
            for name in ("input_ids", "labels"):
                assert [value for row in cut for value in row[name]] == [
                    value for row in rows for value in row[name]
                ]


@pytest.mark.parametrize("to", ["axolotl", "llamafactory"])
def test_pretokenized_folders_have_documents(out: str, tmp_path: Path, to: str) -> None:
    sabiprep.export(out, tmp_path / "new", to)
    for split in SPLITS:
        assert streams(tmp_path / "new" / split) == [
            {
                "input_ids": document.ids,
                "attention_mask": [1] * len(document.ids),
                "labels": document.labels,
            }
            for document in documents_of(out, split)
        ]


def described(document: Document, tokenizer: Tokenizer, split: str) -> dict[str, Any]:
    """The row of a table that a document must be."""
    shown = [id_ for id_, role in zip(document.ids, document.roles, strict=True) if role != 0]
    return {
        "text": tokenizer.decode(shown, skip_special_tokens=False),
        "input_ids": document.ids,
        "loss_mask": document.mask,
        "source": document.source.name,
        "task": document.source.task,
        "lang": document.source.lang,
        "split": split,
        "file": document.file,
        "byte": document.offset,
        "row": None,
        "copy": document.doc_part >> 24,
        "document": document.doc_part >> 16 & 0xFF,
        "window": document.doc_part & 0xFFFF,
    }


@pytest.mark.parametrize("to", ["parquet", "jsonl"])
def test_tables_have_a_row_for_each_document(out: str, tmp_path: Path, to: str) -> None:
    sabiprep.export(out, tmp_path / "new", to)
    tokenizer = Tokenizer.from_file(f"{out}/tokenizer.json")
    for split in SPLITS:
        rows: list[dict[str, Any]] = []
        for file in sorted((tmp_path / "new").glob(f"{split}-*.{to}")):
            rows += (
                pq.read_table(file).to_pylist()
                if to == "parquet"
                else [json.loads(line) for line in file.read_text("utf-8").splitlines()]
            )
        assert rows == [
            described(document, tokenizer, split) for document in documents_of(out, split)
        ]
        assert any("ẹ̀" in row["text"] for row in rows)


def test_webdataset_has_a_sample_for_each_row(out: str, tmp_path: Path) -> None:
    sabiprep.export(out, tmp_path / "new", "webdataset")
    dataset = open_dataset(out)
    for split in SPLITS:
        samples: dict[str, dict[str, Any]] = {}
        for file in sorted((tmp_path / "new").glob(f"{split}-*.tar")):
            with tarfile.open(file) as tar:
                for member in tar:
                    key, _, name = member.name.partition(".")
                    content = tar.extractfile(member)
                    assert content is not None
                    read = content.read()
                    samples.setdefault(key, {})[name] = (
                        json.loads(read) if name == "json" else np.load(io.BytesIO(read))
                    )
        assert len(samples) == len(dataset[split])
        for row, documents, (key, sample) in zip(
            dataset[split], rows_of(out, split), samples.items(), strict=True
        ):
            assert key == f"{split}-{list(samples).index(key):09d}"
            for name in ("input_ids", "labels", "position_ids", "seq_lengths"):
                assert np.array_equal(sample[f"{name}.npy"], row[name])  # type: ignore[literal-required]
            assert sample["labels.npy"].dtype == np.int64
            assert [entry["source"] for entry in sample["json"]["documents"]] == [
                document.source.name for document in documents
            ]
            assert [entry["byte"] for entry in sample["json"]["documents"]] == [
                document.offset for document in documents
            ]


@pytest.mark.parametrize("to", list(FORMS))
def test_the_report_has_the_sums_of_the_manifest(out: str, tmp_path: Path, to: str) -> None:
    report = sabiprep.export(out, tmp_path / "new", to)
    manifest = json.loads(Path(out, "manifest.json").read_text("utf-8"))
    for split in SPLITS:
        said = manifest["splits"][split]
        assert report.splits[split].counts == {
            name: said[name] for name in ("rows", "documents", "tokens", "targets")
        }
    files = content_of(tmp_path / "new")
    marker = files.pop(MARKER)
    assert report.bytes == sum(map(len, files.values()))
    assert json.loads(marker)["dataset"] == manifest["sha256"]


@pytest.mark.parametrize("to", list(FORMS))
def test_two_exports_are_equal_whatever_the_chunks(
    out: str, tmp_path: Path, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = sabiprep.export(out, tmp_path / "first", to)
    second = sabiprep.export(out, tmp_path / "second", to)
    assert content_of(tmp_path / "first") == content_of(tmp_path / "second")
    assert first.splits == second.splits and first.bytes == second.bytes
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["first", "second"]
    if to in ("jsonl", "webdataset"):  # the others store chunks as such
        monkeypatch.setattr(chunks, "TOKENS_AT_ONCE", 1)
        sabiprep.export(out, tmp_path / "third", to)
        assert content_of(tmp_path / "first") == content_of(tmp_path / "third")


def test_a_split_without_rows_has_no_files(tmp_path: Path, corpus: Path) -> None:
    config = (corpus / "corpus.toml").read_text("utf-8")
    (corpus / "corpus.toml").write_text(config.replace("validation = 0.1", ""), "utf-8")
    sabiprep.pack(corpus, tmp_path / "out", PackOptions(threads=1))
    for to in FORMS:
        report = sabiprep.export(tmp_path / "out", tmp_path / to, to)
        assert report.splits["validation"].rows == 0
        assert not [path for path in content_of(tmp_path / to) if path.startswith("validation")]


# Text


def test_text_is_that_of_the_core_and_of_tokenizers(packed: sabiprep.PackReport) -> None:
    with open_dataset(packed.out) as dataset:
        fast, slow = texts_of(dataset), CoreTexts(dataset)
        assert isinstance(fast, ByteTexts)
        ids = np.arange(dataset.vocab_size)
        letters = Tokenizer.from_file(str(dataset.tokenizer_path))
        known = fast.decode(ids, [1] * len(ids))
        assert known == [letters.decode([id_], skip_special_tokens=False) for id_ in ids.tolist()]
        batch = dataset.train.batch(range(len(dataset.train)))
        flat = batch["input_ids"].reshape(-1)
        lengths = np.diff(batch["cu_seqlens"])
        assert fast.decode(flat, lengths) == slow.decode(flat, lengths)
    assert fast.decode(ids[:3], [0, 3, 0]) == ["", "".join(known[:3]), ""]
    assert fast.decode(ids[:0], []) == []


def test_another_tokenizer_is_refused(packed: sabiprep.PackReport, tmp_path: Path) -> None:
    copy = tmp_path / "out"
    for path, content in content_of(Path(packed.out)).items():
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        (copy / path).write_bytes(content + b" " * path.endswith("tokenizer.json"))
    with pytest.raises(DatasetError, match="is not the tokenizer this dataset was packed with"):
        sabiprep.export(copy, tmp_path / "new", "jsonl")
    assert not (tmp_path / "new").exists()


# The folder


def test_only_an_export_is_replaced(packed: sabiprep.PackReport, tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.mkdir()
    sabiprep.export(packed.out, new, "trl")
    with pytest.raises(OutputError, match="an export is there already") as caught:
        sabiprep.export(packed.out, new, "jsonl")
    assert isinstance(caught.value, FileExistsError)
    sabiprep.export(packed.out, new, "jsonl", overwrite=True)
    assert not (new / "dataset_dict.json").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="not empty, and no export"):
            sabiprep.export(packed.out, other, "jsonl", overwrite=overwrite)
    with pytest.raises(OutputError, match="a file is there"):
        sabiprep.export(packed.out, other / "thesis.tex", "jsonl", overwrite=True)
    assert [path.name for path in other.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("place", ["", "train", "new/folder", ".."])
def test_nothing_is_written_into_a_dataset(packed: sabiprep.PackReport, place: str) -> None:
    before = content_of(Path(packed.out))
    with pytest.raises(OutputError, match="lie in each other"):
        sabiprep.export(packed.out, Path(packed.out, place), "trl", overwrite=True)
    assert content_of(Path(packed.out)) == before


def test_a_failed_export_leaves_nothing(packed: sabiprep.PackReport, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(*_: object) -> None:
        raise Stop

    for to in FORMS:
        with pytest.raises(Stop):
            sabiprep.export(packed.out, tmp_path / "new", to, progress=stop)
        assert not list(tmp_path.iterdir())


def test_a_full_disk_is_an_error_of_ours(
    packed: sabiprep.PackReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    sabiprep.export(packed.out, tmp_path / "new", "trl")
    before = content_of(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"No space left[\s\S]*Remedy: make room"):
        sabiprep.export(packed.out, tmp_path / "new", "trl", overwrite=True)
    assert content_of(tmp_path) == before


def test_what_a_killed_process_left_is_removed(packed: sabiprep.PackReport, tmp_path: Path) -> None:
    partial = tmp_path / ".new.partial"
    (partial / "train").mkdir(parents=True)
    with pytest.raises(OutputError, match="something is there"):
        sabiprep.export(packed.out, tmp_path / "new", "trl")
    (partial / ".lock").touch()
    with (partial / ".lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match="another process is writing it"):
            sabiprep.export(packed.out, tmp_path / "new", "trl")
    sabiprep.export(packed.out, tmp_path / "new", "trl")
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_wrong_arguments_are_refused(packed: sabiprep.PackReport, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name one of trl, axolotl"):
        sabiprep.export(packed.out, tmp_path / "new", "csv")
    with pytest.raises(ConfigError, match="folder"):
        sabiprep.export(packed.out, "", "trl")
    with pytest.raises(DatasetError, match="no packed dataset here"):
        sabiprep.export(tmp_path, tmp_path.parent / "new", "trl")


def test_counts_that_contradict_the_manifest_are_refused(
    packed: sabiprep.PackReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def altered(path: Path) -> PackedDataset:
        dataset = open_dataset(path)
        dataset.manifest["splits"]["train"]["targets"] += 1
        return dataset

    monkeypatch.setattr("sabiprep.handover.exporting.open_dataset", altered)
    with pytest.raises(DatasetError, match=r"the train split has [\d,]+ targets, where"):
        sabiprep.export(packed.out, tmp_path / "new", "trl")
    assert not (tmp_path / "new").exists()


# The command line


def test_the_command_says_what_it_wrote(
    run: Run, packed: sabiprep.PackReport, tmp_path: Path
) -> None:
    ran = run("export", packed.out, tmp_path / "new", "--to", "parquet")
    assert ran.code == 0 and ran.err.startswith("writing rows")
    lines = ran.out.splitlines()
    assert lines[0].startswith("train: 30 rows, 272 documents, 3,555 tokens, ")
    assert lines[1].startswith("validation: ") and f"{tmp_path / 'new'}: " in lines[2]
    again = run("export", packed.out, tmp_path / "new", "--to", "parquet")
    assert again.code == 1 and "--overwrite" in again.err and "Traceback" not in again.err
    assert run("export", packed.out, tmp_path / "new", "--to", "trl", "--overwrite").code == 0
    assert run("export", packed.out, tmp_path / "x", "--to", "csv").code == 2


PEAK = """
import sys, sabiprep, sabiprep.handover.exporting
sabiprep.export(*sys.argv[1:4])
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")))
"""


@needs_proc
@pytest.mark.parametrize("to", ["trl", "jsonl"])
def test_memory_does_not_grow_with_the_dataset(corpus: Path, tmp_path: Path, to: str) -> None:
    peaks = []
    for name, lines in (("small", 70_000), ("large", 350_000)):
        text = "".join(f"Line {line} of a text that is long.\n" for line in range(lines))
        (corpus / "plain.txt").write_text(text, "utf-8")
        config = (corpus / "corpus.toml").read_text("utf-8")
        (corpus / "corpus.toml").write_text(
            config.replace("[pack]\nseq_len", "[pack]\nshard_tokens = 1048576\nseq_len"), "utf-8"
        )
        sabiprep.pack(corpus, tmp_path / name, PackOptions(threads=1))
        command = [sys.executable, "-c", PEAK, tmp_path / name, tmp_path / f"{name}-{to}", to]
        ran = subprocess.run([str(word) for word in command], capture_output=True, check=True)
        peaks.append(int(ran.stdout) / 1024)
    with open_dataset(tmp_path / "large") as dataset:
        assert dataset.manifest["splits"]["train"]["tokens"] > 3_000_000
    assert peaks[1] < peaks[0] + 30, peaks


def test_the_report_prints(packed: sabiprep.PackReport, tmp_path: Path) -> None:
    report = sabiprep.export(packed.out, tmp_path / "new", "trl")
    assert isinstance(report, ExportReport)
    assert f"{tmp_path / 'new'}: 0.1 MB for trl in " in str(report)
