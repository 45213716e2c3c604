"""Folders that `datasets` saved with `save_to_disk`, as its version 4 lays them out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sabiprep import InputError
from support.columnar import Made, arrow, json_lines, make, table_of

STATE: dict[str, Any] = {
    "_fingerprint": "0123456789abcdef",
    "_format_columns": ["text"],
    "_format_kwargs": {},
    "_format_type": "numpy",
    "_output_all_columns": False,
    "_split": "train",
}
PARTS = [table_of(40), table_of(90).slice(40), table_of(120).slice(90)]


def saved(folder: str, order: list[int], **state: Any) -> dict[str, bytes]:
    """The files of a dataset in ``folder``, whose parts come in this order."""
    names = [f"data-{part:05}-of-00003.arrow" for part in range(3)]
    listed = [{"filename": names[part]} for part in order]
    files = {
        f"{folder}/{name}": arrow(table, stream=True, rows=16)
        for name, table in zip(names, PARTS, strict=True)
    }
    files[f"{folder}/dataset_info.json"] = json.dumps({"features": {}}).encode()
    files[f"{folder}/state.json"] = json.dumps({**STATE, "_data_files": listed, **state}).encode()
    return files


def expected(tmp_path: Path, order: list[int]) -> Made:
    files = {f"{nth}.jsonl": json_lines(PARTS[part]) for nth, part in enumerate(order)}
    return make(tmp_path / "json", files)


@pytest.mark.parametrize("pattern", ["sets/train", "sets/train/", "./sets/train", "sets/*", "**/*"])
def test_a_folder_is_its_files_in_their_order(tmp_path: Path, pattern: str) -> None:
    order = [2, 0, 1]
    files = saved("sets/train", order)
    # What programs leave beside it is none of its data.
    files["sets/train/cache-1.arrow"] = arrow(table_of(5), stream=True)
    if pattern == "**/*":
        files["sets/dataset_dict.json"] = b'{"splits": ["train"]}'
        # `tokenizer.json` lies in the corpus folder itself.
        pattern = "sets/**/*"
    made = make(tmp_path / "saved", files, patterns=[pattern], threads=2, split_bytes=2000)
    assert made.in_order == expected(tmp_path, order).in_order
    names = [f"sets/train/data-{part:05}-of-00003.arrow" for part in order]
    assert made.source["inputs"] == names


def test_a_folder_is_held_out(tmp_path: Path) -> None:
    files = {**saved("sets/train", [0, 1]), **saved("sets/test", [2])}
    made = make(
        tmp_path, files, patterns=["sets/train"], validation_files=["sets/test"], duplicates="keep"
    )
    assert made.documents and made.source["validation"]["documents"] > 0


def test_folders_that_are_not_read(tmp_path: Path) -> None:
    splits = b'{"splits": ["train", "test"]}'
    lacking = saved("s", [0])
    del lacking["s/data-00000-of-00003.arrow"]
    for nth, (files, what, remedy) in enumerate(
        [
            (
                {**saved("s/train", [0]), "s/dataset_dict.json": splits},
                "the splits train, test",
                r'files = \["s/train"\]',
            ),
            (
                saved("s", [0], _indices_data_files=[{"filename": "indices.arrow"}]),
                "a selection of its rows",
                "flatten_indices",
            ),
            (
                saved("s", [0], _indices_files=[{"filename": "indices.arrow"}]),
                "a selection of its rows",
                "flatten_indices",
            ),
            (lacking, "00003.arrow, source 'file': is missing", "fetch the whole folder"),
            (
                {**saved("s", [0]), "s/state.json": b"{"},
                "state.json, source 'file': is no JSON",
                "save",
            ),
            (
                saved("s", [], _data_files=[{"filename": "../x.arrow"}]),
                "outside of its folder",
                "save",
            ),
            ({"s/a.jsonl": b"{}\n"}, ": is a folder", r"s/\*"),
        ]
    ):
        with pytest.raises(InputError, match=what) as raised:
            make(tmp_path / str(nth), files, patterns=["s"])
        assert raised.value.remedy is not None
        raised.match(remedy)


def test_no_selection_is_none(tmp_path: Path) -> None:
    files = saved("s", [0], _indices_files=None, _indices_data_files=[])
    assert make(tmp_path, files, patterns=["s"]).documents
