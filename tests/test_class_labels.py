"""Labels that ``datasets`` stores as numbers: shown by name where a source says so.

The oracle is what the names make of ``to_pylist``, packed as JSON lines.
"""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sabiprep
from sabiprep import ConfigError, InputError, PackOptions
from support import packer
from support.columnar import Made, arrow, make, parquet
from support.unconfigured import documents, write_tokenizer

NAMES = ["neg", "neu", "pos"]
TAGS = ["O", "B-PER", "I-PER"]
FEATURES: dict[str, Any] = {
    "text": {"dtype": "string", "_type": "Value"},
    "label": {"names": NAMES, "_type": "ClassLabel"},
    "tags": {"feature": {"names": TAGS, "_type": "ClassLabel"}, "_type": "List"},
    "answers": [{"kind": {"names": ["yes", "no"], "_type": "ClassLabel"}}],
}
SHOWN = [
    {"prompt": "{{ text }}|{% if true %}{{ answers }}{{ tags }}{% endif %}="},
    {"target": "{{ label }}"},
]
LABELS = ["label", "tags", "answers.kind"]
SIMPLE = [{"prompt": "{{ text }}="}, {"target": " {{ label }}"}]
numbers = count()


def described(table: pa.Table, features: dict[str, Any] | None = None) -> pa.Table:
    """Returns a table with features in its schema, as ``datasets`` writes them."""
    info = json.dumps({"info": {"features": features or FEATURES}})
    return table.replace_schema_metadata({"huggingface": info})


def table_of(labels: list[int | None], features: dict[str, Any] | None = None) -> pa.Table:
    rows = range(len(labels))
    return described(
        pa.table(
            {
                "text": [f"ọ̀rọ̀ {row}" for row in rows],
                "label": pa.array(labels, pa.int64()),
                "tags": pa.array([[row % 3, -1][: row % 3] for row in rows], pa.list_(pa.int64())),
                "answers": pa.array(
                    [[{"kind": row % 2}] for row in rows],
                    pa.list_(pa.struct({"kind": pa.int64()})),
                ),
            }
        ),
        features,
    )


def named(value: Any, names: list[str]) -> Any:
    if isinstance(value, list):
        return [named(item, names) for item in value]
    return None if value in (None, -1) else names[value]


def by_name(table: pa.Table) -> bytes:
    """Returns the rows as JSON lines, with the names of their labels."""
    lines = []
    for row in table.to_pylist():
        row["label"] = named(row["label"], NAMES)
        row["tags"] = named(row["tags"], TAGS)
        row["answers"] = [{"kind": named(item["kind"], ["yes", "no"])} for item in row["answers"]]
        lines.append(json.dumps(row) + "\n")
    return "".join(lines).encode()


def saved(table: pa.Table, features: dict[str, Any]) -> dict[str, bytes]:
    """Returns the files of a folder of ``save_to_disk``."""
    return {
        "set/data.arrow": arrow(table, stream=True),
        "set/dataset_info.json": json.dumps({"features": features}).encode(),
        "set/state.json": json.dumps({"_data_files": [{"filename": "data.arrow"}]}).encode(),
    }


def packed(folder: Path, files: dict[str, bytes], **source: Any) -> Made:
    return make(folder, files, segments=SHOWN, duplicates="keep", **source)


@pytest.mark.parametrize("form", ["parquet", "file", "stream", "saved"])
def test_labels_are_shown_by_name_wherever_they_lie(tmp_path: Path, form: str) -> None:
    table = table_of([row % 3 for row in range(20)])
    plain = table.replace_schema_metadata(None)
    files, patterns = {
        "parquet": ({"a.parquet": parquet(table, row_group_size=6)}, None),
        "file": ({"a.arrow": arrow(table, stream=False)}, None),
        "stream": ({"a.arrow": arrow(table, stream=True)}, None),
        # The description of the folder is enough, and comes before that of the file.
        "saved": (saved(plain, FEATURES), ["set"]),
    }[form]
    found = packed(tmp_path / "a", files, patterns=patterns, labels=LABELS)
    expected = packed(tmp_path / "b", {"a.jsonl": by_name(table)})
    assert found.in_order == expected.in_order
    assert len(found.documents) == 20


