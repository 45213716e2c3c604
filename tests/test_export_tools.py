"""Exports read by the tools that they are for: TRL, `datasets`, polars, DuckDB, WebDataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sabiprep
from sabiprep.dataset import open_dataset
from support.handover import run_with

SPLITS = ("train", "validation")


def exported(packed: sabiprep.PackReport, folder: Path, to: str) -> Path:
    sabiprep.export(packed.out, folder / to, to)
    return folder / to


def lists_of(files: list[Path]) -> list[dict[str, Any]]:
    return [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]


def test_trl_trains_on_what_the_loader_gives(packed: sabiprep.PackReport, tmp_path: Path) -> None:
    printed = run_with(
        "trl",
        "transformers",
        program="train_with_trl.py",
        arguments=[
            exported(packed, tmp_path, "trl"),
            Path(packed.out, "tokenizer.json"),
            tmp_path / "run",
        ],
    )
    seen = json.loads(printed.splitlines()[-1])
    rows = open_dataset(packed.out).train
    # The order of rows is TRL's: the batch is of any two.
    by_ids = {}
    for row in rows:
        used = int(row["seq_lengths"].sum())
        by_ids[tuple(row["input_ids"][:used].tolist())] = {
            name: row[name][:used].tolist()  # type: ignore[literal-required]
            for name in ("input_ids", "labels", "position_ids")
        }
    starts = [ids for ids in by_ids if list(ids) == seen["input_ids"][0][: len(ids)]]
    first = by_ids[starts[0]]
    second = by_ids[tuple(seen["input_ids"][0][len(first["input_ids"]) :])]
    for name in ("input_ids", "labels", "position_ids"):
        assert seen[name] == [first[name] + second[name]], name
    assert len(seen["losses"]) == 2 and seen["moved"] and seen["eval"] > 0
    assert seen["losses"][0] == pytest.approx(seen["alone"], rel=1e-6)


@pytest.mark.parametrize("to", ["trl", "axolotl", "llamafactory"])
def test_datasets_loads_the_folders(packed: sabiprep.PackReport, tmp_path: Path, to: str) -> None:
    folder = exported(packed, tmp_path, to)
    printed = run_with("datasets", program="read_with_datasets.py", arguments=[folder, "disk"])
    read = json.loads(printed)
    assert read["features"]["input_ids"] == "List(Value('int32'))"
    assert read["features"]["labels"] == "List(Value('int64'))"
    dataset = open_dataset(packed.out)
    for split in SPLITS:
        rows = dataset[split]
        labels = [label for row in read["rows"][split] for label in row["labels"]]
        assert sum(label != -100 for label in labels) == rows.n_targets.sum()
        ids = [id_ for row in read["rows"][split] for id_ in row["input_ids"]]
        assert ids == [
            id_ for row in rows for id_ in row["input_ids"][: row["seq_lengths"].sum()].tolist()
        ]


@pytest.mark.parametrize("to", ["parquet", "jsonl"])
def test_datasets_finds_tables_and_their_splits(
    packed: sabiprep.PackReport, tmp_path: Path, to: str
) -> None:
    folder = exported(packed, tmp_path, to)
    expected = exported(packed, tmp_path / "expected", "jsonl")
    printed = run_with("datasets", program="read_with_datasets.py", arguments=[folder, "folder"])
    rows = json.loads(printed)["rows"]
    for split in SPLITS:
        assert rows[split] == lists_of(sorted(expected.glob(f"{split}-*")))


def test_polars_reads_tables(packed: sabiprep.PackReport, tmp_path: Path) -> None:
    polars = pytest.importorskip("polars", reason="polars is not installed")
    expected = lists_of([*exported(packed, tmp_path, "jsonl").glob("train-*")])
    columns = sorted(expected[0])
    lines = polars.read_ndjson(tmp_path / "jsonl" / "train-*.jsonl")
    assert lines.select(columns).to_dicts() == [
        {name: row[name] for name in columns} for row in expected
    ]
    table = polars.scan_parquet(exported(packed, tmp_path, "parquet") / "train-*.parquet")
    assert table.select(columns).collect().to_dicts() == lines.select(columns).to_dicts()
    by_source = table.group_by("source").agg(polars.col("loss_mask").list.sum().sum()).collect()
    manifest = open_dataset(packed.out).manifest
    assert dict(by_source.iter_rows()) == {
        source["name"]: source["train"]["targets"] for source in manifest["sources"]
    }


def test_duckdb_reads_tables(packed: sabiprep.PackReport, tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb", reason="DuckDB is not installed")
    expected = lists_of([*exported(packed, tmp_path, "jsonl").glob("*.jsonl")])
    exported(packed, tmp_path, "parquet")
    for files in ("parquet/*.parquet", "jsonl/*.jsonl"):
        rows = duckdb.sql(
            f"SELECT split, source, count(*), sum(len(input_ids)), "
            f"sum(len(list_filter(loss_mask, lambda trained: trained))) "
            f"FROM '{tmp_path}/{files}' GROUP BY ALL"
        ).fetchall()
        for split, source, documents, tokens, targets in rows:
            own = [row for row in expected if (row["split"], row["source"]) == (split, source)]
            assert documents == len(own)
            assert tokens == sum(len(row["input_ids"]) for row in own)
            assert targets == sum(sum(row["loss_mask"]) for row in own)
        assert len(rows) == len({(row["split"], row["source"]) for row in expected})


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)  # the library leaves its files to be collected
def test_webdataset_batches_rows(packed: sabiprep.PackReport, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    folder = exported(packed, tmp_path, "webdataset")
    rows = open_dataset(packed.out).train
    names = ("input_ids.npy", "labels.npy", "position_ids.npy")
    samples = (
        webdataset.WebDataset(str(folder / "train-000000.tar"), shardshuffle=False)
        .decode()
        .to_tuple(*names, "json")
        .batched(8)
    )
    read = list(samples)
    for name, arrays in zip(names, zip(*read, strict=True), strict=False):
        whole = np.concatenate([np.stack(list(batch)) for batch in arrays])
        column = name.removesuffix(".npy")
        assert np.array_equal(whole, rows.batch(range(len(rows)))[column])  # type: ignore[literal-required]
    assert read[0][3][0]["documents"][0]["source"]