def test_a_saved_folder_says_its_labels_before_its_file_does(tmp_path: Path) -> None:
    other = {**FEATURES, "label": {"names": ["a", "b", "c"], "_type": "ClassLabel"}}
    table = table_of([0, 1, 2])
    files = saved(table_of([0, 1, 2], other), FEATURES)
    found = packed(tmp_path / "a", files, patterns=["set"], labels=LABELS)
    assert found.in_order == packed(tmp_path / "b", {"a.jsonl": by_name(table)}).in_order


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.none() | st.integers(-1, 2), min_size=1, max_size=20))
def test_a_label_of_minus_one_is_missing(tmp_path: Path, labels: list[int | None]) -> None:
    if not any(label is not None and label >= 0 for label in labels):
        labels = [*labels, 0]
    table = table_of(labels)
    folder = tmp_path / str(next(numbers))
    found = packed(folder / "a", {"a.parquet": parquet(table)}, labels=LABELS)
    expected = packed(folder / "b", {"a.jsonl": by_name(table)})
    assert found.in_order == expected.in_order
    assert found.source["drops"] == expected.source["drops"]


def test_a_number_beyond_the_labels_is_malformed_and_said(tmp_path: Path) -> None:
    found = packed(tmp_path, {"a.parquet": parquet(table_of([0, 7, 1]))}, labels=LABELS)
    assert found.source["drops"] == {"malformed": 1}
    ((row, why),) = found.whys
    assert row == 2 and "'label' is 7" in why and "0 to 2: neg, neu, pos" in why


def test_without_the_key_a_number_stays_a_number_and_is_said(tmp_path: Path) -> None:
    table = table_of([0, 1, 2])
    plain = table.replace_schema_metadata(None)
    found = make(tmp_path / "a", {"a.parquet": parquet(table)}, segments=SIMPLE)
    expected = make(tmp_path / "b", {"a.parquet": parquet(plain)}, segments=SIMPLE)
    assert found.in_order == expected.in_order
    options = PackOptions(tokenizer=tmp_path / "a" / "corpus" / "tokenizer.json")
    plan = sabiprep.plan(tmp_path / "a" / "corpus", options)
    (note,) = [problem for problem in plan.problems if problem.kind == "labels"]
    assert "`label` is shown by number" in note.message and "neg, neu, pos" in note.message
    assert note.severity == "note" and note.remedy is not None
    assert 'labels = ["label"]' in note.remedy
    labels = {field.name: field.labels for field in plan.sources[0].fields}
    assert labels["label"] == tuple(NAMES) and labels["text"] == ()
    assert "label: ClassLabel (neg, neu, pos), by number" in str(plan)


def test_renamed_labels_are_named_as_in_the_file(tmp_path: Path) -> None:
    segments = [{"prompt": "{{ text }}="}, {"target": "{{ mood }}"}]
    made = {"segments": segments, "rename": {"label": "mood"}}
    files = {"a.parquet": parquet(table_of([0, 1, 2]))}
    found = make(tmp_path / "a", files, labels=["label"], **made)
    lines = {"a.jsonl": by_name(table_of([0, 1, 2]))}
    assert found.in_order == make(tmp_path / "b", lines, **made).in_order
    assert "label: " not in str(sabiprep.plan(tmp_path / "a" / "corpus"))
    assert "mood: ClassLabel (neg, neu, pos)" in str(sabiprep.plan(tmp_path / "a" / "corpus"))


def test_a_language_may_be_a_class_label(tmp_path: Path) -> None:
    features = {"label": {"names": ["yor", "hau"], "_type": "ClassLabel"}}
    files = {"a.parquet": parquet(table_of([0, 1, 0], features))}
    segments = [{"target": "{{ text }}"}]
    found = make(tmp_path, files, segments=segments, labels=["label"], lang="{{ label }}")
    assert found.source["lang"] == "hau" and found.source["records"] == 1


def test_files_whose_labels_differ_are_refused_with_both(tmp_path: Path) -> None:
    other = {"label": {"names": NAMES[::-1], "_type": "ClassLabel"}}
    files = {
        "a.parquet": parquet(table_of([0, 1])),
        "b.parquet": parquet(table_of([0, 1], other)),
    }
    with pytest.raises(InputError, match=r"neg, neu, pos in a\.parquet.*pos, neu, neg in b\.parq"):
        make(tmp_path / "a", files, segments=SIMPLE, labels=["label"])
    # Where they are shown by number, one number stands for two labels: the plan says so.
    make(tmp_path / "b", files, segments=SIMPLE)
    plan = sabiprep.plan(tmp_path / "b" / "corpus")
    (warning,) = [problem for problem in plan.problems if problem.severity == "warning"]
    assert "a.parquet" in warning.message and "b.parquet" in warning.message


@pytest.mark.parametrize(
    ("labels", "name", "said"),
    [
        (["lable"], "a.parquet", "`label` (neg, neu, pos)"),
        (["text"], "a.parquet", "holds no class labels"),
        (["label"], "plain.parquet", "only files that `datasets` wrote"),
        (["label"], "a.jsonl", "`labels` is for parquet and arrow"),
        ([], "a.parquet", "names no field"),
    ],
)
def test_labels_that_are_none_are_refused(
    tmp_path: Path, labels: list[str], name: str, said: str
) -> None:
    table = table_of([0, 1])
    files = {
        "a.parquet": parquet(table),
        "plain.parquet": parquet(table.replace_schema_metadata(None)),
        "a.jsonl": by_name(table),
    }
    with pytest.raises((InputError, ConfigError)) as raised:
        make(tmp_path, {name: files[name]}, segments=SIMPLE, labels=labels)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    "metadata",
    ["", "{", "[]", '{"info": 3}', '{"info": {"features": [[[]]]}}', "[" * 100_000],
    ids=["empty", "cut", "list", "number", "lists", "deep"],
)
def test_metadata_that_says_nothing_is_passed_over(tmp_path: Path, metadata: str) -> None:
    odd = table_of([0, 1, 2]).replace_schema_metadata({"huggingface": metadata})
    found = make(tmp_path, {"a.bin": arrow(odd, stream=True)}, segments=SIMPLE)
    assert len(found.documents) == 3


def test_a_folder_without_configuration_shows_names(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    (corpus / "sentiment").mkdir(parents=True)
    keep = table_of([row % 3 for row in range(12)]).select(["text", "label"])
    for shard, hashed in enumerate(["ab12cd34ef567890", "00ffee1122334455"]):
        name = f"train-{shard:05}-of-00002-{hashed}.parquet"
        rows = described(keep.slice(shard * 6, 6))
        (corpus / "sentiment" / name).write_bytes(parquet(rows))
    tokenizer = write_tokenizer(tmp_path / "tokenizer.json")
    options = PackOptions(tokenizer=tokenizer, seq_len=256)
    written = sabiprep.init(corpus, write=False)
    assert 'labels = ["label"]' in written and "neg, neu, pos" in written
    assert 'files = ["sentiment/train-*.parquet"]' in written
    sabiprep.pack(corpus, tmp_path / "out", options)
    expected = [("sentiment", f"ọ̀rọ̀ {row}\n", NAMES[row % 3]) for row in range(12)]
    assert sorted(documents(tmp_path / "out")) == sorted(expected)


def test_a_list_indexed_by_a_name_is_an_error_in_the_plan(tmp_path: Path) -> None:
    segments = [{"prompt": "{{ text }}="}, {"target": "{{ ['neg', 'neu', 'pos'][label] }}"}]
    (tmp_path / "a.parquet").write_bytes(parquet(table_of([0, 1, 2])))
    write_tokenizer(tmp_path / "tokenizer.json")
    source = {"name": "a", "files": ["a.parquet"], "segments": segments, "labels": ["label"]}
    packer.write_config(tmp_path, [source])
    plan = sabiprep.plan(tmp_path)
    assert plan.would_fail
    assert any("cannot be used" in problem.message for problem in plan.problems)
